import dataclasses
import json
import math

import hf_models
import jax
import numpy as np
import pytest

from msm_jax.errors import UserError
from msm_jax.hf import adapter, names, tensor_files
from msm_jax.models import lora, transformer


def saved(tmp_path, **changes):
  cfg = hf_models.config(lora=hf_models.lora())
  params = hf_models.params(cfg)
  out = tmp_path / "adapter"
  adapter.save(out, cfg, params, base_model="org/base")
  path = out / adapter.CONFIG_FILE
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
  return out, cfg, params


@pytest.mark.parametrize(
  "targets", [("q", "k", "v", "o", "gate", "up", "down"), ("v",)]
)
def test_an_adapter_survives_the_way_to_peft_and_back(tmp_path, targets):
  cfg = hf_models.config(lora=hf_models.lora(targets=targets))
  params = hf_models.params(cfg)
  adapter.save(tmp_path / "a", cfg, params, base_model="org/base")
  read, leaves = adapter.load(tmp_path / "a", dataclasses.replace(cfg, lora=None))
  assert read == cfg.lora
  jax.tree.map(np.testing.assert_array_equal, leaves, lora.split(params)[0])
  names_written = tensor_files.TensorFile(tmp_path / "a" / adapter.WEIGHTS_FILE).names()
  assert (
    "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight" in names_written
  )
  assert 'base_model: "org/base"' in (tmp_path / "a" / "README.md").read_text()


def test_rank_stabilised_scaling_is_read(tmp_path):
  out, cfg, _ = saved(tmp_path, use_rslora=True)
  read, _ = adapter.load(out, cfg)
  assert math.isclose(read.alpha / read.rank, 6.0 / math.sqrt(3))


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"use_dora": True}, "use_dora is True"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ({"layers_to_transform": [0]}, "layers_to_transform"),
    ({"some_new_option": 3}, "some_new_option is 3"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"r": 0}, "r is 0"),
    ({"lora_alpha": "big"}, "lora_alpha is 'big'"),
    ({"r": 4}, "has shape"),
  ],
)
def test_what_is_not_plain_lora_is_refused_by_name(tmp_path, changes, named):
  out, cfg, _ = saved(tmp_path, **changes)
  with pytest.raises(UserError) as caught:
    adapter.load(out, cfg)
  assert named in str(caught.value)


def test_an_adapter_of_another_model_is_refused(tmp_path):
  out, cfg, _ = saved(tmp_path)
  with pytest.raises(
    UserError, match=r"layers\.2\S+ is missing for a base of 3 layers"
  ):
    adapter.load(out, dataclasses.replace(cfg, num_layers=3))
  with pytest.raises(UserError, match="has shape"):
    adapter.load(out, dataclasses.replace(cfg, embed_dim=14))


def test_an_adapter_on_other_modules_is_refused(tmp_path):
  out, cfg, _ = saved(tmp_path)
  name = "base_model.model.lm_head.lora_A.weight"
  hf_models.write_tensors(
    out / adapter.WEIGHTS_FILE, {name: np.ones((3, 12), np.float32)}
  )
  with pytest.raises(UserError, match=r"adapts \['lm_head'\]"):
    adapter.load(out, cfg)


def test_a_pickled_or_absent_adapter_is_refused(tmp_path):
  out, cfg, _ = saved(tmp_path)
  (out / adapter.WEIGHTS_FILE).rename(out / "adapter_model.bin")
  with pytest.raises(UserError, match="never loaded"):
    adapter.load(out, cfg)
  with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
    adapter.load(tmp_path, cfg)


def test_a_model_without_an_adapter_cannot_be_exported_as_one(tmp_path):
  cfg = hf_models.config()
  with pytest.raises(UserError, match="export it as 'merged'"):
    adapter.save(tmp_path / "a", cfg, hf_models.params(cfg), base_model="b")


def test_loaded_leaves_join_the_base(tmp_path):
  out, cfg, params = saved(tmp_path)
  read, leaves = adapter.load(out, cfg)
  joined = lora.join(lora.split(params)[1], leaves)
  assert dict(names.walk(joined)).keys() == dict(names.walk(params)).keys()
  tokens = np.arange(12, dtype=np.int32)[None]
  np.testing.assert_array_equal(
    transformer.logits(joined, dataclasses.replace(cfg, lora=read), tokens),
    transformer.logits(params, cfg, tokens),
  )
