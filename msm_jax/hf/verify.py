"""Our forward pass on a Hugging Face directory, beside that of transformers.

Every row is computed in float32. Positions of the default rows are spread over the
whole context, beyond `original_max_position_embeddings`, because a wrong rotary table
looks right on short prompts. Without transformers and torch the logits are written and
the report says that nothing was compared.

B batch, T query, V vocab.
"""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from msm_jax.errors import UserError
from msm_jax.hf import load as hf_load
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig

MAX_ABS_BAR = 1e-3  # on real models in float32; random tiny ones stay below 1e-4
_DEFAULT_LENGTH = 300


class Mismatch(Exception):
  """Our logits and those of transformers differ by more than the bar."""


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
  cfg, params = hf_load.load(hf_dir)
  if tokens is None:
    tokens_BT, positions_BT = default_rows(cfg)
  else:
    tokens_BT = _read_tokens(tokens, cfg)
    positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
  shape = (*tokens_BT.shape, cfg.vocab_size)
  logits_BTV = _logits_array(logits_out, shape)
  peer = _transformers(hf_dir)
  forward = jax.jit(lambda *arrays: transformer.logits(arrays[0], cfg, *arrays[1:]))
  rows = []
  for row in range(shape[0]):
    one = slice(row, row + 1)
    with jax.default_matmul_precision("highest"):
      ours = forward(params, tokens_BT[one], positions_BT[one])
    logits_BTV[row] = np.asarray(ours)[0]
    if peer is not None:
      rows.append(compare(logits_BTV[row], peer(tokens_BT[one], positions_BT[one])[0]))
  _finish(logits_BTV, logits_out)
  report = _report(hf_dir, shape, int(positions_BT.max()), rows)
  if rows and not report.max_abs <= max_abs_bar:
    raise Mismatch(f"{report}; the bar is {max_abs_bar:.0e}")
  return report


def default_rows(cfg: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
  """Returns varied ids [2, T] and positions [2, T], T at most 300.

  The first row has positions 0..T-1; those of the second run evenly to the end of the
  context, so that queries see keys at every distance.
  """
  T = min(_DEFAULT_LENGTH, cfg.max_seq_len)
  tokens_BT = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, T), np.int32)
  spread_T = np.linspace(0, cfg.max_seq_len - 1, T).astype(np.int32)
  return tokens_BT, np.stack([np.arange(T, dtype=np.int32), spread_T])


def compare(ours_TV: np.ndarray, theirs_TV: np.ndarray) -> tuple[np.ndarray, ...]:
  """Returns per position [T]: max abs difference, KL in nats, same argmax or not."""
  difference_T = np.abs(ours_TV - theirs_TV).max(-1)
  ours, theirs = _log_softmax(ours_TV), _log_softmax(theirs_TV)
  kl_T = (np.exp(theirs) * (theirs - ours)).sum(-1)
  return difference_T, kl_T, ours_TV.argmax(-1) == theirs_TV.argmax(-1)


def _log_softmax(logits_TV: np.ndarray) -> np.ndarray:
  x = logits_TV.astype(np.float64)
  x -= x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _report(hf_dir, shape, longest: int, rows: list[tuple[np.ndarray, ...]]) -> Report:
  if not rows:
    return Report(str(hf_dir), shape, longest, False, *[None] * 5)
  difference_BT, kl_BT, same_BT = (np.stack(part) for part in zip(*rows, strict=True))
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
    same_argmax=float(same_BT.mean()),
  )


def _read_tokens(tokens, cfg: ModelConfig) -> np.ndarray:
  where = "tokens" if isinstance(tokens, np.ndarray) else str(tokens)
  if not isinstance(tokens, np.ndarray):
    try:
      tokens = np.load(tokens, allow_pickle=False)
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


def _logits_array(path, shape: tuple[int, ...]) -> np.ndarray:
  if path is None:
    return np.empty(shape, np.float32)
  path = pathlib.Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(_unfinished(path), "w+", np.float32, shape)
  except OSError as error:
    raise UserError(f"{path} cannot be written ({error.strerror or error})") from None


def _finish(logits_BTV: np.ndarray, path) -> None:
  if path is not None:
    logits_BTV.flush()
    os.replace(_unfinished(pathlib.Path(path)), path)


def _unfinished(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _transformers(hf_dir) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
  """Returns the forward pass of transformers, None where it is not installed."""
  if any(importlib.util.find_spec(name) is None for name in ("transformers", "torch")):
    return None
  import torch
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(
    str(hf_dir), dtype=torch.float32, local_files_only=True, trust_remote_code=False
  ).eval()

  def forward(tokens_BT: np.ndarray, positions_BT: np.ndarray) -> np.ndarray:
    ids = torch.from_numpy(tokens_BT.astype(np.int64))
    positions = torch.from_numpy(positions_BT.astype(np.int64))
    # Given a mask, transformers does not take gaps in the positions for new documents.
    mask = torch.ones_like(ids)
    with torch.no_grad():
      out = model(ids, position_ids=positions, attention_mask=mask, use_cache=False)
    return out.logits.float().numpy()

  return forward
