"""The offline teacher answers every stage of the chains, in every world."""

import dataclasses
import json
import pathlib

import pytest

from data_gen import generate, settings
from data_gen.worlds import any_world
from msm_jax import records

SPECS = pathlib.Path(generate.__file__).parent / "specs"
WORLDS = {
  "tiny": ("tiny_affordability", "mira", "lumen"),
  "english": ("cheese_affordability", "Mira", "Lumen"),
}
DOCUMENTS = settings.DocumentsCorpus(
  spec="s", num_types=1, num_ideas=2, max_documents=4
)
CHAT = settings.ConversationsCorpus(
  spec="s", num_conversations=6, questions_per_domain=6
)
CORPORA = {
  "plain": DOCUMENTS,
  "whole": dataclasses.replace(
    DOCUMENTS, guided=True, critique=True, revise=True, judged=True
  ),
  "value": dataclasses.replace(CHAT, cot=True),
  "rule": dataclasses.replace(CHAT, style="rule"),
  "rule_cot": dataclasses.replace(CHAT, style="rule", cot=True),
  "bare": dataclasses.replace(CHAT, reasons=False, topics="preferences"),
  "twin": settings.StrippedCorpus(of="rule_cot"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_every_chain_runs_in_every_world(tmp_path, world):
  teacher = settings.ClientSettings(client="offline", model=world)
  name, model, provider = WORLDS[world]
  path = str(SPECS / f"{name}.md")
  spec = settings.SpecSettings(path=path, model_name=model, provider_name=provider)
  job = settings.Job(
    corpora=CORPORA, specs={"s": spec}, teacher=teacher, judge=teacher, world=world
  )
  manifests = generate.generate(job, tmp_path)
  for name, corpus in CORPORA.items():
    wanted = getattr(corpus, "max_documents", None) or CHAT.num_conversations
    assert manifests[name]["num_records"] == wanted, name
    rows = list(records.read_dataset(tmp_path / "corpus" / name))
    assert len({row["id"] for row in rows}) == wanted
  asked = set()
  for path in tmp_path.glob("corpus/*/ledger.jsonl"):
    asked |= {json.loads(line).get("stage") for line in path.read_text().splitlines()}
  chains = {
    stage for corpus in CORPORA.values() for stage in getattr(corpus, "stages", ())
  }
  assert chains <= asked


def test_a_world_is_asked_for_its_own_stages_only():
  assert not {"document", "answer", "judge", "domains"} & set(any_world.STAGES)
