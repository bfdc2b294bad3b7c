"""One of several processes: begins a study over all of them and writes its adapters.

    python start_process.py JOB.json

The job names a workdir with a config and where the adapters go that the start brings,
and those that are drawn.
"""

import json
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", int(os.environ["NUM_DEVICES"]))

from msm_jax import distributed, experiment, start
from msm_jax.hf import adapter
from msm_jax.runs import Runs


def main(job: dict) -> dict:
  """Returns which share of the base this process held."""
  workdir = pathlib.Path(job["workdir"])
  found = Runs(
    experiment.parse(json.loads((workdir / "config.json").read_text())), workdir
  )
  weights = found.weights((), 0)
  drawn = start.fresh(weights.cfg, 0, found.mesh, adapter_only=True)
  for name, leaves in (("brought", weights.adapter), ("drawn", drawn)):
    adapter.save(pathlib.Path(job["out"]) / name, weights.cfg, leaves, base_model="b")
  kernel = weights.base["layers"]["mlp"]["gate"]["kernel"]
  held = {str(shard.index): shard.data.size for shard in kernel.addressable_shards}
  return {"share": sum(held.values()) / kernel.size}


if __name__ == "__main__":
  job = json.loads(pathlib.Path(sys.argv[1]).read_text())
  distributed.initialize()
  seen = main(job)
  number = distributed.process_index()
  (pathlib.Path(job["out"]) / f"process-{number}.json").write_text(json.dumps(seen))
  distributed.shutdown()
