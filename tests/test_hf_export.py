import dataclasses
import json
import shutil

import hf_models
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from msm_jax import sharding, tokenizer, train_state
from msm_jax.errors import UserError
from msm_jax.hf import directory, export, load, tensor_files
from msm_jax.models import lora, transformer


@pytest.fixture(scope="module")
def tok_dir(tmp_path_factory):
  return hf_models.tokenizer_dir(tmp_path_factory.mktemp("tok") / "tokenizer")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_bytes", [4000, 10**9])
def test_tensors_are_the_same_bytes_after_import_and_export(
  tmp_path, tok_dir, tied, max_shard_bytes
):
  cfg = hf_models.config(tie_embeddings=tied)
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path / "hf", cfg, given)
  cfg, params = load.load(tmp_path / "hf")
  out = tmp_path / "out"
  export.export(
    out, cfg, params, tokenizer_dir=tok_dir, max_shard_bytes=max_shard_bytes
  )
  written = {}
  for path in out.glob("*.safetensors"):
    written |= safetensors.numpy.load_file(path)
  assert written.keys() == given.keys()
  for name, values in given.items():
    assert written[name].dtype == values.dtype
    assert written[name].tobytes() == values.tobytes()
  index = out / tensor_files.INDEX_FILE
  assert index.exists() == (max_shard_bytes == 4000)
  if index.exists():
    total = sum(values.nbytes for values in given.values())
    assert json.loads(index.read_text())["metadata"]["total_size"] == total


def test_what_is_exported_is_what_is_imported(tmp_path, tok_dir):
  cfg = hf_models.config(tie_embeddings=False, rope_theta=77.0)
  params = hf_models.params(cfg)
  export.export(tmp_path / "out", cfg, params, tokenizer_dir=tok_dir, dtype="float32")
  again_cfg, again = load.load(tmp_path / "out")
  assert again_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, params, again)


def test_a_merged_export_computes_what_the_adapters_do(tmp_path, tok_dir):
  cfg = hf_models.config(lora=hf_models.lora(targets=("q", "o", "down")))
  params = hf_models.params(cfg)
  out = tmp_path / "out"
  export.export(out, cfg, params, tokenizer_dir=tok_dir, dtype="float32")
  merged_cfg, merged = load.load(out)
  tokens = np.arange(40, dtype=np.int32).reshape(2, 20)
  np.testing.assert_allclose(
    transformer.logits(merged, merged_cfg, tokens),
    transformer.logits(params, cfg, tokens),
    atol=1e-4,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    merged,
    lora.merge(params, cfg.lora.alpha / cfg.lora.rank),
  )


def test_adapters_are_merged_in_float32_and_rounded_once(tmp_path, tok_dir):
  cfg = hf_models.config(lora=hf_models.lora(targets=("q",)))
  params = hf_models.params(cfg, dtype=ml_dtypes.bfloat16)
  export.export(tmp_path / "out", cfg, params, tokenizer_dir=tok_dir)
  _, merged = load.load(tmp_path / "out", dtype="bfloat16")
  single = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
  exact = lora.merge(single, 2.0)["layers"]["attention"]["q"]["kernel"]
  np.testing.assert_allclose(
    merged["layers"]["attention"]["q"]["kernel"].astype(np.float32),
    exact,
    rtol=2**-8,  # half a unit in the last place of bfloat16
    atol=1e-7,
  )


