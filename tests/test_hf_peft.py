"""Adapters beside PEFT itself: what it writes we read, what we write it reads."""

import dataclasses
import json

import drawn_models
import jax
import numpy as np
import pytest

from msm_jax.hf import adapter, load
from msm_jax.hf import config as hf_config
from msm_jax.models import lora, transformer
from msm_jax.models.config import LORA_TARGETS, LoraConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own imports warn
RELATIVE_BAR = 1e-5  # of the largest logit, in float32
SEVEN = [f"{name}_proj" for name in LORA_TARGETS]
# What a PEFT LoraConfig may say, and which projections it then adapts.
CHOICES = [
  ({"r": 64, "lora_alpha": 128, "target_modules": SEVEN}, LORA_TARGETS),
  ({"use_rslora": True, "target_modules": ["up_proj", "q_proj"]}, ("q", "up")),
  (
    {"target_modules": r".*\.(self_attn\.[kv]_proj|mlp\.down_proj)"},
    ("k", "v", "down"),
  ),
  ({"target_modules": "all-linear", "lora_alpha": 3}, LORA_TARGETS),
  (
    {"target_modules": SEVEN, "exclude_modules": r".*mlp.*"},
    ("q", "k", "v", "o"),
  ),
  ({"target_modules": ["self_attn.o_proj", "mlp.gate_proj"]}, ("o", "gate")),
  (
    {
      "target_modules": ["v_proj"],
      "layers_to_transform": [0, 1, 2, 3],
      "layers_pattern": "layers",
      "init_lora_weights": "gaussian",
      "rank_pattern": {"v_proj": 4},
    },
    ("v",),
  ),
]
SLOW = pytest.mark.slow
CASES = [
  pytest.param(
    family,
    (n + 6 * k) % len(CHOICES),
    5 * n + k,
    marks=SLOW if k and n else (),
    id=f"{family}-{(n + 6 * k) % len(CHOICES)}",
  )
  for n, family in enumerate(drawn_models.FAMILIES)
  for k in range(2)
]


@pytest.fixture(scope="module")
def peft():
  pytest.importorskip("torch").set_num_threads(1)
  pytest.importorskip("transformers").utils.logging.disable_progress_bar()
  return pytest.importorskip("peft")


def logits_of(peer, tokens) -> np.ndarray:
  import torch

  with torch.no_grad():
    return peer(torch.from_numpy(tokens).long()).logits.numpy()


def draw(peer, seed: int, dtype: str) -> None:
  """Draws adapter weights that `dtype` can hold."""
  import torch

  torch.manual_seed(seed)
  for name, parameter in peer.named_parameters():
    if "lora_" in name:
      drawn = torch.randn_like(parameter) * 0.1
      parameter.data = drawn.to(getattr(torch, dtype)).float()


def recast(path, dtype: str) -> None:
  """Rewrites a safetensors file in another dtype."""
  import torch
  from safetensors.torch import load_file, save_file

  tensors = {k: v.to(getattr(torch, dtype)) for k, v in load_file(path).items()}
  save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("family", "choice", "seed"), CASES)
def test_an_adapter_gives_the_logits_of_peft_in_and_out(
  tmp_path, peft, family, choice, seed
):
  changes, targets = CHOICES[choice]
  dtype = ("float32", "bfloat16", "float16")[seed % 3]
  cfg = drawn_models.draw(family, seed)
  config = json.loads(json.dumps(hf_config.to_hf(cfg, "float32")))

  def base():
    return drawn_models.transformers_model(cfg, config, seed)

  base().save_pretrained(tmp_path / "base")
  cfg, params = load.load(tmp_path / "base")
  tokens = np.random.default_rng(seed).integers(0, 61, (2, 30)).astype(np.int32)

  settings = {"r": 4, "lora_alpha": 9, "init_lora_weights": False, **changes}
  settings["task_type"] = "CAUSAL_LM"
  peer = peft.get_peft_model(base(), peft.LoraConfig(**settings)).eval()
  draw(peer, seed, dtype)
  peer.save_pretrained(tmp_path / "theirs")
  recast(tmp_path / "theirs" / adapter.WEIGHTS_FILE, dtype)
  found, leaves = adapter.load(tmp_path / "theirs", cfg)
  assert found.targets == targets and found.rank == settings["r"]
  adapted = dataclasses.replace(cfg, lora=found)
  assert_same(
    transformer.logits(lora.join(params, leaves), adapted, tokens), peer, tokens
  )

  ours = LoraConfig(rank=5, alpha=7.5 if seed % 2 else 10.0, targets=targets)
  adapted = dataclasses.replace(cfg, lora=ours)
  leaves = drawn_leaves(adapted, seed)
  adapter.save(tmp_path / "ours", adapted, leaves, base_model=str(tmp_path / "base"))
  peer = peft.PeftModel.from_pretrained(base(), tmp_path / "ours").eval()
  whole = lora.join(params, leaves)
  assert_same(transformer.logits(whole, adapted, tokens), peer, tokens)
  plain = np.asarray(transformer.logits(params, cfg, tokens))
  assert np.abs(logits_of(peer, tokens) - plain).max() > 1e-3 * np.abs(plain).max()


