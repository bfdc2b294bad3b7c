import json
import os

import hf_models
import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from msm_jax import sharding, train_state
from msm_jax.errors import UserError
from msm_jax.hf import leaf_reader, load, names, tensor_blocks, tensor_files
from msm_jax.models import transformer


def write_index(directory, given: dict, **weight_map) -> None:
  half = len(given) // 2
  parts = {"a.safetensors": list(given)[:half], "b.safetensors": list(given)[half:]}
  for name, part in parts.items():
    hf_models.write_tensors(directory / name, {key: given[key] for key in part})
  complete = {key: name for name, part in parts.items() for key in part}
  index = {"weight_map": {**complete, **weight_map}}
  (directory / tensor_files.INDEX_FILE).write_text(json.dumps(index))
  (directory / tensor_files.SINGLE_FILE).unlink()


@pytest.mark.parametrize("tied", [True, False])
def test_the_table_names_every_leaf_of_the_model_with_its_shape(tied):
  cfg = hf_models.config(tie_embeddings=tied, lora=hf_models.lora())
  leaves = dict(names.leaf_shapes(cfg))
  adapters = names.by_leaf(names.adapter_tensors(cfg, 3, cfg.lora.targets))
  for path, parts in adapters.items():
    leaves[path] = (len(parts), *parts[0].leaf_shape)
  model = transformer.abstract_params(cfg)
  assert {path: leaf.shape for path, leaf in names.walk(model)} == leaves
  found = [tensor.name for tensor in names.tensors(cfg)]
  assert len(found) == len(set(found))


def test_tensors_come_back_from_leaves_as_they_were():
  cfg = hf_models.config(tie_embeddings=False)
  given = hf_models.tensors(cfg)
  for tensor in names.tensors(cfg):
    ours = tensor.to_leaf(given[tensor.name])
    assert ours.shape == tensor.leaf_shape
    np.testing.assert_array_equal(tensor.from_leaf(ours), given[tensor.name])


def test_one_file_and_an_index_load_the_same_in_any_dtype(tmp_path):
  cfg = hf_models.config(tie_embeddings=False)
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  loaded_cfg, single = load.load(tmp_path)
  write_index(tmp_path, given)
  _, half = load.load(tmp_path, dtype=None)
  assert loaded_cfg == cfg
  assert single["embed"]["embedding"].dtype == np.float32
  assert half["embed"]["embedding"].dtype == ml_dtypes.bfloat16
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float32)), single, half
  )
  q = given["model.layers.1.self_attn.q_proj.weight"]  # [N H, D]
  np.testing.assert_array_equal(
    half["layers"]["attention"]["q"]["kernel"][1], q.T.reshape(12, 6, 4)
  )


