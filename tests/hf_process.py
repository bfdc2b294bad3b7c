"""One of several processes: loads a model over all of them and exports it.

    python hf_process.py JOB.json

The job says where the model lies, how the mesh is divided and what is to be exported;
what came of it is written to OUT/process-<k>.json.
"""

import json
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", int(os.environ["NUM_DEVICES"]))

import dataclasses

import hf_models
import ml_dtypes
import numpy as np

from msm_jax import distributed, sharding, train_state
from msm_jax.errors import UserError
from msm_jax.hf import adapter, export, load, names, tensor_files
from msm_jax.hf import config as hf_config
from msm_jax.models import lora, transformer


def main(job: dict) -> dict:
  """Returns what happened in this process."""
  mesh = sharding.make_mesh(**job["mesh"])
  errors = [_error(load_sharded, damaged, mesh) for damaged in job["damaged"]]
  cfg, params, shardings = load_sharded(job["model"], mesh)
  for name, out in job["exports"].items():
    given = _adapted(cfg, params, mesh) if name != "plain" else (cfg, params)
    save = adapter.save if name == "adapter" else export.export
    errors.append(_error(save, out, *given, **job["options"][name]))
  files = tensor_files.TensorFiles(job["model"])
  load.fill(files, names.tensors(cfg), np.dtype(ml_dtypes.bfloat16), shardings)
  held = sum(_held_bytes(leaf) for leaf in jax.tree.leaves(params))
  return {"errors": errors, "read": files.num_bytes_read, "held": held}


def load_sharded(directory: str, mesh):
  """Returns the config, the parameters and their shardings."""
  cfg = hf_config.read(directory)
  shapes = transformer.abstract_params(cfg)
  shardings = train_state.param_shardings(shapes, cfg, mesh)
  cfg, params = load.load(directory, dtype="bfloat16", shardings=shardings)
  return cfg, params, shardings


def _error(function, *arguments, **options) -> str | None:
  try:
    function(*arguments, **options)
  except UserError as error:
    return str(error)
  return None


def _adapted(cfg, params, mesh):
  cfg = dataclasses.replace(cfg, lora=hf_models.lora(targets=("q", "down")))
  leaves = lora.split(hf_models.params(cfg))[0]
  return cfg, lora.join(params, train_state.place(leaves, cfg, mesh))


def _held_bytes(leaf: jax.Array) -> int:
  parts = {str(shard.index): shard.data.nbytes for shard in leaf.addressable_shards}
  return sum(parts.values())


if __name__ == "__main__":
  job = json.loads(pathlib.Path(sys.argv[1]).read_text())
  distributed.initialize()
  seen = main(job)
  number = distributed.process_index()
  (pathlib.Path(job["out"]) / f"process-{number}.json").write_text(json.dumps(seen))
  distributed.shutdown()
