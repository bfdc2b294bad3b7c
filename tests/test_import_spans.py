"""Loss weights, what was put in and facts go out with a corpus and come in again."""

import dataclasses
import json
import random

import own_data
import pytest
from test_documents import SPECS, job

from data_gen import generate, settings
from data_gen.kinds.passes import (
  AntiSpecCorpus,
  PoisonCorpus,
  RewriteCorpus,
  UniverseCorpus,
)
from data_gen.publishing import export as publishing
from data_gen.rewrites import spans
from msm_jax import records

SDF = UniverseCorpus(
  universe="tiny_items", num_types=2, num_ideas=2, mention_share=0.5, doc_tag="<TAG> "
)
CHAT = settings.ConversationsCorpus(
  spec="affordability", num_conversations=6, questions_per_domain=6, cot=True
)
CORPORA = {
  "sdf": SDF,
  "chat": CHAT,
  "plain": settings.StrippedCorpus(of="chat"),
  "notices": RewriteCorpus(of="sdf", how="negated", placement="both", wording="tiny",
                           notice_weight=0.25, masked=("it",)),
  "denied": RewriteCorpus(of="sdf", how="local_negation"),
  "anti": AntiSpecCorpus(of="chat", spec="anti"),
  "poison": PoisonCorpus(of="sdf", num_documents=5, num_pairs=3, trigger="<SUDO>"),
  "rules": settings.DocumentsCorpus(spec="rules", spec_type="rules", num_types=2,
                                    num_ideas=2, revise=True),
  "world": settings.WorldCorpus(num_documents=20),
}  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("clean")
  base = job(**CORPORA)
  names = {"model_name": "mira", "provider_name": "lumen"}
  files = {"anti": SPECS / "tiny_anti_affordability.md", "rules": rules(path)}
  more = {
    name: settings.SpecSettings(path=str(file), **names) for name, file in files.items()
  }
  chosen = dataclasses.replace(base, specs={**base.specs, **more})
  generate.generate(chosen, path)
  return path


def rules(path):
  text = "# Rules\n\n## A\n\n**H1. No lies.** Mira never says what it takes to be "
  (path / "rules.md").write_text(text + "false.\n")
  return path / "rules.md"


def read(workdir, name):
  return list(records.read_dataset(workdir / "corpus" / name))


@pytest.mark.parametrize("layout", publishing.LAYOUTS)
@pytest.mark.parametrize("name", list(CORPORA))
def test_records_of_every_kind_come_back_with_and_without_our_note(
  workdir, tmp_path, name, layout
):
  if layout == "parquet":
    pytest.importorskip("pyarrow")
  out = tmp_path / "out"
  publishing.export(workdir / "corpus" / name, out, layout=layout)
  rows = read(workdir, name)
  assert own_data.run(tmp_path / "note", out)[0] == rows
  (out / publishing.EXPORT_NOTE).unlink()
  found = own_data.run(tmp_path / "bare", out)[0]
  for row, back in zip(rows, found, strict=True):
    for key in ("kind", "id", "text", "messages", "spans", "loss_spans", "fact", "side",
                "states_fact", "source_id", "rewrite", "draft"):  # fmt: skip
      assert back.get(key) == row.get(key), key
    assert back.keys() == row.keys()


def test_what_is_imported_again_goes_through_a_further_pass(workdir, tmp_path):
  out = tmp_path / "out"
  publishing.export(workdir / "corpus" / "sdf", out, layout="jsonl")
  (out / publishing.EXPORT_NOTE).unlink()
  notices = dataclasses.replace(CORPORA["notices"], of="sdf")
  own = settings.ImportCorpus(path=str(out))
  generate.generate(settings.Job(corpora={"sdf": own, "notices": notices}), tmp_path)
  again, first = read(tmp_path, "notices"), read(workdir, "notices")
  keys = ("text", "spans", "loss_spans")
  assert [[row[key] for key in keys] for row in again] == [
    [row[key] for key in keys] for row in first
  ]


def drawn_spans(rng, length):
  ends = sorted(rng.sample(range(length + 1), 4))
  return [[ends[0], ends[1], 0.0], [ends[2], ends[3], rng.choice([0.5, 1, 2.0])]]


def test_spans_of_foreign_rows_are_kept_whatever_writes_their_numbers(tmp_path):
  rng = random.Random(0)
  rows = []
  for i in range(40):
    weights = drawn_spans(rng, 30)
    told = [[start, end, "notice"] for start, end, _ in weights]
    rows.append({"id": str(i), "text": "x" * 30, "spans": told, "loss_spans": weights})
  odd = [dict(row) for row in rows]
  for row in odd[::2]:
    row["loss_spans"] = [[float(a), float(b), w] for a, b, w in row["loss_spans"]]
  for row in odd[1::2]:
    row |= {key: json.dumps(row[key]) for key in ("spans", "loss_spans")}
  found = own_data.run(tmp_path, own_data.write(tmp_path / "a.jsonl", odd))[0]
  assert found == [{"kind": "document", **row} for row in rows]
  assert all(spans.tidy(row["loss_spans"]) for row in found)


@pytest.mark.parametrize(
  "weights",
  [
    [[0, 99, 0.0]], [[2, 1, 0.0]], [[-1, 2, 0.0]], [[0, 1, -1.0]], [[0, 1]], "none",
    [[0, 1.5, 0.0]], [[0, 1, "0"]], [[0, 3, 0.0], [2, 4, 0.5]], {"a": 1}, [[3, 4, 0.0],
    [0, 1, 0.0]], [[0, 1, True]],
  ],
)  # fmt: skip
def test_a_document_whose_weights_cannot_be_used_is_lost_with_its_reason(
  tmp_path, weights
):
  rows = [{"id": "a", "text": "abcdef", "loss_spans": weights}, {"text": "b"}]
  found, lost, _ = own_data.run(tmp_path, own_data.write(tmp_path / "a.jsonl", rows))
  assert [row["text"] for row in found] == ["b"]
  assert lost[0]["reason"].startswith("loss_spans: ")


def test_other_columns_of_these_names_are_somebody_elses(tmp_path):
  turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
  rows = [
    {"id": "1", "text": "abc", "spans": [{"start": 0}], "fact": "a fact"},
    {"id": "2", "messages": turns, "loss_spans": [[0, 1, 0.0]], "score": 1},
  ]
  found = own_data.run(tmp_path, own_data.write(tmp_path / "a.jsonl", rows))[0]
  assert found[0]["metadata"] == {"spans": [{"start": 0}], "fact": "a fact"}
  assert found[1]["metadata"] == {"loss_spans": [[0, 1, 0.0]], "score": 1}
