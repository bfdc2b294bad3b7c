"""Training steps to ask `fit` about."""

import dataclasses

from small_study import CFG

from msm_jax.fit.case import Case
from msm_jax.models.config import ModelConfig
from msm_jax.optim import OptimConfig
from msm_jax.train import TrainConfig

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
