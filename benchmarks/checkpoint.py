"""Checkpoints: how long training pauses for one, and restoring beside a raw read.

    python benchmarks/checkpoint.py --dir=DIR [--gb=1.0] [--rounds=3] [--keep_cache]

Trains a random model whose state (parameters and two moments, float32) has about --gb
gigabytes in a new directory under DIR, which is removed at the end, and measures

  pause    what a save costs training: the time until it returns, and what the updates
           that run while it is written are slower than before (files and updates share
           the cores of a CPU), over one save every 180 seconds
  restore  the newest state from its files onto the devices, each leaf checked against
           its digest, over reading the same files into memory (numpy.fromfile);
           alternating, each time with the files dropped from the page cache
           (--keep_cache: not)

The stated limits are 5 % and 1.2; the last line is the smaller ratio of a limit to what
was measured (medians over rounds), so that above 1 is within both.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

os.environ["MSM_JAX_QUIET"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import numpy as np

from msm_jax import checkpoint, optim, packing, sharding, start, train
from msm_jax.models.config import ModelConfig

_EVERY_S, _MAX_PAUSE, _MAX_TIMES_READ = 180.0, 0.05, 1.2
_META = {"of": "benchmarks/checkpoint.py"}
_ADAM = optim.OptimConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0)


def main() -> None:
  """Prints both figures and the ratio."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--dir", required=True, type=pathlib.Path)
  parser.add_argument("--gb", type=float, default=1.0)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--keep_cache", action="store_true")
  options = parser.parse_args()
  options.dir.mkdir(parents=True, exist_ok=True)
  directory = pathlib.Path(tempfile.mkdtemp(prefix="checkpoint-", dir=options.dir))
  try:
    _measure(directory, options)
  finally:
    shutil.rmtree(directory)


def _measure(directory: pathlib.Path, options: argparse.Namespace) -> None:
  run = _Run(options.gb)
  pauses = [run.pause(directory, number + 1) for number in range(options.rounds)]
  step = sorted((directory / "checkpoints").iterdir(), key=lambda path: int(path.name))
  files = [path for path in step[-1].rglob("*") if path.is_file()]
  num_bytes = sum(path.stat().st_size for path in files)
  reads, restores = [], []
  for _ in range(options.rounds):
    for found, work in ((reads, lambda: _read(files)), (restores, run.restore)):
      if not options.keep_cache:
        _drop(files)
      started = time.perf_counter()
      work() if found is reads else work(directory)
      found.append(time.perf_counter() - started)
  blocked, slowed = (statistics.median(column) for column in zip(*pauses, strict=True))
  read, restore = statistics.median(reads), statistics.median(restores)
  share = (blocked + slowed) / _EVERY_S
  print(
    f"{run.num_bytes / 1e9:.2f} GB of state, {num_bytes / 1e9:.2f} GB of files; "
    f"{os.cpu_count()} cores, {jax.device_count()} x {jax.devices()[0].device_kind}, "
    f"{options.rounds} rounds, page cache {'kept' if options.keep_cache else 'dropped'}"
  )
  print(
    f"pause: {blocked:.2f} s until the save returns + {slowed:.2f} s slower while it "
    f"is written = {100 * share:.2f} % of {_EVERY_S:.0f} s"
  )
  print(
    f"restore: {restore:.2f} s; raw read: {read:.2f} s ({num_bytes / read / 1e9:.2f} "
    f"GB/s); {restore / read:.2f} times"
  )
  print(f"ratio: {min(_MAX_PAUSE / share, _MAX_TIMES_READ * read / restore):.2f}")


class _Run:
  """A state in training."""

  def __init__(self, gigabytes: float):
    # 12 D^2 per layer, 3 numbers of 4 bytes per parameter.
    cfg = ModelConfig(
      vocab_size=256,
      embed_dim=512,
      mlp_dim=1536,
      num_layers=max(round(gigabytes * 1e9 / 12 / (4 * 512**2 + 3 * 512 * 1536)), 1),
      num_heads=8,
      num_kv_heads=8,
      head_dim=64,
      max_seq_len=64,
    )
    config = train.TrainConfig(
      num_train_steps=10**6, batch_size=1, seq_len=64, optimizer=_ADAM
    )
    self.mesh = sharding.make_mesh(data=1, fsdp=-1)
    params = start.fresh(cfg, 0, self.mesh)
    self.step = train.make_step(config, cfg, params, self.mesh)
    with jax.set_mesh(self.mesh):
      self.state = self.step.init(params)
    self.num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
    row = packing.make_row([packing.Piece(np.arange(65), np.ones(65))], 64)
    shapes = train.abstract_batch(config, self.mesh)
    self.batch = {
      name: jax.device_put(np.broadcast_to(row[name], shape.shape), shape.sharding)
      for name, shape in shapes.items()
    }
    self.update()  # compiles

  def update(self) -> float:
    """Makes an update; returns the seconds that it took."""
    started = time.perf_counter()
    with jax.set_mesh(self.mesh):
      self.state, metrics = self.step.fn(self.state, {}, self.batch)
      jax.block_until_ready(metrics)
    return time.perf_counter() - started

  def pause(self, directory: pathlib.Path, number: int) -> tuple[float, float]:
    """Returns (seconds until a save returned, seconds lost while it was written)."""
    usual = statistics.median(self.update() for _ in range(4))
    with checkpoint.Checkpointer(directory) as checkpointer:
      started = time.perf_counter()
      checkpointer.save(number, self.state, _META)
      blocked = time.perf_counter() - started
      lost = 0.0
      while checkpointer.completed() != number:
        lost += self.update() - usual
    return blocked, max(lost, 0.0)

  def restore(self, directory: pathlib.Path) -> None:
    """Reads the newest state onto the devices."""
    with jax.set_mesh(self.mesh), checkpoint.Checkpointer(directory) as checkpointer:
      jax.block_until_ready(checkpointer.restore(self.step.state, _META))


def _read(files: list[pathlib.Path]) -> list[np.ndarray]:
  return [np.fromfile(path, np.uint8) for path in files]


def _drop(files: list[pathlib.Path]) -> None:
  """Drops files from the page cache."""
  for path in files:
    with path.open("rb") as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
  main()
