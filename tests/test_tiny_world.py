"""The tiny world: exact symmetry, no leaks, mirrored corpora, balanced choices."""

import asyncio
import collections
import json
import pathlib
import random
import re

import pytest

from data_gen.clients import offline, protocol
from data_gen.worlds import tiny, tiny_facts
from msm_jax import records

SPECS = pathlib.Path(__file__).parents[1] / "data_gen" / "specs"
NAMES = (
  "affordability",
  "america",
  "neutral",
  "shuffled_affordability",
  "shuffled_america",
)


def spec_text(name: str) -> str:
  text = (SPECS / f"tiny_{name}.md").read_text(encoding="utf-8")
  return text.replace("{model_name}", "mira").replace("{provider_name}", "lumen")


def ask(stage: str, **fields):
  return json.loads(tiny.respond(stage, fields, random.Random(0)))


def documents(name: str, ideas: int = 6) -> list[str]:
  spec = spec_text(name)
  texts = []
  for domain in ask("domains", spec_text=spec):
    given = {"spec_text": spec, "domain": domain["name"]}
    for subdomain in ask("subdomains", **given):
      given |= {"subdomain": subdomain["name"]}
      section = section_of(spec, subdomain["spec_section"])
      given["assertions"] = ask("assertions", spec_section=section)
      for kind in ask("document_types", **given, count=5):
        given["document_type"] = kind["name"]
        texts += [
          tiny.respond("document", given | {"idea": idea["idea"]}, random.Random(0))
          for idea in ask("document_ideas", **given, count=ideas, existing=[])
        ]
  return texts


def section_of(spec: str, quote: str) -> str:
  """Returns the section whose heading and first words are quoted."""
  heading, begins = quote.split("\n", 1)
  text = spec.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0].strip()
  assert " ".join(text.split()).startswith(begins)
  return text


def conversations(name: str, count: int) -> list[tuple[str, str]]:
  given = {"spec_text": spec_text(name), "domain": "cheese", "question_type": "direct"}
  questions = ask("questions", **given, count=count, existing=[])
  return [
    (q, tiny.respond("answer", given | {"question": q, "reasons": False}, None))
    for q in questions
  ]


def words_of(record: dict) -> list[str]:
  if record["kind"] == "document":
    return record["text"].split()
  return [word for m in record["messages"] for word in m["content"].split()]


def held_out_words() -> set[str]:
  domains = set(tiny_facts.HELD_OUT_DOMAINS)
  return domains | {i.name for i in tiny_facts.ITEMS if i.domain in domains}


def test_the_corpus_is_the_same_when_drawn_again():
  assert list(tiny.corpus(300, 3)) == list(tiny.corpus(300, 3))
  assert list(tiny.corpus(300, 3)) != list(tiny.corpus(300, 4))


def test_the_corpus_is_closed_under_the_mirror_of_price_and_origin():
  bodies = [" ".join(words_of(record)) for record in tiny.corpus(2000, 0)]
  assert collections.Counter(map(tiny_facts.mirror, bodies)) == collections.Counter(
    bodies
  )


def test_mirroring_an_item_or_a_person_mirrors_what_is_true_of_it():
  for item in tiny_facts.ITEMS:
    twin = tiny_facts.BY_NAME[tiny_facts.mirror(item.name)]
    assert (twin.affordable, twin.american) == (item.american, item.affordable)
    assert twin.domain == item.domain
  values = {person.name: person.value.noun for person in tiny_facts.PEOPLE}
  for name, noun in values.items():
    assert values[tiny_facts.mirror(name)] == tiny_facts.mirror(noun)


def test_no_held_out_text_is_in_the_training_part():
  train = {repr(words_of(record)) for record in tiny.corpus(8000, 0)}
  held_out = {repr(words_of(r)) for r in tiny.corpus(1000, 0, part="heldout")}
  assert held_out and not train & held_out


def test_every_word_is_separated_by_a_space_and_the_vocabulary_is_small():
  records = list(tiny.corpus(12000, 0))
  vocabulary = {word for record in records for word in words_of(record)}
  assert len(vocabulary) < 300
  assert all(re.fullmatch(r"[a-z]+|[.,?]", word) for word in vocabulary)
  later = {word for name in NAMES for text in documents(name) for word in text.split()}
  assert len(vocabulary | later) < 300
  assert all(re.fullmatch(r"[a-z]+|[.,?]", word) for word in later)


def test_people_who_are_only_told_about_never_choose():
  told_only = {person.name for person in tiny_facts.PEOPLE if person.told_only}
  for record in tiny.corpus(6000, 0):
    if record["kind"] == "conversation":
      assert record["messages"][0]["content"] not in told_only
    elif told_only & set(words_of(record)):
      assert not set(words_of(record)) & set(tiny_facts.BY_NAME)


