"""Files of weights that are damaged, foreign or elsewhere: refused, by name."""

import json
import os

import hf_models
import numpy as np
import pytest
from test_hf_load import write_index

from msm_jax.errors import UserError
from msm_jax.hf import load, names, tensor_files


@pytest.mark.parametrize("cut", [1, 1000, "header", "prefix", "garbage"])
def test_a_damaged_file_is_refused_by_name(tmp_path, cut):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  path = tmp_path / tensor_files.SINGLE_FILE
  data = path.read_bytes()
  ends = {"header": data[:50], "prefix": data[:5], "garbage": b"x" * 200}
  path.write_bytes(ends[cut] if cut in ends else data[:-cut])
  with pytest.raises(UserError, match=r"model\.safetensors is no whole safetensors"):
    load.load(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  (tmp_path / tensor_files.SINGLE_FILE).rename(tmp_path / "pytorch_model.bin")
  with pytest.raises(UserError, match=r"pickled weights \(pytorch_model\.bin\)"):
    load.load(tmp_path)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("../a.safetensors", "will not be opened"),
    ("/etc/passwd", "will not be opened"),
    ("sub/a.safetensors", "will not be opened"),
    ("a.bin", "will not be opened"),
    (7, "will not be opened"),
    ("c.safetensors", "c.safetensors is missing"),
    ("b.safetensors", r"model.embed_tokens.weight is not in b.safetensors"),
  ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, name, message):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  write_index(tmp_path, given, **{"model.embed_tokens.weight": name})
  with pytest.raises(UserError, match=message):
    load.load(tmp_path)


def test_a_tensor_that_the_index_does_not_list_is_refused(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  write_index(tmp_path, given)
  path = tmp_path / tensor_files.INDEX_FILE
  index = json.loads(path.read_text())
  del index["weight_map"]["model.embed_tokens.weight"]
  path.write_text(json.dumps(index))
  with pytest.raises(
    UserError, match=r"model\.embed_tokens\.weight is not in the index"
  ):
    load.load(tmp_path)


def header(**changes) -> bytes:
  """Returns a file with one tensor `w` [2] of float32, its header changed."""
  entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
  text = json.dumps({"w": entry}).encode()
  return len(text).to_bytes(8, "little") + text + bytes(8)


def raw_header(text: bytes, size: int = 8) -> bytes:
  return len(text).to_bytes(8, "little") + text + bytes(size)


ENTRY = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
OTHER = b'{"dtype":"F32","shape":[2],"data_offsets":[4,12]}'


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "header is cut off"),
    (header()[:-1], r"it has \d+ bytes where \d+ are expected"),
    (header() + b"\0", r"it has \d+ bytes where \d+ are expected"),
    (raw_header(b'{"w":' + ENTRY + b',"w":' + ENTRY + b"}"), "names 'w' twice"),
    (raw_header(b'{"w":' + ENTRY + b',"v":' + OTHER + b"}", 12), "overlap"),
    (raw_header(b"[" * 100_000), "no JSON"),
    (raw_header(b"[]"), "no JSON object"),
    (raw_header('{"w": 1}'.encode("utf-16")), "no JSON"),
    (header(shape=[2.0]), "no dtype, shape or offsets"),
    (header(shape=[True, 2]), "no dtype, shape or offsets"),
    (header(shape=[-2]), "no dtype, shape or offsets"),
    (header(shape=[3]), r"\[3\] has 8 bytes"),
    (header(data_offsets=[8, 0]), r"\[2\] has -8 bytes"),
    (header(dtype="I64"), "dtype I64, which is not one of"),
    (header(dtype="F8_E4M3"), "dtype F8_E4M3, which is not one of.* dequantise"),
    (header(dtype=["F32"]), "no dtype, shape or offsets"),
  ],
)
def test_a_file_that_is_no_safetensors_of_floats_is_refused(tmp_path, data, message):
  path = tmp_path / "a.safetensors"
  path.write_bytes(data)
  with pytest.raises(UserError, match=message) as caught:
    tensor_files.TensorFile(path)
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
  (tmp_path / "folder").mkdir()
  os.mkfifo(tmp_path / "pipe")
  for name in ("folder", "pipe"):
    with pytest.raises(UserError, match=f"{name} is no regular file"):
      tensor_files.TensorFile(tmp_path / name)
  with pytest.raises(UserError, match="absent is missing"):
    tensor_files.TensorFile(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(header())
  path.chmod(0)
  with pytest.raises(UserError, match=r"a\.safetensors cannot be read"):
    tensor_files.TensorFile(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  files = tensor_files.TensorFiles(tmp_path)
  os.truncate(tmp_path / tensor_files.SINGLE_FILE, 3000)
  with pytest.raises(UserError, match="became shorter while it was read"):
    load.fill(files, names.tensors(cfg), np.dtype(np.float32))


def test_an_index_that_is_no_index_is_refused(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  write_index(tmp_path, given)
  path = tmp_path / tensor_files.INDEX_FILE
  for text, message in (
    ("{", "no valid index"),
    ("[]", "weight_map is missing"),
    ('{"weight_map": {}}', "weight_map is missing"),
    ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' twice"),
    ('{"weight_map": {"a": ["b.safetensors"]}}', "will not be opened"),
    ('{"weight_map": {"a": "b\\u0000.safetensors"}}', "will not be opened"),
  ):
    path.write_text(text)
    with pytest.raises(UserError, match=message):
      load.load(tmp_path)


def test_links_out_of_the_directory_are_refused_but_those_of_a_cache_followed(tmp_path):
  cfg = hf_models.config()
  elsewhere, blobs = tmp_path / "elsewhere", tmp_path / "models--x" / "blobs"
  snapshot = tmp_path / "models--x" / "snapshots" / "abc"
  hf_models.write(elsewhere, cfg, hf_models.tensors(cfg))
  blobs.mkdir(parents=True)
  snapshot.mkdir(parents=True)
  for name, blob in (("config.json", "0123"), (tensor_files.SINGLE_FILE, "4567")):
    (blobs / blob).write_bytes((elsewhere / name).read_bytes())
    (snapshot / name).symlink_to(f"../../blobs/{blob}")
  load.load(snapshot)
  (tmp_path / "alias").symlink_to(elsewhere)
  load.load(tmp_path / "alias")  # a link to the directory itself is no trick
  link = snapshot / tensor_files.SINGLE_FILE
  link.unlink()
  link.symlink_to(elsewhere / tensor_files.SINGLE_FILE)
  with pytest.raises(UserError, match="outside its directory: it will not be opened"):
    load.load(snapshot)
  link.unlink()
  link.symlink_to("nowhere.safetensors")
  with pytest.raises(UserError, match=r"model\.safetensors is missing: its link"):
    load.load(snapshot)


def test_two_sets_of_weights_are_refused_and_pickles_by_their_index(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  write_index(tmp_path, given)
  hf_models.write_tensors(tmp_path / tensor_files.SINGLE_FILE, given)
  with pytest.raises(UserError, match="not clear which are the weights"):
    load.load(tmp_path)
  for path in [*tmp_path.glob("*.safetensors"), tmp_path / tensor_files.INDEX_FILE]:
    path.unlink()
  (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
  with pytest.raises(UserError, match="never loaded"):
    load.load(tmp_path)