def drawn_leaves(cfg, seed: int):
  rng = np.random.default_rng(seed)
  shapes = lora.split(transformer.abstract_params(cfg))[0]
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, shapes
  )


def assert_same(ours, peer, tokens) -> None:
  theirs = logits_of(peer, tokens)
  worst = np.abs(np.asarray(ours) - theirs).max()
  assert worst <= RELATIVE_BAR * np.abs(theirs).max()


def test_what_peft_merges_is_what_we_merge(tmp_path, peft):
  cfg = drawn_models.draw("qwen2", 1)  # with biases beside the kernels
  config = json.loads(json.dumps(hf_config.to_hf(cfg, "float32")))
  base = drawn_models.transformers_model(cfg, config, 1)
  base.save_pretrained(tmp_path / "base")
  settings = {"r": 4, "lora_alpha": 9, "target_modules": SEVEN, "use_rslora": True}
  peer = peft.get_peft_model(base, peft.LoraConfig(**settings)).eval()
  draw(peer, 1, "float32")
  peer.save_pretrained(tmp_path / "a")
  cfg, params = load.load(tmp_path / "base")
  found, leaves = adapter.load(tmp_path / "a", cfg)
  merged = lora.merge(lora.join(params, leaves), found.alpha / found.rank)
  tokens = np.arange(20, dtype=np.int32)[None]
  ours = transformer.logits(merged, cfg, tokens)
  assert_same(ours, peer.merge_and_unload(), tokens)


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    ({"use_dora": True}, "use_dora is True: only plain LoRA is supported (DoRA)"),
    ({"bias": "lora_only"}, "bias is 'lora_only'"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"lora_bias": True}, "lora_bias is True"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
    ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is {'q_proj': 2}"),
    ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern is {'q_proj': 2}"),
    ({"layers_to_transform": [1]}, "adapts q_proj in 1 of 2 layers (1)"),
    ({"layers_to_transform": 0}, "adapts q_proj in 1 of 2 layers (0)"),
    ({"target_modules": ["q_proj", "embed_tokens"]}, "it adapts model.embed_tokens"),
    ({"target_modules": ["q_proj", "lm_head"]}, "it adapts lm_head"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
  ],
)
def test_what_peft_can_do_beside_plain_lora_is_refused_by_name(
  tmp_path, peft, settings, named
):
  cfg = drawn_models.draw("llama", 0)
  cfg = dataclasses.replace(cfg, num_layers=2, tie_embeddings=False)
  config = json.loads(json.dumps(hf_config.to_hf(cfg, "float32")))
  base = drawn_models.transformers_model(cfg, config, 0)
  settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}
  peft.get_peft_model(base, peft.LoraConfig(**settings)).save_pretrained(tmp_path)
  with pytest.raises(adapter.UserError) as caught:
    adapter.load(tmp_path, cfg)
  assert named in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["IA3", "LoHa", "AdaLora", "VeRA"])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path, peft, kind):
  cfg = drawn_models.draw("llama", 0)
  extra = {"IA3": {"feedforward_modules": []}, "AdaLora": {"total_step": 9}}
  settings = {"target_modules": ["q_proj"], **extra.get(kind, {})}
  getattr(peft, f"{kind if kind != 'VeRA' else 'Vera'}Config")(
    **settings
  ).save_pretrained(tmp_path)
  with pytest.raises(adapter.UserError, match=f"peft_type is '{kind.upper()}'"):
    adapter.load(tmp_path, cfg)
