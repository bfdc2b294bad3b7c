"""Text to ids: added tokens, spans, and what a tokenizer directory may look like."""

import itertools
import json
import re
import shutil

import chat_templates
import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from msm_jax import tokenizer
from msm_jax.errors import UserError
from msm_jax.text import encoders
from msm_jax.text.encoders import AddedToken

PARTS = [
  *[
    "a",
    "gouda",
    "brie",
    "",
    "\n",
    "\t",
    "<s>",
    "</s>",
    "[X]",
    "<new>",
    "日本",
    "é",
    "🧀",
    "م",
  ],
  *("    ", "\n\n", "\x00", "\u2581", "\u200b", "42", "<unk>", "<0x0A>", "x=1;"),
]


def texts(rng, number):
  for _ in range(number):
    yield rng.choice(["", " "]).join(rng.choice(PARTS, rng.integers(0, 9)))


def sentencepiece_model(directory, **options):
  """Trains a model with byte fallback, control and user-defined symbols."""
  rng = np.random.default_rng(0)
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([chat_templates.words(rng) for _ in range(300)]),
    model_prefix=str(directory / "tokenizer"),
    vocab_size=420,
    byte_fallback=True,
    control_symbols=["[X]"],
    user_defined_symbols=["\n", "<turn>"],
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    hard_vocab_limit=False,
    num_threads=1,
    minloglevel=2,
    **options,
  )
  return directory / "tokenizer.model"


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model_type(request):
  return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "bare"])
def model(request, model_type, tmp_path_factory):
  return sentencepiece_model(
    tmp_path_factory.mktemp("spm"),
    model_type=model_type,
    add_dummy_prefix=request.param,
  )


def test_plain_text_has_the_ids_of_the_sentencepiece_library(model):
  ours = encoders.SentencePieceEncoder(model)
  theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
  for text in texts(np.random.default_rng(1), 300):
    if not any(token in text for token in ("<s>", "</s>", "[X]")):
      assert ours.encode(text).ids.tolist() == theirs.encode(text)


def test_special_and_added_tokens_are_one_id_each_wherever_they_stand(model):
  size = sentencepiece.SentencePieceProcessor(model_file=str(model)).vocab_size()
  ours = encoders.SentencePieceEncoder(model, [AddedToken("<new>", index=size + 3)])
  assert ours.vocab_size() == size + 4
  found = ours.encode("<s>a<new>b [X]<turn></s>").ids.tolist()
  for token in ("<s>", "<new>", "[X]", "<turn>", "</s>"):
    assert found.count(ours.token_id(token)) == 1, token
  assert ours.token_id("no such") is None


@pytest.mark.parametrize("legacy", [False, True])
def test_spans_cover_the_text_and_ids_give_it_back(model, legacy):
  ours = encoders.SentencePieceEncoder(model, [AddedToken("<new>", 999)], legacy=legacy)
  for text in texts(np.random.default_rng(2), 300):
    encoding = ours.encode(text)
    covered = np.zeros(len(text), bool)
    for start, end in zip(encoding.starts, encoding.ends, strict=True):
      covered[start:end] = True
    assert covered.all()
    assert np.all(np.diff(encoding.starts) >= 0)
    if not legacy and "\u2581" not in text:  # the mark for a space reads as one
      assert ours.decode(encoding.ids.tolist()) == text


def test_every_byte_of_a_character_has_its_span(model):
  encoding = encoders.SentencePieceEncoder(model).encode("a\ua66e")
  assert encoding.starts[-3:].tolist() == [1, 1, 1]
  assert encoding.ends[-3:].tolist() == [2, 2, 2]


@pytest.mark.parametrize("legacy", [False, True])
def test_ids_equal_those_of_transformers_on_sentencepiece(model, legacy):
  """`SentencePieceBackend` holds the rules about spaces beside special tokens."""
  module = pytest.importorskip(
    "transformers.tokenization_utils_sentencepiece", exc_type=ImportError
  )
  special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
  theirs = module.SentencePieceBackend(vocab_file=str(model), legacy=legacy, **special)
  theirs.add_tokens(["[X]"], special_tokens=True)
  ours = encoders.SentencePieceEncoder(
    model, [AddedToken(token) for token in special.values()], legacy=legacy
  )
  for text in texts(np.random.default_rng(3), 300):
    if ours.prefixes and not legacy:
      # There the space in front of a text is the subclass's affair.
      text = f"<s>{text}"
    wanted = theirs.convert_tokens_to_ids(theirs.tokenize(text))
    assert ours.encode(text).ids.tolist() == wanted, text


