"""Where the parameters of a study begin: `config.model`, and what it points at.

`init_from` is None (a model from scratch), a Hugging Face model directory, or a run of
ours in another workdir:

    WORKDIR/runs/<path>/seed<k>          at the end of the run
    WORKDIR/runs/<path>/seed<k>@STEP     at one of its checkpoints

Either may be in a bucket (gs://...): what is needed of it is downloaded, weights not
before they are.

`{seed}` in it (and in `adapter_from`) becomes the seed of the study, so that every seed
continues from its own.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from msm_jax import fields as fields_lib
from msm_jax import other_workdir, quantised, records
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.models.config import LoraConfig, ModelConfig, RopeScaling
from msm_jax.storage import inputs

ADAPTER_USES = ("continue", "merge")
DTYPES = ("float32", "bfloat16")
BASE_DTYPES = (*DTYPES, *quantised.KINDS)
FORMS = (
  "a Hugging Face model directory (with config.json) or a run of ours "
  "(WORKDIR/runs/<path>/seed<k>, @STEP if wanted)"
)
_WHERE = "config.model.init_from"
_RUN = re.compile(r"seed(\d+)(?:@(\d+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
  """`config.model`: where the parameters come from and how they are held.

  Attributes:
    init_from: None, a Hugging Face directory, or a run of ours (see above).
    adapter_from: a PEFT adapter directory for the model of `init_from`.
    adapter_use: what becomes of the adapters that the start brings, from `adapter_from`
      or from a run: 'continue' trains them on, 'merge' adds them to the base in
      float32 and begins anew.
    base_dtype: of the base, frozen or trained; 'int8' and 'nf4' are for a frozen one
      (quantised.py). Adapters are always float32.
    dtype: of the computation.
    export_dtype: of merged exports; adapters are written in float32.
    base_model: name of the pretrained model, for exports; None: that of the run.
    license: of the pretrained model, for exports; None: what its model card says.
    lora: the adapters that a stage with adaptation 'lora' trains; None: those of the
      start.
    sizes: of a model from scratch (fields of ModelConfig); beside `init_from` they must
      be the model's.
  """

  init_from: str | None
  adapter_from: str | None = None
  adapter_use: str = "continue"
  base_dtype: str = "float32"
  dtype: str = "float32"
  export_dtype: str = "bfloat16"
  base_model: str | None = None
  license: str | None = None
  lora: LoraConfig | None = None
  sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def scratch(self, vocab_size: int) -> ModelConfig:
    """Returns the model that is trained from scratch."""
    sizes = dict(self.sizes, vocab_size=vocab_size, dtype=self.dtype)
    if sizes.get("rope_scaling") is not None:
      sizes["rope_scaling"] = fields_lib.build(
        RopeScaling, sizes["rope_scaling"], "config.model.rope_scaling"
      )
    return fields_lib.build(ModelConfig, sizes, "config.model")

  def brings_adapter(self) -> bool:
    """Returns whether the start may bring adapters that are trained on."""
    found = self.adapter_from is not None or is_run(self.init_from)
    return found and self.adapter_use == "continue"

  def check_sizes(self, cfg: ModelConfig) -> None:
    """Raises a UserError for a size in the config that is not that of `cfg`."""
    for name, value in self.sizes.items():
      found = getattr(cfg, name)
      if value != found:
        raise UserError(
          f"config.model.{name} is {value!r}, but the model of init_from "
          f"{self.init_from!r} has {found!r}: remove it, or set it to that"
        )


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of ours: stages of a seed in a workdir, at `step` (None: its last).

  `url` is that of a workdir in a bucket; `workdir` has all of it but the weights then.
  """

  workdir: pathlib.Path
  path: tuple[str, ...]
  seed: int
  step: int | None
  url: str | None = None

  def with_weights(self) -> pathlib.Path:
    """Returns the workdir with its checkpoints, as far as this run needs them."""
    if self.url is None:
      return self.workdir
    return other_workdir.fetch(self.url, self.path, self.seed, self.step, _WHERE)


def parse(model: Mapping[str, Any]) -> ModelSettings:
  """Returns the settings that `config.model` (a plain dict) holds.

  Raises:
    UserError: naming the field that is unknown, missing or contradicts another.
  """
  old = [name for name in ("init", "hf_dir") if name in model]
  if old:
    raise UserError(
      f"config.model.{old[0]} is now init_from: write init_from=None for a model from "
      f"scratch, else {FORMS}"
    )
  given = {name: _frozen(value) for name, value in model.items()}
  own = _names(ModelSettings) - {"sizes"}
  sizes = {name: value for name, value in given.items() if name not in own}
  possible = _names(ModelConfig) - {"vocab_size"} | own
  for name in sizes:
    fields_lib.check_known(name, sorted(possible), "config.model", "config.model")
  fields = {name: value for name, value in given.items() if name in own}
  if fields.get("lora") is not None:
    lora = dict(fields["lora"])
    fields["lora"] = fields_lib.build(LoraConfig, lora, "config.model.lora")
  settings = fields_lib.build(ModelSettings, fields | {"sizes": sizes}, "config.model")
  _check(settings)
  return settings


