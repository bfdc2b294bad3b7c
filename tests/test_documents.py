"""Spec -> outline -> documents, with the offline teacher and the tiny specs."""

import json
import pathlib

import pytest

from data_gen import generate, settings
from data_gen.settings import DocumentsCorpus
from msm_jax import records
from msm_jax.errors import UserError

SPECS = pathlib.Path(generate.__file__).parent / "specs"
OFFLINE = settings.ClientSettings(client="offline", model="tiny", max_concurrency=64)
NAMES = ("affordability", "america", "neutral")


def job(**corpora):
  specs = {
    name: settings.SpecSettings(
      path=str(SPECS / f"tiny_{name}.md"), model_name="mira", provider_name="lumen"
    )
    for name in NAMES
  }
  return settings.Job(
    corpora=corpora, specs=specs, teacher=OFFLINE, judge=OFFLINE, world="tiny"
  )


def make(tmp_path, **corpora):
  generate.generate(job(**corpora), tmp_path)
  return {
    name: list(records.read_dataset(tmp_path / "corpus" / name)) for name in corpora
  }


def rejects(tmp_path, name):
  text = (tmp_path / "corpus" / name / "rejects.jsonl").read_text("utf-8")
  return [json.loads(line) for line in text.splitlines()]


def manifest(tmp_path, name):
  return records.read_manifest(tmp_path / "corpus" / name)


SMALL = DocumentsCorpus(spec="affordability", num_types=3, num_ideas=4)


def test_every_idea_becomes_a_document_or_a_reject_with_its_reason(tmp_path):
  rows = make(tmp_path, aff=SMALL)["aff"]
  found = manifest(tmp_path, "aff")
  lost = rejects(tmp_path, "aff")
  assert found["planned"] == len(rows) + len(lost) == found["num_records"] + len(lost)
  assert found["planned"] == 3 * 3 * 4  # sections x types x ideas
  assert all(row["reason"] for row in lost)
  assert len({row["id"] for row in rows + lost}) == found["planned"]


def test_a_row_says_how_it_was_made(tmp_path):
  row = make(tmp_path, aff=SMALL)["aff"][0]
  assert row["kind"] == "document" and row["text"]
  assert row["spec"] == "affordability" and len(row["spec_hash"]) == 64
  assert row["spec_section"] in ("values", "cheese", "reasons")
  for name in ("domain", "subdomain", "assertion", "doc_type", "idea", "prompt_hash"):
    assert row[name], name
  assert row["teacher"]["client"] == "offline"
  assert row["teacher"]["model_version"].startswith("tiny@")
  assert row["teacher"]["params"]["seed"] == 0
  assert row["usage"] == {"prompt_tokens": 0, "response_tokens": 0, "thought_tokens": 0}
  assert row["finish_reason"] == "STOP"


def test_max_documents_takes_the_same_share_of_each_section_before_paying(tmp_path):
  corpus = DocumentsCorpus(
    spec="affordability", num_types=3, num_ideas=8, max_documents=30
  )
  rows = make(tmp_path, aff=corpus)["aff"]
  sections = [row["spec_section"] for row in rows]
  assert len(rows) == 30
  assert max(map(sections.count, sections)) - min(map(sections.count, sections)) <= 2
  ledger = (tmp_path / "corpus" / "aff" / "ledger.jsonl").read_text().splitlines()
  asked = [json.loads(line)["stage"] for line in ledger].count("document")
  assert asked == manifest(tmp_path, "aff")["planned"] < 72


def test_the_same_settings_give_the_same_shards_and_another_seed_others(tmp_path):
  def shards(name, seed):
    corpus = DocumentsCorpus(
      spec="affordability", num_types=3, num_ideas=8, max_documents=30, seed=seed
    )
    make(tmp_path / name, aff=corpus)
    return manifest(tmp_path / name, "aff")["shards"]

  assert shards("one", 0) == shards("two", 0)
  assert shards("one", 0) != shards("three", 1)


def test_mirrored_specs_get_documents_in_the_same_order(tmp_path):
  corpora = {
    name: DocumentsCorpus(spec=name, num_types=3, num_ideas=8, max_documents=20)
    for name in ("affordability", "america")
  }
  made = make(tmp_path, **corpora)
  places = [
    [(row["spec_section"], row["doc_type"]) for row in made[name]] for name in corpora
  ]
  assert places[0] == places[1]


def test_a_control_has_exactly_the_words_of_the_other_corpus(tmp_path):
  made = make(
    tmp_path,
    neutral=DocumentsCorpus(
      spec="neutral", num_types=3, num_ideas=30, match_tokens_of="aff"
    ),
    aff=DocumentsCorpus(
      spec="affordability", num_types=3, num_ideas=8, max_documents=40
    ),
  )
  words = {
    name: [len(row["text"].split()) for row in rows] for name, rows in made.items()
  }
  assert sum(words["neutral"]) == sum(words["aff"])
  assert manifest(tmp_path, "neutral")["num_words"] == sum(words["neutral"])


def test_too_few_ideas_to_match_another_corpus_is_a_user_error(tmp_path):
  with pytest.raises(
    UserError, match=r"neutral\.match_tokens_of='aff': .* raise its num_ideas"
  ):
    make(
      tmp_path,
      aff=SMALL,
      neutral=DocumentsCorpus(
        spec="neutral", num_types=1, num_ideas=1, match_tokens_of="aff"
      ),
    )
  assert (tmp_path / "corpus" / "neutral.partial" / "ledger.jsonl").exists()


def test_documents_that_repeat_another_are_rejected_and_replaced(tmp_path):
  # One type and many ideas: the tiny world runs out of different documents.
  corpus = DocumentsCorpus(
    spec="affordability", num_types=1, num_ideas=700, max_documents=1200
  )
  rows = make(tmp_path, aff=corpus)["aff"]
  texts = [row["text"] for row in rows]
  assert len(set(texts)) == len(texts) == 1200
  repeated = [row for row in rejects(tmp_path, "aff") if "duplicate" in row["reason"]]
  ids = {row["id"] for row in rows}
  assert all(row["reason"].removeprefix("duplicate of ") in ids for row in repeated)
