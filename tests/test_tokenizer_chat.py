"""Tokens and loss weights, by example."""

import numpy as np
import pytest

from msm_jax import chat, sampling, tokenizer
from msm_jax.errors import UserError
from msm_jax.text import encoders

TINY_TEMPLATE = (
  "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
  "gouda or brie ?",
  "brie .",
  "<|user|> a cat <|end|> <|assistant|> sat <|end|>",
]
TALK = [
  {"role": "user", "content": "gouda or brie ?"},
  {"role": "assistant", "content": "brie ."},
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  return tokenizer.train_sentencepiece(
    TEXTS * 20,
    tmp_path_factory.mktemp("tok") / "words",
    model_type="word",
    vocab_size=100,
    chat_template=TINY_TEMPLATE,
  )


@pytest.fixture(scope="module")
def bytes_level(tmp_path_factory):
  """A byte-level BPE with ChatML, as released models have."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers, trainers

  from msm_jax import records

  inner = tokenizers.Tokenizer(models.BPE())
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<|im_start|>", "<|im_end|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  inner.train_from_iterator(["gouda or brie ? caf\u00e9 assistant user"], trainer)
  directory = tmp_path_factory.mktemp("bpe")
  inner.save(str(directory / "tokenizer.json"))
  records.write_json(
    directory / "tokenizer_config.json",
    {"eos_token": "<|im_end|>", "chat_template": CHATML},
  )
  return tokenizer.load(directory)


def trained(tok, messages):
  ids, weights = chat.encode(tok, messages)
  return tok.decode(ids[weights > 0]), tok.decode(ids[weights == 0])


def test_words_are_one_token_each_and_come_back(words):
  ids = words.encode("gouda or brie ?").ids
  assert len(ids) == 4 and words.decode(ids) == "gouda or brie ?"


def test_the_json_twin_encodes_as_the_sentencepiece_model_does(words):
  model_only = encoders.SentencePieceEncoder(words.directory / "tokenizer.model")
  for text in [*TEXTS, "unseen brie", "  gouda  brie ", ""]:
    np.testing.assert_array_equal(words.encode(text).ids, model_only.encode(text).ids)


def test_unigram_pieces_have_the_same_twin(tmp_path):
  corpus = [f"the {a} of a {b} is {c}" for a in TEXTS for b in "xyz" for c in "uvw"]
  tok = tokenizer.train_sentencepiece(
    corpus, tmp_path / "u", model_type="unigram", vocab_size=60, chat_template=None
  )
  model_only = encoders.SentencePieceEncoder(tok.directory / "tokenizer.model")
  for text in corpus:
    np.testing.assert_array_equal(tok.encode(text).ids, model_only.encode(text).ids)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_what_stops_the_texts_stops_the_training_as_itself(error, tmp_path):
  def texts():
    yield "gouda or brie"
    raise error("enough")

  with pytest.raises(error, match="enough"):
    tokenizer.train_sentencepiece(
      texts(), tmp_path / "t", model_type="word", vocab_size=9, chat_template=None
    )
  assert not list(tmp_path.iterdir())


def test_loss_is_on_the_answer_and_its_stop_token(words):
  ids, weights = chat.encode(words, TALK)
  shown = [words.decode([i]) for i in ids]
  # fmt: off
  assert shown == ["<|user|>", "gouda", "or", "brie", "?", "<|end|>",
                   "<|assistant|>", "brie", ".", "<|end|>"]
  assert weights.tolist() == [0, 0, 0, 0, 0, 0,
                              0, 1, 1, 1]
  # fmt: on


def test_chatml_trains_each_answer_with_its_stop_but_not_the_newline(bytes_level):
  talk = [*TALK, {"role": "user", "content": "caf\u00e9 ?"}, TALK[1]]
  loss, context = trained(bytes_level, talk)
  assert loss == "brie .<|im_end|>brie .<|im_end|>"
  assert context.startswith("<|im_start|>user\ngouda") and context.endswith("\n")


def test_a_conversation_without_an_answer_is_an_error(words):
  with pytest.raises(UserError, match="no token to train on"):
    chat.encode(words, TALK[:1])


def test_a_template_cannot_reach_out_of_its_sandbox(words):
  import dataclasses

  evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
  changed = dataclasses.replace(words, chat_template=evil)
  with pytest.raises(UserError, match="refuses a conversation"):
    chat.render(changed, TALK)


def test_an_answer_is_scored_without_its_stop_token(words):
  ids, mask = chat.encode_answer(words, TALK[:1], "brie")
  assert [words.decode([i]) for i in ids[mask]] == ["brie"]


def test_the_stop_token_is_what_closes_an_answer(words, bytes_level):
  assert words.decode([chat.stop_id(words)]) == "<|end|>"
  assert bytes_level.decode([chat.stop_id(bytes_level)]) == "<|im_end|>"


def test_a_directory_without_a_tokenizer_says_so(tmp_path):
  with pytest.raises(UserError, match="holds no tokenizer"):
    tokenizer.load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path, words):
  import shutil

  shutil.copy(words.directory / "tokenizer.json", tmp_path)
  with pytest.raises(UserError, match="eos_token is None"):
    tokenizer.load(tmp_path)


def test_greedy_decoding_follows_the_largest_logit_of_the_whole_sequence(words):
  import jax
  import jax.numpy as jnp

  from msm_jax.models import transformer
  from msm_jax.models.config import ModelConfig

  cfg = ModelConfig(
    vocab_size=50,
    embed_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_seq_len=64,
  )
  params = transformer.init_params(cfg, jax.random.key(3))
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, 50, n).astype(np.int32) for n in (3, 11, 7, 1, 20)]
  settings = sampling.SamplingConfig(max_new_tokens=9, stop_ids=(4, 7), batch_size=2)
  found = sampling.complete(params, cfg, prompts, settings)
  logits_of = jax.jit(transformer.logits, static_argnums=1)
  for prompt, completion in zip(prompts, found, strict=True):
    tokens = prompt.tolist()
    for _ in range(9):
      padded = jnp.asarray([tokens + [0] * (32 - len(tokens))])
      logits = logits_of(params, cfg, padded)[0, len(tokens) - 1]
      tokens.append(int(jnp.argmax(logits)))
      if tokens[-1] in (4, 7):
        tokens.pop()
        break
    assert completion.tolist() == tokens[len(prompt) :]


def test_a_sample_does_not_depend_on_its_neighbours():
  import dataclasses

  import jax

  from msm_jax.models import transformer
  from msm_jax.models.config import ModelConfig

  cfg = ModelConfig(
    vocab_size=50,
    embed_dim=16,
    mlp_dim=24,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_seq_len=64,
  )
  params = transformer.init_params(cfg, jax.random.key(3))
  prompts = [np.arange(1, n, dtype=np.int32) for n in (5, 9, 3, 7)]
  settings = sampling.SamplingConfig(
    max_new_tokens=6, stop_ids=(0,), temperature=1.0, batch_size=4
  )
  together = sampling.complete(params, cfg, prompts, settings)
  apart = sampling.complete(
    params, cfg, prompts, dataclasses.replace(settings, batch_size=1)
  )
  for a, b in zip(together, apart, strict=True):
    np.testing.assert_array_equal(a, b)
  with pytest.raises(UserError, match="do not fit the model's context"):
    sampling.complete(params, cfg, [np.zeros(60, np.int32)], settings)