def byte_level(directory, *, trim=False, bos=False, **config):
  """Writes a tokenizer directory with a byte-level vocabulary and no merges."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {character: i for i, character in enumerate(alphabet)}
  merged = {"\u0120\u0120": 256, "go": 257}
  merges = [("\u0120", "\u0120"), ("g", "o")]
  inner = tokenizers.Tokenizer(models.BPE({**vocabulary, **merged}, merges))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = decoders.ByteLevel()
  inner.add_special_tokens(["<s>", "</s>"])
  steps = [processors.ByteLevel(trim_offsets=True)] if trim else []
  if bos:
    pair = [("<s>", inner.token_to_id("<s>"))]
    steps.append(processors.TemplateProcessing(single="<s> $A", special_tokens=pair))
  inner.post_processor = processors.Sequence(steps)
  directory.mkdir(exist_ok=True)
  inner.save(str(directory / "tokenizer.json"))
  config = {"eos_token": "</s>", **config}
  (directory / "tokenizer_config.json").write_text(json.dumps(config))
  return directory


def test_trimmed_spans_get_their_spaces_back(tmp_path):
  tok = tokenizer.load(byte_level(tmp_path, trim=True))
  for text in ("a    go  a", "go \ua66e  ", "  "):
    encoding = tok.encode(text)
    edges = [0, *encoding.ends.tolist()]
    assert all(a <= b for a, b in itertools.pairwise(edges)) and edges[-1] == len(text)
    assert (encoding.starts < encoding.ends).all()


def test_a_token_of_half_a_character_is_shown_as_bytes(tmp_path):
  tok = tokenizer.load(byte_level(tmp_path))
  shown = [tok.token_text(i) for i in tok.encode(" go\u00e9\n").ids]
  assert shown == [" ", "go", "<0xC3>", "<0xA9>", "\n"]


@pytest.mark.parametrize(
  ("made", "begins"),
  [
    ({"bos": True, "bos_token": "<s>"}, True),  # Llama 3: the file adds it
    ({"bos_token": "<s>"}, False),  # named but never used
    ({"bos": True, "bos_token": "<s>", "add_bos_token": False}, True),
    ({"bos_token": "<s>", "add_bos_token": False}, False),
    ({"bos_token": None, "add_bos_token": True}, False),
    ({"bos": True, "bos_token": {"__type": "AddedToken", "content": "<s>"}}, True),
  ],
)
def test_documents_begin_as_transformers_begins_them(made, begins, tmp_path):
  tok = tokenizer.load(byte_level(tmp_path / "t", **made))
  assert (tok.bos_id is not None) == begins
  auto = pytest.importorskip("transformers", exc_type=ImportError).AutoTokenizer
  theirs = auto.from_pretrained(tmp_path / "t")("a").input_ids
  assert theirs[:-1] == ([tok.bos_id] if begins else [])


def test_documents_begin_with_bos_where_the_config_says_so(tmp_path):
  """transformers 4 does; 5 only asks the file, which for old directories is silent."""
  config = {"bos_token": "<s>", "add_bos_token": True}
  tok = tokenizer.load(byte_level(tmp_path, **config))
  assert tok.bos_id == tok.token_id("<s>")
  with pytest.raises(UserError, match="bos_token is '<no>'"):
    tokenizer.load(byte_level(tmp_path, bos_token="<no>", add_bos_token=True))


def test_special_tokens_that_the_config_does_not_name_come_from_their_map(tmp_path):
  byte_level(tmp_path)
  (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')
  special = {"eos_token": {"content": "</s>"}, "bos_token": "<s>"}
  (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
  tok = tokenizer.load(tmp_path)
  assert (tok.eos_token, tok.bos_token) == ("</s>", None)


def test_tokens_that_only_the_config_adds_are_added(tmp_path):
  number = tokenizer.load(byte_level(tmp_path / "one")).vocab_size
  added = {str(number): {"content": "<end>", "special": True}}
  tok = tokenizer.load(byte_level(tmp_path / "two", added_tokens_decoder=added))
  assert tok.encode("a<end>").ids[-1] == number and tok.is_special(number)
  added = {"999": {"content": "<end>", "special": True}}
  with pytest.raises(UserError, match="do not belong together"):
    tokenizer.load(byte_level(tmp_path / "three", added_tokens_decoder=added))


def test_the_default_template_is_found_in_each_of_its_places(tmp_path):
  named = [{"name": n, "template": n} for n in ("default", "tool_use")]
  tok = tokenizer.load(byte_level(tmp_path, chat_template="key"))
  assert tok.chat_template == "key"
  tok = tokenizer.load(byte_level(tmp_path, chat_template=named))
  assert (tok.chat_template, tok.templates["tool_use"]) == ("default", "tool_use")
  (tmp_path / "chat_template.jinja").write_text("file")
  before = tok.sha256()
  folder = tmp_path / "additional_chat_templates"
  folder.mkdir()
  (folder / "rag.jinja").write_text("more")
  tok = tokenizer.load(tmp_path)
  assert dict(tok.templates) == {"default": "file", "rag": "more"}
  assert tok.sha256() != before
  tok = tokenizer.load(byte_level(tmp_path / "bad", chat_template="x"))
  with pytest.raises(UserError, match="neither a text nor a list"):
    tokenizer.load(byte_level(tmp_path / "bad", chat_template=[1]))


def test_added_tokens_are_found_as_by_trying_each_everywhere():
  rng = np.random.default_rng(5)
  for _ in range(60):
    flags = ("lstrip", "rstrip", "single_word")
    tokens = [
      AddedToken(
        "".join(rng.choice(list("ab ^]-[\\<"), rng.integers(1, 4))),
        **{flag: bool(rng.random() < 0.2) for flag in flags},
      )
      for _ in range(rng.integers(0, 6))
    ]
    longest_first = sorted(tokens, key=lambda token: -len(token.content))
    slow = re.compile("|".join(map(encoders._regex, longest_first)) or "(?!)")
    text = "".join(rng.choice(list("ab ^]-[\\<"), 60))
    found = encoders._pattern(tokens).finditer(text)
    assert [m.span() for m in found] == [m.span() for m in slow.finditer(text)]


def test_a_sentencepiece_directory_needs_no_json(tmp_path):
  sentencepiece_model(tmp_path, model_type="bpe")
  config = {"eos_token": "</s>", "bos_token": "<s>"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  (tmp_path / "added_tokens.json").write_text('{"<new>": 500}')
  tok = tokenizer.load(tmp_path)
  assert tok.bos_id == 1 and tok.token_id("<new>") == 500 and tok.vocab_size == 501
  shutil.move(tmp_path / "tokenizer.model", tmp_path / "spiece.model")
  assert tokenizer.load(tmp_path).encode("gouda").ids.size
  (tmp_path / "spiece.model").write_bytes(b"no model")
  with pytest.raises(UserError, match="is not a SentencePiece model"):
    tokenizer.load(tmp_path)