def is_run(init_from: str | None) -> bool:
  """Returns whether `init_from` has the form of a run of ours."""
  return init_from is not None and _as_run(init_from) is not None


def for_seed(place: str, seed: int) -> str:
  """Returns `place` with the seed in it."""
  return place.replace("{seed}", str(seed))


def find(init_from: str, seed: int) -> pathlib.Path | Run:
  """Returns the Hugging Face directory or the run that `init_from` names.

  Raises:
    UserError: it is neither.
  """
  named = for_seed(init_from, seed)
  run = _as_run(named)
  if run is None or not inputs.is_remote(named):
    place = inputs.model_dir(named, _WHERE, weights=False)
    if (place / hf_config.CONFIG_FILE).is_file():
      return place
  elif run.url is not None:
    workdir = other_workdir.fetch(
      run.url, run.path, run.seed, run.step, _WHERE, weights=False
    )
    run = dataclasses.replace(run, workdir=workdir)
  if run is None or not (run.workdir / hf_config.CONFIG_FILE).is_file():
    raise UserError(f"config.model.init_from is {named!r}: name {FORMS}")
  return run


def absent(model: ModelSettings, seed: int) -> list[str]:
  """Returns what of the start of a seed is not on disk yet: `config.model.X 'place'`.

  Only what is not there at all; what is there and cannot be used is refused by `find`.
  """
  found = []
  for name in ("init_from", "adapter_from"):
    value = getattr(model, name)
    place = value and for_seed(value, seed)
    run = place and _as_run(place)
    if place and not inputs.exists((run.url or run.workdir) if run else place):
      found.append(f"config.model.{name} {place!r}")
  return found


def tokenizer_dirs(model: ModelSettings, seeds: Iterable[int]) -> list[pathlib.Path]:
  """Returns where the tokenizer of the start lies, for every seed."""
  assert model.init_from is not None
  found = [find(model.init_from, seed) for seed in seeds]
  dirs = [at.workdir / "tokenizer" if isinstance(at, Run) else at for at in found]
  return list(dict.fromkeys(dirs))


def check_chain(workdir: pathlib.Path, run: Run) -> None:
  """Raises a UserError when a run begins, over however many others, from `workdir`."""
  seen = {workdir.resolve()}
  while True:
    if run.workdir.resolve() in seen:
      raise UserError(
        f"config.model.init_from leads back to {run.workdir}: a study cannot begin "
        "from a run of its own workdir; write another stage and arm for that, or use "
        "another --workdir"
      )
    seen.add(run.workdir.resolve())
    model = records.read_json(run.workdir / hf_config.CONFIG_FILE).get("model", {})
    init_from = model.get("init_from")
    found = find(init_from, run.seed) if is_run(init_from) else None
    if not isinstance(found, Run):
      return
    run = found


def _as_run(named: str) -> Run | None:
  place = pathlib.Path(named).expanduser()
  parts = place.name.replace("{seed}", "0")
  match = _RUN.fullmatch(parts)
  if match is None or len(place.parts) < 3 or place.parent.parent.name != "runs":
    return None
  step = None if match[2] is None else int(match[2])
  path = tuple(place.parent.name.split("+"))
  url = named.rstrip("/").rsplit("/", 3)[0] if inputs.is_remote(named) else None
  return Run(place.parent.parent.parent, path, int(match[1]), step, url)


def _frozen(value: Any) -> Any:
  """Returns lists as tuples: a config that was read back from JSON has lists."""
  if isinstance(value, Mapping):
    return {name: _frozen(inner) for name, inner in value.items()}
  return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _names(cls: type) -> set[str]:
  return {field.name for field in dataclasses.fields(cls)}


def _check(model: ModelSettings) -> None:
  choices = {
    "adapter_use": ADAPTER_USES,
    "base_dtype": BASE_DTYPES,
    "dtype": DTYPES,
    "export_dtype": (*DTYPES, "float16"),
  }
  for name, allowed in choices.items():
    if getattr(model, name) not in allowed:
      raise UserError(
        f"config.model.{name} {getattr(model, name)!r} is not one of {allowed}"
      )
  quantised.check_installed(model.base_dtype)
  if model.init_from is None and model.base_dtype in quantised.KINDS:
    raise UserError(
      f"config.model.base_dtype is {model.base_dtype!r}, but init_from is None (a "
      "model from scratch), and what is quantised is never trained: set init_from, or "
      f"base_dtype to one of {DTYPES}"
    )
  if model.init_from is None:
    for name in ("adapter_from", "base_model"):
      if getattr(model, name) is not None:
        raise UserError(
          f"config.model.{name} is {getattr(model, name)!r}, but init_from is None (a "
          "model from scratch): set init_from, or remove it"
        )
  elif not isinstance(model.init_from, str) or not model.init_from:
    raise UserError(f"config.model.init_from is {model.init_from!r}: name {FORMS}")
  elif model.base_model is None and not is_run(model.init_from):
    raise UserError(
      "config.model.base_model is None: name the pretrained model of init_from, as its "
      "model card does (it goes into every export)"
    )
