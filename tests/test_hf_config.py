import dataclasses
import json

import hf_models
import pytest

from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.models.config import RopeScaling

LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 32,
}


def hf(**changes) -> dict:
  config = hf_config.to_hf(hf_models.config(), "bfloat16")
  for key in ("rope_theta", "rope_scaling", "rope_parameters"):
    config.pop(key)
  return {**config, **changes}


@pytest.mark.parametrize(
  "scaling",
  [
    None,
    RopeScaling(rope_type="linear", factor=2.5),
    RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=32),
  ],
)
def test_a_config_survives_the_way_to_hugging_face_and_back(scaling):
  cfg = hf_models.config(
    rope_theta=5e5,
    rope_scaling=scaling,
    norm_eps=1e-6,
    tie_embeddings=False,
    activation="gelu_tanh",
  )
  written = json.loads(json.dumps(hf_config.to_hf(cfg, "bfloat16")))
  assert hf_config.from_hf(written) == cfg


@pytest.mark.parametrize(
  ("keys", "theta", "scaling"),
  [
    ({}, 1e4, None),
    ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, None),
    ({"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}, 7.0, None),
    ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}, 7.0, None),
    ({"rope_theta": 5.0, "rope_parameters": {"rope_type": "default"}}, 5.0, None),
    ({"rope_scaling": {"type": "linear", "factor": 2}}, 1e4, "linear"),
    ({"rope_theta": 5.0, "rope_scaling": LLAMA3}, 5.0, "llama3"),
    ({"rope_parameters": {**LLAMA3, "rope_theta": 9.0}}, 9.0, "llama3"),
    (
      {
        "rope_theta": 3.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"},
      },
      3.0,
      "linear",
    ),
  ],
)
def test_both_generations_of_rope_keys_are_read_as_transformers_5_does(
  keys, theta, scaling
):
  cfg = hf_config.from_hf(hf(**keys))
  assert cfg.rope_theta == theta
  assert (cfg.rope_scaling and cfg.rope_scaling.rope_type) == scaling


def test_absent_keys_have_the_defaults_of_the_llama_class():
  config = hf()
  for key in ("num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"):
    config.pop(key)
  cfg = hf_config.from_hf(config)
  assert (cfg.num_kv_heads, cfg.head_dim, cfg.norm_eps) == (6, 2, 1e-6)
  assert not cfg.tie_embeddings


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"model_type": "qwen9"}, "model_type is 'qwen9'"),
    ({"model_type": None}, "model_type is None"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    ({"attention_bias": "yes"}, "attention_bias is 'yes'"),
    ({"mlp_bias": 1}, "mlp_bias is 1"),
    ({"pretraining_tp": 2}, "pretraining_tp is 2"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
    ({"sliding_window": 512}, "sliding_window is 512"),
    ({"logits_scaling": 8.0}, "logits_scaling is 8.0"),
    ({"logits_scaling": 0}, "logits_scaling is 0"),
    ({"logits_scaling": 0.0}, "logits_scaling is 0.0"),
    ({"rope_theta": 1}, "rope_theta is 1.0: it must be above 1"),
    ({"rope_parameters": {"rope_theta": 0.5}}, "rope_parameters.rope_theta is 0.5"),
    ({"rope_scaling": {"type": "yarn", "factor": 2, "rope_theta": 1}}, "g.rope_theta"),
    ({"rope_scaling": {"rope_type": "yarn", "beta_fast": 0}}, "beta_fast is 0"),
    ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type is 'dynamic'"),
    ({"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention"),
    ({"rope_scaling": {"type": "linear"}}, "factor is None"),
    ({"hidden_size": "12"}, "hidden_size is '12'"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
    ({"num_key_value_heads": 4}, "num_kv_heads"),
  ],
)
def test_what_changes_the_computation_and_is_not_supported_is_refused_by_name(
  changes, named
):
  with pytest.raises(UserError, match=r"some/config\.json: ") as caught:
    hf_config.from_hf(hf(**changes), "some/config.json")
  assert named in str(caught.value)
  assert "\n" not in str(caught.value)


def test_unknown_keys_that_are_off_and_bookkeeping_keys_are_accepted():
  config = hf(sliding_window=None, use_qk_norm=False, unsloth_fixed=True, top_p=0.9)
  config |= {"some_new_object": {}, "some_new_list": []}
  assert hf_config.from_hf(config) == dataclasses.replace(hf_models.config())


def test_a_directory_without_a_config_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"config\.json is missing"):
    hf_config.read(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
    hf_config.read(tmp_path)
