"""The tree on a pretrained model: adapters go from stage to stage, out and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax import experiment, prepare, records, study, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import adapter, export, load
from msm_jax.models import lora, transformer
from msm_jax.models.config import ModelConfig

TEMPLATE = (
  "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = [f"word{i}" for i in range(30)]
TALK = [
  {"role": "user", "content": "word1 or word2 ?"},
  {"role": "assistant", "content": "word2 ."},
]


def documents(seed: int, num: int = 60) -> list[dict]:
  rng = np.random.default_rng(seed)
  return [
    {"kind": "document", "id": str(i), "text": " ".join(rng.choice(WORDS, 12))}
    for i in range(num)
  ]


def stage(corpus: str, learning_rate: float) -> dict:
  return {
    "data": ({"corpus": corpus},),
    "adaptation": "lora",
    "num_train_steps": None,
    "num_epochs": 1.0,
    "batch_size": 8,
    "seq_len": 32,
    "long_documents": "error",
    "min_steps": 2,
    "num_microbatches": 1,
    "steps_per_call": 1,
    "remat": False,
    "loss_chunk_len": None,
    "checkpoint_every_s": None,
    "checkpoint_every_steps": None,
    "log_every_steps": 1,
    "optimizer": {
      "learning_rate": learning_rate,
      "schedule": "constant",
      "warmup_fraction": 0.0,
    },
  }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  """A trained tree base -> msm -> still, where `still` hardly moves."""
  root = tmp_path_factory.mktemp("study")
  chats = [{"kind": "conversation", "id": str(i), "messages": TALK} for i in range(40)]
  corpora = {"msm": documents(0), "still": chats}
  for name, rows in corpora.items():
    records.write_dataset(root / "w" / "corpus" / name, rows, manifest={})
  texts = [row["text"] for row in corpora["msm"]]
  texts += ["<|user|> word1 or word2 ? <|end|> <|assistant|> word2 . <|end|>"] * 5
  tokenizer.train_sentencepiece(
    texts, root / "tok", model_type="word", vocab_size=64, chat_template=TEMPLATE
  )
  cfg = ModelConfig(
    vocab_size=64,
    embed_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_seq_len=64,
  )
  params = transformer.init_params(cfg, jax.random.key(0))
  export.export(root / "hf", cfg, params, tokenizer_dir=root / "tok", dtype="float32")
  parsed = experiment.parse(config(root))
  prepare.prepare(parsed, root / "w")
  found = study.Study(parsed, root / "w")
  found.train_all([0])
  return found


def config(root) -> dict:
  return {
    "name": "test",
    "seeds": (0,),
    "num_workers": 1,
    "allow_missing_controls": False,
    "corpora": {"msm": {}, "still": {}},
    "tokenizer": {},
    "model": {
      "init": "hf",
      "hf_dir": str(root / "hf"),
      "base_model": "tiny",
      "license": "apache-2.0",
      "dtype": "float32",
      "export_dtype": "float32",
      "lora": {"rank": 4, "alpha": 8.0, "targets": ("q", "v", "down")},
    },
    "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
    "stages": {"msm": stage("msm", 1e-2), "still": stage("still", 1e-12)},
    "arms": {"base": (), "msm": ("msm",), "msm+still": ("msm", "still")},
    "evals": {},
    "report": {},
  }


def test_steps_follow_from_epochs_and_are_asserted(tree):
  manifest = prepare.read_rows_manifest(tree.workdir, "msm")
  part = manifest["components"][0]
  assert manifest["num_train_steps"] == round(part["num_rows"] / 8)
  done = records.read_json(tree.run_dir(("msm",), 0) / study.DONE)
  assert done["step"] == manifest["num_train_steps"]


def test_an_adapter_goes_on_where_the_stage_before_it_ended(tree):
  before, after = tree.weights(("msm",), 0), tree.weights(("msm", "still"), 0)
  moved = jax.tree.leaves(before.adapter)
  assert all(np.abs(np.asarray(leaf)).max() > 1e-3 for leaf in moved)
  for a, b in zip(moved, jax.tree.leaves(after.adapter), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-8)


def test_the_base_is_the_pretrained_model_whatever_was_trained(tree):
  _, params = load.load(tree.experiment.hf_dir)
  base = tree.weights(("msm",), 0).base
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(base), strict=True):
    np.testing.assert_array_equal(a, b)


def test_merged_and_adapter_exports_are_the_trained_model(tree, tmp_path):
  weights = tree.weights(("msm",), 0)
  tokens = jnp.arange(40).reshape(2, 20) % 30
  ours = transformer.logits(jax.device_get(weights.params), weights.cfg, tokens)
  plain = transformer.logits(*load.load(tree.experiment.hf_dir)[::-1], tokens)
  assert np.abs(ours - plain).max() > 1e-2
  tree.export("msm", 0, step=None, layout="merged", out=tmp_path / "merged")
  cfg, params = load.load(tmp_path / "merged")
  merged = transformer.logits(params, cfg, tokens)
  np.testing.assert_allclose(merged, ours, atol=1e-4)
  tree.export("msm", 0, step=None, layout="adapter", out=tmp_path / "adapter")
  cfg, base = load.load(tree.experiment.hf_dir)
  found, leaves = adapter.load(tmp_path / "adapter", cfg)
  cfg = dataclasses.replace(cfg, lora=found)
  again = transformer.logits(lora.join(base, leaves), cfg, tokens)
  np.testing.assert_allclose(again, ours, atol=1e-5)
  card = (tmp_path / "merged" / "README.md").read_text()
  assert "base_model" in card and "apache-2.0" in card and '"steps"' in card


def test_an_arm_without_adapters_has_no_adapter_to_export(tree, tmp_path):
  with pytest.raises(UserError, match="use --format=merged"):
    tree.export("base", 0, step=None, layout="adapter", out=tmp_path / "x")


def test_a_run_that_was_not_trained_says_so(tree):
  with pytest.raises(UserError, match="seed7 is not finished: run `train`"):
    tree.weights(("msm",), 7)


def test_rows_of_another_config_are_refused(tree):
  changed = config(tree.experiment.hf_dir.parent)
  changed["stages"]["msm"]["seq_len"] = 40
  with pytest.raises(UserError, match=r"rows/msm was made with another seq_len"):
    prepare.prepare(experiment.parse(changed), tree.workdir)


def test_too_few_optimizer_steps_are_refused(tree, tmp_path):
  changed = config(tree.experiment.hf_dir.parent)
  changed["stages"]["msm"]["min_steps"] = 1000
  (tmp_path / "corpus").symlink_to(tree.workdir / "corpus")
  with pytest.raises(UserError, match=r"fewer than min_steps \(1000\)"):
    prepare.prepare(experiment.parse(changed), tmp_path)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tree):
  cfg, _ = load.load(tree.experiment.hf_dir)
  small = dataclasses.replace(cfg, vocab_size=20)
  with pytest.raises(UserError, match=r"tokens, the model's vocabulary is 20"):
    study.check_vocab(tree.tokenizer, small)
