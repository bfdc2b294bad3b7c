"""Eight runs as one program beside the same eight in turn.

    python benchmarks/population.py [--size=8] [--rounds=12] [--seq_len=256,1024,4096]

On an accelerator: adapters of rank 64 on a frozen bfloat16 base of the shapes of Llama
3.1 8B, a packed row of `seq_len` per update and run (batch 1). Stated limit: 3 times
the throughput of the runs in turn, at the first `seq_len`. The longer the rows, the
less there is to gain: a row of 4096 tokens keeps a large model's products busy by
itself, and nothing can be gained beyond one over the share of the peak that a run
reaches alone.

On a CPU: full training of the decoder of configs/cheese_tiny.py with one row of 64 per
update. A core is busy with one run, so `config.run.population` is 1 there by default
and the limit is 1; what helps, several updates per call, is measured beside it.

Every round is made by each side after the other, on the same rows. Two rounds come
first and do not count. Times are the medians of wall time, everything finished.
"""

import argparse
import pathlib
import statistics
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from msm_jax import optim, packing, sharding, start, train, train_state
from msm_jax.models import lora
from msm_jax.models.config import LoraConfig, ModelConfig

_WARM_UP = 2
_ADAM = optim.OptimConfig(learning_rate=1e-4, schedule="constant", warmup_steps=0)
_LARGE = ModelConfig(
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
  lora=LoraConfig(rank=64, alpha=128.0),
)
_TINY = ModelConfig(
  vocab_size=512,
  embed_dim=64,
  mlp_dim=160,
  num_layers=2,
  num_heads=2,
  num_kv_heads=2,
  head_dim=32,
  max_seq_len=128,
  tie_embeddings=True,
  activation="relu",
)


class Side:
  """`size` runs: one program of `together` runs, as often as it takes."""

  def __init__(self, cfg, config, mesh, params, frozen, *, size: int, together: int):
    self.mesh, self.frozen, self.together = mesh, frozen, together
    self.num_calls = size // together
    with jax.set_mesh(mesh):
      self.step = train.make_step(config, cfg, params, mesh, together)
      join = self.step.population.join
      self.states = [
        join(self.step.init(params) for _ in range(together))
        for _ in range(self.num_calls)
      ]

  def round(self, batches) -> float:
    """Makes a call for every run; returns the seconds that it took."""
    started = time.perf_counter()
    with jax.set_mesh(self.mesh):
      for call in range(self.num_calls):
        own = batches[call * self.together : (call + 1) * self.together]
        state, _ = self.step.update(self.states[call], self.frozen, own)
        self.states[call] = state
      jax.block_until_ready(self.states)
    return time.perf_counter() - started


def rows(config, mesh, vocab_size: int, num_steps: int, seed: int):
  """Returns the batch of a call: a document of random words per row."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, vocab_size, config.seq_len + 1).astype(np.int32)
  piece = packing.Piece(ids, np.ones(len(ids), np.float32))
  row = packing.make_row([piece], config.seq_len)
  shapes = train.abstract_batch(config, mesh, num_steps)
  return {
    name: jax.device_put(np.broadcast_to(row[name], shape.shape), shape.sharding)
    for name, shape in shapes.items()
  }


def measure(cfg, seq_len: int, args, params, frozen, num_steps: int = 1):
  """Returns seconds per update of all runs: (in turn, as one program)."""
  config = train.TrainConfig(
    num_train_steps=10**6,
    batch_size=1,
    seq_len=seq_len,
    optimizer=_ADAM,
    remat="none" if cfg is _TINY else "full",
    loss_chunk_len=None if cfg is _TINY else min(seq_len, 512),
  )
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  sides = [
    Side(cfg, config, mesh, params, frozen, size=args.size, together=together)
    for together in (1, args.size)
  ]
  seconds: list[list[float]] = [[], []]
  for number in range(_WARM_UP + args.rounds):
    batches = [
      rows(config, mesh, cfg.vocab_size, num_steps, args.size * number + run)
      for run in range(args.size)
    ]
    for side, found in zip(sides, seconds, strict=True):
      found.append(side.round(batches) / num_steps)
  return [statistics.median(found[_WARM_UP:]) for found in seconds]


def told(what: str, seconds: float, args, seq_len: int) -> None:
  tokens = args.size * seq_len / seconds
  print(f"  {what:34}{1e3 * seconds:10.1f} ms{tokens:12.0f} tokens/s")


def on_accelerator(args) -> float:
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  plain = ModelConfig(**{**vars(_LARGE), "lora": None})
  with jax.set_mesh(mesh):
    cast = jax.jit(
      lambda tree: jax.tree.map(lambda leaf: leaf.astype("bfloat16"), tree)
    )
    frozen = cast(start.fresh(plain, 0, mesh))
    params = start.fresh(_LARGE, 0, mesh, adapter_only=True)
    frozen = train_state.place(frozen, _LARGE, mesh)
  assert not lora.split(frozen)[0]
  found = []
  for seq_len in args.seq_len:
    turn, one = measure(_LARGE, seq_len, args, params, frozen)
    print(f"rows of {seq_len}: {turn / one:.2f} times the throughput")
    told(f"{args.size} runs in turn", turn, args, seq_len)
    told("as one program", one, args, seq_len)
    found.append(turn / one)
  return found[0] / 3.0


def on_cpu(args) -> float:
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  params, seq_len = start.fresh(_TINY, 0, mesh), 64
  turn, one = measure(_TINY, seq_len, args, params, {})
  turn_20, one_20 = measure(_TINY, seq_len, args, params, {}, num_steps=20)
  print(f"no accelerator here: a tiny decoder, {args.size} runs, a row of 64 each")
  told("in turn", turn, args, seq_len)
  told("as one program", one, args, seq_len)
  told("in turn, 20 updates per call", turn_20, args, seq_len)
  told("as one program, 20 per call", one_20, args, seq_len)
  print(
    f"as one program {turn / one:.2f}, 20 updates per call {turn / turn_20:.2f}, both "
    f"{turn / one_20:.2f} times the throughput"
  )
  return turn_20 / one_20


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--size", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=12)
  parser.add_argument("--seq_len", default="256,1024,4096")
  args = parser.parse_args()
  args.seq_len = [int(seq_len) for seq_len in args.seq_len.split(",")]
  device = jax.devices()[0]
  print(f"device: {device.device_kind}, {args.rounds} rounds")
  ratio = on_cpu(args) if device.platform == "cpu" else on_accelerator(args)
  print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
  main()
