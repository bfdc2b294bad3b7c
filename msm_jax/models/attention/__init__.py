"""Attention with one meaning and several ways to compute it.

Packed rows: a query sees the keys of its own segment up to its own position, in a
sliding layer only the last `window` of them (its own among them). Scores are
scale q k, or softcap * tanh(scale q k / softcap); the softmax is exact, in float32.

  dense    the definition: the whole square at once (dense.py)
  blocked  XLA, in blocks that skip keys which no query of theirs sees (blocked.py)
  cudnn    cuDNN's fused kernels, on a GPU (cudnn.py)
  splash   Pallas kernels, on a TPU (splash.py)

B batch, T query, S key, N heads, K kv heads, H head dim.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from msm_jax import sharding
from msm_jax.errors import UserError
from msm_jax.models.attention import blocked, cudnn, dense, splash
from msm_jax.models.config import ModelConfig

AUTO = "auto"
BACKENDS = ("dense", "blocked", "cudnn", "splash")
_CUDNN_TOGETHER = "cudnn_together"
_PLATFORMS = {"cudnn": ("gpu", "cuda"), "splash": ("tpu",)}
SHORT = 128  # rows up to here gain nothing from blocks

# (q [B, T, N, H], k [B, S, K, H], v [B, S, K, H], scale, softcap) -> [B, T, N, H]
Attend = Callable[..., jax.Array]


def choose(
  wanted: str, cfg: ModelConfig, seq_len: int, platform: str
) -> tuple[str, str | None]:
  """Returns (the backend for rows of `seq_len` on `platform`, what to say about it).

  Args:
    wanted: a backend, or `auto`: the platform's own where it can compute this model,
      else `blocked`, and `dense` for short rows on a CPU.

  Raises:
    UserError: a backend was asked for that cannot compute this model here.
  """
  if wanted in ("dense", "blocked"):
    return wanted, None
  for backend, platforms in _PLATFORMS.items():
    if wanted == backend and platform not in platforms:
      raise UserError(
        f"attention {backend!r} runs on {' or '.join(platforms)}, not on {platform}: "
        "set attention to 'auto' or 'blocked'"
      )
    if platform in platforms:
      problem = _objection(backend, cfg, seq_len)
      if problem is None:
        return backend, None
      if wanted == backend:
        raise UserError(
          f"attention {backend!r} cannot compute this model: {problem}; set attention "
          "to 'auto' or 'blocked'"
        )
      return "blocked", f"attention: 'blocked', not {backend!r}: {problem}"
  return ("dense" if seq_len <= SHORT else "blocked"), None


def _objection(backend: str, cfg: ModelConfig, seq_len: int) -> str | None:
  if backend == "cudnn":
    return cudnn.objection(cfg, seq_len)
  return splash.objection(cfg, seq_len)


def for_population(backend: str) -> str:
  """Returns the backend that computes the same under `jax.vmap`."""
  return _CUDNN_TOGETHER if backend == "cudnn" else backend


def kv_copies(num_heads: int, num_kv_heads: int, mesh_shape: Mapping[str, int]) -> int:
  """Returns how often each kv head is repeated so that kv heads divide over the mesh
  wherever heads do: 1 where they do already.
  """
  size = math.prod(mesh_shape[axis] for axis in sharding.axes_of("heads"))
  copies = size // math.gcd(num_kv_heads, size)
  if num_heads % size or (num_heads // num_kv_heads) % copies:
    return 1  # heads are whole on every device, and so are kv heads
  return copies


def packed(backend: str, segment_ids_BT: jax.Array, window: int | None) -> Attend:
  """Returns attention over packed rows."""
  if backend == "dense":
    return dense.masked(dense.packed_mask(segment_ids_BT, window))

  def attend(q_BTNH, k_BTKH, v_BTKH, scale, softcap):
    k_BTKH, v_BTKH = _spread_kv_heads(q_BTNH, k_BTKH, v_BTKH)
    args = q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, scale
    if backend == "cudnn":
      return cudnn.attend(*args, window)
    if backend == _CUDNN_TOGETHER:
      return cudnn.attend_together(*args, window)
    if backend == "splash":
      return splash.attend(*args, softcap, window)
    return blocked.attend(*args, softcap, window)

  return attend


def over_columns(seen_BS: jax.Array) -> Attend:
  """Returns attention of one query in each row over the columns of a cache that it sees
  (its keys and values are [B, K, S, H]).
  """

  def attend(q_B1NH, k_BKSH, v_BKSH, scale, softcap):
    args = q_B1NH, k_BKSH, v_BKSH, seen_BS
    return dense.over_columns(*args, scale=scale, softcap=softcap)

  return attend


def _spread_kv_heads(q_BTNH, k_BTKH, v_BTKH):
  mesh_shape = sharding.mesh_shape()
  if mesh_shape is None:
    return k_BTKH, v_BTKH
  copies = kv_copies(q_BTNH.shape[2], k_BTKH.shape[2], mesh_shape)
  if copies == 1:
    return k_BTKH, v_BTKH
  return tuple(
    sharding.constrain(
      jnp.repeat(x_BTKH, copies, axis=2), "batch", "length", "kv_heads", "head_dim"
    )
    for x_BTKH in (k_BTKH, v_BTKH)
  )
