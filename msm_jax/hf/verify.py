"""Our forward pass on a Hugging Face directory, beside that of transformers.

Every row is computed in float32. Positions of the default rows are spread over the
whole context, beyond `original_max_position_embeddings`, because a wrong rotary table
looks right on short prompts. Without transformers and torch the logits are written and
the report says that nothing was compared.

Some tokens drive a model into activations so large that float32 itself is off by more
than the bar (SmolLM2: 1e-2 at one of 300 random ids). Where a row exceeds the bar, both
sides compute it again in float64, and that difference must be below it.

B batch, T query, V vocab.
"""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from msm_jax import tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import load as hf_load
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.storage import inputs, outputs

MAX_ABS_BAR = 1e-3  # on real models in float32; random tiny ones stay below 1e-4
MAX_KL_BAR = 1e-5  # nats; a wrong rotary table is above 1e-3
_DEFAULT_LENGTH = 300
_LONGEST_WINDOW = 1024  # that the default rows reach beyond
_NUM_GROUPS = 6  # of positions, in the report
_DEFAULT_TEXT = (
  "The cheese from the valley costs $12.50; the one from the hills, only 3.75. Which "
  "would you buy?\n\n1. Gouda\n2. Brie (ripe, 250 g)\n\ndef price(kg):\n  return kg * "
  "rate[0] # tax? No: caf\u00e9, na\u00efve, \u4e2d\u6587, "
  "\u041f\u0440\u0438\u0432\u0435\u0442! She wrote: 'It is not the price that "
  "matters, but the reason.' Once upon a time, a river ran past seven old mills, and "
  "every miller kept a ledger of what the village owed him. "
)


class Mismatch(Exception):
  """Our logits and those of transformers differ by more than the bar."""


class Compared(NamedTuple):
  """One row of logits beside theirs, per index of the row [T]."""

  difference_T: np.ndarray  # largest over the vocabulary
  kl_T: np.ndarray  # nats, KL(theirs || ours)
  same_T: np.ndarray  # argmax
  largest_T: np.ndarray  # of theirs, absolute
  exact_T: np.ndarray  # the difference that decides: in float64, where looked at
  positions_T: np.ndarray


@dataclasses.dataclass(frozen=True)
class Report:
  """What `verify` found; `str()` of it is for people."""

  hf_dir: str
  shape: tuple[int, ...]  # of the logits, [B, T, V]
  longest_position: int
  compared: bool
  max_abs: float | None  # largest difference of two logits
  max_kl: float | None  # nats, largest over positions, KL(transformers || ours)
  mean_kl: float | None
  worst: tuple[int, int] | None  # row and index of max_abs
  same_argmax: float | None  # share of positions
  largest: float | None = None  # of all logits of transformers, absolute
  # Positions first to last, largest difference and KL among them.
  by_position: tuple[tuple[int, int, float, float], ...] = ()
  unseen_window: int | None = None  # a sliding window longer than the rows
  num_rounded: int = 0  # positions above the bar in float32 and below it in float64
  max_abs_float64: float | None = None  # of the rows that were computed again

  def __str__(self) -> str:
    head = (
      f"{self.hf_dir}: float32 logits {list(self.shape)}, positions up to "
      f"{self.longest_position}"
    )
    if not self.compared:
      return (
        f"{head}: not compared, because transformers and torch are not installed "
        "(pip install 'msm-jax[hf]')"
      )
    return (
      f"{head}: max abs difference from transformers {self.max_abs:.2e} (row "
      f"{self.worst[0]}, index {self.worst[1]}), KL per position mean "
      f"{self.mean_kl:.2e} max {self.max_kl:.2e}, same argmax {self.same_argmax:.2%}"
      + self._rounding()
      + self._table()
    )

  def _table(self) -> str:
    lines = [
      f"\n  positions {first:>6} to {last:>6}: max abs {difference:.2e}, KL {kl:.2e}"
      for first, last, difference, kl in self.by_position
    ]
    if self.unseen_window is not None:
      lines.append(
        f"\n  no row is longer than the sliding window of {self.unseen_window} tokens: "
        "what it hides was not compared; give longer rows with --tokens"
      )
    return "".join(lines)

  def _rounding(self) -> str:
    if self.max_abs_float64 is None:
      return ""
    return (
      f"; {self.num_rounded} positions are above the bar by float32 rounding: rows "
      f"computed again in float64 on both sides differ by {self.max_abs_float64:.2e}"
    )


