import dataclasses
import json

import hf_models
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from msm_jax import tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import export, load, tensor_files
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
    "pad_token_id": 2,
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


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, tok_dir):
  cfg = dataclasses.replace(hf_models.config(), vocab_size=10)
  with pytest.raises(UserError, match="entries but the model only 10"):
    export.export(tmp_path / "o", cfg, hf_models.params(cfg), tokenizer_dir=tok_dir)
