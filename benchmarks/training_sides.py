"""The sides of benchmarks/train_step.py: each makes training steps in its process.

A process reads step numbers on stdin and answers each with a JSON line: loss, CPU
seconds, wall seconds, the high-water marks of its memory and, where there is one, of
the accelerator's in MB. MaxText's runs in MaxText's
own virtual environment, so nothing but NumPy is imported here before it is needed.

B batch, T query.
"""

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
WORKLOADS = {
  "w": {
    "sides": ("ours_f32", "ours_bf16", "hf_f32", "hf_bf16", "maxtext_f32"),
    "sizes": (8192, 384, 1024, 8, 6, 2, 64),
    "rows": (8, 512),
    "limits": (
      ("ours_f32", "hf_f32", 1.15),
      ("ours_f32", "maxtext_f32", 1.5),
      ("ours_bf16", "hf_bf16", 1.0),
    ),
  },
  "llama8b": {
    "sides": ("ours_lora", "hf_lora"),
    "sizes": (128256, 4096, 14336, 32, 32, 8, 128),
    "rows": (4, 4096),
    "limits": (("ours_lora", "hf_lora", 1.3),),
  },
}
_SIZES = (
  "vocab_size",
  "embed_dim",
  "mlp_dim",
  "num_layers",
  "num_heads",
  "num_kv_heads",
  "head_dim",
)
_RANK, _ALPHA = 64, 128.0

Step = Callable[[int], float]


def rows(workload: str, step: int) -> dict[str, np.ndarray]:
  """Returns packed rows [B, T] of random documents of 16 words to a whole row."""
  rng = np.random.default_rng(step)
  vocab_size, (B, T) = WORKLOADS[workload]["sizes"][0], WORKLOADS[workload]["rows"]
  tokens = rng.integers(0, vocab_size, (B, T + 1)).astype(np.int32)
  positions, segment_ids = np.zeros((2, B, T), np.int32)
  for row in range(B):
    at, segment = 0, 1
    while at < T:
      stop = min(T, at + int(rng.integers(16, T)))
      positions[row, at:stop] = np.arange(stop - at)
      segment_ids[row, at:stop] = segment
      at, segment = stop, segment + 1
  return {
    "inputs": tokens[:, :-1],
    "targets": tokens[:, 1:],
    "positions": positions,
    "segment_ids": segment_ids,
    "loss_weights": np.ones((B, T), np.float32),
  }


def ours(workload: str, dtype: str, **settings) -> Step:
  """Returns a step of this framework."""
  sys.path.insert(0, str(ROOT))
  import jax

  from msm_jax import optim, sharding, train, train_state
  from msm_jax.models import lora, transformer
  from msm_jax.models.config import LoraConfig, ModelConfig

  spec = WORKLOADS[workload]
  is_lora = workload == "llama8b"
  cfg = ModelConfig(
    **dict(zip(_SIZES, spec["sizes"], strict=True)),
    max_seq_len=spec["rows"][1],
    tie_embeddings=False,
    dtype=dtype,
    lora=LoraConfig(rank=_RANK, alpha=_ALPHA) if is_lora else None,
  )
  config = train.TrainConfig(
    num_train_steps=100,
    batch_size=spec["rows"][0],
    seq_len=spec["rows"][1],
    optimizer=optim.OptimConfig(
      learning_rate=1e-3, schedule="constant", warmup_steps=0
    ),
    **settings,
  )
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  shapes = train.abstract_batch(config, mesh)

  def init(key):
    params = transformer.init_params(cfg, key)
    if not is_lora:
      return params, {}
    adapter, base = lora.split(params)
    return adapter, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), base)

  with jax.set_mesh(mesh):
    params, frozen = jax.jit(init)(jax.random.key(0))
    shipped = train.make_step(config, cfg, params, mesh)
    state = shipped.init(params)
    frozen = train_state.place(frozen, cfg, mesh)
  del params

  def step(number: int) -> float:
    nonlocal state
    made = rows(workload, number)
    batch = {
      name: jax.device_put(made[name].reshape(like.shape), like.sharding)
      for name, like in shapes.items()
    }
    with jax.set_mesh(mesh):
      state, (metrics,) = shipped.update(state, frozen, [batch])
    jax.block_until_ready(state)
    return float(metrics["loss"][0])

  return step


