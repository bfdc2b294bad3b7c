"""What a step costs on a slice, as a model: time by rooflines, memory from below.

It orders what a search tries and says which tries are vain. Nothing in it is a
measurement, and no figure of memory that is reported comes from it.

Time of a microbatch is the longest of

  products       FLOPs of the model, and of what `remat` computes again, at peak rate
  interconnect   weights gathered over `fsdp` for the forward and the backward pass in
                 the dtype of the computation, float32 gradients scattered once;
                 activations summed over `tensor` four times a layer
  memory         weights read by each product, kept activations written and read
  host           what `remat='offload'` sends there and back

and a step is that times the microbatches, plus reading and writing the optimizer's
state. Overlap is perfect, the network between slices free: real steps are slower.
"""

import dataclasses
import math
from collections.abc import Mapping

from msm_jax.fit import step
from msm_jax.fit.case import Case
from msm_jax.models.config import ModelConfig
from msm_jax.topology import Topology

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds of a step, bytes per device that it cannot do without."""

  seconds: float
  at_least: int
  kept: int  # of activations, among them


def estimate(case: Case, topology: Topology, mesh: Mapping[str, int]) -> Estimate:
  """Returns the estimate for a case on a slice."""
  sizes = _Sizes(case, mesh)
  kept = sizes.kept_activations()
  # Of layers compiled one by one, gradients may take the place of what was kept.
  together = sizes.gradients + kept
  if not case.config.scan_layers:
    together = max(sizes.gradients, kept)
  return Estimate(
    seconds=_seconds(sizes, topology, kept),
    at_least=sizes.held - sizes.gradients + together,
    kept=kept,
  )


class _Sizes:
  """Bytes and FLOPs of a device."""

  def __init__(self, case: Case, mesh: Mapping[str, int]):
    cfg, config = case.cfg, case.config
    self.case, self.cfg, self.mesh = case, cfg, mesh
    self.num_devices = math.prod(mesh.values())
    self.width = 2 if cfg.dtype == "bfloat16" else 4
    self.num_microbatches = config.num_microbatches
    rows = config.batch_size // config.num_microbatches
    self.tokens = case.num_runs * (
      rows * config.seq_len // (mesh["data"] * mesh["fsdp"])
    )
    # Once gathered.
    base, adapters = cfg.num_params(), case.num_runs * cfg.num_adapter_params()
    if case.trains_all:  # else the base is shared
      base *= case.num_runs
    self.weights = (base + adapters) / mesh["tensor"]
    classes = step.held(case, mesh)
    self.updated = classes["parameters"] + classes["optimizer"]
    self.gradients = classes["gradients"]
    self.held = sum(classes.values())

  def kept_activations(self) -> int:
    """Returns what the backward pass is sure to find: products and inputs of blocks."""
    cfg, tensor = self.cfg, self.mesh["tensor"]
    remat = self.case.config.remat
    block_input = 0 if remat == "offload" else cfg.embed_dim
    if remat in ("full", "offload"):
      per_layer = block_input
    else:
      heads = (2 * cfg.num_heads + 2 * cfg.num_kv_heads) * cfg.head_dim
      per_layer = block_input + cfg.embed_dim + (heads + 2 * cfg.mlp_dim) / tensor
    return int(self.width * self.tokens * cfg.num_layers * per_layer)


def _seconds(sizes: _Sizes, topology: Topology, kept: int) -> float:
  case, cfg, mesh, chip = sizes.case, sizes.cfg, sizes.mesh, topology.chip
  remat, tokens, width = case.config.remat, sizes.tokens, sizes.width
  per_chip = chip.devices_per_chip
  again = remat in ("full", "offload")
  products = (
    tokens * flops_per_token(case) / mesh["tensor"] / (chip.peak_flops / per_chip)
  )

  gathered = sizes.weights * (1 - 1 / mesh["fsdp"])
  moved = 2 * width * gathered + (4 * gathered if case.trains_all else 0)
  summed = 2 * (1 - 1 / mesh["tensor"]) * width * tokens * cfg.embed_dim
  moved += (6 if again else 4) * cfg.num_layers * summed
  interconnect = moved / (chip.ici_bytes_per_s / per_chip)

  passes = (3 if case.trains_all else 2) + again
  memory = (passes * width * sizes.weights + 2 * kept) / (
    chip.hbm_bytes_per_s / per_chip
  )
  host = 0.0
  if remat == "offload":
    sent = 2 * width * tokens * cfg.num_layers * cfg.embed_dim
    host = sent / (chip.host_bytes_per_s / per_chip)
  optimizer = 2 * sizes.updated / (chip.hbm_bytes_per_s / per_chip)
  return sizes.num_microbatches * max(products, interconnect, memory, host) + optimizer


def num_held(case: Case, mesh: Mapping[str, int]) -> int:
  """Returns bytes per device of weights, optimizer and the sums of gradients."""
  return sum(step.held(case, mesh).values())


def flops_per_token(case: Case) -> float:
  """Returns FLOPs per token of a step, with what `remat` computes again."""
  cfg, seq_len = case.cfg, case.config.seq_len
  found = cfg.flops_per_token(seq_len, train_base=case.trains_all, freeze=case.freeze)
  if case.config.remat in ("full", "offload"):
    found += _forward_flops_of_blocks(cfg, seq_len)
  return found


def _forward_flops_of_blocks(cfg: ModelConfig, seq_len: int) -> float:
  """Returns FLOPs per token of the forward pass without the output layer."""
  without_head = dataclasses.replace(cfg, vocab_size=0)
  # Of 6 per weight and 12 per key, the forward pass has a third.
  return without_head.flops_per_token(seq_len) / 3
