"""What a study is planned for: `config.hardware`, read by `plan` alone.

A slice of TPUs is named as for `fit` (`v5p:2x2x1`, `v5litepod-16`), GPUs by their name
and number (`h100:8`). The peak of a chip is the one that `perf/mfu` is measured by; of
a machine that has none there it can be given.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from msm_jax import fields as fields_lib
from msm_jax import metrics, topology
from msm_jax.errors import UserError

_WHERE = "config.hardware"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
  """The chips, and how well they are assumed to be used.

  Attributes:
    slice: a TPU slice, or GPUs with their number.
    num_slices: so many of them, that train one run together.
    mfu: share of the peak FLOP/s that training reaches, and the scoring of given
      answers, in 0 to 1; as `perf/mfu` counts.
    decode_mfu: the same while answers are drawn token by token, which waits for memory.
    eval_tokens_per_sec: measured speed of drawing answers, of all chips together; then
      `decode_mfu` is not used.
    dollars_per_chip_hour: what a chip costs; None: hours only.
    peak_flops_per_chip: dense bfloat16 FLOP/s; None: as the table has it.
  """

  slice: str
  num_slices: int = 1
  mfu: float = 0.4
  decode_mfu: float = 0.02
  eval_tokens_per_sec: float | None = None
  dollars_per_chip_hour: float | None = None
  peak_flops_per_chip: float | None = None

  def __post_init__(self):
    for name in ("mfu", "decode_mfu"):
      value = getattr(self, name)
      if not _is_number(value) or not 0 < value <= 1:
        raise UserError(f"{_WHERE}.{name} ({value!r}) must be above 0, and at most 1")
    for name, least in _RATES.items():
      value = getattr(self, name)
      if value is not None and not (_is_number(value) and value >= least):
        raise UserError(f"{_WHERE}.{name} ({value!r}) must be a number, or None")
    if type(self.num_slices) is not int or self.num_slices < 1:
      raise UserError(
        f"{_WHERE}.num_slices ({self.num_slices!r}) must be a whole number, 1 or more"
      )
    self.chips()  # refuses what there is not

  def chips(self) -> "Chips":
    """Returns the chips that the name stands for.

    Raises:
      UserError: there are none of that name, or their peak is not known.
    """
    family, _, size = self.slice.strip().lower().partition(":")
    peak = metrics.peak_flops_of_kind(f"NVIDIA {family.upper()}")
    is_counted = re.fullmatch(r"[1-9]\d*", size or "1") is not None
    named = peak if self.peak_flops_per_chip is None else self.peak_flops_per_chip
    if named is not None and is_counted and not _is_tpu(family):
      number = int(size or 1) * self.num_slices
      return Chips(name=self.name, number=number, peak_flops=named)
    try:
      found = topology.parse(self.slice, self.num_slices, f"{_WHERE}.slice")
    except UserError as error:
      raise UserError(
        f"{error}. GPUs are named with their number (h100:8); of other machines set "
        f"{_WHERE}.peak_flops_per_chip too (mine:2)"
      ) from None
    if len(found) > 1:
      shapes = ", ".join(each.slice_name for each in found[:4])
      raise UserError(
        f"{_WHERE}.slice={self.slice} is a family: name one of its slices, as {shapes}"
      )
    slices = found[0]
    return Chips(
      name=slices.name,
      number=slices.num_chips,
      peak_flops=self.peak_flops_per_chip or slices.chip.peak_flops,
      hbm_gib=slices.chip.hbm_gib,
    )

  @property
  def name(self) -> str:
    """Returns what people call it."""
    more = f"{self.num_slices} x " if self.num_slices > 1 else ""
    return more + self.slice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chips:
  """Chips that work on one run: their number, FLOP/s and GiB of each.

  `hbm_gib` is None where it is not known.
  """

  name: str
  number: int
  peak_flops: float
  hbm_gib: float | None = None

  @property
  def says(self) -> str:
    """Returns their name and number."""
    return f"{self.name} ({self.number} chip{'s' if self.number > 1 else ''})"


def parse(config: Mapping[str, Any] | None) -> Hardware | None:
  """Returns `config.hardware`; None where a config has no such section.

  Raises:
    UserError: a field that there is not, or a value that cannot be.
  """
  if config is None:
    return None
  return fields_lib.build(Hardware, config, _WHERE)


_RATES = {
  "eval_tokens_per_sec": 1e-9,
  "dollars_per_chip_hour": 0.0,
  "peak_flops_per_chip": 1.0,
}


def _is_tpu(family: str) -> bool:
  try:
    return bool(topology.parse(family))
  except UserError:
    return False


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
