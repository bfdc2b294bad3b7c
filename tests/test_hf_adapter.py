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
from msm_jax.models.config import LORA_TARGETS


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
    ({"layers_to_transform": [0]}, "it adapts q_proj in 1 of 2 layers (0)"),
    ({"some_new_option": 3}, "some_new_option is 3"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"r": 0}, "r is 0"),
    ({"lora_alpha": "big"}, "lora_alpha is 'big'"),
    ({"r": 4}, "has shape"),
    ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
    ({"target_modules": None}, "target_modules is None: write the list"),
    ({"target_modules": [3]}, "target_modules is [3]"),
    ({"target_modules": "(q_proj"}, "target_modules is '(q_proj': it is no pattern"),
    ({"target_modules": ["to_q"]}, "names no projection of this model"),
    ({"exclude_modules": ["q_proj"]}, "it adapts q_proj, but adapter_config.json does"),
    ({"target_modules": ["q_proj"]}, "it adapts down_proj, but adapter_config.json do"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ({"loftq_config": {"loftq_bits": 4}}, "a quantised base"),
    ({"rank_pattern": [2]}, "rank_pattern is [2]: it must be an object"),
    ({"alpha_pattern": "q_proj"}, "alpha_pattern is 'q_proj': it must be an object"),
    ({"layers_pattern": ["h", "(h"]}, "layers_pattern is ['h', '(h']: it is no patt"),
    ({"layers_pattern": "(h)"}, "layers_pattern is '(h)': groups have no meaning"),
    ({"use_rslora": "yes"}, "use_rslora is 'yes': it must be true or false"),
    ({"lora_dropout": "0.1"}, "lora_dropout is '0.1': it must be a number"),
    ({"base_model_name_or_path": 5}, "base_model_name_or_path is 5: it must be a name"),
    ({"some_new_option": 0}, "some_new_option is 0"),
  ],
)
def test_what_is_not_plain_lora_is_refused_by_name(tmp_path, changes, named):
  out, cfg, _ = saved(tmp_path, **changes)
  with pytest.raises(UserError) as caught:
    adapter.load(out, cfg)
  assert named in str(caught.value)


# Keys that released files have beside those that we write, by version of PEFT.
OF_VERSIONS = [
  {
    "auto_mapping": None,
    "layer_replication": None,
    "layers_pattern": None,
    "loftq_config": {},
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "revision": None,
  },  # 0.10
  {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "LlamaForCausalLM"},
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "lora_bias": False,
    "megatron_core": "megatron.core",
    "peft_version": "0.18.1",
    "qalora_group_size": 16,
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_qalora": False,
  },  # 0.18
]


@pytest.mark.parametrize("keys", OF_VERSIONS)
@pytest.mark.parametrize(
  "rename",
  [
    lambda name: name,
    lambda name: name.replace(".weight", ".default.weight"),
    lambda name: name.removeprefix("base_model.model."),
  ],
)
def test_files_of_many_versions_are_the_same_adapter(tmp_path, keys, rename):
  out, cfg, params = saved(tmp_path, **keys)
  path = out / adapter.WEIGHTS_FILE
  tensors = tensors_of(path)
  hf_models.write_tensors(path, {rename(name): tensors[name] for name in tensors})
  _, leaves = adapter.load(out, cfg)
  jax.tree.map(np.testing.assert_array_equal, leaves, lora.split(params)[0])


def tensors_of(path) -> dict[str, np.ndarray]:
  file = tensor_files.TensorFile(path)
  return {name: np.array(file.tensor(name)) for name in file.names()}


@pytest.mark.parametrize(
  ("extra", "named"),
  [
    ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", "magnitudes of DoRA"),
    ("model.embed_tokens.lora_embedding_A", "an adapter of the embedding"),
    ("model.embed_tokens.weight", "a whole weight of the base"),
    ("lm_head.weight", "a whole weight of the base"),
    ("model.layers.0.self_attn.q_proj.lora_B.bias", "a bias in the adapter"),
    ("model.layers.0.self_attn.q_proj.base_layer.bias", "a trained bias"),
    ("model.embed_tokens.token_adapter.trainable_tokens_delta", "rows of the embedd"),
    ("model.layers.0.mystery", "no part of plain LoRA"),
    ("model.layers.0.mlp.fc.lora_A.weight", "it adapts fc, but that is not supported"),
    ("model.layers.2.self_attn.q_proj.lora_A.weight", "is extra for a base of 2"),
  ],
)
def test_tensors_beside_those_of_plain_lora_are_refused_by_name(tmp_path, extra, named):
  out, cfg, _ = saved(tmp_path)
  path = out / adapter.WEIGHTS_FILE
  more = {f"base_model.model.{extra}": np.ones((3, 12), np.float32)}
  hf_models.write_tensors(path, tensors_of(path) | more)
  with pytest.raises(UserError) as caught:
    adapter.load(out, cfg)
  assert named in str(caught.value)


