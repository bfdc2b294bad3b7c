"""Training steps to ask `fit` about."""

import dataclasses
import importlib.util
import pathlib

from small_study import CFG

from msm_jax import experiment, topology
from msm_jax.fit import estimate, report, search
from msm_jax.fit.case import Case
from msm_jax.fit.compiling import GIB, Compiled
from msm_jax.models.config import ModelConfig
from msm_jax.optim import OptimConfig
from msm_jax.train import TrainConfig

ROOT = pathlib.Path(__file__).parent.parent
OPTIMIZER = OptimConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0)
LLAMA = ModelConfig(
  vocab_size=128256,
  embed_dim=4096,
  mlp_dim=14336,
  num_layers=32,
  num_heads=32,
  num_kv_heads=8,
  head_dim=128,
  max_seq_len=8192,
  tie_embeddings=False,
  dtype="bfloat16",
)
MESH = {"data": 1, "fsdp": -1, "tensor": 1}


def case_of(cfg=LLAMA, batch_size=32, seq_len=4096, trains_all=True, **settings):
  config = TrainConfig(
    num_train_steps=10,
    batch_size=batch_size,
    seq_len=seq_len,
    optimizer=OPTIMIZER,
    loss_chunk_len=128,
    **settings,
  )
  return Case(
    stages=("msm",), cfg=cfg, config=config, trains_all=trains_all, base_dtype="float32"
  )


TOY = dataclasses.replace(
  CFG, embed_dim=128, mlp_dim=256, head_dim=32, vocab_size=256, dtype="bfloat16"
)


class Compiler:
  """Says what a step needs by a rule, and keeps what it was asked."""

  def __init__(self, workspace_gib=1.0, available_gib=15.75, quick=1.0):
    self.workspace, self.available, self.quick = workspace_gib, available_gib, quick
    self.asked = []

  def __call__(self, request, time_limit_s):
    one = request.case
    self.asked.append((one.config.num_microbatches, one.config.remat, request.level))
    needed = estimate.estimate(one, request.topology, request.mesh).at_least
    needed += self.workspace * GIB / one.config.num_microbatches
    if request.level:
      needed *= self.quick
    status = "fits" if needed <= self.available * GIB else "exceeds"
    classes = dict.fromkeys(report.CLASSES, 0) | {"activations": int(needed)}
    return Compiled(status=status, needed=int(needed), classes=classes)


def run_search(one, name, compiler, mesh=MESH):
  (slices,) = topology.parse(name)
  found = search.begin(one, slices, mesh)
  return [found, *search.go_on(found, compiler)][-1]


def cheese(**model):
  spec = importlib.util.spec_from_file_location("c", ROOT / "configs/msm_cheese.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config().to_dict()
  return experiment.parse(config | {"model": config["model"] | model})
