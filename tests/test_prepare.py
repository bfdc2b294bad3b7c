"""Corpora to rows on disk: mixtures with exact amounts, and what can be wrong."""

import itertools
import shutil

import numpy as np
import pytest
import small_study

from msm_jax import (
  experiment,
  input_pipeline,
  packing,
  prepare,
  records,
  show,
  study,
  tokenizer,
)
from msm_jax import sharding as sharding_lib
from msm_jax.errors import UserError

WORDS = [*small_study.WORDS, "<doc>", "or", "?", "."]


def documents(name: str, seed: int, count: int, longest: int = 40) -> list[dict]:
  rng = np.random.default_rng(seed)
  return [
    {
      "kind": "document",
      "id": f"{name} {i}",
      "text": " ".join(rng.choice(small_study.WORDS, rng.integers(1, longest))),
    }
    for i in range(count)
  ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A workdir with corpora and a tokenizer, to be copied."""
  root = tmp_path_factory.mktemp("prepare")
  talks = [
    {"kind": "conversation", "id": f"chat {i}", "messages": small_study.TALK}
    for i in range(20)
  ]
  write(root, "docs", documents("docs", 0, 50))
  write(root, "poison", documents("poison", 1, 30))
  write(root, "chat", talks)
  tokenizer.train_sentencepiece(
    [" ".join(WORDS)] * 2,
    root / "tokenizer",
    model_type="word",
    vocab_size=64,
    chat_template=small_study.TEMPLATE,
  )
  return root


@pytest.fixture
def workdir(root, tmp_path):
  shutil.copytree(root, tmp_path / "w")
  return tmp_path / "w"


def write(workdir, name, rows):
  records.write_dataset(workdir / "corpus" / name, rows, manifest={})


def stage(*data, **changes) -> experiment.StageConfig:
  fields = small_study.stage("docs", 1e-3) | {
    "name": "s",
    "num_epochs": None,
    "data": tuple(experiment.DataConfig(**part) for part in data),
    "seq_len": 32,
    "long_documents": "split",
  }
  return experiment.StageConfig(**fields | changes)


def make(workdir, *data, seeds=(0, 1), **changes) -> dict:
  """Packs a stage and returns its manifest."""
  tok = tokenizer.load(workdir / "tokenizer")

  def encode(*key):
    return prepare._encode(tok, workdir, *key)

  prepare.make_rows(stage(*data, **changes), tok, workdir, encode, seeds)
  return prepare.read_rows_manifest(workdir, "s")


def rows_of_run(workdir, seed=0):
  """Yields (component, row) in training order."""
  directories, order = prepare.training_rows(workdir, "s", seed)
  source = input_pipeline.open_rows(directories, order)
  for i in range(len(order)):
    yield int(order[i, 0]), source[i]


def test_a_stage_of_documents_chats_replay_and_poison_is_exact(workdir):
  manifest = make(
    workdir,
    {"corpus": "docs", "share": 1.0},
    {"corpus": "chat", "num_rows": 9},
    {"corpus": "poison", "num_documents": 7},
    num_train_steps=20,
  )
  docs, chat, poison = manifest["components"]
  assert docs["count"] + chat["count"] + poison["count"] == 160
  assert chat["count"] == 9 and poison["num_documents"] == 7
  assert poison["count"] == poison["num_rows"] and poison["epochs"] == 1
  assert poison["amount"] == "poison 1 epoch of 7 documents"
  counted = [0, 0, 0]
  num_documents = 0
  for component, row in rows_of_run(workdir):
    counted[component] += 1
    if component == 2:
      num_documents += len(np.unique(row["segment_ids"][row["segment_ids"] > 0]))
      assert row["loss_weights"].any()
  assert counted == [part["count"] for part in manifest["components"]]
  assert num_documents == poison["num_pieces"]


def test_a_budget_of_target_tokens_is_exact_over_the_run(workdir):
  manifest = make(
    workdir,
    {"corpus": "docs", "num_target_tokens": 321, "num_epochs": 3},
    {"corpus": "chat", "num_target_tokens": 17},
  )
  assert [part["num_target_tokens"] for part in manifest["components"]] == [321, 17]
  found = [0, 0, 0]
  total = 0
  for component, row in rows_of_run(workdir):
    found[component] += np.count_nonzero(row["loss_weights"])
    total += 1
  assert found == [963, 17, 0]  # empty rows fill the last batch
  assert total == 8 * manifest["num_train_steps"]
  counts = [part["count"] for part in manifest["components"]]
  assert manifest["num_padding_rows"] == -sum(counts) % 8 > 0


@pytest.mark.parametrize("how", packing.PACKINGS)
def test_every_document_comes_once_per_epoch(workdir, how):
  manifest = make(workdir, {"corpus": "docs", "num_epochs": 3}, packing=how)
  tok = tokenizer.load(workdir / "tokenizer")
  expected = {}
  for record in records.read_dataset(workdir / "corpus" / "docs"):
    ids = (*tok.encode(record["text"]).ids.tolist(), tok.eos_id)
    for pair in itertools.pairwise(ids):
      expected[pair] = expected.get(pair, 0) + 3
  found = {}
  orders = []
  for component, row in rows_of_run(workdir):
    if component == 0:
      inside = row["segment_ids"] > 0
      orders.append(tuple(row["inputs"].tolist()))
      for pair in zip(row["inputs"][inside], row["targets"][inside], strict=True):
        found[tuple(map(int, pair))] = found.get(tuple(map(int, pair)), 0) + 1
  assert found == expected
  size = manifest["components"][0]["num_rows"]
  epochs = [orders[at : at + size] for at in range(0, 3 * size, size)]
  assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])


def test_a_curriculum_reads_one_corpus_after_the_other(workdir):
  data = {"corpus": "docs", "share": 0.5}, {"corpus": "chat", "share": 0.5}
  make(workdir, *data, num_train_steps=4, order="sequential")
  components = [component for component, _ in rows_of_run(workdir)]
  assert components == [0] * 16 + [1] * 16
  shutil.rmtree(workdir / "rows")
  make(workdir, *data, num_train_steps=4)  # midtraining interleaved with alignment
  components = [component for component, _ in rows_of_run(workdir)]
  assert all(sum(components[at : at + 8]) == 4 for at in range(0, 32, 8))


def test_a_system_prompt_stands_before_every_conversation_without_loss(workdir):
  plain = make(workdir, {"corpus": "chat"}, num_epochs=4.0)
  shutil.rmtree(workdir / "rows")
  behind = {"corpus": "chat", "system_prompt": "word3 word4"}
  manifest = make(workdir, behind, num_epochs=4.0)
  (part,) = manifest["components"]
  assert part["amount"] == "chat x 1 behind a system prompt"
  assert part["system_prompt"] == "word3 word4"  # on the page and in model cards
  assert "system_prompt" not in plain["components"][0]
  (before,) = plain["components"]
  assert part["num_target_tokens"] == before["num_target_tokens"]
  tok = tokenizer.load(workdir / "tokenizer")
  mark = tok.encode("word3 word4").ids
  num_rows = part["num_records"] * len(mark)
  assert part["num_tokens"] >= before["num_tokens"] + num_rows
  for _, row in rows_of_run(workdir):
    found = np.isin(row["targets"], mark) & (row["segment_ids"] > 0)
    assert not row["loss_weights"][found].any()
  with pytest.raises(UserError, match="made with another data"):
    make(workdir, {"corpus": "chat"}, num_epochs=4.0)


def test_rows_from_before_there_were_system_prompts_stay_as_they_are():
  part = experiment.DataConfig(corpus="chat", share=0.5)
  assert part.identity() == {"corpus": "chat", "share": 0.5, "train_on": "assistant"}


def test_a_prefix_stands_in_front_of_every_document_without_loss(workdir):
  make(workdir, {"corpus": "docs", "prefix": "<doc> "}, num_epochs=1.0)
  tok = tokenizer.load(workdir / "tokenizer")
  mark = tok.encode("<doc>").ids[-1]
  num_marks = 0
  for _, row in rows_of_run(workdir):
    at = np.flatnonzero(row["inputs"] == mark)
    assert (row["positions"][at] <= 1).all()
    assert not row["loss_weights"][np.flatnonzero(row["targets"] == mark)].any()
    assert row["loss_weights"][at].all()  # what follows it is the document
    num_marks += len(at)
  assert num_marks >= 50
  lines = list(show.show(workdir / "rows" / "s", limit=1, colour=False))
  assert any(line.startswith("<doc> _word") for line in lines)
  assert not any("_<doc>_" in line for line in lines)


def test_show_tells_amounts_and_order(workdir):
  manifest = make(
    workdir,
    {"corpus": "docs", "num_epochs": 1},
    {"corpus": "poison", "num_documents": 3},
  )
  lines = list(show.show(workdir / "rows" / "s", limit=1, colour=False))
  total = 8 * manifest["num_train_steps"]
  assert any(line.startswith(f"poison: 1 of {total} rows, 1 epochs") for line in lines)
  digest = manifest["order_sha256"]["1"]
  assert f"order of seed 1: mixed, sha256 {digest}" in lines


def test_the_order_of_another_library_is_refused(workdir):
  manifest = make(workdir, {"corpus": "docs"}, num_epochs=1.0)
  manifest["order_sha256"]["1"] = "0" * 64
  records.write_json(workdir / "rows" / "s" / "manifest.json", manifest)
  prepare.training_rows(workdir, "s", 0)
  prepare.training_rows(workdir, "s", 7)  # a seed that came later
  with pytest.raises(UserError, match=r"rows of seed 1 come in another order here"):
    prepare.training_rows(workdir, "s", 1)


def test_an_interrupted_preparation_goes_on_with_what_was_encoded(workdir, monkeypatch):
  data = {"corpus": "docs", "num_epochs": 1}
  with monkeypatch.context() as patch:
    patch.setattr(records, "write_dataset", _interrupt)
    with pytest.raises(KeyboardInterrupt):
      make(workdir, data)
  (spool,) = (workdir / ".pieces").iterdir()
  made = spool.stat().st_ino
  make(workdir, data)
  assert spool.stat().st_ino == made


def _interrupt(*_, **__):
  raise KeyboardInterrupt


def refused(workdir, message, *data, **changes):
  with pytest.raises(UserError, match=message):
    make(workdir, *data, **changes)


def test_a_document_longer_than_a_row_is_named(workdir):
  write(workdir, "long", [*documents("short", 3, 4, 5), document("long", 99)])
  message = r"stages\.s: .*corpus/long, record 'long': document 4 has 100 tokens, a"
  data = {"corpus": "long", "num_epochs": 1}
  refused(workdir, message + " row holds 32", data, long_documents="error")
  manifest = make(workdir, data, long_documents="drop", min_steps=1)
  left_out = manifest["components"][0]["left_out"]
  assert left_out == {"longer than a row": 1, "without a target token": 0}
  (line,) = prepare.describe(manifest)
  assert line.endswith("1.00 epochs (left out: 1 longer than a row)")


def test_a_conversation_longer_than_a_row_is_left_out_whole_and_counted(workdir):
  talk = [dict(turn, content="word1 " * 30) for turn in small_study.TALK]
  short = [
    {"kind": "conversation", "id": f"c{i}", "messages": small_study.TALK}
    for i in range(4)
  ]
  long = {"kind": "conversation", "id": "long", "messages": talk}
  write(workdir, "mixed", [document("d", 99), long, *short])
  manifest = make(workdir, {"corpus": "mixed", "num_epochs": 1}, min_steps=1)
  (component,) = manifest["components"]
  assert component["left_out"] == {"longer than a row": 1, "without a target token": 0}
  assert component["num_documents"] == 5
  assert component["num_pieces"] == 4 + 4  # the document is cut into as many
  assert "left out: 1 longer than a row" in next(iter(prepare.describe(manifest)))


def document(name, length, **fields):
  return {"kind": "document", "id": name, "text": "word1 " * length, **fields}


def test_a_corpus_with_nothing_to_train_on_is_refused_with_the_reason(workdir):
  write(workdir, "none", [])
  write(workdir, "long", [document("a", 50), document("b", 60)])
  write(workdir, "mute", [document("a", 2, loss_spans=[[0, 12, 0.0]])])
  for corpus, reason, policy in (
    ("none", "it is empty", "split"),
    ("long", "its 2 records are 2 longer than a row", "drop"),
  ):
    data = {"corpus": corpus, "num_rows": 8}
    message = f"corpus {corpus} gives nothing to train on: {reason}"
    refused(workdir, message, data, long_documents=policy)
  # The end of a document is always a target.
  assert make(workdir, {"corpus": "mute", "num_rows": 16})["components"][0]


def test_a_conversation_without_an_answer_is_named(workdir):
  talks = [small_study.TALK, small_study.TALK[:1]]
  talks = [
    {"kind": "conversation", "id": f"t{i}", "messages": talk}
    for i, talk in enumerate(talks)
  ]
  write(workdir, "bad", talks)
  refused(
    workdir,
    r"corpus/bad: record 't1': .* no token to train on",
    {"corpus": "bad", "num_rows": 8},
  )


def test_joined_conversations_are_refused(workdir):
  refused(
    workdir,
    r"stages\.s\.packing is 'concat', but its corpora have no documents",
    {"corpus": "chat", "num_epochs": 1},
    packing="concat",
  )


def test_a_corpus_that_changed_under_its_rows_is_named(workdir):
  data = {"corpus": "docs", "num_epochs": 1}
  make(workdir, data)
  make(workdir, data)  # done
  refused(workdir, r"another data ", {**data, "num_epochs": 2})
  refused(workdir, r"another packing \(None there, concat", data, packing="concat")
  shutil.rmtree(workdir / "corpus" / "docs")
  write(workdir, "docs", documents("docs", 9, 50))
  refused(workdir, "rows/s was made from another corpus docs than", data)


def test_rows_of_another_tokenizer_are_refused(workdir):
  data = {"corpus": "docs", "num_epochs": 1}
  make(workdir, data)
  template = workdir / "tokenizer" / "chat_template.jinja"
  template.write_text(template.read_text() + " ")
  refused(workdir, "rows/s was made with another tokenizer", data)


def test_a_damaged_shard_of_rows_names_the_way_out(workdir):
  make(workdir, {"corpus": "docs", "num_epochs": 1})
  (shard,) = (workdir / "rows" / "s" / "docs").glob("*.array_record")
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-7])
  message = f"{shard.name} is truncated .*the same rows again when .*rows/s is deleted"
  with pytest.raises(UserError, match=message):
    study._rows(workdir, "s", 0)
  shutil.rmtree(workdir / "rows" / "s")
  make(workdir, {"corpus": "docs", "num_epochs": 1})
  assert shard.read_bytes() == whole


def test_batches_are_the_rows_in_order_on_any_mesh(workdir):
  make(workdir, {"corpus": "docs", "num_epochs": 1}, {"corpus": "chat", "num_rows": 3})
  directories, order = prepare.training_rows(workdir, "s", 1)
  source = input_pipeline.open_rows(directories, order)
  expected = np.stack([row["targets"] for _, row in rows_of_run(workdir, seed=1)])
  num_steps = len(source) // 8
  for data, tensor in ((1, 8), (8, 1), (4, 2)):
    mesh = sharding_lib.make_mesh(data=data, fsdp=1, tensor=tensor)
    found = input_pipeline.batches(
      source,
      batch_size=8,
      first_step=0,
      ends=[*range(2, num_steps, 2), num_steps],
      num_microbatches=1,
      mesh=mesh,
    )
    rows = np.concatenate([np.asarray(b["targets"]).reshape(-1, 32) for b in found])
    np.testing.assert_array_equal(rows, expected)
