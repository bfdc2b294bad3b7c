"""Config to optax: schedule, AdamW, clipping, weight decay, learning-rate
multipliers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from msm_jax import moments
from msm_jax.errors import UserError

SCHEDULES = ("constant", "cosine", "linear", "hold_linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
  """AdamW with decoupled weight decay (Loshchilov and Hutter 2019).

  The learning rate rises linearly over `warmup_steps`, then follows `schedule` down to
  zero: `hold_linear` stays at the top until `hold_fraction` of the run. Updates are
  computed in float32; `moments_dtype` is what both moments are kept in (`moments.py`).
  """

  learning_rate: float
  schedule: str
  warmup_steps: int
  hold_fraction: float = 0.0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  decay_norm_scales: bool = False  # frameworks differ; it matters where decay is strong
  clip_norm: float | None = 1.0
  embed_lr_multiplier: float = 1.0
  moments_dtype: str = "float32"

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise UserError(f"optimizer.schedule {self.schedule!r} is not one of {SCHEDULES}")
    if self.moments_dtype not in moments.DTYPES:
      raise UserError(
        f"optimizer.moments_dtype {self.moments_dtype!r} is not one of {moments.DTYPES}"
      )


def make_schedule(config: OptimConfig, num_train_steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the number of updates done.

  Raises:
    UserError: the warm-up is not shorter than the run.
  """
  peak, warmup = config.learning_rate, config.warmup_steps
  if warmup >= num_train_steps:
    raise UserError(
      f"optimizer.warmup_steps ({warmup}) must be below num_train_steps "
      f"({num_train_steps}): the learning rate would never reach its value"
    )
  rest = num_train_steps - warmup
  match config.schedule:
    case "constant":
      tail = optax.constant_schedule(peak)
    case "cosine":
      tail = optax.cosine_decay_schedule(peak, rest)
    case "linear":
      tail = optax.linear_schedule(peak, 0.0, rest)
    case "hold_linear":
      hold = max(int(config.hold_fraction * num_train_steps) - warmup, 0)
      tail = optax.linear_schedule(peak, 0.0, rest - hold, transition_begin=hold)
  # The first update already moves: its rate is peak / warmup, not zero.
  warm = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
  return optax.join_schedules([warm, tail], [warmup])


def make_optimizer(
  config: OptimConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Returns the update rule."""
  parts = []
  if config.clip_norm is not None:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  parts.append(
    moments.scale_by_adam(config.b1, config.b2, config.eps, config.moments_dtype)
  )
  mask = None if config.decay_norm_scales else _all_but_norm_scales
  parts.append(optax.add_decayed_weights(config.weight_decay, mask=mask))
  parts.append(optax.scale_by_learning_rate(schedule))
  if config.embed_lr_multiplier != 1.0:
    embed = optax.scale(config.embed_lr_multiplier)
    parts.append(optax.masked(embed, _is_embedding))
  return optax.chain(*parts)


def update(
  tx: optax.GradientTransformation,
  grads: Any,
  opt_state: Any,
  params: Any,
  step: jax.Array,
) -> tuple[Any, Any]:
  """Returns (parameters, optimizer state) after an update that is made in float32.

  Args:
    tx: the update rule.
    grads: float32.
    opt_state: of `tx`.
    params: float32, or bfloat16: those are rounded once, at random (`moments.py`).
    step: number of updates made so far.
  """
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
  updates, opt_state = tx.update(grads, opt_state, wide)
  wide = optax.apply_updates(wide, updates)
  return moments.rounded_like(wide, params, step), opt_state


def carried(opt_state: Any, before: Any) -> Any:
  """Returns `opt_state` with the moments of `before`, and the number of updates that
  they are averages of; the schedule's own count stays.
  """
  moments_before = [x for x in before if isinstance(x, optax.ScaleByAdamState)]
  assert len(moments_before) == 1, "every update rule here has Adam's moments once"
  return tuple(
    moments_before[0] if isinstance(part, optax.ScaleByAdamState) else part
    for part in opt_state
  )


def _all_but_norm_scales(params):
  return jax.tree.map_with_path(lambda path, _: path[-1].key != "scale", params)


def _is_embedding(params):
  return jax.tree.map_with_path(lambda path, _: path[-1].key == "embedding", params)
