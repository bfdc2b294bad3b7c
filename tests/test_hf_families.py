"""Every family beside transformers: configs, names, logits."""

import dataclasses
import json

import drawn_models
import hf_models
import jax
import numpy as np
import pytest

from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import families, load, names, verify
from msm_jax.models import rope, transformer
from msm_jax.models.config import FULL, SLIDING

# Of the largest logit, in float32.
RELATIVE_BAR = 1e-5
FAMILY = pytest.mark.parametrize("family", drawn_models.FAMILIES)


@pytest.fixture(scope="module")
def transformers():
  found = pytest.importorskip("transformers")
  pytest.importorskip("torch").set_num_threads(1)
  found.logging.set_verbosity_error()
  found.utils.logging.disable_progress_bar()
  return found


@FAMILY
@pytest.mark.parametrize("seed", range(4))
def test_drawn_models_have_the_logits_of_transformers(
  tmp_path, transformers, family, seed
):
  cfg = drawn_models.draw(family, seed)
  config = json.loads(json.dumps(hf_config.to_hf(cfg, "float32")))
  drawn_models.transformers_model(cfg, config, seed).save_pretrained(tmp_path)
  assert hf_config.read(tmp_path) == cfg  # transformers wrote the file
  report = verify.verify(tmp_path)
  assert report.longest_position == cfg.max_seq_len - 1
  assert report.max_abs <= RELATIVE_BAR * report.largest


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn"])
def test_frequencies_have_the_very_bits_of_transformers(transformers, kind):
  seeds = range(drawn_models.ROPES.index(kind), 400, 4)
  for cfg in (drawn_models.draw("llama", seed) for seed in seeds):
    config = hf_config.to_hf(cfg, "float32")
    peer = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(
      transformers.AutoConfig.for_model(**config)
    )
    ours = rope.inverse_frequencies(cfg.head_dim, cfg.rope_theta, cfg.rope_scaling)
    np.testing.assert_array_equal(ours, peer.inv_freq.numpy())
    assert rope.attention_factor(cfg.rope_scaling) == peer.attention_scaling


@FAMILY
def test_the_table_names_every_leaf_of_the_model_with_its_shape(family):
  for seed in range(8):
    cfg = drawn_models.draw(family, seed)
    model = dict(names.walk(transformer.abstract_params(cfg)))
    assert {path: leaf.shape for path, leaf in model.items()} == names.leaf_shapes(cfg)
    assert sum(leaf.size for leaf in model.values()) == cfg.num_params()
    found = names.tensors(cfg)
    assert {tensor.path for tensor in found} == set(model)
    assert len({tensor.name for tensor in found}) == len(found)


@FAMILY
def test_tensors_come_back_from_leaves_as_they_were(family):
  cfg = drawn_models.draw(family, 2)
  given = hf_models.tensors(cfg)
  for tensor in names.tensors(cfg):
    ours = tensor.to_leaf(given[tensor.name])
    assert ours.shape == tensor.leaf_shape
    np.testing.assert_array_equal(tensor.from_leaf(ours), given[tensor.name])


@FAMILY
def test_a_config_survives_the_way_to_hugging_face_and_back(family):
  for seed in range(12):
    cfg = drawn_models.draw(family, seed)
    written = json.loads(json.dumps(hf_config.to_hf(cfg, "bfloat16")))
    assert hf_config.from_hf(written) == cfg
    old = {k: v for k, v in written.items() if k not in ("rope_parameters", "dtype")}
    assert hf_config.from_hf(old) == cfg
    dropped = ("rope_theta", "rope_scaling", "rope_local_base_freq", "torch_dtype")
    new = {k: v for k, v in written.items() if k not in dropped}
    assert hf_config.from_hf(new) == cfg