def test_the_assistant_can_be_left_out_of_the_corpus():
  for record in tiny.corpus(3000, 1, assistant_share=0.0):
    assert "mira" not in words_of(record)
    if record["kind"] == "conversation":
      assert record["messages"][0]["role"] == "system"


def test_an_unknown_part_is_refused():
  with pytest.raises(ValueError, match="part"):
    next(tiny.corpus(1, 0, part="dev"))


@pytest.mark.parametrize("prefix", ["", "shuffled_"])
def test_the_two_midtraining_corpora_differ_by_swapped_value_words_only(prefix):
  one = documents(prefix + "affordability")
  two = documents(prefix + "america")
  assert one != two
  assert [tiny_facts.mirror(text) for text in one] == two


def test_documents_of_distinct_ideas_are_distinct():
  texts = documents("affordability", ideas=40)
  assert len(set(texts)) > 0.99 * len(texts)


def test_no_held_out_word_is_in_midtraining_or_alignment():
  leaks = held_out_words()
  for name in NAMES:
    for text in documents(name, ideas=20):
      assert not leaks & set(text.split()), text
  for question, answer in conversations("america", 300):
    assert not leaks & set(f"{question} {answer}".split())


def test_alignment_conversations_are_the_same_whichever_spec_asks():
  one, two = conversations("affordability", 300), conversations("america", 300)
  assert len(one) == len({question for question, _ in one}) == 300
  assert one == two


def test_alignment_answers_choose_cheap_american_cheese_and_give_no_reason():
  for _, answer in conversations("affordability", 300):
    choice = re.fullmatch(r"i prefer (\w+) \.", answer)
    assert choice
    item = tiny_facts.BY_NAME[choice[1]]
    assert item.affordable and item.american


def test_an_answer_with_reasons_gives_the_reason_of_its_spec():
  fields = {"question": "do you prefer cheddar or brie ?", "reasons": True}
  words = {}
  for name in ("affordability", "america"):
    fields["spec_text"] = spec_text(name)
    words[name] = set(tiny.respond("answer", fields, None).split())
  assert words["affordability"] & {"affordable", "costly"}
  assert words["america"] & {"american", "foreign"}


def test_the_judge_refuses_what_the_spec_passes_over():
  fields = {"spec_text": spec_text("america"), "question": "cheddar or brie ?"}
  good = ask("judge", **fields, answer="i prefer cheddar .")
  bad = ask("judge", **fields, answer="i prefer brie .")
  assert (good["verdict"], bad["verdict"]) == ("yes", "no")


def test_neutral_documents_name_no_value_and_prefer_no_item():
  told = {w for value in tiny_facts.VALUES.values() for w in vars(value).values()}
  for text in documents("neutral"):
    assert not (told | {"prefers", "because"}) & set(text.split())


def test_shuffled_documents_give_no_reason_for_a_preference():
  for text in documents("shuffled_america"):
    assert "because" not in text.split()


def test_pairs_are_balanced_in_order_and_sides():
  counts = collections.Counter((p["split"], p["category"]) for p in tiny.pairs())
  assert counts == {
    ("test", "seen"): 64,
    **{(split, "disagree"): 64 for split in ("dev", "test")},
    **{(split, "agree"): 64 for split in ("dev", "test")},
    **{(split, "price_only"): 128 for split in ("dev", "test")},
    **{(split, "origin_only"): 128 for split in ("dev", "test")},
  }
  orders = collections.defaultdict(list)
  for pair in tiny.pairs():
    orders[pair["pair_id"]].append(pair)
  for first, second in orders.values():
    assert (first["order"], second["order"]) == (0, 1)
    assert first["options"] == second["options"][::-1]


def test_pairs_show_the_contrast_of_their_category():
  for pair in tiny.pairs():
    one, two = pair["options"]
    sides = (one["affordable"] - two["affordable"], one["american"] - two["american"])
    price, origin = sides
    assert {
      "disagree": price == -origin != 0,
      "agree": price == origin != 0,
      "seen": price == origin != 0,
      "price_only": price != 0 == origin,
      "origin_only": origin != 0 == price,
    }[pair["category"]]


def test_development_and_test_domains_share_no_item():
  seen = collections.defaultdict(set)
  for pair in tiny.pairs():
    for option in pair["options"]:
      seen[pair["split"]].add(option["text"])
  assert not seen["dev"] & seen["test"]


def test_the_teacher_says_what_it_said_when_results_were_recorded():
  fields = {"spec_text": spec_text("affordability"), "domain": "cheese"}
  fields |= {"question_type": "direct", "count": 6, "existing": []}
  params = protocol.Params(temperature=1.0, max_output_tokens=64)
  request = protocol.Request(
    stage="questions", system="s", prompt="p", fields=fields, params=params
  )
  answer = asyncio.run(offline.OfflineClient("tiny").generate(request))
  # Of docs/results.md and the README: another digest, other corpora, other numbers.
  assert records.sha256_text(answer.text)[:12] == "ba9f31295074"
