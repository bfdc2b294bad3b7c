"""Exports that end before their end, or meet one another: nothing half is left."""

import resource

import hf_models
import jax
import numpy as np
import pytest
from test_hf_export import contents

from msm_jax.errors import UserError
from msm_jax.hf import export, partial


@pytest.fixture(scope="module")
def tok_dir(tmp_path_factory):
  return hf_models.tokenizer_dir(tmp_path_factory.mktemp("tok") / "tokenizer")


def test_nothing_half_written_is_left_and_nothing_is_overwritten(tmp_path, tok_dir):
  cfg = hf_models.config()
  params = hf_models.params(cfg)
  damaged = jax.tree.map(np.copy, params)
  damaged["layers"]["mlp"]["up"]["kernel"][1, 0, 0] = np.nan
  with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight of the export"):
    export.export(tmp_path / "out", cfg, damaged, tokenizer_dir=tok_dir)
  assert list(tmp_path.iterdir()) == []
  export.export(tmp_path / "out", cfg, params, tokenizer_dir=tok_dir)
  with pytest.raises(UserError, match="exists already"):
    export.export(tmp_path / "out", cfg, params, tokenizer_dir=tok_dir)
  with pytest.raises(UserError, match="cannot be written"):
    export.export("/proc/none/out", cfg, params, tokenizer_dir=tok_dir)


class Interrupting:
  """A leaf whose layers can be had up to one, at which the person gives up."""

  def __init__(self, leaf: np.ndarray, at: int, error: BaseException):
    self.leaf, self.at, self.error, self.shape = leaf, at, error, leaf.shape

  def __getitem__(self, layer: int) -> np.ndarray:
    if layer == self.at:
      raise self.error
    return self.leaf[layer]


def interrupted(out, tok_dir, error=None, **options):
  """Interrupts an export in the last layer; returns (cfg, params) to go on with."""
  cfg = hf_models.config(num_layers=4)
  params = hf_models.params(cfg)
  broken = jax.tree.map(np.copy, params)
  up = broken["layers"]["mlp"]["up"]
  up["kernel"] = Interrupting(up["kernel"], 3, error or KeyboardInterrupt())
  options |= {"tokenizer_dir": tok_dir, "max_shard_bytes": 2000}
  with pytest.raises((KeyboardInterrupt, UserError)):
    export.export(out, cfg, broken, **options)
  assert not out.exists()
  return cfg, params, options


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left")])
def test_an_interrupted_export_goes_on_with_what_it_has_finished(
  tmp_path, tok_dir, error
):
  out, identity = tmp_path / "out", {"run": "abc", "step": 30}
  cfg, params, options = interrupted(out, tok_dir, error, identity=identity)
  partial = tmp_path / ".out.partial"
  kept = {path.name: path.stat() for path in (partial / "new").iterdir()}
  assert len(kept) > 3 and all(name.endswith(".safetensors") for name in kept)
  damaged = partial / "new" / sorted(kept)[-1]
  damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
  for name in ("model-00009-of-00009.safetensors", "config.json", "stray"):
    (partial / "new" / name).write_bytes(b"half of a file")  # as a kill leaves them
  export.export(out, cfg, params, **options)
  again = {name: (out / name).stat() for name in kept}
  for name in sorted(kept)[:-1]:
    assert again[name].st_ino == kept[name].st_ino
    assert again[name].st_mtime_ns == kept[name].st_mtime_ns
  assert not partial.exists()
  export.export(tmp_path / "w" / "out", cfg, params, **options)
  assert contents(out) == contents(tmp_path / "w" / "out")


@pytest.mark.parametrize(
  "change",
  [{"identity": {"step": 31}}, {"identity": None}, {"dtype": "float32"}, {}],
)
def test_what_another_export_left_behind_is_thrown_away(tmp_path, tok_dir, change):
  out = tmp_path / "out"
  cfg, params, options = interrupted(out, tok_dir, identity={"step": 30})
  if not change:
    (tmp_path / ".out.partial" / "stamp.json").write_text("{")
  new = tmp_path / ".out.partial" / "new"
  left = {path.name: path.stat().st_mtime_ns for path in new.iterdir()}
  export.export(out, cfg, params, **{**options, **change})
  for name, time in left.items():
    assert not (out / name).exists() or (out / name).stat().st_mtime_ns != time
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_an_identity_nothing_is_kept(tmp_path, tok_dir):
  interrupted(tmp_path / "out", tok_dir)
  assert list(tmp_path.iterdir()) == []


def test_a_directory_that_another_process_writes_is_refused(tmp_path, tok_dir):
  cfg = hf_models.config()
  with (
    partial.written_whole(tmp_path / "out") as new,
    pytest.raises(UserError, match="is in use: another process"),
  ):
    (new / "a").touch()
    export.export(tmp_path / "out", cfg, hf_models.params(cfg), tokenizer_dir=tok_dir)
  assert contents(tmp_path / "out") == {"a": b""}


def test_a_disk_that_takes_no_more_is_named(tmp_path, tok_dir):
  cfg = hf_models.config()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
  try:
    with pytest.raises(UserError, match=r"out cannot be written \(File too large\)"):
      export.export(tmp_path / "out", cfg, hf_models.params(cfg), tokenizer_dir=tok_dir)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert list(tmp_path.iterdir()) == []
