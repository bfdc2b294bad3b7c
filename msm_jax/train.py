"""One update of a stage as a function, compiled once; `training/loop.py` calls it.

What is trained (adapters or everything), on what and from where is the caller's
business.

k steps per call, M microbatches, B batch, T query.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from msm_jax import (
  losses,
  optim,
  packing,
  progress,
  sharding,
  train_state,
  xla_flags,
)
from msm_jax.errors import UserError
from msm_jax.models import attention, lora, remat
from msm_jax.models.config import Compute, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.optim import OptimConfig
from msm_jax.train_state import TrainState
from msm_jax.training.population import Population, most_together

LossFn = Callable[[Params, losses.Batch], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """How a stage is trained. `batch_size` is rows per update over all devices."""

  num_train_steps: int
  batch_size: int
  seq_len: int
  optimizer: OptimConfig
  num_microbatches: int = 1
  steps_per_call: int = 1  # updates per compiled call; raises speed for tiny models
  attention: str = "auto"
  remat: str = "none"
  scan_layers: bool = True
  loss_chunk_len: int | None = None
  checkpoint_every_s: float | None = 180.0
  checkpoint_every_steps: int | None = None
  checkpoint_at: tuple[int, ...] = ()  # saved exactly there, and kept
  log_every_steps: int = 10

  def compute(self, cfg: ModelConfig, mesh: Mesh) -> Compute:
    """Returns how the model is computed on this mesh; says what was not possible.

    Raises:
      UserError: an attention backend was asked for that cannot compute it there.
    """
    platform = mesh.devices.flat[0].platform
    backend, said = attention.choose(self.attention, cfg, self.seq_len, platform)
    policy, also_said = remat.choose(self.remat, platform)
    for note in filter(None, (said, also_said)):
      progress.say(note)
    return Compute(
      attention=backend,
      remat=policy,
      scan_layers=self.scan_layers,
      loss_chunk_len=self.loss_chunk_len,
    )

  def most_together(self, mesh: Mesh) -> int:
    """Returns how many runs of this stage one program gains from on this mesh."""
    num_tokens = self.batch_size * self.seq_len // self.num_microbatches
    platform = mesh.devices.flat[0].platform
    return most_together(num_tokens, sharding.num_batch_shards(mesh), platform)


def check(config: TrainConfig, mesh: Mesh, where: str = "the stage") -> None:
  """Raises a UserError for sizes that do not divide, before anything is built.

  `where` names the stage in messages.
  """
  shards = config.num_microbatches * sharding.num_batch_shards(mesh)
  if config.batch_size % shards:
    raise UserError(
      f"{where}: batch_size ({config.batch_size}) must be a multiple of "
      f"num_microbatches ({config.num_microbatches}) x the mesh's data x fsdp "
      f"({sharding.num_batch_shards(mesh)}); use "
      f"{-(-config.batch_size // shards) * shards}"
    )
  chunk_len = config.loss_chunk_len or config.seq_len
  if chunk_len < config.seq_len and config.seq_len % chunk_len:
    raise UserError(
      f"{where}: loss_chunk_len ({config.loss_chunk_len}) must divide seq_len "
      f"({config.seq_len})"
    )


def train_step(
  state: TrainState,
  frozen: Params,
  batch_MBT: losses.Batch,
  *,
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Makes one update from M microbatches; every target token weighs the same."""

  def loss_of(params, batch):
    return loss_fn(lora.join(params, frozen), batch)

  def accumulate(sums, batch):
    (nll_sum, weight_sum), grads = jax.value_and_grad(loss_of, has_aux=True)(
      state.params, batch
    )
    return jax.tree.map(jnp.add, sums, (grads, nll_sum, weight_sum)), None

  # Gradients of bfloat16 parameters come in bfloat16; their sum is float32.
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros_like(leaf, jnp.float32), (state.params, 0.0, 0.0)
  )
  (grads, nll_sum, weight_sum), _ = jax.lax.scan(accumulate, zeros, batch_MBT)
  # Rows without a target are refused where they are made and reported by the loop; here
  # they must not turn the parameters into NaN.
  divisor = jnp.where(weight_sum > 0, weight_sum, 1.0)
  grads = jax.tree.map(lambda grad: grad / divisor, grads)
  params, opt_state = optim.update(tx, grads, state.opt_state, state.params, state.step)
  metrics = {
    "loss": nll_sum / divisor,
    "grad_norm": optax.tree.norm(grads),
    "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    "num_targets": weight_sum,
  }
  return TrainState(state.step + 1, params, opt_state), metrics


