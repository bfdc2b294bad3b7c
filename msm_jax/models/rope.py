"""Rotary positions (Su et al. 2021): frequencies, tables, rotation.

Frequencies are constants of the program, computed by NumPy in float32 and in the order
of operations of transformers: another last bit is an error that grows with the
position.

B batch, T query, N heads, H head dim, h = H / 2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax.models.config import RopeScaling


class Table(NamedTuple):
  """Cosines and sines of the angles of every position, float32 [B, T, 1, h]."""

  cos_BT1h: jax.Array
  sin_BT1h: jax.Array


def table(
  positions_BT: jax.Array, head_dim: int, theta: float, scaling: RopeScaling | None
) -> Table:
  """Returns the table of these positions."""
  frequencies_h = jnp.asarray(inverse_frequencies(head_dim, theta, scaling))
  angles_BTh = positions_BT[..., None].astype(jnp.float32) * frequencies_h[None, None]
  length = attention_factor(scaling)
  cos_BTh, sin_BTh = length * jnp.cos(angles_BTh), length * jnp.sin(angles_BTh)
  return Table(cos_BTh[:, :, None], sin_BTh[:, :, None])


def rotate(x_BTNH: jax.Array, by: Table) -> jax.Array:
  """Rotates pairs (i, i + H/2), computed in float32."""
  left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [
      left * by.cos_BT1h - right * by.sin_BT1h,
      right * by.cos_BT1h + left * by.sin_BT1h,
    ],
    axis=-1,
  )
  return rotated.astype(x_BTNH.dtype)


def inverse_frequencies(
  head_dim: int, theta: float, scaling: RopeScaling | None
) -> np.ndarray:
  """Returns float32 [h] rotary frequencies in radians per position."""
  exponent_h = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  powers_h = np.float64(theta) ** exponent_h.astype(np.float64)
  powers_h = powers_h.astype(np.float32)
  inverse_h = np.float32(1) / powers_h
  if scaling is None:
    return inverse_h
  factor = np.float32(scaling.factor)
  if scaling.rope_type == "linear":
    return inverse_h / factor
  if scaling.rope_type == "llama3":
    keep_h = _kept_by_llama3(inverse_h, scaling)
    return (1 - keep_h) * inverse_h / factor + keep_h * inverse_h
  keep_h = _kept_by_yarn(head_dim, theta, scaling)
  return np.float32(1) / (factor * powers_h) * (1 - keep_h) + inverse_h * keep_h


def attention_factor(scaling: RopeScaling | None) -> float:
  """Returns what queries and keys are multiplied by: 1, except for YaRN."""
  if scaling is None or scaling.rope_type != "yarn":
    return 1.0
  if scaling.attention_factor is not None:
    return scaling.attention_factor

  def length(mscale: float) -> float:
    return 0.1 * mscale * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

  if scaling.mscale and scaling.mscale_all_dim:
    return length(scaling.mscale) / length(scaling.mscale_all_dim)
  return length(1.0)


def _kept_by_llama3(inverse_h: np.ndarray, scaling: RopeScaling) -> np.ndarray:
  """Wavelengths beyond original / low_freq_factor are divided (0), those below
  original / high_freq_factor are kept (1), in between linear in 1 / wavelength.
  """
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  one = np.float32(1)  # PyTorch divides a number by an array by way of its reciprocal
  wavelengths_h = one / inverse_h * np.float32(2 * math.pi)
  context = np.float32(scaling.original_max_position_embeddings)
  turns_h = one / wavelengths_h * context
  return np.clip((turns_h - np.float32(low)) / np.float32(high - low), 0.0, 1.0)


def _kept_by_yarn(head_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
  """Dimensions that turn more than beta_fast times in the original context are kept
  (1), those that turn less than beta_slow times are divided (0).
  """

  def dimension(turns: float) -> float:
    context = scaling.original_max_position_embeddings
    return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

  first, last = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
  if scaling.truncate:
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, head_dim - 1)
  if first == last:
    last += 0.001  # a step instead of a ramp
  ramp_h = np.arange(head_dim // 2, dtype=np.float32) - np.float32(first)
  return 1 - np.clip(ramp_h / np.float32(last - first), 0.0, 1.0)
