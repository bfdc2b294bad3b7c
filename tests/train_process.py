"""One of several processes (or the only one): trains a small model on rows on disk.

    python train_process.py JOB.json

The job names the rows, the run directory, the mesh and the length; it may ask this
process to end itself at some step. What came of it is written to OUT/process-<k>.json;
the exit code is launch.py's.
"""

import itertools
import json
import os
import pathlib
import resource
import signal
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", int(os.environ["NUM_DEVICES"]))


from absl import logging

from msm_jax import (
  distributed,
  input_pipeline,
  metrics,
  optim,
  packing,
  records,
  sharding,
  start,
  train,
)
from msm_jax.errors import Stopped, UserError
from msm_jax.models.config import ModelConfig
from msm_jax.training import integrity, liveness, loop, run_config

MODEL = ModelConfig(
  vocab_size=64,
  embed_dim=32,
  mlp_dim=48,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  max_seq_len=32,
)
ADAM = optim.OptimConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2)


def main(job: dict) -> dict:
  """Trains and returns a digest of what was trained, and the rows that were read."""
  mesh = sharding.make_mesh(**job["mesh"])
  config = train.TrainConfig(
    seq_len=32,
    optimizer=ADAM,
    log_every_steps=1,
    checkpoint_every_s=job.get("checkpoint_every_s"),
    checkpoint_every_steps=job.get("checkpoint_every_steps"),
    num_train_steps=job["num_train_steps"],
    batch_size=job.get("batch_size", 8),
    num_microbatches=job.get("num_microbatches", 1),
  )
  num_rows = config.num_train_steps * config.batch_size
  size = records.read_manifest(job["rows"])["num_records"]
  order = packing.row_order([size], [num_rows], 0)
  source = _Noting(
    input_pipeline.open_rows([pathlib.Path(job["rows"])], order),
  )
  _hurt(job)
  if "clock_jumps_s" in job:  # ahead and back, at every look
    told, jumps = time.time, itertools.cycle((0.0, job["clock_jumps_s"]))
    time.time = lambda: told() + next(jumps)
  if "max_file_bytes" in job:  # what a full disk does to a large file
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_file_bytes"],) * 2)
  trained = loop.train(
    loop.Job(
      config=config,
      cfg=MODEL,
      mesh=mesh,
      run_dir=_run_dir(job),
      meta={"stage": "test"},
      label="test",
      settings=run_config.RunConfig(**job.get("settings", {})),
    ),
    params=start.fresh(MODEL, 0, mesh),
    frozen={},
    source=source,
  )
  return {"digests": integrity.inspect(trained)[0], "read": sorted(set(source.read))}


def _run_dir(job: dict) -> pathlib.Path:
  """Returns where the run lies; hosts may have disks of their own."""
  if "run_dirs" in job:
    return pathlib.Path(job["run_dirs"][distributed.process_index()])
  return pathlib.Path(job["run_dir"])


class _Noting:
  """A row source that notes what is read of it."""

  def __init__(self, source):
    self.source, self.read = source, []

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    self.read.append(int(index))
    return self.source[index]

  def where(self, first, last):
    return self.source.where(first, last)


def _hurt(job: dict) -> None:
  """Lets something happen to process `job["victim"]` when a step is written."""
  if distributed.process_index() != job.get("victim", -1):
    return
  write = metrics.Writer.write

  def write_then_hurt(self, step, values):
    write(self, step, values)
    if step == job["at_step"]:
      if job["signal"] == "hang":
        time.sleep(1000)
      os.kill(os.getpid(), signal.Signals[job["signal"]])

  metrics.Writer.write = write_then_hurt


def _run() -> int:
  logging.set_verbosity(logging.FATAL)  # as launch.py does
  job = json.loads(pathlib.Path(sys.argv[1]).read_text())
  distributed.initialize()
  liveness.pulse()
  try:
    seen = main(job)
  except (UserError, Stopped) as error:
    print(error, file=sys.stderr)
    return 2 if isinstance(error, UserError) else 75
  number = distributed.process_index()
  out = pathlib.Path(job["out"]) / f"process-{number}.json"
  out.write_text(json.dumps(seen, default=str))
  distributed.shutdown()
  return 0


if __name__ == "__main__":
  distributed.leave(_run())
