import json

import hf_models
import numpy as np
import pytest
import tokenizers

from msm_jax import chat, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import gguf as hf_gguf
from msm_jax.hf import load, names

gguf = pytest.importorskip("gguf")

TOKENS = [
  "<|end|>",
  "<|user|>",
  "a",
  "b",
  "c",
  "\u0120",
  "1",
  "2",
  "\u010a",
  "ab",
  "\u0120ab",
]
TOKENS += ["\u010a\u010a"]
MERGES = ["a b", "\u0120 ab", "\u010a \u010a"]
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
CFG = hf_models.config(
  vocab_size=len(TOKENS), embed_dim=32, mlp_dim=64, num_heads=4, head_dim=8
)


def permuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
  """Returns rows as llama.cpp stores them: the halves of a head interleaved."""
  rows, columns = weight.shape
  halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
  return halves.swapaxes(1, 2).reshape(rows, columns)


def write(path, given: dict, *, architecture="llama", extra=(), **fields) -> None:
  writer = gguf.GGUFWriter(path, architecture)
  writer.add_block_count(CFG.num_layers)
  writer.add_context_length(CFG.max_seq_len)
  writer.add_embedding_length(CFG.embed_dim)
  writer.add_feed_forward_length(CFG.mlp_dim)
  writer.add_head_count(CFG.num_heads)
  writer.add_head_count_kv(CFG.num_kv_heads)
  writer.add_layer_norm_rms_eps(CFG.norm_eps)
  writer.add_rope_freq_base(123456.7)
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre(fields.get("pre", "smollm"))
  writer.add_token_list(TOKENS)
  writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
  writer.add_token_merges(MERGES)
  writer.add_eos_token_id(0)
  writer.add_chat_template(TEMPLATE)
  for key, value in extra:
    writer.add_uint32(key, value)
  theirs = {hf: ours for ours, hf in hf_gguf._TENSORS.items()}
  for name, values in given.items():
    parts = name.removesuffix(".weight").split(".")
    prefix = f"blk.{parts[2]}." if parts[1] == "layers" else ""
    stem = ".".join(parts[3:]) if prefix else ".".join(parts)
    if stem.endswith("q_proj"):
      values = permuted(values, CFG.num_heads)
    if stem.endswith("k_proj"):
      values = permuted(values, CFG.num_kv_heads)
    kind = fields.get("kind", gguf.GGMLQuantizationType.F32)
    if values.ndim == 1:
      kind = gguf.GGMLQuantizationType.F32
    data = gguf.quantize(values.astype(np.float32), kind)
    writer.add_tensor(f"{prefix}{theirs[stem]}.weight", data, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def test_a_gguf_file_becomes_a_model_directory(tmp_path):
  given = hf_models.tensors(CFG)
  write(tmp_path / "m.gguf", given)
  cfg = hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  loaded, params = load.load(tmp_path / "out")
  assert loaded == cfg
  assert cfg.norm_eps == 1e-5  # not the 9.9999997e-06 of float32
  assert cfg.rope_theta == 123456.7
  for tensor in names.tensors(cfg):
    leaf = dict(names.walk(params))[tensor.path]
    leaf = leaf if tensor.layer is None else leaf[tensor.layer]
    wanted = given[tensor.name].astype(np.float32)
    np.testing.assert_array_equal(tensor.from_leaf(np.asarray(leaf)), wanted)


def test_its_tokenizer_and_template_come_along(tmp_path):
  write(tmp_path / "m.gguf", hf_models.tensors(CFG))
  hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  tok = tokenizer.load(tmp_path / "out")
  assert tok.eos_token == "<|end|>"
  text = "ab ab\n\n12<|user|>cab"
  pieces = ["ab", "\u0120ab", "\u010a\u010a", "1", "2", "<|user|>", "c", "ab"]
  assert [TOKENS[i] for i in tok.encode(text).ids] == pieces
  assert tok.decode(tok.encode(text).ids) == text
  assert chat.render(tok, [{"role": "user", "content": "a"}]) == "<|user|>a<|end|>"
  special = json.loads((tmp_path / "out" / "tokenizer.json").read_text())[
    "added_tokens"
  ]
  assert [token["content"] for token in special if token["special"]] == TOKENS[:2]
  assert tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))


def test_quantised_weights_are_dequantised(tmp_path):
  given = hf_models.tensors(CFG)
  write(tmp_path / "m.gguf", given, kind=gguf.GGMLQuantizationType.Q8_0)
  hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out", dtype="float32")
  _, params = load.load(tmp_path / "out")
  wanted = given["model.layers.1.mlp.up_proj.weight"].astype(np.float32).T
  np.testing.assert_allclose(
    params["layers"]["mlp"]["up"]["kernel"][1], wanted, atol=0.03
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"architecture": "qwen2"}, "general.architecture is 'qwen2'"),
    ({"pre": "tekken"}, "tokenizer.ggml.pre is 'tekken'"),
    ({"extra": [("llama.expert_count", 8)]}, "llama.expert_count is 8"),
    ({"extra": [("llama.rope.dimension_count", 4)]}, "rope.dimension_count is 4"),
  ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, changes, message):
  write(tmp_path / "m.gguf", hf_models.tensors(CFG), **changes)
  with pytest.raises(UserError, match=r"m\.gguf: ") as caught:
    hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  assert message in str(caught.value)
  assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_missing_tensors_and_damaged_files_are_refused(tmp_path):
  given = hf_models.tensors(CFG)
  given.pop("model.layers.1.mlp.up_proj.weight")
  write(tmp_path / "m.gguf", given)
  with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight is missing"):
    hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
  data = (tmp_path / "m.gguf").read_bytes()
  for damaged in (data[: len(data) // 2], data[:40], b"GGUX" + data[4:], b""):
    (tmp_path / "m.gguf").write_bytes(damaged)
    with pytest.raises(UserError, match="is no whole GGUF file"):
      hf_gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