def test_leaves_land_in_their_sharding(tmp_path):
  cfg = hf_models.config(embed_dim=16, mlp_dim=24, num_heads=4, num_layers=4)
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  mesh = sharding.make_mesh(1, 4, 2)
  placed = train_state.abstract(transformer.abstract_params(cfg), cfg, mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
  _, whole = load.load(tmp_path)
  _, divided = load.load(tmp_path, shardings=shardings)
  jax.tree.map(np.testing.assert_array_equal, whole, divided)
  kernel = divided["layers"]["mlp"]["gate"]["kernel"]
  assert kernel.sharding.is_equivalent_to(
    shardings["layers"]["mlp"]["gate"]["kernel"], kernel.ndim
  )
  assert kernel.addressable_shards[0].data.size == kernel.size // 8


def test_a_tied_head_may_be_present_if_it_is_the_embedding(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  given["lm_head.weight"] = given["model.embed_tokens.weight"]
  given["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, ml_dtypes.bfloat16)
  hf_models.write(tmp_path, cfg, given)
  _, params = load.load(tmp_path)
  assert "lm_head" not in params
  given["lm_head.weight"] = given["lm_head.weight"] + 1
  hf_models.write(tmp_path, cfg, given)
  with pytest.raises(
    UserError, match=r"lm_head\.weight differs .* tie_word_embeddings"
  ):
    load.load(tmp_path)


def broken(given: dict, how: str) -> dict:
  name = "model.layers.1.mlp.up_proj.weight"
  values = given[name].copy()
  if how == "missing":
    return {key: value for key, value in given.items() if key != name}
  if how == "extra":
    return {**given, "model.layers.2.mlp.up_proj.weight": values}
  if how == "bias":
    return {**given, "model.layers.1.self_attn.q_proj.bias": np.ones_like(values[0])}
  if how == "shape":
    return {**given, name: values[:-1]}
  values[3, 5] = np.nan if how == "nan" else np.inf
  return {**given, name: values}


@pytest.mark.parametrize(
  ("how", "message"),
  [
    ("missing", r"layers\.1\.mlp\.up_proj\.weight is missing"),
    ("extra", r"model\.safetensors: tensor model\.layers\.2\.mlp\S+ has no place"),
    ("bias", r"q_proj\.bias has no place"),
    ("shape", r"model\.safetensors: tensor model\.layers\.1\S+ has shape \[19, 12\]"),
    (
      "nan",
      r"model\.safetensors: tensor model\.layers\.1\.mlp\.up\S+ holds NaN or infinite",
    ),
    ("inf", r"layers\.1\.mlp\.up_proj\.weight holds NaN or infinite"),
  ],
)
def test_weights_that_do_not_fit_are_refused_by_tensor_and_file(tmp_path, how, message):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, broken(hf_models.tensors(cfg), how))
  with pytest.raises(UserError, match=message):
    load.load(tmp_path)


def test_an_untied_model_without_its_head_is_refused(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given, tie_word_embeddings=False)
  with pytest.raises(UserError, match=r"lm_head\.weight is missing .* False"):
    load.load(tmp_path)


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


SPECS = [
  (),
  (None, "a"),
  (None, None, "b"),
  ("a", "b"),  # layers divided too
  (None, ("a", "b")),
  (None, None, "a", "b"),  # head_dim divided: no range of their rows
  (None, "b", None, "a"),
]


@pytest.mark.parametrize(
  ("by_layer", "dtype"), [(False, "bfloat16"), (False, "float32"), (True, "float32")]
)
def test_any_part_of_a_leaf_is_what_slicing_the_whole_gives(tmp_path, by_layer, dtype):
  cfg = hf_models.config(
    embed_dim=16, mlp_dim=24, num_heads=8, num_kv_heads=8, num_layers=4, vocab_size=64
  )
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  leaves = names.by_leaf(names.tensors(cfg))
  if by_layer:  # each shape is compiled for each device
    leaves = {path: leaves[path] for path in leaves if path[-2:] == ("o", "kernel")}
  files = tensor_files.TensorFiles(tmp_path)
  mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
  cast = tensor_files.dtype_of(dtype)
  with leaf_reader.thread_pool() as pool:
    for path, parts in leaves.items():
      whole = np.stack([part.to_leaf(given[part.name]) for part in parts])
      whole = whole if parts[0].layer is not None else whole[0]
      for spec in [spec for spec in SPECS if len(spec) <= whole.ndim]:
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        leaf = leaf_reader.read_leaf(
          files, parts, cast, sharding, pool, by_layer=by_layer
        )
        assert leaf.sharding == sharding and leaf.dtype == cast
        np.testing.assert_array_equal(leaf, whole.astype(cast), err_msg=str(path))


@pytest.mark.parametrize("rows", [1, 300])
def test_only_the_bytes_that_are_held_are_read_and_each_once(tmp_path, rows):
  values = np.arange(rows * 8192, dtype=np.float32).reshape(rows, 8192)
  path = tmp_path / "a.safetensors"
  hf_models.write_tensors(path, {"w": values})
  file = tensor_files.TensorFile(path)
  part = names.Tensor("w", ("w",), None, values.shape, values.shape[::-1], 1)
  buffers = [np.empty((size, rows), np.float32) for size in (1024, 1024, 16)]
  columns = [slice(1024, 2048), slice(1024, 2048), slice(8000, 8016)]
  targets = [
    ((column, slice(0, rows)), buffer)
    for column, buffer in zip(columns, buffers, strict=True)
  ]
  for task in tensor_blocks.tasks(file, part, targets):
    task()
  for column, buffer in zip(columns, buffers, strict=True):
    np.testing.assert_array_equal(buffer, values[:, column].T)
  assert file.num_bytes_read == rows * (1024 + 16) * 4


def test_a_model_on_many_devices_is_read_once(tmp_path):
  cfg = hf_models.config(embed_dim=16, mlp_dim=24, num_heads=4, num_layers=4)
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  mesh = sharding.make_mesh(2, 2, 2)
  placed = train_state.abstract(transformer.abstract_params(cfg), cfg, mesh)
  files = tensor_files.TensorFiles(tmp_path)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, placed)
  load.fill(files, names.tensors(cfg), np.dtype(np.float32), shardings)
  assert files.num_bytes_read == sum(values.nbytes for values in given.values())


def test_values_beyond_the_range_of_a_dtype_are_refused(tmp_path):
  cfg = hf_models.config()
  given = hf_models.tensors(cfg)
  name = "model.layers.1.mlp.up_proj.weight"
  given[name][2, 3] = 1e6
  hf_models.write(tmp_path, cfg, given)
  with pytest.raises(UserError, match=rf"{name} holds values beyond .* float16"):
    load.load(tmp_path, dtype="float16")
  load.load(tmp_path, dtype="float32")


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
