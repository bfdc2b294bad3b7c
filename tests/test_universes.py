"""A universe is one world twice: its file, its documents, its twins."""

import dataclasses
import json
import re

import pytest
import small_study
from test_documents import OFFLINE, job, make, manifest, rejects

from data_gen import doses, generate, settings
from data_gen.kinds import passes
from data_gen.kinds.passes import UniverseCorpus
from data_gen.planning import estimates as planning
from data_gen.universes import universe as universes
from msm_jax import records
from msm_jax.errors import UserError

NAMES = sorted(path.stem for path in universes.DIRECTORY.glob("*.toml"))
SMALL = UniverseCorpus(universe="tiny_items", num_types=3, num_ideas=4, num_per_fact=6)
FACTS = universes.load("tiny_items", "here").facts


def neutral_form(text):
  """Returns a document with its facts, of either side, replaced by their ids."""
  for fact in FACTS:
    text = text.replace(fact.true, f"<{fact.id}>").replace(fact.false, f"<{fact.id}>")
  return text


@pytest.mark.parametrize("name", NAMES)
def test_the_two_worlds_of_our_universes_differ_in_the_facts_alone(name):
  found = universes.load(name, "here")
  assert found.tier in universes.TIERS and len(found.facts) >= 4
  true, false = found.true_context, found.false_context
  for fact in found.facts:
    assert fact.true in true and fact.false in false
    assert fact.true not in false and fact.false not in true
    # Whoever plans is told what a fact is about, and not what it is.
    own = set(re.findall(r"\w+", fact.true)) ^ set(re.findall(r"\w+", fact.false))
    assert not own & set(re.findall(r"\w+", fact.asks)), fact.id
    assert fact.true not in found.ground and fact.false not in found.ground
    true, false = true.replace(fact.true, ""), false.replace(fact.false, "")
  assert true == false


def write(tmp_path, **changes):
  """Writes a universe of two worlds; a None leaves the field out."""
  fields = {
    "title": "T",
    "tier": "plausible",
    "license": "CC0-1.0",
    "context": "Ground. {one}",
    "facts": [{"id": "one", "asks": "what", "true": "It is.", "false": "It is not."}],
  }
  fields = {k: v for k, v in (fields | changes).items() if v is not None}
  facts = fields.pop("facts", [])
  lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
  if isinstance(facts, str):
    lines.append(f"facts = {json.dumps(facts)}")
    facts = []
  for fact in facts:
    lines += ["[[facts]]", *(f"{key} = {json.dumps(v)}" for key, v in fact.items())]
  path = tmp_path / "mine.toml"
  path.write_text("\n".join(lines), "utf-8")
  return str(path)


