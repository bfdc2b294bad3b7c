"""Attention on a TPU: the splash kernels of `jax.experimental.pallas`.

They skip the blocks that causality and the window hide, and hold no square. Every
device works on its own rows and heads.

B batch, T query, N heads, K kv heads, H head dim; b, n, k: of one device.
"""

import functools

import jax
from jax.sharding import PartitionSpec as P

from msm_jax import sharding
from msm_jax.models import remat
from msm_jax.models.config import ModelConfig

LANES = 128
_LARGEST_BLOCK = 512


def objection(cfg: ModelConfig, seq_len: int) -> str | None:
  """Returns why the kernels cannot compute this model's attention, None if they can."""
  if seq_len % LANES:
    return f"rows are multiples of {LANES}, seq_len is {seq_len}"
  if cfg.head_dim % 8:
    return f"head dims are multiples of 8, model.head_dim is {cfg.head_dim}"
  return None


def attend(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  softcap: float | None = None,
  window: int | None = None,
  *,
  interpret: bool = False,
) -> jax.Array:
  """Returns [B, T, N, H], the same as dense attention under `packed_mask`.

  kv heads must divide over the mesh as heads do (see `attention.kv_copies`).
  `interpret` runs the kernels on any platform, slowly.
  """
  on_device = functools.partial(
    _on_device, softcap=softcap, window=window, interpret=interpret
  )
  args = q_BTNH * scale, k_BTKH, v_BTKH, segment_ids_BT
  mesh_shape = sharding.mesh_shape()
  if mesh_shape is None:
    return on_device(*args)
  axes = ("batch", "length", "heads", "head_dim")
  rows = sharding.spec(axes, q_BTNH.shape, mesh_shape)
  return jax.shard_map(
    on_device,
    in_specs=(rows, rows, rows, P(*rows[:2])),
    out_specs=rows,
    check_vma=False,
  )(*args)


def _on_device(q_bTnH, k_bTkH, v_bTkH, segment_ids_bT, *, softcap, window, interpret):
  from jax.experimental.pallas.ops.tpu import splash_attention as kernels

  T, n = q_bTnH.shape[1:3]
  if window is None:
    mask = kernels.CausalMask((T, T))
  else:
    mask = kernels.LocalMask((T, T), window_size=(window - 1, 0), offset=0)
  size = max(size for size in _block_sizes() if T % size == 0)
  kernel = kernels.make_splash_mha_single_device(
    kernels.MultiHeadMask([mask] * n),
    block_sizes=kernels.BlockSizes(
      block_q=size,
      block_kv=size,
      block_q_dkv=size,
      block_kv_dkv=size,
      block_q_dq=size,
      block_kv_dq=size,
    ),
    attn_logits_soft_cap=softcap,
    residual_checkpoint_name=remat.PRODUCT,
    interpret=interpret,
  )

  def one_row(q_TnH, k_TkH, v_TkH, segment_ids_T):
    segments = kernels.SegmentIds(segment_ids_T, segment_ids_T)
    heads_first = (x.swapaxes(0, 1) for x in (q_TnH, k_TkH, v_TkH))
    return kernel(*heads_first, segment_ids=segments).swapaxes(0, 1)

  return jax.vmap(one_row)(q_bTnH, k_bTkH, v_bTkH, segment_ids_bT)


def _block_sizes() -> list[int]:
  return [LANES << n for n in range((_LARGEST_BLOCK // LANES).bit_length())]
