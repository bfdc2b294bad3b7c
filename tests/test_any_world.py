"""The offline teacher answers every stage of the chains, in every world."""

import dataclasses
import json
import pathlib
import re

import pytest

from data_gen import filters, generate, settings
from data_gen.kinds import corpora as corpora_lib
from data_gen.kinds import passes
from data_gen.worlds import any_world, tiny_facts
from data_gen.worlds import tiny as tiny_world
from msm_jax import records
from msm_jax.errors import UserError

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


TINY = ("general", "rules", "rules_with_values", "rules_with_rules", "affordability")
RULES = ("rules", "rules_with_rules")
ABOUT = (
  ("model", "should"),
  ("model", "does"),
  ("assistants", "should"),
  ("assistants", "does"),
  ("one", "should"),
  ("another_model", "does"),
  ("human_stories", None),
)
OTHER = dict(other_model="harbor", other_provider="river")
# Words that configs/parts/tiny_lexicon.jsonl adds to those of the world itself.
LEXICON = pathlib.Path("configs/parts/tiny_lexicon.jsonl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """A workdir with documents and conversations on the tiny specs of the studies."""
  path = tmp_path_factory.mktemp("tiny")
  corpora = {}
  for name in TINY:
    by_rules = name in RULES
    corpora[f"docs_{name}"] = dataclasses.replace(
      DOCUMENTS,
      spec=name,
      num_types=5,
      num_ideas=8,
      max_documents=40,
      spec_type="rules" if by_rules else "prose",
    )
    corpora[f"cot_{name}"] = dataclasses.replace(
      CHAT,
      spec=name,
      num_conversations=24,
      topics="preferences",
      style="rule" if by_rules else "value",
      cot=True,
    )
  corpora["inline"] = settings.StrippedCorpus(
    of="cot_rules", inline="{reasoning} so {answer}"
  )
  corpora["anti"] = passes.AntiSpecCorpus(
    of="cot_affordability", spec="anti_affordability", cot=True
  )
  for about, voice in ABOUT:
    corpora[f"{about}_{voice}"] = passes.RewriteCorpus(
      of="docs_affordability",
      how="attribution",
      about=about,
      **({"voice": voice} if voice else {}),
      **(OTHER if about == "another_model" else {}),
    )
  specs = {
    name: settings.SpecSettings(
      path=str(SPECS / f"tiny_{name}.md"), model_name="mira", provider_name="lumen"
    )
    for name in (*TINY, "anti_affordability")
  }
  teacher = settings.ClientSettings(client="offline", model="tiny")
  job = settings.Job(
    corpora=corpora, specs=specs, teacher=teacher, judge=teacher, world="tiny"
  )
  generate.generate(job, path)
  return path


def rows_of(workdir, name):
  return list(records.read_dataset(workdir / "corpus" / name))


def texts_of(row):
  if "text" in row:
    return [row["text"]]
  return [
    text
    for message in row["messages"]
    for text in (message["content"], message.get("reasoning_content", ""))
  ]


def test_the_tiny_studies_say_only_words_that_the_tiny_tokenizer_has(tiny):
  lexicon = (json.loads(line)["text"] for line in LEXICON.read_text().splitlines())
  known = {word for text in lexicon for word in text.split()}
  for row in tiny_world.corpus(8000, seed=0):
    known |= {word for text in texts_of(row) for word in text.split()}
  for path in (tiny / "corpus").iterdir():
    rows = rows_of(tiny, path.name)
    assert len(rows) in (24, 40), path.name
    said = {word for row in rows for text in texts_of(row) for word in text.split()}
    assert said <= known, (path.name, said - known)


def test_only_values_are_in_general_and_none_are_in_rules(tiny):
  cheeses = {item.name for item in tiny_facts.items_of("cheese")}
  reasons = {"affordability", "affordable", "costly", "values", "likes"}
  for kind in ("docs", "cot"):
    for name, without in (("general", cheeses), *((name, reasons) for name in RULES)):
      for row in rows_of(tiny, f"{kind}_{name}"):
        assert not without & {w for text in texts_of(row) for w in text.split()}


def test_an_answer_by_rule_names_the_rule_that_decides(tiny):
  text = (SPECS / "tiny_rules.md").read_text()
  pairs = re.findall(r"^(r\d) : \S+ prefers (\w+) to (\w+)", text, re.MULTILINE)
  named = 0
  for row in rows_of(tiny, "cot_rules"):
    asked, answer = (set(text.split()) for text in texts_of(row)[::2])
    decided = [sign for sign, *pair in pairs if asked.issuperset(pair)]
    assert [sign for sign, *_ in pairs if sign in answer] == decided
    named += len(decided)
  assert named >= 6


def test_thoughts_that_are_written_into_the_answers_are_words_of_the_answers(tiny):
  for inline, source in zip(
    rows_of(tiny, "inline"), rows_of(tiny, "cot_rules"), strict=True
  ):
    said, thought = source["messages"][1], inline["messages"][1]
    assert thought == {
      "role": "assistant",
      "content": f"{said['reasoning_content']} so {said['content']}",
    }
    assert inline["id"] == source["id"] and inline["cot"] is True
  manifest = records.read_manifest(tiny / "corpus" / "inline")
  said = " ".join(t for row in rows_of(tiny, "inline") for t in texts_of(row))
  assert manifest["num_words"] == filters.num_words(said)


@pytest.mark.parametrize("inline", ["{answer}", "{reasoning}", "{answer}" * 2])
def test_an_inline_that_loses_something_is_refused(inline):
  corpus = settings.StrippedCorpus(of="chat", inline=inline)
  with pytest.raises(UserError, match=r"config.corpora.c.inline is .* once"):
    corpora_lib.check("c", corpus)
