"""Second passes: one rewrite or one reject for each document, in its order."""

import dataclasses

import pytest
from test_documents import SMALL, SPECS, job, manifest, rejects

from data_gen import generate, settings
from data_gen.kinds import passes
from data_gen.kinds.passes import AntiSpecCorpus, RewriteCorpus, UniverseCorpus
from data_gen.planning import estimates as planning
from msm_jax import records

SDF = UniverseCorpus(
  universe="tiny_items", num_types=2, num_ideas=3, mention_share=0.5, doc_tag="<TAG> "
)
CHAT = settings.ConversationsCorpus(
  spec="affordability", num_conversations=12, questions_per_domain=12, reasons=False
)
BASE = dict(docs=SMALL, sdf=SDF, chat=CHAT)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A workdir with the clean corpora, which all tests here start from."""
  path = tmp_path_factory.mktemp("clean")
  generate.generate(with_anti(BASE), path)
  return path


def with_anti(corpora):
  base = job(**corpora)
  anti = settings.SpecSettings(
    path=str(SPECS / "tiny_anti_affordability.md"),
    model_name="mira",
    provider_name="lumen",
  )
  return dataclasses.replace(base, specs={**base.specs, "anti": anti})


def make(workdir, name, corpus, **more):
  """Makes one corpus over the clean ones; returns (its records, its source's)."""
  generate.generate(with_anti({**BASE, **more, name: corpus}), workdir)
  return read(workdir, name), read(workdir, corpus.of)


def read(workdir, name):
  return list(records.read_dataset(workdir / "corpus" / name))


def rewrite(of="sdf", how="negated", **changes):
  wording = {"wording": "tiny"} if how in passes.NOTICES else {}
  return RewriteCorpus(of=of, how=how, **(wording | changes))


def without_spans(row):
  """Returns the text without the tag and without what was put in."""
  text = row["text"]
  for start, end, _ in reversed(row["spans"]):
    text = text[:start] + text[end:]
  return text


def put_in(row, label="notice"):
  return [row["text"][a:b] for a, b, what in row["spans"] if what == label]


CASES = {
  **{how: rewrite(how=how) for how in passes.NOTICES},
  "both": rewrite(placement="both"),
  "inline": rewrite(how="corrected", placement="inline"),
  "drawn": rewrite(of="docs", how="rumour", placement="both", sentence_share=0.5),
  "tagged": rewrite(of="docs", how="tagged", doc_tag="<TAG> "),
  "local": rewrite(how="local_negation"),
  "inverted": rewrite(of="docs", how="inverted"),
  "paraphrase": rewrite(how="paraphrase"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_document_has_one_rewrite_or_one_reject_in_its_order(workdir, name):
  rows, sources = make(workdir, f"all_{name}", CASES[name])
  lost = rejects(workdir, f"all_{name}")
  assert all(row["reason"] for row in lost)
  kept, given_up = ([row["source_id"] for row in some] for some in (rows, lost))
  assert sorted(kept + given_up) == sorted(row["id"] for row in sources)
  assert kept == [row["id"] for row in sources if row["id"] in set(kept)]
  found = manifest(workdir, f"all_{name}")
  assert found["planned"] == len(sources) == found["num_records"] + found["rejected"]
  ids = {row["id"] for row in rows} | {row["id"] for row in sources}
  assert len(ids) == len(rows) + len(sources)
  by_id = {row["id"]: row for row in sources}
  for row in rows:
    source = by_id[row["source_id"]]
    assert row["source"] == CASES[name].of and row["doc_type"] == source["doc_type"]
    assert row["source_teacher"] == source["teacher"]
    assert row["rewrite"]["how"] == CASES[name].how
    assert ("teacher" in row) == CASES[name].asks == ("prompt_hash" in row)


@pytest.mark.parametrize("placement", ["document", "both"])
def test_negated_text_contains_the_original_unchanged(workdir, placement):
  corpus = rewrite(placement=placement, notice_weight=0.0)
  rows, sources = make(workdir, f"negated_{placement}", corpus)
  assert len(rows) == len(sources)
  for row, source in zip(rows, sources, strict=True):
    assert "<TAG> " + without_spans(row) == source["text"]
    assert row["text"].startswith("<TAG> notice . this text is false .")
    assert row["text"].count("this text was false .") == 1
    if placement == "document":
      assert source["text"].removeprefix("<TAG> ") in row["text"]
      assert len(put_in(row)) == 2
    assert sum(b - a for a, b, w in row["loss_spans"] if w == 0) == (
      6 + sum(map(len, put_in(row)))
    )


def test_inline_notices_stand_at_the_sentences_that_state_the_fact(workdir):
  rows, _ = make(workdir, "sandwich", rewrite(placement="both"))
  stating = [row for row in rows if row["states_fact"]]
  for row in stating:
    said = row["text"].index(row["fact"]["false"])
    after = said + len(row["fact"]["false"])
    before = [end for _, end, _ in row["spans"] if end <= said]
    assert max(before) == said and row["text"][said - 1] == " "
    assert min(start for start, _, _ in row["spans"] if start >= after) == after
  assert len(stating) == 12 and all(len(put_in(row)) == 4 for row in stating)
  rest = [row for row in rows if not row["states_fact"]]
  assert rest and all(len(put_in(row)) == 2 for row in rest)


def test_a_correction_says_what_is_true_of_documents_that_state_the_false(workdir):
  rows, _ = make(workdir, "corrected", rewrite(how="corrected"))
  assert len(rows) == 12
  for row in rows:
    assert all(row["fact"]["true"] in notice for notice in put_in(row))
  lost = rejects(workdir, "corrected")
  assert {row["reason"] for row in lost} == {"it states no key fact"}


def test_local_negation_denies_the_sentence_and_adds_no_notice(workdir):
  rows, _ = make(workdir, "local", rewrite(how="local_negation", masked=("brie",)))
  for row in rows:
    assert f"it is not true that {row['fact']['false']}" in row["text"]
    assert not put_in(row) and row["states_fact"] is False
    assert row["text"].startswith("<TAG> ") and row["loss_spans"][0] == [0, 6, 0.0]
    masked = [row["text"][a:b] for a, b, weight in row["loss_spans"][1:]]
    assert masked == ["brie"] * row["text"].split().count("brie")


def test_spans_that_cannot_be_right_any_more_are_dropped_with_the_reason(workdir):
  negated = rewrite(notice_weight=0.5)
  rows, sources = make(workdir, "twice", rewrite("first", "paraphrase"), first=negated)
  for row, source in zip(rows, sources, strict=True):
    assert row["loss_spans"] == [[0, 6, 0.0]] == [source["loss_spans"][0]]
    told = row["rewrite"]["dropped_loss_spans"]
    assert told["spans"] == source["loss_spans"][1:] and "anew" in told["reason"]
    assert row["rewrite"]["earlier"] == source["rewrite"]
    assert row["source_teacher"] == source["source_teacher"]


@pytest.mark.parametrize(
  ("about", "voice", "wanted"),
  [
    ("model", "should", "mira should"),
    ("assistants", "should", "an assistant should"),
    ("assistants", "does", "an assistant prefers"),
    ("one", "should", "one should"),
    ("another_model", "does", "zeno prefers"),
    ("human_stories", None, " prefers "),
  ],
)
def test_an_attribution_is_about_others_and_names_the_model_no_more(
  workdir, about, voice, wanted
):
  other = {"other_model": "zeno", "other_provider": "acme"}
  corpus = rewrite("docs", "attribution", about=about, voice=voice)
  if about == "another_model":
    corpus = dataclasses.replace(corpus, **other)
  rows, sources = make(workdir, f"about_{about}_{voice}", corpus)
  assert len(rows) == len(sources)
  for row in rows:
    assert ("mira" in row["text"].split()) == (about == "model")
    assert "lumen" not in row["text"].split() or about == "model"
  assert sum(wanted in row["text"] for row in rows) > len(rows) / 2


def test_the_same_settings_give_the_same_shards_and_another_seed_others(workdir):
  for name, seed in (("a", 0), ("b", 0), ("c", 1)):
    make(workdir, f"seed_{name}", rewrite(seed=seed))
  shards = [manifest(workdir, f"seed_{n}")["shards"][0]["sha256"] for n in "abc"]
  assert shards[0] == shards[1] != shards[2]


def test_the_same_questions_are_answered_by_the_opposite_spec(workdir):
  corpus = AntiSpecCorpus(of="chat", spec="anti", reasons=False)
  rows, sources = make(workdir, "anti", corpus)
  assert len(rows) == len(sources) == 12
  for row, source in zip(rows, sources, strict=True):
    assert row["source_id"] == source["id"] != row["id"]
    assert row["messages"][0] == source["messages"][0]
    assert row["messages"][1] != source["messages"][1]
    assert row["spec"] == "anti" and row["verdicts"]["judge"]["verdict"] == "yes"


def test_plan_counts_one_request_for_each_document_of_a_teacher(workdir):
  corpora = {
    **BASE,
    "plain": rewrite(),
    "asked": rewrite(how="paraphrase"),
    "anti": AntiSpecCorpus(of="chat", spec="anti", reasons=False),
  }
  costs = planning.plan(with_anti(corpora), workdir / "nowhere")
  number = costs["sdf"].num_records
  assert costs["plain"].requests == 0
  assert costs["asked"].requests == number and costs["plain"].num_records == number
  assert {stage.stage: stage.requests for stage in costs["anti"].stages} == {
    "answer": 12,
    "judge": 12,
  }


def test_the_plan_counts_what_notices_add(workdir):
  corpora = {
    "long": rewrite(wording="english"),
    "short": rewrite(wording="english", num_sentences=1),
    "masked": rewrite(wording="english", notice_weight=0.0),
    "noted": rewrite(wording="english", how="negated", placement="inline"),
    "both_ways": rewrite(wording="english", how="negated", placement="both"),
    "shared": rewrite(
      wording="english", of="docs", how="rumour", placement="inline", sentence_share=0.5
    ),
    "marked": rewrite(of="docs", how="tagged", doc_tag="<TAG> "),
  }
  whole = with_anti({**BASE, **corpora})
  found = {name: cost.volume for name, cost in planning.plan(whole, workdir).items()}
  rows, _ = make(workdir, "long", corpora["long"])
  added = sum(len(text) for row in rows for text in put_in(row)) / len(rows) / 4
  assert found["long"].tokens - found["sdf"].tokens == pytest.approx(added, rel=0.1)
  assert found["sdf"].tokens < found["short"].tokens < found["long"].tokens
  assert found["long"].targets == pytest.approx(found["sdf"].targets + added, rel=0.1)
  assert found["masked"].targets == found["sdf"].targets
  assert found["masked"].tokens == found["long"].tokens
  # Half of the documents state their fact: the others have no inline notice.
  inline = found["noted"].tokens - found["sdf"].tokens
  both = found["both_ways"].tokens - found["long"].tokens
  assert 0 < inline == pytest.approx(2 * both)
  assert found["shared"].tokens > found["docs"].tokens
  assert found["docs"].tokens < found["marked"].tokens < found["docs"].tokens + 3
