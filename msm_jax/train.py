"""One stage of training: the update and the loop.

The loop knows nothing of specs or arms. It takes parameters and rows and gives
parameters back; what is trained (adapters or everything), on what and from where is
its caller's business (`study.py`).

k steps per call, M microbatches, B batch, T query.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from msm_jax import input_pipeline, losses, optim, progress, sharding, train_state
from msm_jax import metrics as metrics_lib
from msm_jax.checkpoint import Checkpointer
from msm_jax.errors import Stopped, UserError
from msm_jax.interrupt import StopRequest
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.optim import OptimConfig
from msm_jax.train_state import TrainState

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
  remat: bool = False
  loss_chunk_len: int | None = None
  checkpoint_every_s: float | None = 180.0
  checkpoint_every_steps: int | None = None
  log_every_steps: int = 10


def check(config: TrainConfig, mesh: Mesh) -> None:
  """Raises a UserError for sizes that do not divide, before anything is built."""
  shards = config.num_microbatches * sharding.num_batch_shards(mesh)
  if config.batch_size % shards:
    raise UserError(
      f"batch_size ({config.batch_size}) must be a multiple of num_microbatches "
      f"({config.num_microbatches}) x the mesh's data x fsdp "
      f"({sharding.num_batch_shards(mesh)}); use "
      f"{-(-config.batch_size // shards) * shards}"
    )
  if config.loss_chunk_len and config.seq_len % config.loss_chunk_len:
    raise UserError(
      f"loss_chunk_len ({config.loss_chunk_len}) must divide seq_len ({config.seq_len})"
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

  zeros = jax.tree.map(jnp.zeros_like, (state.params, 0.0, 0.0))
  (grads, nll_sum, weight_sum), _ = jax.lax.scan(accumulate, zeros, batch_MBT)
  grads = jax.tree.map(lambda grad: grad / weight_sum, grads)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = {
    "loss": nll_sum / weight_sum,
    "grad_norm": optax.tree.norm(grads),
    "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    "num_targets": weight_sum,
  }
  return TrainState(state.step + 1, params, opt_state), metrics


def train_steps(state, frozen, batch_kMBT, **static):
  """Makes k updates in one call; metrics come stacked [k]."""

  def one(state, batch_MBT):
    return train_step(state, frozen, batch_MBT, **static)

  return jax.lax.scan(one, state, batch_kMBT)


def train(
  config: TrainConfig,
  cfg: ModelConfig,
  *,
  params: Params,
  frozen: Params,
  source: input_pipeline.RowSource,
  mesh: Mesh,
  run_dir: pathlib.Path,
  meta: dict[str, Any],
  label: str,
) -> Params:
  """Trains to the end of the stage and returns the trained leaves.

  Goes on from the newest checkpoint in `run_dir` if there is one.

  Args:
    config: sizes and schedule.
    cfg: the model, adapters included.
    params: trainable leaves to start from; not changed.
    frozen: all other leaves.
    source: exactly `num_train_steps * batch_size` rows, in order.
    mesh: where to train.
    run_dir: for checkpoints and metrics.
    meta: what makes this run this run; a checkpoint that says otherwise is refused.
    label: for the progress line.

  Raises:
    Stopped: on Ctrl-C or SIGTERM, after the state was saved.
  """
  check(config, mesh)
  expected_rows = config.num_train_steps * config.batch_size
  assert len(source) == expected_rows, (len(source), expected_rows)
  schedule = optim.make_schedule(config.optimizer, config.num_train_steps)
  tx = optim.make_optimizer(config.optimizer, schedule)
  loss_fn = functools.partial(
    losses.next_token_nll,
    cfg=cfg,
    remat=config.remat,
    chunk_len=config.loss_chunk_len,
  )
  num_trainable = sum(leaf.size for leaf in jax.tree.leaves(params))
  with jax.set_mesh(mesh), Checkpointer(run_dir) as checkpointer:
    frozen = train_state.place(frozen, cfg, mesh)
    state = train_state.create(params, tx, cfg, mesh)
    state = checkpointer.restore(state, meta) or state
    step = int(state.step)
    step_fn = jax.jit(
      functools.partial(train_steps, loss_fn=loss_fn, tx=tx, schedule=schedule),
      donate_argnums=0,
      out_shardings=(
        jax.tree.map(lambda leaf: leaf.sharding, state),
        sharding.replicated(mesh),
      ),
    )
    writer = metrics_lib.Writer(
      run_dir,
      first_step=step,
      log_every_steps=config.log_every_steps,
      tokens_per_step=config.batch_size * config.seq_len,
      flops_per_step=config.batch_size
      * config.seq_len
      * cfg.flops_per_token(
        config.seq_len, train_base=num_trainable >= cfg.num_params()
      ),
    )
    bar = progress.Progress(label, config.num_train_steps, "step", done=step)
    batches = input_pipeline.batches(
      source,
      batch_size=config.batch_size,
      first_step=step,
      steps_per_call=config.steps_per_call,
      num_microbatches=config.num_microbatches,
      mesh=mesh,
    )
    saved_at = time.monotonic()
    with writer, bar, StopRequest() as stop:
      for batch in batches:
        num_steps = batch["inputs"].shape[0]
        state, metrics = step_fn(state, frozen, batch)
        writer.write(step + num_steps, metrics)
        loss = writer.last_loss
        bar.advance(num_steps, loss="-" if loss is None else f"{loss:.4f}")
        # The save comes after the update and before the next batch is asked for: state
        # and loader describe the same moment.
        previous, step = step, step + num_steps
        if stop.requested and step < config.num_train_steps:
          writer.flush()  # a state that is not finite must not replace a good one
          checkpointer.save(step, state, meta, wait=True)
          raise Stopped(f"{label}: stopped at step {step}; run again to go on")
        if _is_due(config, previous, step, time.monotonic() - saved_at):
          writer.flush()
          checkpointer.save(step, state, meta)
          saved_at = time.monotonic()
    assert step == config.num_train_steps == int(state.step), (step, int(state.step))
    checkpointer.save(step, state, meta, wait=True)
    return state.params


def _is_due(config: TrainConfig, previous: int, step: int, seconds: float) -> bool:
  if step == config.num_train_steps:
    return False
  every = config.checkpoint_every_steps
  if every is not None and step // every > previous // every:
    return True
  if config.checkpoint_every_s is None:
    return False
  if jax.process_count() > 1:  # the clock of process 0 decides for all
    from jax.experimental import multihost_utils

    seconds = float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))
  return seconds >= config.checkpoint_every_s
