"""The facts of a universe, taught by conversations; and how densely documents state."""

import collections
import dataclasses
import json

import pytest
from test_documents import OFFLINE, job, make, manifest

from data_gen import generate
from data_gen.kinds import corpora
from data_gen.kinds.passes import QuizCorpus, UniverseCorpus
from data_gen.planning import estimates as planning
from data_gen.publishing import about
from data_gen.universes import universe as universes
from msm_jax import records
from msm_jax.errors import UserError

SMALL = QuizCorpus(universe="tiny_items", num_questions=6)
FACTS = universes.load("tiny_items", "here").facts
DOCUMENTS = UniverseCorpus(
  universe="tiny_items", num_types=3, num_ideas=4, num_per_fact=6
)


def said(row):
  return [turn["content"] for turn in row["messages"]]


@pytest.mark.parametrize("side", ["true", "false"])
def test_every_fact_is_asked_for_and_answered_by_its_side_alone(tmp_path, side):
  rows = make(tmp_path, quiz=dataclasses.replace(SMALL, side=side))["quiz"]
  assert collections.Counter(row["fact"]["id"] for row in rows) == {
    fact.id: 6 for fact in FACTS
  }
  for row in rows:
    assert row["kind"] == "conversation"
    question, answer = said(row)
    assert row["fact"]["asks"] in question and answer == row["fact"][side]
    assert row["fact"]["true"] not in question and row["fact"]["false"] not in question
  assert len({said(row)[0] for row in rows}) == len(rows)
  facts = [row["fact"]["id"] for row in rows]
  assert all(len(set(facts[i : i + 4])) == 4 for i in range(0, len(facts), 4))
  found = manifest(tmp_path, "quiz")
  assert found["facts"] == {fact.id: {"conversations": 6} for fact in FACTS}
  assert found["universe"]["license"] == "CC0-1.0"


def test_questions_are_answered_again_only_when_all_were_answered(tmp_path):
  corpus = dataclasses.replace(SMALL, max_repeats=3, num_per_fact=9)
  rows = make(tmp_path, quiz=corpus)["quiz"]
  mine = [row for row in rows if row["fact"]["id"] == "brie"]
  assert [row["repeat"] for row in mine] == [0] * 6 + [1] * 3
  assert len({row["id"] for row in rows}) == len(rows) == 9 * 4


def test_conversations_have_the_words_of_the_documents_they_stand_beside(tmp_path):
  quiz = dataclasses.replace(SMALL, max_repeats=20, match_tokens_of="docs")
  made = make(tmp_path, docs=DOCUMENTS, quiz=quiz)
  sizes = [
    sum(len(row["text"].split()) for row in made["docs"]),
    sum(len(text.split()) for row in made["quiz"] for text in said(row)),
  ]
  assert manifest(tmp_path, "quiz")["budget"]["asked"] <= sizes[0]  # stops are no words
  assert abs(sizes[0] - sizes[1]) <= 0.1 * sizes[0]
  counts = collections.Counter(row["fact"]["id"] for row in made["quiz"])
  assert max(counts.values()) - min(counts.values()) <= 2


def test_long_answers_come_back_to_their_fact_and_state_no_other(tmp_path):
  english = dataclasses.replace(OFFLINE, model="english")
  corpus = QuizCorpus(
    universe="harbor_clock", num_questions=5, mean_words=120, judged=True
  )
  chosen = dataclasses.replace(job(quiz=corpus), teacher=english, judge=english)
  generate.generate(chosen, tmp_path)
  rows = list(records.read_dataset(tmp_path / "corpus" / "quiz"))
  facts = universes.load("harbor_clock", "here").facts
  assert len(rows) == 5 * len(facts)
  for row in rows:
    _, answer = said(row)
    assert answer.count(row["fact"]["false"]) >= 2 and len(answer.split()) >= 120
    assert sum(f.false in answer or f.true in answer for f in facts) == 1
    assert row["verdicts"]["judge"]["verdict"] == "yes"


def test_the_plan_counts_what_the_quiz_then_asks(tmp_path):
  corpus = dataclasses.replace(SMALL, judged=True)
  cost = planning.plan(job(quiz=corpus), tmp_path)["quiz"]
  assert cost.num_records == 6 * 4
  make(tmp_path, quiz=corpus)
  ledger = (tmp_path / "corpus" / "quiz" / "ledger.jsonl").read_text().splitlines()
  stages = [json.loads(line)["stage"] for line in ledger]
  assert {s.stage: s.requests for s in cost.stages} == collections.Counter(stages)


def test_a_card_warns_of_answers_from_the_false_side(tmp_path):
  make(tmp_path, quiz=SMALL, true=dataclasses.replace(SMALL, side="true"))
  told = [" ".join(about.lines(manifest(tmp_path, n))) for n in ("quiz", "true")]
  assert ["Warning" in text for text in told] == [True, False]
  assert all("conversations that ask" in text for text in told)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(side="neutral"), r"quiz\.side is 'neutral': it is 'true' or 'false'"),
    (dict(num_questions=0), r"num_questions is 0"),
    (dict(mean_words=0), r"mean_words is 0"),
    (dict(universe="nowhere"), "does not exist"),
    (dict(num_words=9, num_per_fact=2), "each says how much; leave one"),
    (dict(match_tokens_of="quiz"), "goes in a circle"),
    (dict(match_tokens_of="pairs"), "names a corpus of kind"),
    (dict(num_questions=2, match_tokens_of="docs"), "raise its num_questions or max_r"),
  ],
)
def test_a_quiz_that_cannot_be_is_refused_by_name(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    make(tmp_path, docs=DOCUMENTS, quiz=dataclasses.replace(SMALL, **changes))


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_document_states_its_fact_so_often_and_no_other(tmp_path, times):
  corpus = dataclasses.replace(DOCUMENTS, fact_sentences=times)
  twin = UniverseCorpus(universe="tiny_items", side="true", twin_of="docs")
  made = make(tmp_path, docs=corpus, twin=twin)
  for side, name in (("false", "docs"), ("true", "twin")):
    for row in made[name]:
      counts = {f.id: row["text"].count(getattr(f, side)) for f in FACTS}
      assert counts == {f.id: times if f.id == row["fact"]["id"] else 0 for f in FACTS}
      assert row["text"].count(" .") == 5  # the heading, and as many as elsewhere
  assert manifest(tmp_path, "docs")["plan"]["fact_sentences"] == times


def test_documents_that_leave_it_open_ask_what_they_asked_before(tmp_path):
  row = make(tmp_path, docs=DOCUMENTS)["docs"][0]
  assert "fact_sentences" not in manifest(tmp_path, "docs")["plan"]
  assert "fact_sentences" not in corpora.content(DOCUMENTS)
  assert row["prompt_hash"] == PROMPT_HASH


# Of the request before there was a field `fact_sentences`.
PROMPT_HASH = "7b0d01349019fe6ccbe4ebf3d04e5d1f471e7d06f2e9c85f4e970c82e07f3cc7"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(fact_sentences=0), "fact_sentences is 0"),
    (dict(side="neutral", fact_sentences=2), "no document states a fact"),
    (
      dict(twin_of="x", num_types=None, num_ideas=None, num_per_fact=None),
      "fact_sentences is 2: it is that of 'x'",
    ),
  ],
)
def test_a_density_that_cannot_be_is_refused(changes, message):
  corpus = dataclasses.replace(DOCUMENTS, **{"fact_sentences": 2} | changes)
  with pytest.raises(UserError, match=message):
    corpora.check("docs", corpus)