def test_the_directory_is_complete(tmp_path, tok_dir):
  cfg = hf_models.config()
  base = tmp_path / "base"
  base.mkdir()
  (base / "generation_config.json").write_text(
    json.dumps({"eos_token_id": [2, 9], "temperature": 0.6, "_from_model_config": True})
  )
  out = tmp_path / "deep" / "out"
  export.export(
    out,
    cfg,
    hf_models.params(cfg),
    tokenizer_dir=tok_dir,
    base_dir=base,
    stop_ids=[5, 2],
    lineage={"base_model": "org/base", "license": "mit", "steps": {"msm": 10}},
  )
  for name in ("tokenizer.json", "tokenizer.model", "chat_template.jinja"):
    assert (out / name).read_bytes() == (tok_dir / name).read_bytes()
  assert json.loads((out / "generation_config.json").read_text()) == {
    "eos_token_id": [5, 2, 9],
    "temperature": 0.6,
    "bos_token_id": None,
    "pad_token_id": 0,
  }
  config = json.loads((out / "config.json").read_text())
  assert config["torch_dtype"] == config["dtype"] == "bfloat16"
  assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
  assert config["eos_token_id"] == [5, 2, 9]
  card = (out / "README.md").read_text()
  assert 'base_model: "org/base"\n' in card
  assert 'license: "mit"\n' in card
  assert '| steps | {"msm": 10} |' in card
  assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
  assert tokenizer.load(out).chat_template == hf_models.CHATML


@pytest.mark.parametrize(
  ("generation", "config", "pad_token", "eos", "pad"),
  [
    ({"eos_token_id": 9, "pad_token_id": 4}, {"pad_token_id": 5}, "<unk>", [2, 9], 4),
    (
      {"eos_token_id": [9]},
      {"eos_token_id": [7], "pad_token_id": 5},
      None,
      [2, 9, 7],
      5,
    ),
    (None, {"eos_token_id": 7, "pad_token_id": -1}, "<unk>", [2, 7], 1),
    ({"pad_token_id": None}, None, "<no token>", 2, 2),
    (None, None, None, 2, 2),
  ],
)
def test_ids_come_from_the_base_then_from_the_tokenizer(
  generation, config, pad_token, eos, pad, tmp_path, tok_dir
):
  source = shutil.copytree(tok_dir, tmp_path / "tok")
  path = source / "tokenizer_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": pad_token}))
  for name, value in (("generation_config", generation), ("config", config)):
    if value is not None:
      (tmp_path / f"{name}.json").write_text(json.dumps(value))
  ids = directory.token_ids(tokenizer.load(source), tmp_path, [])
  assert (ids["eos_token_id"], ids["pad_token_id"]) == (eos, pad)


@pytest.mark.parametrize(
  ("name", "value", "said"),
  [
    ("generation_config.json", [2], "is not a JSON object"),
    ("generation_config.json", {"eos_token_id": "2"}, "field eos_token_id is '2'"),
    ("generation_config.json", {"eos_token_id": [2, 0.5]}, "eos_token_id is .2, 0.5."),
    ("generation_config.json", {"pad_token_id": [2]}, "field pad_token_id is .2."),
    ("config.json", {"eos_token_id": True}, "field eos_token_id is True"),
  ],
)
def test_ids_of_the_base_that_are_no_numbers_are_refused(
  name, value, said, tmp_path, tok_dir
):
  (tmp_path / name).write_text(json.dumps(value))
  with pytest.raises(UserError, match=f"{name}.*{said}"):
    directory.token_ids(tokenizer.load(tok_dir), tmp_path, [])


def test_a_licence_that_is_a_link_to_another_place_is_not_copied(tmp_path):
  base, out = tmp_path / "base", tmp_path / "out"
  for made in (base, out):
    made.mkdir()
  (base / "LICENSE").symlink_to(__file__)
  with pytest.raises(UserError, match="outside its directory: it will not be opened"):
    directory.copy_notices(base, out)
  assert not list(out.iterdir())