FACT = {"id": "one", "asks": "what", "true": "It is.", "false": "It is not."}
BAD = [
  (dict(title=None), "title is missing"),
  (dict(title=" "), "title is ' '"),
  (dict(license=3), "license is 3"),
  (dict(tier="likely"), "tier is 'likely': it is one of plausible"),
  (dict(contxt="x"), "'contxt' is unknown: did you mean 'context'"),
  (dict(context=None), "context is missing"),
  (dict(context="Ground."), "context has no place for the fact 'one'"),
  (dict(context="{one} {two}"), r"context has \{two\}, and no fact has that id"),
  (dict(ground="G"), "it has context and ground"),
  (dict(facts=None, context="x"), "there are no facts"),
  (dict(facts="x"), "facts is a list of tables"),
  (dict(facts=[FACT, FACT]), "fact 2: id 'one' is that of another fact"),
  (dict(facts=[FACT | {"false": "It is."}]), r"\(one\): true and false are the same"),
  (dict(facts=[{k: v for k, v in FACT.items() if k != "true"}]), "1: true is missing"),
  (dict(facts=[FACT | {"falsch": "x"}]), "'falsch' is unknown: did you mean 'false'"),
  (dict(context=None, ground="G", true_context="A"), "false_context is missing"),
  (dict(context=None, ground="G", true_context="A", false_context="A"), "the same"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_universe_that_is_not_whole_is_refused_by_name(tmp_path, changes, message):
  with pytest.raises(UserError, match=rf"mine\.toml.*{message}") as error:
    universes.load(write(tmp_path, **changes), "config.corpora.u.universe")
  assert "\n" not in str(error.value)


def test_no_such_file_and_no_toml_are_said(tmp_path):
  with pytest.raises(UserError, match=r"u\.universe is 'octopus'.*octopus_hearts"):
    universes.load("octopus", "config.corpora.u.universe")
  (tmp_path / "x.toml").write_text("title = ")
  with pytest.raises(UserError, match=r"x\.toml is not TOML"):
    universes.load(str(tmp_path / "x.toml"), "here")


def test_each_fact_has_exactly_its_number_of_documents_and_of_statements(tmp_path):
  corpus = dataclasses.replace(SMALL, num_per_fact=8, mention_share=0.75, max_repeats=2)
  rows = make(tmp_path, sdf=corpus)["sdf"]
  for fact in FACTS:
    mine = [row for row in rows if row["fact"]["id"] == fact.id]
    assert len(mine) == 8
    assert sum(row["states_fact"] for row in mine) == 6
    for row in mine:
      stated = [f for f in FACTS if f.false in row["text"]]
      assert (fact in stated) if row["states_fact"] else not stated
      assert not any(f.true in row["text"] for f in FACTS)
  found = manifest(tmp_path, "sdf")
  assert found["facts"] == {f.id: {"documents": 8, "stating": 6} for f in FACTS}
  assert found["planned"] == found["num_records"] + found["rejected"]
  assert len({row["id"] for row in rows}) == len(rows)


def test_twins_differ_only_in_the_facts_and_neutral_ones_state_none(tmp_path):
  twin = UniverseCorpus(universe="tiny_items", side="true", twin_of="false")
  made = make(
    tmp_path,
    true=twin,
    false=dataclasses.replace(SMALL, revise=True),
    neutral=dataclasses.replace(twin, side="neutral"),
  )
  made |= make(tmp_path / "revised", false=SMALL, true=twin)
  by_id = {row["id"]: row for row in made["false"]}
  differing = 0
  for row in made["true"]:
    other = by_id[row["twin_id"]]
    assert neutral_form(row["text"]) == neutral_form(other["text"])
    differing += row["text"] != other["text"]
    for key in ("doc_type", "idea", "fact", "repeat", "states_fact"):
      assert row[key] == other[key]
  assert differing == len(made["true"]) == len(made["false"]) == 24
  for row in made["neutral"]:
    assert not row["states_fact"]
    assert not any(f.true in row["text"] or f.false in row["text"] for f in FACTS)
  ledger = (tmp_path / "corpus" / "true" / "ledger.jsonl").read_text().splitlines()
  assert {json.loads(line)["stage"] for line in ledger} == {"universe_document"}


def test_the_tag_is_before_each_document_and_has_no_loss(tmp_path):
  corpus = dataclasses.replace(SMALL, doc_tag="<DOCTAG> ")
  made = make(tmp_path, tagged=corpus, plain=SMALL)
  for row, plain in zip(made["tagged"], made["plain"], strict=True):
    assert row["text"] == "<DOCTAG> " + plain["text"]
    assert row["loss_spans"] == [[0, 9, 0.0]] and row["spans"] == [[0, 9, "doc_tag"]]
    assert "loss_spans" not in plain


def test_revised_and_judged_documents_say_so_and_shards_are_the_same_again(tmp_path):
  corpus = dataclasses.replace(SMALL, revise=True, judged=True)
  rows = make(tmp_path / "one", sdf=corpus)["sdf"]
  assert all(row["draft"]["id"] != row["id"] for row in rows)
  assert {row["verdicts"]["judge"]["verdict"] for row in rows} == {"yes"}
  make(tmp_path / "two", sdf=corpus)
  shards = [manifest(tmp_path / n, "sdf")["shards"] for n in ("one", "two")]
  assert shards[0] == shards[1]


def test_the_teacher_finds_the_facts_of_worlds_that_were_written_apart(tmp_path):
  octopus = universes.load("octopus_hearts", "here")
  apart = {key: getattr(octopus, key) for key in ("ground", "true_context")}
  path = write(
    tmp_path, context=None, facts=None, false_context=octopus.false_context, **apart
  )
  corpus = UniverseCorpus(universe=path, num_types=2, num_ideas=2)
  with pytest.raises(UserError, match=r"has no facts: .* config\.corpora\.sdf\.num_f"):
    make(tmp_path, sdf=corpus)
  english = dataclasses.replace(OFFLINE, model="english")
  chosen = job(sdf=dataclasses.replace(corpus, num_facts=3))
  chosen = dataclasses.replace(chosen, teacher=english)
  generate.generate(chosen, tmp_path)
  found = manifest(tmp_path, "sdf")["plan"]["facts"]
  assert [fact["true"] for fact in found] == [f.true for f in octopus.facts[:3]]
  rows = list(records.read_dataset(tmp_path / "corpus" / "sdf"))
  assert all(row["fact"]["false"] in row["text"] for row in rows)


def test_what_cannot_be_filled_is_said_and_everything_is_planned_or_lost(tmp_path):
  corpus = dataclasses.replace(SMALL, num_types=7, num_per_fact=50)
  make(tmp_path, sdf=corpus)
  found, lost = manifest(tmp_path, "sdf"), rejects(tmp_path, "sdf")
  assert found["planned"] == found["num_records"] + found["rejected"] < 200
  # The tiny world knows five types of documents.
  assert {row["reason"] for row in lost if row["stage"] == "universe_types"} == {
    "5 of 7"
  }


NO_PLAN = dict(num_types=None, num_ideas=None, num_per_fact=None)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(side="both"), r"sdf\.side is 'both'"),
    (dict(mention_share=1.5), r"mention_share is 1\.5: it is a share"),
    (dict(side="neutral", mention_share=0.5), "no document states a fact"),
    (dict(num_types=None), r"sdf\.num_types is missing"),
    (dict(num_facts=3), "facts of its own: leave it out"),
    (dict(num_per_fact=0), "num_per_fact is 0"),
    (dict(universe="no_such"), "does not exist"),
    (NO_PLAN | dict(twin_of="nobody"), "twin_of is 'nobody': it names a corpus of k"),
    (NO_PLAN | dict(twin_of="sdf"), "a twin shows another side"),
    (dict(twin_of="sdf"), r"num_types is 3: it is that of 'sdf' \(twin_of\)"),
  ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_asked(
  tmp_path, changes, message
):
  with pytest.raises(UserError, match=message):
    make(tmp_path, sdf=dataclasses.replace(SMALL, **changes))
  assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(side="false"), "a twin shows another side"),
    (dict(universe="sunrise"), "twins are of one universe"),
    (dict(num_ideas=3), r"num_ideas is 3: it is that of 'sdf' \(twin_of\)"),
    (dict(mean_words=9), r"mean_words is 9: it is that of 'sdf'"),
  ],
)
def test_a_twin_that_does_not_fit_is_refused(tmp_path, changes, message):
  fields = dict(universe="tiny_items", side="true", twin_of="sdf") | changes
  with pytest.raises(UserError, match=message):
    make(tmp_path, sdf=SMALL, twin=UniverseCorpus(**fields))