@FAMILY
def test_absent_keys_mean_what_they_mean_to_transformers(transformers, family):
  sizes = {
    "model_type": family,
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 30,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
  }
  theirs = transformers.AutoConfig.for_model(**sizes).to_dict()
  assert hf_config.from_hf(sizes) == hf_config.from_hf(theirs)


@pytest.mark.parametrize(
  ("family", "changes", "named"),
  [
    ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
    ("mistral", {"attention_bias": True}, "attention_bias is True"),
    ("mistral", {"layer_types": [FULL] * 2}, "layer_types is"),
    ("qwen2", {"attention_bias": True}, "attention_bias is True"),
    ("qwen2", {"layer_types": [SLIDING] * 2}, "use_sliding_window is False"),
    ("qwen3", {"layer_types": [FULL]}, "layer_types is"),
    ("qwen3", {"layer_types": ["chunked_attention"] * 2}, "layer_types is"),
    ("qwen3", {"head_dim": 5}, "head_dim"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    (
      "gemma2",
      {"sliding_window": None, "layer_types": [FULL, SLIDING]},
      "sliding_window is None",
    ),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50"),
    ("gemma3_text", {"rope_scaling": {"type": "linear"}}, "rope_scaling.type is"),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 1.0}}, "rope_theta is 1.0"),
    (
      "gemma3_text",
      {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}}},
      "sliding_attention.rope_type is 'linear'",
    ),
    ("llama", {"model_type": "gemma3"}, "model_type is 'gemma3'"),
    ("llama", {"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'"),
    (
      "llama",
      {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "short_factor": [1.0]}},
      "rope_scaling.short_factor",
    ),
    ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
  ],
)
def test_what_we_do_not_compute_is_refused_by_name(family, changes, named):
  config = hf_config.to_hf(_plain(family), "bfloat16")
  for key in ("rope_scaling", "rope_parameters"):
    config.pop(key)
  with pytest.raises(UserError) as caught:
    hf_config.from_hf({**config, **changes})
  assert named in str(caught.value)


def test_what_a_family_cannot_say_is_not_exported():
  cfg = dataclasses.replace(_plain("llama"), qk_norm=True)
  with pytest.raises(UserError, match=r"model\.qk_norm is True.*llama"):
    hf_config.to_hf(cfg, "bfloat16")
  cfg = dataclasses.replace(
    _plain("mistral"), sliding_window=3, layer_types=(FULL, SLIDING)
  )
  with pytest.raises(UserError, match=r"model\.layer_types"):
    hf_config.to_hf(cfg, "bfloat16")


def test_both_tables_know_the_same_families():
  assert families.FAMILIES.keys() == names.FAMILIES.keys()


@FAMILY
def test_tensors_are_the_same_bytes_after_import_and_export(tmp_path, family):
  cfg = drawn_models.draw(family, 1)
  given = hf_models.tensors(cfg)
  hf_models.write(tmp_path, cfg, given)
  _, params = load.load(tmp_path, dtype="bfloat16")
  leaves = dict(names.walk(jax.device_get(params)))
  for tensor in names.tensors(cfg):
    leaf = leaves[tensor.path]
    ours = leaf if tensor.layer is None else leaf[tensor.layer]
    assert tensor.from_leaf(ours).tobytes() == given[tensor.name].tobytes()


def _plain(family: str):
  """Returns a model without windows and scaled rope."""
  cfg = drawn_models.draw(family, 3)
  size = {"rope_scaling": None, "num_layers": 2, "head_dim": 4, "max_seq_len": 300}
  return dataclasses.replace(cfg, **size)


def test_disagreeing_keys_are_told(capsys, monkeypatch):
  monkeypatch.delenv("MSM_JAX_QUIET", raising=False)
  config = hf_config.to_hf(_plain("llama"), "bfloat16")
  theta = config["rope_theta"]
  config = {**config, "rope_theta": theta + 1}
  assert hf_config.from_hf(config, "x/config.json").rope_theta == theta
  assert "disagree" in capsys.readouterr().err
