import json

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