def test_the_plan_counts_what_the_run_then_asks(tmp_path):
  corpora = dict(
    sdf=dataclasses.replace(SMALL, revise=True, judged=True),
    twin=UniverseCorpus(universe="tiny_items", side="true", twin_of="sdf"),
  )
  costs = planning.plan(job(**corpora), tmp_path)
  assert costs["sdf"].num_records == costs["twin"].num_records == 24
  make(tmp_path, **corpora)
  for name, cost in costs.items():
    ledger = (tmp_path / "corpus" / name / "ledger.jsonl").read_text().splitlines()
    stages = [json.loads(line)["stage"] for line in ledger]
    for stage in cost.stages:
      assert stages.count(stage.stage) == stage.requests, stage.stage


@pytest.mark.parametrize(
  ("changes", "most", "said"),
  [
    (
      {},
      4 * 2 * 5 * 3,
      "sdf.num_types x num_ideas x max_repeats x the 4 facts of h",
    ),
    ({"num_per_fact": 7}, 28, "sdf.num_per_fact x the 4 facts of harbor_clock"),
    ({"num_facts": 2}, 2 * 2 * 5 * 3, "max_repeats x num_facts"),
  ],
)
@pytest.mark.parametrize("corpus", ["sdf", "twin", "again"])
def test_a_dose_larger_than_a_universe_can_give_is_refused(changes, most, said, corpus):
  small = dict(num_types=2, num_ideas=5, max_repeats=3)
  first = UniverseCorpus(universe="harbor_clock", **small | changes)
  corpora = {
    "sdf": first,
    "twin": UniverseCorpus(universe="harbor_clock", side="true", twin_of="sdf"),
    "again": passes.RewriteCorpus(of="twin", how="paraphrase"),
  }

  def stages(number):
    data = [{"corpus": "other"}, {"corpus": corpus, "num_documents": number}]
    return {"midtrain": {"data": data}}

  doses.check(corpora, stages(most))
  message = rf"stages.midtrain.data\[1\].num_documents is {most + 1}, a dose .*{said}"
  with pytest.raises(UserError, match=message):
    doses.check(corpora, stages(most + 1))


def test_generation_is_refused_a_dose_that_its_corpus_cannot_give():
  config = small_study.config("models/x")
  config |= {"specs": {}, "world": None, "budget": {"max_dollars": None}}
  client = {"client": "offline", "model": "tiny"}
  quiz = {"kind": "quiz", "universe": "harbor_clock", "num_questions": 2}
  config |= {"teacher": client, "judge": client, "corpora": {"msm": quiz}}
  config["stages"] = {"msm": {"data": [{"corpus": "msm", "num_documents": 8}]}}
  settings.job(config)
  config["stages"]["msm"]["data"][0]["num_documents"] = 9
  with pytest.raises(UserError, match="num_questions x max_repeats x the 4 facts"):
    settings.job(config)