def verify(
  hf_dir: str | os.PathLike[str],
  *,
  tokens: str | os.PathLike[str] | np.ndarray | None = None,
  logits_out: str | os.PathLike[str] | None = None,
  max_abs_bar: float = MAX_ABS_BAR,
) -> Report:
  """Runs our forward pass and compares it where transformers is installed.

  Args:
    hf_dir: a Hugging Face model directory.
    tokens: integer ids [B, T], or the .npy file that holds them, at positions 0..T-1;
      None draws two rows of varied ids, the second spread over the whole context.
    logits_out: where to write float32 logits [B, T, V] as .npy.
    max_abs_bar: the largest difference that passes.

  Raises:
    UserError: a directory that `load` refuses, or ids that do not fit.
    Mismatch: the difference is above the bar; the logits are written all the same.
  """
  named, hf_dir = hf_dir, inputs.model_dir(hf_dir, "--hf_dir")
  cfg, params = hf_load.load(hf_dir)
  if tokens is None:
    tokens_BT, positions_BT = default_rows(cfg, hf_dir)
  else:
    tokens_BT = _read_tokens(tokens, cfg)
    positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
  shape = (*tokens_BT.shape, cfg.vocab_size)
  with _written(logits_out, shape) as logits_BTV:
    peer = _Peer(hf_dir) if _installed() else None
    ours = _Ours(cfg, params)
    rows = []
    for row in range(shape[0]):
      given = tokens_BT[row : row + 1], positions_BT[row : row + 1]
      logits_BTV[row] = ours.logits(*given, "float32")[0]
      if peer is not None:
        rows.append(_compare_row(ours, logits_BTV[row], peer, given, max_abs_bar))
  report = _report(named, shape, int(positions_BT.max()), rows, max_abs_bar)
  if cfg.sliding_window is not None and cfg.sliding_window >= shape[1]:
    report = dataclasses.replace(report, unseen_window=cfg.sliding_window)
  _check(report, rows, max_abs_bar)
  return report


