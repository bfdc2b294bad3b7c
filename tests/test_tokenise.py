"""Records to tokens: spans, prefixes, many at once, on disk."""

import hf_models
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers, trainers

from msm_jax import pieces, records, tokenise, tokenizer
from msm_jax.errors import UserError
from msm_jax.text import encoders

TALK = [{"role": "user", "content": "a ?"}, {"role": "assistant", "content": "brie"}]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  """A tokenizer that puts a space in front of every text."""
  return tokenizer.load(hf_models.tokenizer_dir(tmp_path_factory.mktemp("w") / "tok"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
  """A byte-level tokenizer."""
  directory = tmp_path_factory.mktemp("bpe")
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=["<s>", "</s>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  model.train_from_iterator(["the cheese is ripe and the brie is cheap"] * 3, trainer)
  model.save(str(directory / "tokenizer.json"))
  config = {"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": True}
  records.write_json(directory / "tokenizer_config.json", config)
  return tokenizer.load(directory)


def document(text, **fields):
  return {"kind": "document", "id": "a", "text": text, **fields}


def test_spans_of_a_document_set_the_weights_of_their_tokens(words):
  spans = [[0, 4, 0.0], [11, 12, 0.5]]  # "the ", and a letter of "is"
  record = document("the cheese is ripe", loss_spans=spans)
  found = tokenise.encode_record(record, words)
  assert len(found.ids) == 5  # four words and the end
  np.testing.assert_array_equal(found.weights, [0, 1, 0.5, 1, 1])
  # What is masked on purpose stays so where a stage trains on whole conversations.
  everything = tokenise.encode_record(record, words, train_on="all")
  np.testing.assert_array_equal(everything.weights, found.weights)
  for wrong in ([0, 99, 0.0], [5, 4, 0.0], [0, 4, -1.0], [0, 4]):
    with pytest.raises(UserError, match="record 'a': loss_spans has"):
      tokenise.encode_record({**record, "loss_spans": [wrong]}, words)


@pytest.mark.parametrize("train_on", ["assistant", "all"])
@pytest.mark.parametrize("which", ["words", "pairs"])
def test_a_prefix_carries_no_loss_and_leaves_the_document_as_it_was(
  which, train_on, request
):
  tok = request.getfixturevalue(which)
  record = document("the cheese is ripe", loss_spans=[[0, 3, 0.25], [14, 18, 0.0]])
  alone = tokenise.encode_record(record, tok, train_on=train_on)
  found = tokenise.encode_record(record, tok, train_on=train_on, prefix="and a brie ? ")
  num_bos = 0 if tok.bos_id is None else 1
  own = len(alone.ids) - num_bos
  assert len(found.ids) > len(alone.ids)
  np.testing.assert_array_equal(found.ids[-own:], alone.ids[num_bos:])
  np.testing.assert_array_equal(found.weights[-own:], alone.weights[num_bos:])
  assert not found.weights[:-own].any()
  assert (found.ids[:num_bos] == alone.ids[:num_bos]).all()


def test_a_prefix_of_a_conversation_is_refused(words):
  talk = {"kind": "conversation", "id": "t", "messages": TALK}
  with pytest.raises(UserError, match="record 't' is a conversation: a prefix"):
    tokenise.encode_record(talk, words, prefix="a")


def drawn_records(seed: int, count: int = 150) -> list[dict]:
  rng = np.random.default_rng(seed)
  some = ["the", "cheese", "is", "ripe", "brie", "gouda", "caf\u00e9", "</s>", " ", "?"]
  found = []
  for i in range(count):
    text = " ".join(rng.choice(some, rng.integers(0, 40)))
    record = document(text, id=str(i))
    if rng.random() < 0.3 and text:
      record["loss_spans"] = [[0, int(rng.integers(1, len(text) + 1)), 0.0]]
    if rng.random() < 0.3:
      talk = [{"role": "user", "content": text + "?"}, TALK[1]]
      talk *= int(rng.integers(1, 3))
      record = {"kind": "conversation", "id": str(i), "messages": talk}
    found.append(record)
  return found


def test_many_at_once_are_what_they_are_one_by_one(words):
  drawn = drawn_records(0)
  for train_on in ("assistant", "all"):
    together = tokenise.encode_records(drawn, words, train_on=train_on)
    for record, piece in zip(drawn, together, strict=True):
      alone = tokenise.encode_record(record, words, train_on=train_on)
      np.testing.assert_array_equal(piece.ids, alone.ids)
      np.testing.assert_array_equal(piece.weights, alone.weights)
      assert piece.ids.dtype == np.int32 and piece.weights.dtype == np.float32


def test_ids_alone_are_those_of_the_encoding(words, pairs):
  texts = [record.get("text", "a </s> b") for record in drawn_records(1)]
  model = encoders.SentencePieceEncoder(words.directory / "tokenizer.model")
  for backend in (words.backend, pairs.backend, model):
    found = backend.encode_ids(texts)
    batch = backend.encode_batch(texts)
    for text, ids, encoding in zip(texts, found, batch, strict=True):
      np.testing.assert_array_equal(ids, backend.encode(text).ids)
      np.testing.assert_array_equal(encoding.ids, ids)
      np.testing.assert_array_equal(encoding.starts, backend.encode(text).starts)


def test_a_record_that_cannot_be_encoded_is_named_among_many(words):
  talks = [{"kind": "conversation", "id": str(i), "messages": TALK} for i in range(5)]
  talks[3] = {**talks[3], "messages": TALK[:1]}
  with pytest.raises(UserError, match=r"record '3': .* has no token to train on"):
    tokenise.encode_records(talks, words)
  with pytest.raises(UserError, match="record '7' is a 'pair'"):
    tokenise.encode_records([{"kind": "pair", "id": "7"}], words)


def test_records_go_in_groups_of_bounded_size():
  texts = [document("x" * 200_000, id=str(i)) for i in range(7)]
  assert [len(batch) for batch in tokenise.batches(iter(texts))] == [3, 3, 1]
  assert list(tokenise.batches([])) == []


def test_pieces_come_back_from_disk_cut_and_chosen(words, tmp_path):
  made = tokenise.encode_records(drawn_records(2), words)
  pieces.write(tmp_path / "p", ((piece, i % 2 == 0) for i, piece in enumerate(made)))
  found = pieces.read(tmp_path / "p")
  assert found.is_document.tolist() == [i % 2 == 0 for i in range(len(made))]
  for one, other in zip(found, made, strict=True):
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.weights[1:], other.weights[1:])
  assert found.num_targets.tolist() == [
    int(np.count_nonzero(piece.weights[1:])) for piece in made
  ]
  long = np.flatnonzero(found.sizes > 6)
  parts = found.cut(long, np.full(len(long), 2), np.full(len(long), 4))
  for i, part in zip(long.tolist(), parts, strict=True):
    np.testing.assert_array_equal(part.ids, made[i].ids[2:6])
    np.testing.assert_array_equal(part.weights[1:], made[i].weights[3:6])


def test_pieces_that_were_not_finished_are_not_there(words, tmp_path):
  def broken():
    yield pieces.Piece(np.zeros(3, np.int32), np.ones(3, np.float32)), True
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    pieces.write(tmp_path / "p", broken())
  assert pieces.read(tmp_path / "p") is None and not list(tmp_path.iterdir())


def test_a_system_prompt_stands_before_conversations_alone(words):
  own = {"role": "system", "content": "the cheese"}
  for talk, system in ((TALK, "is ripe"), ([own, *TALK], "is ripe\n\nthe cheese")):
    record = {"kind": "conversation", "id": "c", "messages": talk}
    found = tokenise.encode_record(record, words, system_prompt="is ripe")
    by_hand = [{"role": "system", "content": system}, *TALK]
    expected = tokenise.encode_record({**record, "messages": by_hand}, words)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert record["messages"] is talk  # as it was
  with pytest.raises(UserError, match="record 'a' is a document: a system_prompt"):
    tokenise.encode_record(document("the cheese"), words, system_prompt="is ripe")