def test_two_adapters_in_one_file_and_one_that_is_missing_are_refused(tmp_path):
  out, cfg, _ = saved(tmp_path)
  path = out / adapter.WEIGHTS_FILE
  tensors = tensors_of(path)
  second = {name.replace(".weight", ".b.weight"): tensors[name] for name in tensors}
  hf_models.write_tensors(path, tensors | second)
  with pytest.raises(UserError, match="several adapters for the same modules"):
    adapter.load(out, cfg)
  less = {name: tensors[name] for name in tensors if "q_proj" not in name}
  hf_models.write_tensors(path, less)
  with pytest.raises(UserError, match="says that q_proj is adapted, but there is no"):
    adapter.load(out, cfg)


def test_a_config_that_is_no_json_is_named(tmp_path):
  out, cfg, _ = saved(tmp_path)
  (out / adapter.CONFIG_FILE).write_text("{")
  with pytest.raises(UserError, match=r"adapter_config\.json is not valid JSON"):
    adapter.load(out, cfg)
  (out / adapter.CONFIG_FILE).write_text("[]")
  with pytest.raises(UserError, match="is no JSON object"):
    adapter.load(out, cfg)


def test_a_fingerprint_tells_adapters_apart(tmp_path):
  out, _, _ = saved(tmp_path)
  first = adapter.fingerprint(out)
  assert adapter.fingerprint(out) == first
  path = out / adapter.WEIGHTS_FILE
  tensors = tensors_of(path)
  next(iter(tensors.values()))[0, 0] += 1
  hf_models.write_tensors(path, tensors)
  assert adapter.fingerprint(out) != first
  path.unlink()
  with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing"):
    adapter.fingerprint(out)


@pytest.mark.parametrize("targets", [LORA_TARGETS, ("down", "q")])
def test_what_is_saved_is_what_vllm_accepts(tmp_path, targets):
  # vllm/lora: PEFTHelper needs r, lora_alpha and target_modules, and refuses DoRA,
  # biases, modules_to_save and ranks above --max-lora-rank (patterns included);
  # parse_fine_tuned_lora_name wants base_model.model.<module>.lora_[AB].weight, and the
  # last part of the module must be one that the model has.
  cfg = hf_models.config(lora=hf_models.lora(rank=64, alpha=128.0, targets=targets))
  adapter.save(tmp_path / "a", cfg, hf_models.params(cfg), base_model="org/base")
  config = json.loads((tmp_path / "a" / adapter.CONFIG_FILE).read_text())
  assert config["r"] == 64 and config["lora_alpha"] == 128
  assert isinstance(config["lora_alpha"], int)
  assert isinstance(config["target_modules"], list)
  assert config["bias"] == "none" and not config["use_dora"]
  assert not config["modules_to_save"] and not config["rank_pattern"]
  found = set()
  for name, values in tensors_of(tmp_path / "a" / adapter.WEIGHTS_FILE).items():
    parts = name.split(".")
    assert parts[:2] == ["base_model", "model"] and parts[-1] == "weight"
    assert values.shape[0 if parts[-2] == "lora_A" else 1] == config["r"]
    found.add((".".join(parts[2:-2]), parts[-2]))
  modules = {module for module, _ in found}
  assert found == {
    (module, side) for module in modules for side in ("lora_A", "lora_B")
  }
  assert {module.rsplit(".", 1)[1] for module in modules} == set(
    config["target_modules"]
  )
  assert len(modules) == cfg.num_layers * len(targets)


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
  with pytest.raises(UserError, match=r"it adapts lm_head, but that is not supported"):
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