def default_rows(
  cfg: ModelConfig, hf_dir: str | os.PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns ids [2, T] and positions [2, T], T at most 300, or a little more than a
  sliding window.

  The ids are varied text where the directory has a `tokenizer.json`, drawn ones
  elsewhere. The first row has positions 0..T-1; those of the second run evenly to the
  end of the context, so that queries see keys at every distance.
  """
  window = cfg.sliding_window or 0
  beyond = window + 40 if window <= _LONGEST_WINDOW else 0
  T = min(max(_DEFAULT_LENGTH, beyond), cfg.max_seq_len)
  if hf_dir is not None and (pathlib.Path(hf_dir) / tokenizer.JSON_FILE).exists():
    ids = tokenizer.load(hf_dir).encode(_DEFAULT_TEXT).ids
    tokens_BT = np.stack([np.resize(ids, T), np.resize(ids[::-1], T)])
    tokens_BT = np.where(tokens_BT < cfg.vocab_size, tokens_BT, 0)
  else:
    tokens_BT = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, T), np.int32)
  spread_T = np.linspace(0, cfg.max_seq_len - 1, T).astype(np.int32)
  return tokens_BT, np.stack([np.arange(T, dtype=np.int32), spread_T])


def compare(
  ours_TV: np.ndarray, theirs_TV: np.ndarray, positions_T: np.ndarray
) -> Compared:
  """Returns how one row of logits differs from theirs."""
  ours, theirs = _log_softmax(ours_TV), _log_softmax(theirs_TV)
  difference_T = np.abs(ours_TV - theirs_TV).max(-1)
  return Compared(
    difference_T=difference_T,
    kl_T=(np.exp(theirs) * (theirs - ours)).sum(-1),
    same_T=ours_TV.argmax(-1) == theirs_TV.argmax(-1),
    largest_T=np.abs(theirs_TV).max(-1),
    exact_T=difference_T,
    positions_T=positions_T,
  )


def _compare_row(
  ours: "_Ours",
  ours_TV: np.ndarray,
  peer: "_Peer",
  inputs: tuple[np.ndarray, ...],
  bar: float,
) -> Compared:
  """Returns how a row differs; where by too much, also in float64."""
  compared = compare(ours_TV, peer.logits(*inputs, "float32")[0], inputs[1][0])
  if compared.difference_T.max() <= bar:
    return compared
  both = (side.logits(*inputs, "float64")[0] for side in (ours, peer))
  return compared._replace(exact_T=np.abs(np.subtract(*both)).max(-1))


def _check(report: Report, rows: list[Compared], bar: float) -> None:
  for row in rows:
    if not row.exact_T.max() <= bar or not row.kl_T.max() <= MAX_KL_BAR:
      raise Mismatch(f"{report}; the bars are {bar:.0e} and {MAX_KL_BAR:.0e} nats")


def _log_softmax(logits_TV: np.ndarray) -> np.ndarray:
  x = logits_TV.astype(np.float64)
  x -= x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _report(hf_dir, shape, longest: int, rows: list[Compared], bar: float) -> Report:
  if not rows:
    return Report(str(hf_dir), shape, longest, False, *[None] * 5)
  all_rows = Compared(*(np.stack(part) for part in zip(*rows, strict=True)))
  difference_BT, kl_BT = all_rows.difference_T, all_rows.kl_T
  again_B = (difference_BT > bar).any(1)
  worst = np.unravel_index(np.nanargmax(difference_BT), difference_BT.shape)
  return Report(
    hf_dir=str(hf_dir),
    shape=shape,
    longest_position=longest,
    compared=True,
    max_abs=float(difference_BT.max()),
    max_kl=float(kl_BT.max()),
    mean_kl=float(kl_BT.mean()),
    worst=(int(worst[0]), int(worst[1])),
    same_argmax=float(all_rows.same_T.mean()),
    num_rounded=int(((difference_BT > bar) & (all_rows.exact_T <= bar)).sum()),
    max_abs_float64=float(all_rows.exact_T[again_B].max()) if again_B.any() else None,
    largest=float(all_rows.largest_T.max()),
    by_position=_by_position(all_rows),
  )


def _by_position(rows: Compared) -> tuple[tuple[int, int, float, float], ...]:
  """Returns the largest difference and KL in groups of ascending positions."""
  order = np.argsort(rows.positions_T, axis=None, kind="stable")
  groups = np.array_split(order, min(_NUM_GROUPS, len(order)))
  flat = Compared(*(part.reshape(-1) for part in rows))
  return tuple(
    (
      int(flat.positions_T[group[0]]),
      int(flat.positions_T[group[-1]]),
      float(flat.difference_T[group].max()),
      float(flat.kl_T[group].max()),
    )
    for group in groups
  )


def _read_tokens(tokens, cfg: ModelConfig) -> np.ndarray:
  where = "tokens" if isinstance(tokens, np.ndarray) else str(tokens)
  if not isinstance(tokens, np.ndarray):
    path = inputs.local(tokens, "--tokens")
    try:
      tokens = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
      raise UserError(f"{where} is no .npy file of token ids ({error})") from None
  if tokens.ndim == 1:
    tokens = tokens[None]
  if tokens.ndim != 2 or not tokens.size or tokens.dtype.kind not in "iu":
    raise UserError(
      f"{where} has shape {list(tokens.shape)} and dtype {tokens.dtype}: it must hold "
      "integer ids [B, T]"
    )
  if tokens.min() < 0 or tokens.max() >= cfg.vocab_size:
    raise UserError(
      f"{where} holds ids from {tokens.min()} to {tokens.max()}: the model has "
      f"{cfg.vocab_size} (0 to {cfg.vocab_size - 1})"
    )
  return tokens.astype(np.int32)


@contextlib.contextmanager
def _written(out, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
  """Yields the logits to fill; they are where `out` says (if it does) at the end."""
  if out is None:
    yield np.empty(shape, np.float32)
    return
  with outputs.place(out, "--logits_out", new=False) as path:
    logits_BTV = _logits_array(path, shape)
    yield logits_BTV
    _finish(logits_BTV, path)


def _logits_array(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(_unfinished(path), "w+", np.float32, shape)
  except OSError as error:
    raise UserError(f"{path} cannot be written ({error.strerror or error})") from None


def _finish(logits_BTV: np.ndarray, path: pathlib.Path) -> None:
  logits_BTV.flush()
  os.replace(_unfinished(path), path)


def _unfinished(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _installed() -> bool:
  needed = ("transformers", "torch")
  return all(importlib.util.find_spec(name) is not None for name in needed)


class _Ours:
  """Our forward pass."""

  def __init__(self, cfg: ModelConfig, params: Any):
    self.cfg, self.params = cfg, params
    self.forward = jax.jit(
      lambda cfg, *arrays: transformer.logits(arrays[0], cfg, *arrays[1:]),
      static_argnums=0,
    )

  def logits(self, tokens_BT, positions_BT, dtype: str) -> np.ndarray:
    """Returns logits [B, T, V] computed in `dtype`; norms are float32, as theirs."""
    cfg = dataclasses.replace(self.cfg, dtype=dtype)
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
      params = self.params
      if dtype == "float64":
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
      return np.asarray(self.forward(cfg, params, tokens_BT, positions_BT))


class _Peer:
  """The forward pass of transformers on the same directory."""

  def __init__(self, hf_dir: str | os.PathLike[str]):
    import torch
    import transformers

    self.torch = torch
    self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
      str(hf_dir), dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()

  def logits(self, tokens_BT, positions_BT, dtype: str) -> np.ndarray:
    """Returns logits [B, T, V] computed in `dtype`."""
    ids = self.torch.from_numpy(tokens_BT.astype(np.int64))
    positions = self.torch.from_numpy(positions_BT.astype(np.int64))
    # Given a mask, transformers does not take gaps in the positions for new documents.
    mask = self.torch.ones_like(ids)
    model = self.model.to(getattr(self.torch, dtype))
    with self.torch.no_grad():
      out = model(ids, position_ids=positions, attention_mask=mask, use_cache=False)
    return out.logits.numpy()
