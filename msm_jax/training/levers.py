"""What lowers the memory of a stage, told when there was not enough of it."""

import contextlib
from collections.abc import Iterator

from jax.sharding import Mesh

from msm_jax import faults, sharding
from msm_jax.errors import UserError
from msm_jax.models import attention, remat
from msm_jax.models.config import ModelConfig
from msm_jax.train import TrainConfig

_CHUNK_LEN = 256
_NEXT_REMAT = {"none": "dots", "dots": "full", "full": "offload"}
_REMAT_KEEPS = {
  "dots": "keeps products, then 'full' only the input of each block",
  "full": "keeps only the input of each block",
  "offload": "keeps the inputs of blocks in the host's memory",
}


@contextlib.contextmanager
def memory_explained(
  label: str, config: TrainConfig, cfg: ModelConfig, mesh: Mesh, num_runs: int = 1
) -> Iterator[None]:
  """Turns running out of memory within its block into a UserError that names levers."""
  try:
    yield
  except Exception as error:
    if not faults.is_out_of_memory(error):
      raise
    levers = "; ".join(memory_levers(config, cfg, mesh, num_runs))
    reason = " ".join(str(error).split())[:200]
    raise UserError(
      f"{label}: out of memory ({reason}). What helps, most useful first: {levers}"
    ) from error


def memory_levers(
  config: TrainConfig, cfg: ModelConfig, mesh: Mesh, num_runs: int = 1
) -> list[str]:
  """Returns the settings that would lower memory and are not in use yet."""
  levers, platform = [], mesh.devices.flat[0].platform
  if num_runs > 1:
    levers.append(
      f"config.run.population={-(-num_runs // 2)} ({num_runs} runs are one program now)"
    )
  shards = sharding.num_batch_shards(mesh)
  per_shard = config.batch_size // shards // config.num_microbatches
  if per_shard > 1:
    more = config.num_microbatches * min(
      n for n in range(2, per_shard + 1) if per_shard % n == 0
    )
    levers.append(f"num_microbatches={more} (now {config.num_microbatches})")
  more, said = remat.choose(_NEXT_REMAT.get(config.remat, config.remat), platform)
  if said is None and more != config.remat:
    levers.append(f"remat={more!r} ({_REMAT_KEEPS[more]}; now {config.remat!r})")
  if config.attention == "dense" and config.seq_len > attention.SHORT:
    levers.append("attention='auto' (now 'dense', which holds the whole square)")
  if config.loss_chunk_len is None and config.seq_len > _CHUNK_LEN:
    chunk_len = max(n for n in range(1, _CHUNK_LEN + 1) if config.seq_len % n == 0)
    levers.append(
      f"loss_chunk_len={chunk_len} (logits of {cfg.vocab_size} tokens for a part of a "
      "row at a time; now whole rows)"
    )
  if mesh.shape["data"] > 1:
    levers.append(
      f"config.mesh fsdp={mesh.shape['data'] * mesh.shape['fsdp']}, data=1 (parameters "
      "and optimizer divided over the devices)"
    )
  if cfg.dtype != "bfloat16":
    levers.append("config.model.dtype='bfloat16' (activations)")
  if config.optimizer.moments_dtype == "float32":
    levers.append(
      "optimizer.moments_dtype='float8' (2 instead of 8 bytes per trained parameter)"
    )
  levers.append("a shorter seq_len, or more devices")
  return levers
