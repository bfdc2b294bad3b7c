"""Our forward pass beside transformers and PEFT on random models, in float32."""

import dataclasses
import json
import sys

import hf_models
import numpy as np
import pytest

from msm_jax.errors import UserError
from msm_jax.hf import adapter, export, verify
from msm_jax.models import lora, transformer
from msm_jax.models.config import RopeScaling

BAR = 1e-4  # of random tiny models; the logits are of order 1


@pytest.fixture(scope="module", autouse=True)
def _quiet():
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch").set_num_threads(1)
  transformers.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def tok_dir(tmp_path_factory):
  return hf_models.tokenizer_dir(tmp_path_factory.mktemp("tok") / "tokenizer")


LLAMA3 = RopeScaling(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=32,
)


def test_an_export_loads_in_transformers_with_the_same_logits(tmp_path, tok_dir):
  cfg = hf_models.config(tie_embeddings=False, rope_scaling=LLAMA3)
  cfg = dataclasses.replace(cfg, lora=hf_models.lora())
  out = tmp_path / "out"
  export.export(
    out, cfg, hf_models.params(cfg), tokenizer_dir=tok_dir, max_shard_bytes=5000
  )
  np.save(tmp_path / "ids.npy", np.arange(80).reshape(2, 40) % cfg.vocab_size)
  report = verify.verify(
    out,
    tokens=tmp_path / "ids.npy",
    logits_out=tmp_path / "logits" / "l.npy",
    max_abs_bar=BAR,
  )
  assert report.max_abs <= BAR
  assert "max abs difference from transformers" in str(report)
  logits = np.load(tmp_path / "logits" / "l.npy")
  assert logits.shape == (2, 40, cfg.vocab_size)
  assert logits.dtype == np.float32
  assert not list((tmp_path / "logits").glob(".*"))


def test_a_wrong_rotary_table_is_a_mismatch(tmp_path, monkeypatch):
  from transformers.models.llama import modeling_llama

  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  forward = modeling_llama.LlamaRotaryEmbedding.forward

  def slower(self, x, position_ids):
    return forward(self, x, position_ids=position_ids // 2)

  monkeypatch.setattr(modeling_llama.LlamaRotaryEmbedding, "forward", slower)
  with pytest.raises(verify.Mismatch, match="the bars are"):
    verify.verify(tmp_path, logits_out=tmp_path / "l.npy")
  assert (tmp_path / "l.npy").exists()


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    (np.array([[61]]), "ids from 61 to 61"),
    (np.array([[-1]]), "ids from -1"),
    (np.zeros((2, 2)), "integer ids"),
    (np.zeros((1, 2, 2), np.int32), "integer ids"),
  ],
)
def test_ids_that_do_not_fit_are_refused(tmp_path, ids, message):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  with pytest.raises(UserError, match=message):
    verify.verify(tmp_path, tokens=ids)
  (tmp_path / "no.npy").write_text("ids")
  with pytest.raises(UserError, match=r"no\.npy is no \.npy file"):
    verify.verify(tmp_path, tokens=tmp_path / "no.npy")


def test_what_was_not_compared_is_said(tmp_path, monkeypatch):
  cfg = hf_models.config()
  hf_models.write(tmp_path, cfg, hf_models.tensors(cfg))
  monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
  report = verify.verify(tmp_path)
  assert not report.compared
  assert "not compared" in str(report)


@pytest.mark.filterwarnings("ignore")  # PEFT's own imports warn
def test_an_adapter_loads_in_peft_with_the_same_logits(tmp_path, tok_dir):
  peft = pytest.importorskip("peft")
  import torch
  import transformers

  cfg = hf_models.config(lora=hf_models.lora(targets=("q", "v", "o", "gate", "down")))
  params = hf_models.params(cfg)
  base_cfg = dataclasses.replace(cfg, lora=None)
  base = lora.split(params)[1]
  export.export(
    tmp_path / "base", base_cfg, base, tokenizer_dir=tok_dir, dtype="float32"
  )
  adapter.save(tmp_path / "a", cfg, params, base_model=str(tmp_path / "base"))
  peer = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "base", dtype=torch.float32
  )
  peer = peft.PeftModel.from_pretrained(peer, tmp_path / "a").eval()
  tokens = np.arange(40, dtype=np.int32)[None]
  with torch.no_grad():
    theirs = peer(torch.from_numpy(tokens).long()).logits.numpy()
  ours = np.asarray(transformer.logits(params, cfg, tokens))
  np.testing.assert_allclose(ours, theirs, atol=BAR)
  without = np.asarray(transformer.logits(base, base_cfg, tokens))
  assert np.abs(ours - without).max() > 0.1
  # And an adapter that PEFT wrote, with rank-stabilised scaling.
  config = peft.LoraConfig(
    r=3,
    lora_alpha=6,
    use_rslora=True,
    target_modules=["q_proj", "up_proj"],
    init_lora_weights=False,
    task_type="CAUSAL_LM",
  )
  plain = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "base", dtype=torch.float32
  )
  peer = peft.get_peft_model(plain, config).eval()
  peer.save_pretrained(tmp_path / "b")
  assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["use_rslora"]
  read, leaves = adapter.load(tmp_path / "b", base_cfg)
  with torch.no_grad():
    theirs = peer(torch.from_numpy(tokens).long()).logits.numpy()
  ours = transformer.logits(
    lora.join(base, leaves), dataclasses.replace(base_cfg, lora=read), tokens
  )
  np.testing.assert_allclose(ours, theirs, atol=BAR)