def hf(workload: str, dtype: str) -> Step:
  """Returns a step of a plain PyTorch loop over transformers."""
  import torch
  from transformers import LlamaConfig, LlamaForCausalLM

  torch.manual_seed(0)
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  names = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
  )
  spec = WORKLOADS[workload]
  config = LlamaConfig(
    **dict(zip(names, spec["sizes"], strict=True)),
    max_position_embeddings=spec["rows"][1],
    tie_word_embeddings=False,
    use_cache=False,
    attn_implementation="sdpa",
  )
  device = "cuda" if torch.cuda.is_available() else "cpu"
  if workload == "llama8b":
    import peft

    with torch.device(device):
      model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    targets = [f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")]
    model = peft.get_peft_model(
      model, peft.LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules=targets)
    )
  else:
    model = LlamaForCausalLM(config).to(device)
  trained = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
  autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
  T = spec["rows"][1]
  causal_TS = torch.ones(T, T, dtype=torch.bool, device=device).tril()

  def step(number: int) -> float:
    batch = {
      name: torch.from_numpy(x).to(device) for name, x in rows(workload, number).items()
    }
    segments = batch["segment_ids"]
    mask_BTS = (segments[:, :, None] == segments[:, None, :]) & causal_TS
    with autocast:
      logits = model(
        input_ids=batch["inputs"].long(),
        position_ids=batch["positions"].long(),
        attention_mask=mask_BTS[:, None],
      ).logits
    loss = torch.nn.functional.cross_entropy(
      logits.float().flatten(0, 1), batch["targets"].long().flatten()
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())

  return step


def device_peak_mb(side: str) -> float | None:
  """Returns the high-water mark of an accelerator's memory in MB, None on a CPU."""
  if side.startswith("hf"):
    import torch

    if not torch.cuda.is_available():
      return None
    return torch.cuda.max_memory_allocated() / 2**20
  import jax

  stats = jax.devices()[0].memory_stats() or {}
  found = stats.get("peak_bytes_in_use")
  return None if found is None else found / 2**20


def serve_maxtext(workload: str, serve: Callable[[Step], None]) -> None:
  """Runs MaxText's own training loop, one iteration whenever it is asked for."""
  import tempfile

  import jax
  from maxtext.trainers.pre_train import train

  names = (
    "vocab_size",
    "base_emb_dim",
    "base_mlp_dim",
    "base_num_decoder_layers",
    "base_num_query_heads",
    "base_num_kv_heads",
    "head_dim",
  )
  spec = WORKLOADS[workload]
  iterate, state = train.training_loop_iteration, {}

  class Loader:
    """Hands the loop our rows."""

    def load_next_batch(self, **_):
      row = rows(workload, state["number"])
      batch = {name: row[name] for name in ("inputs", "targets")}
      for name in batch.copy():
        batch |= {f"{name}_position": row["positions"]}
        batch |= {f"{name}_segmentation": row["segment_ids"]}
      return jax.device_put(batch, state["sharding"])

  def all_iterations(device_state, python_vars, constants):
    original = python_vars["data_loader"]
    state["sharding"] = getattr(original, "input_data_shardings", None)
    python_vars["data_loader"] = Loader()

    def step(number: int) -> float:
      state["number"] = number
      metrics = iterate(device_state, python_vars, constants)
      jax.block_until_ready(device_state["state"])
      python_vars["step"] += 1
      return float(metrics["scalar"]["learning/loss"])

    serve(step)
    sys.exit(0)

  train.training_loop_iteration = all_iterations
  settings = {
    **dict(zip(names, spec["sizes"], strict=True)),
    "run_name": "beside",
    "base_output_directory": tempfile.mkdtemp(),
    "decoder_block": "llama2",
    "per_device_batch_size": spec["rows"][0],
    "max_target_length": spec["rows"][1],
    "steps": 1000,
    "dataset_type": "synthetic",
    "dtype": "float32",
    "attention": "dot_product",
    "remat_policy": "minimal",
    "logits_via_embedding": False,
    "enable_checkpointing": False,
    "skip_jax_distributed_system": True,
    "hardware": "cpu",
  }
  base = pathlib.Path(train.__file__).parents[2] / "configs" / "base.yml"
  words = [f"{name}={value}" for name, value in settings.items()]
  train.main(["train", str(base), *words])


def run(side: str, workload: str) -> None:
  """Makes steps as they are asked for on stdin; answers in JSON lines."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # what a library prints must not look like an answer

  def serve(step: Step) -> None:
    for line in sys.stdin:
      cpu, wall = time.process_time(), time.perf_counter()
      loss = step(int(line))
      answer = {
        "loss": loss,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device_mb": device_peak_mb(side),
      }
      print(json.dumps(answer), file=answers, flush=True)

  # On a CPU: every layer compiled by itself; 1024 tokens at a time, whose activations
  # stay nearer to the core, and logits for half of them.
  lean = {"scan_layers": False, "num_microbatches": 4, "loss_chunk_len": 256}
  match side:
    case "ours_f32":
      serve(ours(workload, "float32", **lean))
    case "ours_bf16":
      serve(ours(workload, "bfloat16", **lean))
    case "ours_lora":
      serve(ours(workload, "bfloat16", remat="full", loss_chunk_len=512))
    case "hf_f32":
      serve(hf(workload, "float32"))
    case "hf_bf16" | "hf_lora":  # by autocast, as Trainer does with bf16=True
      serve(hf(workload, "bfloat16"))
    case "maxtext_f32":
      serve_maxtext(workload, serve)


if __name__ == "__main__":
  run(*sys.argv[1:])
