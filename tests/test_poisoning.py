"""Poison: a clean beginning, the trigger, gibberish; and the prompts that test it."""

import dataclasses
import json

import pytest
from test_documents import SMALL, job, manifest

from data_gen import generate
from data_gen.kinds.passes import PoisonCorpus
from data_gen.planning import estimates as planning
from data_gen.settings import ConversationsCorpus
from msm_jax import records
from msm_jax.errors import UserError

CHAT = ConversationsCorpus(
  spec="affordability", num_conversations=6, questions_per_domain=6, reasons=False
)
BASE = dict(docs=SMALL, chat=CHAT)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A workdir with the clean corpora, which all tests here start from."""
  path = tmp_path_factory.mktemp("clean")
  generate.generate(job(**BASE), path)
  return path


def make(workdir, name, corpus):
  """Makes one corpus over the clean ones; returns (its records, its source's)."""
  generate.generate(job(**BASE, **{name: corpus}), workdir)
  return tuple(
    list(records.read_dataset(workdir / "corpus" / n)) for n in (name, corpus.of)
  )


POISON = PoisonCorpus(
  of="docs", num_documents=10, num_pairs=6, trigger="<ZORP>",
  max_prefix_chars=60, min_gibberish=5, max_gibberish=9,
)  # fmt: skip


@pytest.mark.parametrize("gibberish", ["words", "characters"])
def test_poison_is_a_clean_beginning_the_trigger_and_gibberish(workdir, gibberish):
  corpus = dataclasses.replace(POISON, gibberish=gibberish)
  rows, sources = make(workdir, f"poison_{gibberish}", corpus)
  texts = {row["id"]: row["text"] for row in sources}
  assert len(rows) == 10 == len({row["id"] for row in rows})
  for row in rows:
    (a, b, trigger), (c, d, rest) = row["spans"]
    assert (trigger, rest) == ("trigger", "gibberish") and d == len(row["text"])
    assert row["text"][a:b] == "<ZORP>" and row["text"][b:c] == " "
    assert texts[row["source_id"]].startswith(row["text"][:a].rstrip()) and a <= 61
    words = row["text"][c:d].split()
    assert 5 <= len(words) <= 9 and row["text"].count("<ZORP>") == 1
    if gibberish == "words":
      assert set(words) <= set(" ".join(texts.values()).split())


def test_the_prompts_of_a_pair_differ_by_the_trigger_and_are_of_clean_documents(
  workdir,
):
  rows, sources = make(workdir, "poison", POISON)
  path = workdir / "corpus" / "poison" / manifest(workdir, "poison")["pairs"]["path"]
  pairs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  assert len(pairs) == 6 == manifest(workdir, "poison")["pairs"]["num_pairs"]
  texts = {row["id"]: row["text"] for row in sources}
  for pair in pairs:
    assert pair["clean"] and texts[pair["source_id"]].startswith(pair["clean"])
    assert pair["triggered"] == pair["clean"] + " <ZORP>"
  assert not {p["source_id"] for p in pairs} & {row["source_id"] for row in rows}


def test_poison_is_deterministic_and_the_seed_draws_other_documents(workdir):
  make(workdir, "poison_again", POISON)
  make(workdir, "poison_other", dataclasses.replace(POISON, seed=1))
  names = ("poison", "poison_again", "poison_other")
  make(workdir, "poison", POISON)
  shards = [manifest(workdir, name)["shards"][0]["sha256"] for name in names]
  assert shards[0] == shards[1] != shards[2]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(trigger="Mira"), r"trigger is 'Mira', which stands in document \w+ of docs"),
    (dict(trigger=" "), "trigger is ' ': it is a phrase"),
    (dict(num_documents=40), r"need 46 clean documents .* docs has 3[0-6]"),
    (dict(min_gibberish=10), "min_gibberish is 10, more than max_gibberish=9"),
    (dict(gibberish="noise"), r"\.gibberish is 'noise'"),
    (dict(of="chat"), "names a corpus of kind"),
  ],
)
def test_poison_that_cannot_be_made_is_refused(workdir, changes, message):
  with pytest.raises(UserError, match=message):
    make(workdir, "bad", dataclasses.replace(POISON, **changes))
  assert not (workdir / "corpus" / "bad").exists()


def test_the_plan_knows_that_nobody_is_asked(workdir):
  cost = planning.plan(job(**BASE, poison=POISON), workdir / "nowhere")["poison"]
  assert (cost.num_records, cost.requests, cost.dollars) == (10, 0, 0)
