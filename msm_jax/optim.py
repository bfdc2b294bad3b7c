"""Config to optax: schedule, AdamW, clipping, weight decay, learning-rate
multipliers.
"""

import dataclasses

import jax
import optax

from msm_jax.errors import UserError

SCHEDULES = ("constant", "cosine", "linear", "hold_linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
  """AdamW with decoupled weight decay (Loshchilov and Hutter 2019).

  The learning rate rises linearly over `warmup_steps`, then follows `schedule` down to
  zero: `hold_linear` stays at the top until `hold_fraction` of the run.
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

  def __post_init__(self):
    if self.schedule not in SCHEDULES:
      raise UserError(f"optimizer.schedule {self.schedule!r} is not one of {SCHEDULES}")


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
  parts.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
  mask = None if config.decay_norm_scales else _all_but_norm_scales
  parts.append(optax.add_decayed_weights(config.weight_decay, mask=mask))
  parts.append(optax.scale_by_learning_rate(schedule))
  if config.embed_lr_multiplier != 1.0:
    embed = optax.scale(config.embed_lr_multiplier)
    parts.append(optax.masked(embed, _is_embedding))
  return optax.chain(*parts)


def _all_but_norm_scales(params):
  return jax.tree.map_with_path(lambda path, _: path[-1].key != "scale", params)


def _is_embedding(params):
  return jax.tree.map_with_path(lambda path, _: path[-1].key == "embedding", params)