@pytest.mark.parametrize("missing", ["chat_template.jinja", "key"])
def test_the_chat_template_stands_in_both_places(tmp_path, tok_dir, missing):
  source = tmp_path / "tok"
  source.mkdir()
  for path in tok_dir.iterdir():
    (source / path.name).write_bytes(path.read_bytes())
  if missing == "key":
    config = json.loads((source / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (source / "tokenizer_config.json").write_text(json.dumps(config))
  else:
    (source / missing).unlink()
  cfg = hf_models.config()
  export.export(tmp_path / "o", cfg, hf_models.params(cfg), tokenizer_dir=source)
  config = json.loads((tmp_path / "o" / "tokenizer_config.json").read_text())
  assert config["chat_template"] == hf_models.CHATML
  assert (tmp_path / "o" / "chat_template.jinja").read_text() == hf_models.CHATML


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, tok_dir):
  cfg = dataclasses.replace(hf_models.config(), vocab_size=10)
  with pytest.raises(UserError, match="entries but the model only 10"):
    export.export(tmp_path / "o", cfg, hf_models.params(cfg), tokenizer_dir=tok_dir)


def contents(directory) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_values_beyond_the_range_of_the_dtype_are_refused(tmp_path, tok_dir):
  cfg = hf_models.config()
  params = hf_models.params(cfg)
  params["final_norm"]["scale"][3] = 1e6
  with pytest.raises(UserError, match=r"model\.norm\.weight .* beyond the range"):
    export.export(tmp_path / "o", cfg, params, tokenizer_dir=tok_dir, dtype="float16")


@pytest.mark.parametrize("adapted", [False, True])
def test_arrays_on_many_devices_are_exported_as_on_one(tmp_path, tok_dir, adapted):
  adapter = hf_models.lora(targets=("q", "o", "down")) if adapted else None
  cfg = hf_models.config(embed_dim=16, mlp_dim=24, num_heads=4, lora=adapter)
  params = hf_models.params(cfg)
  placed = train_state.place(params, cfg, sharding.make_mesh(2, 2, 2))
  for name, given in (("one", params), ("many", placed)):
    export.export(tmp_path / name, cfg, given, tokenizer_dir=tok_dir)
  one, many = contents(tmp_path / "one"), contents(tmp_path / "many")
  del one["README.md"], many["README.md"]  # it says the name
  assert one == many


def test_licence_notices_and_templates_of_the_base_are_carried_over(tmp_path, tok_dir):
  base, source = tmp_path / "base", tmp_path / "tok"
  base.mkdir()
  (base / "README.md").write_text(
    "---\nlicense: other\nlicense_name: 'cheese-1'\nlanguage:\n- en\n---\nlicense: x\n"
  )
  (base / "LICENSE").write_text("as it is")
  (base / "NOTICE.txt").write_text("made of milk")
  shutil.copytree(tok_dir, source)
  (source / "additional_chat_templates").mkdir()
  (source / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
  cfg = hf_models.config()
  given = {"base_dir": base, "tokenizer_dir": source}
  export.export(tmp_path / "a", cfg, hf_models.params(cfg), **given)
  card = (tmp_path / "a" / "README.md").read_text()
  assert 'license: "other"\nlicense_name: "cheese-1"\n' in card and "- en" not in card
  for name in ("LICENSE", "NOTICE.txt"):
    assert (tmp_path / "a" / name).read_bytes() == (base / name).read_bytes()
  template = tmp_path / "a" / "additional_chat_templates" / "tool.jinja"
  assert template.read_text() == "{{ tools }}"
  lineage = {"license": "mit"}
  export.export(tmp_path / "b", cfg, hf_models.params(cfg), lineage=lineage, **given)
  card = (tmp_path / "b" / "README.md").read_text()
  assert 'license: "mit"\n' in card and "cheese-1" not in card


@pytest.mark.parametrize(
  "spec",
  [
    (None, "a"),
    ("a", "b"),
    (None, ("a", "b")),
    (None, None, "b", "a"),
    (None, "b", "a"),
  ],
)
def test_however_a_leaf_is_divided_the_same_bytes_are_exported(tmp_path, tok_dir, spec):
  cfg = hf_models.config(
    family="qwen2",
    bias=("q", "k", "v"),
    vocab_size=64,
    embed_dim=16,
    mlp_dim=24,
    num_layers=4,
    num_heads=8,
    num_kv_heads=8,
  )
  params = hf_models.params(cfg)
  mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

  def placed(leaf):
    partition = PartitionSpec(*spec[: leaf.ndim])
    return jax.device_put(leaf, NamedSharding(mesh, partition))

  for name, given in (("one", params), ("many", jax.tree.map(placed, params))):
    out = tmp_path / name / "out"
    export.export(out, cfg, given, tokenizer_dir=tok_dir, max_shard_bytes=10_000)
  assert contents(tmp_path / "one" / "out") == contents(tmp_path / "many" / "out")
