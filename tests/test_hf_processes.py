import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys

import hf_models
import pytest

from msm_jax import distributed
from msm_jax.hf import adapter, export, load
from msm_jax.models import lora

HERE = pathlib.Path(__file__).parent


def run_processes(
  job: dict, count: int, num_devices: int, script: str = "hf_process.py"
) -> list[dict]:
  """Runs a script in `count` processes and returns what each has seen."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  out = pathlib.Path(job["out"])
  (out / "job.json").write_text(json.dumps(job))
  environment = os.environ | {
    distributed.ADDRESS: address,
    distributed.COUNT: str(count),
    "NUM_DEVICES": str(num_devices),
  }
  started = [
    subprocess.Popen(
      [sys.executable, HERE / script, out / "job.json"],
      env=environment | {distributed.NUMBER: str(number)},
      cwd=HERE.parent,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(count)
  ]
  try:
    errors = [process.communicate(timeout=100)[1] for process in started]
  finally:
    for process in started:
      process.kill()
  assert [process.returncode for process in started] == [0] * count, errors
  return [json.loads((out / f"process-{i}.json").read_text()) for i in range(count)]


def contents(directory: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def tok_dir(tmp_path_factory):
  return hf_models.tokenizer_dir(tmp_path_factory.mktemp("tok") / "tokenizer")


def wide_config():
  """Returns a model whose rows are so long that all but a part of one is pages."""
  return hf_models.config(
    vocab_size=64, embed_dim=4096, mlp_dim=64, num_heads=4, head_dim=8, num_layers=1
  )


def adapted(cfg, params):
  cfg = dataclasses.replace(cfg, lora=hf_models.lora(targets=("q", "down")))
  return cfg, lora.join(params, lora.split(hf_models.params(cfg))[0])


@pytest.mark.parametrize(
  ("count", "num_devices", "mesh"),
  [
    (4, 1, {"fsdp": 4}),
    pytest.param(4, 2, {"fsdp": 4, "tensor": 2}, marks=pytest.mark.slow),
    pytest.param(4, 2, {"fsdp": 2, "tensor": 4}, marks=pytest.mark.slow),
  ],
)
def test_several_processes_read_their_part_write_the_same_bytes_and_fail_together(
  tmp_path, tok_dir, count, num_devices, mesh
):
  cfg = wide_config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path / "hf", cfg, given)
  given["model.layers.0.mlp.up_proj.weight"][2, -1] = float("nan")  # the last one's
  hf_models.write(tmp_path / "nan", cfg, given)
  outs = {
    name: tmp_path / "many" / name for name in ("plain", "merged", "adapter", "taken")
  }
  outs["taken"].mkdir(parents=True)
  (outs["taken"] / "a").touch()
  shards = {"tokenizer_dir": str(tok_dir), "max_shard_bytes": 1_500_000}
  options = dict.fromkeys(outs, shards) | {"adapter": {"base_model": "a/b"}}
  job = {
    "model": str(tmp_path / "hf"),
    "damaged": [str(tmp_path / "nan")],
    "mesh": {"data": 1, **mesh},
    "exports": {name: str(out) for name, out in outs.items()},
    "options": options,
    "out": str(tmp_path),
  }
  seen = run_processes(job, count, num_devices)
  cfg, params = load.load(tmp_path / "hf", dtype="bfloat16")
  one = tmp_path / "one"
  export.export(one / "plain", cfg, params, **options["plain"])
  export.export(one / "merged", *adapted(cfg, params), **options["merged"])
  adapter.save(one / "adapter", *adapted(cfg, params), **options["adapter"])
  for path in one.iterdir():
    assert contents(outs[path.name]) == contents(path)
  assert len(list((one / "plain").glob("*.safetensors"))) > 1
  assert contents(one / "plain") != contents(one / "merged")
  for each in seen:
    nan, *written, taken = each["errors"]
    assert "up_proj.weight holds NaN" in nan and "taken exists already" in taken
    assert written == [None] * 3
    assert each["read"] == each["held"] or mesh["fsdp"] < count
    total = sum(values.nbytes for values in given.values())
    assert each["read"] < 1.05 * total / count or mesh["fsdp"] < count
  assert sorted(path.name for path in outs["taken"].parent.iterdir()) == sorted(outs)
