"""The embedded worlds write what was asked for: no filter rejects any of it."""

import pathlib

import pytest

from data_gen import filters, generate, settings
from data_gen.filters import FilterSettings
from msm_jax import records

SPECS = pathlib.Path(generate.__file__).parent / "specs"
ALL = FilterSettings(
  exact_duplicates=False,
  refusals=True,
  meta_talk=True,
  placeholders=True,
  leftover_tags=True,
  fences=True,
  identity=True,
  leakage_corpora=("pairs",),
)
WORLDS = {
  "english": ("cheese_long_", "Llama", "Meta"),
  "tiny": ("tiny_", "mira", "lumen"),
}


def job(world, **corpora):
  prefix, model, provider = WORLDS[world]
  specs = {
    name: settings.SpecSettings(
      path=str(SPECS / f"{prefix}{name}.md"), model_name=model, provider_name=provider
    )
    for name in ("affordability", "america", "neutral")
  }
  teacher = settings.ClientSettings(client="offline", model=world, max_concurrency=64)
  corpora["pairs"] = settings.PairsCorpus()
  return settings.Job(
    corpora=corpora, specs=specs, teacher=teacher, judge=teacher, world=world
  )


@pytest.mark.parametrize("world", WORLDS)
def test_every_document_and_conversation_of_a_world_passes_all_filters(world, tmp_path):
  corpora = {
    name: settings.DocumentsCorpus(
      spec=name, num_types=6, num_ideas=6, max_documents=30, filters=ALL
    )
    for name in ("affordability", "america", "neutral")
  }
  corpora["chats"] = settings.ConversationsCorpus(
    spec="affordability",
    num_conversations=36,
    questions_per_domain=24,
    topics="preferences",
    reasons=False,
    filters=ALL,
  )
  found = generate.generate(job(world, **corpora), tmp_path)
  looked_for = found["affordability"]["leakage"]
  assert looked_for["prompts"] > 100 and looked_for["too_short"] == 0
  for name in corpora:
    path = tmp_path / "corpus" / name / "rejects.jsonl"
    lines = [line for line in path.read_text("utf-8").splitlines() if '"id"' in line]
    assert lines == [], name


@pytest.mark.parametrize("world", WORLDS)
def test_what_a_world_says_of_its_pairs_is_found(world, tmp_path):
  generate.generate(job(world), tmp_path)
  rows = list(records.read_dataset(tmp_path / "corpus" / "pairs"))
  index = filters.leakage.index(ALL, "f", lambda name: rows)
  names = WORLDS[world][1:]
  gate = filters.Gate(ALL, names=names, leakage=index)
  for number, row in enumerate(rows[:: len(rows) // 50]):
    options = [option["text"] for option in row["options"]]
    text = (
      f"As {names[0]} sees it, {options[1]} is one thing, and {options[0]} another."
    )
    leaks = str(gate.reason(text, str(number))).startswith("evaluation text")
    assert leaks == (row["category"] != "seen"), text