def train_steps(state, frozen, batch_kMBT, **static):
  """Makes k updates in one call; metrics come stacked [k]."""

  def one(state, batch_MBT):
    state, metrics = train_step(state, frozen, batch_MBT, **static)
    num_tokens = jnp.sum(batch_MBT["segment_ids"] > 0, dtype=jnp.int32)
    return state, metrics | {"num_tokens": num_tokens}

  return jax.lax.scan(one, state, batch_kMBT)


@dataclasses.dataclass(frozen=True)
class Step:
  """The update of a stage on a mesh, ready to be compiled.

  `fn(state, frozen, batch) -> (state, metrics [k])` is jitted and donates the state;
  `init(params)` makes the first state of a run; `state` says what it looks like
  (shapes, dtypes, shardings). Nothing here holds memory on a device, so that a step can
  be compiled for devices that are not there. With several runs in `population`, `fn`
  takes the state of all, and a tuple of batches.
  """

  fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  init: Callable[[Params], TrainState]
  state: TrainState
  population: Population

  def update(
    self,
    state: TrainState,
    frozen: Params,
    batches: Sequence[losses.Batch],
  ) -> tuple[TrainState, list[dict[str, jax.Array]]]:
    """Makes the updates of a call; batches and metrics are one per run."""
    if self.population.size > 1:
      return self.fn(state, frozen, tuple(batches))
    state, metrics = self.fn(state, frozen, batches[0])
    return state, [metrics]


def make_step(
  config: TrainConfig,
  cfg: ModelConfig,
  params: Params,
  mesh: Mesh,
  num_runs: int = 1,
) -> Step:
  """Returns the update of a stage that trains `params`.

  Runs of the same sizes and settings (seeds, siblings) share it, so that a process
  traces and compiles it once.

  Args:
    config: sizes and schedule.
    cfg: the model, adapters included.
    params: the trainable leaves of one run, or their shapes and dtypes.
    mesh: where to train.
    num_runs: how many are trained by it together.
  """
  compute = config.compute(cfg, mesh)
  if num_runs > 1:
    backend = attention.for_population(compute.attention)
    compute = dataclasses.replace(compute, attention=backend)
  leaves, tree = jax.tree.flatten(params)
  shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
  options = tuple(sorted(xla_flags.options(mesh).items()))
  return _shared_step(config, cfg, compute, tree, shapes, mesh, num_runs, options)


# Few, since a compiled program holds memory of the device; an arm has no more stages.
@functools.lru_cache(maxsize=4)
def _shared_step(
  config: TrainConfig,
  cfg: ModelConfig,
  compute: Compute,
  tree: Any,
  shapes: tuple[jax.ShapeDtypeStruct, ...],
  mesh: Mesh,
  num_runs: int,
  options: tuple[tuple[str, str], ...],
) -> Step:
  schedule = optim.make_schedule(config.optimizer, config.num_train_steps)
  tx = optim.make_optimizer(config.optimizer, schedule)
  loss_fn = functools.partial(losses.next_token_nll, cfg=cfg, compute=compute)
  params = jax.tree.unflatten(tree, shapes)
  state = train_state.abstract_state(params, tx, cfg, mesh)
  population = Population(state, num_runs)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, population.state)
  steps = functools.partial(train_steps, loss_fn=loss_fn, tx=tx, schedule=schedule)
  fn = jax.jit(
    population.over(steps),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
    compiler_options=dict(options) or None,
  )
  return Step(fn, train_state.initializer(tx, state), state, population)


def abstract_batch(
  config: TrainConfig, mesh: Mesh, num_steps: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns what a call of `num_steps` updates is fed: fields [k, M, B / M, T]."""
  M = config.num_microbatches
  shape = (num_steps, M, config.batch_size // M, config.seq_len)
  layout = sharding.batch_sharding(mesh, len(shape), 2)
  return {
    name: jax.ShapeDtypeStruct(shape, value.dtype, sharding=layout)
    for name, value in packing.make_row([], 1).items()
  }


def call_ends(config: TrainConfig, first_step: int) -> list[int]:
  """Returns the step that each call ends with, from `first_step` on.

  Calls end at multiples of `steps_per_call`, at the steps of `checkpoint_at` and at the
  end of the run, so that a resumed run makes the same calls as an uninterrupted one.
  """
  last, every = config.num_train_steps, config.steps_per_call
  ends = {*range(every, last, every), *config.checkpoint_at, last}
  return sorted(end for end in ends if first_step < end <= last)
