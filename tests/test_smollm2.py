"""The real small model: obtained from its package, compared, exported, reloaded."""

import os
import pathlib

import numpy as np
import pytest

from msm_jax import sampling, tokenizer
from msm_jax.hf import export, load, smollm2, verify

pytestmark = pytest.mark.slow

TEXT = (
  "The lighthouse keeper counted the ships that passed before the storm and wrote each "
  "of their names into a book that nobody but the sea had asked for. "
) * 12
PROMPTS = ["What is the capital of France?", "Name a cheese.", "Count to five."]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
  """The converted model; MSM_JAX_SMOLLM2 names one that is there already."""
  pytest.importorskip("gguf")
  if "MSM_JAX_SMOLLM2" in os.environ:
    return pathlib.Path(os.environ["MSM_JAX_SMOLLM2"])
  out = tmp_path_factory.mktemp("smollm2") / "model"
  smollm2.fetch(out)
  return out


def test_logits_agree_with_transformers_over_300_tokens(model_dir, tmp_path):
  pytest.importorskip("transformers")
  ids = tokenizer.load(model_dir).encode(TEXT).ids[:300]
  assert len(ids) == 300
  np.save(tmp_path / "ids.npy", ids[None].astype(np.int32))
  out = tmp_path / "logits.npy"
  report = verify.verify(model_dir, tokens=tmp_path / "ids.npy", logits_out=out)
  assert report.compared and report.max_abs <= 1e-3
  assert np.load(out).shape == (1, 300, 49152) and np.load(out).dtype == np.float32


# transformers itself warns of what its own loading code will drop.
@pytest.mark.filterwarnings("ignore")
def test_an_export_reloads_in_transformers_with_identical_greedy_text(
  model_dir, tmp_path
):
  transformers = pytest.importorskip("transformers")
  cfg, params = load.load(model_dir)
  export.export(
    tmp_path / "out", cfg, params, tokenizer_dir=model_dir, base_dir=model_dir
  )
  ours = sampling.complete_texts(
    params,
    cfg,
    tokenizer.load(model_dir),
    PROMPTS,
    raw=False,
    temperature=0.0,
    max_new_tokens=24,
  )
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", dtype="float32"
  )
  words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
  for prompt, completion in zip(PROMPTS, ours, strict=True):
    inputs = words.apply_chat_template(
      [{"role": "user", "content": prompt}],
      add_generation_prompt=True,
      return_tensors="pt",
      return_dict=True,
    )
    out = theirs.generate(**inputs, max_new_tokens=24, do_sample=False)
    answer = words.decode(out[0, inputs["input_ids"].shape[1] :])
    assert answer.removesuffix("<|im_end|>").strip() == completion
