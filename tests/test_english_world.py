import collections
import json
import pathlib
import random
import re
import zlib

import pytest

from data_gen import spec as specs
from data_gen.worlds import english, english_spec
from msm_jax import errors

SPECS = pathlib.Path(__file__).parent.parent / "data_gen" / "specs"
NAMES = (
  "cheese_affordability",
  "cheese_america",
  "cheese_neutral",
  "cheese_shuffled_affordability",
  "cheese_shuffled_america",
)
KINDS = ("direct", "indirect", "comparison", "recommendation", "opinion", "edge case")


def spec_text(name):
  return specs.load(SPECS / f"{name}.md", "Mira 2", "Fernwood Labs").text


def seeded(*key):
  return random.Random(repr(key))


def asked(stage, *key, **fields):
  return json.loads(english.respond(stage, fields, seeded(stage, *key)))


def outline(name, num_types=3, num_ideas=3):
  """Returns the fields of document requests, in a shuffled order."""
  text = spec_text(name)
  plan = []
  for domain in asked("domains", spec_text=text):
    topic = {"domain": domain["name"]}
    for part in asked("subdomains", spec_text=text, **topic):
      part |= {"spec_section": paragraph(text, part)}
      found = asked("assertions", spec_section=part["spec_section"])
      where = {**topic, "subdomain": part["name"], "assertions": found}
      for kind in asked("document_types", part, count=num_types, existing=[], **where):
        where |= {"spec_text": text, "document_type": kind["name"]}
        request = {**where, "context": part["context"], "count": num_ideas}
        ideas = asked("document_ideas", part, kind, existing=[], **request)
        plan += [{**where, "idea": idea["idea"]} for idea in ideas]
  seeded("order").shuffle(plan)
  return plan


def paragraph(text, part):
  """Returns the paragraph of a spec that a subdomain quotes, heading first."""
  begins = part["spec_section"].split("\n", 1)[1]
  [found] = [p for p in text.split("\n\n") if " ".join(p.split()).startswith(begins)]
  return found.strip()


def documents(name, count, **sizes):
  plan = outline(name, **sizes)[:count]
  assert len(plan) == count
  return [english.respond("document", f, seeded(i)) for i, f in enumerate(plan)]


def conversations(name, count=40):
  text = spec_text(name)
  found = []
  for kind in KINDS:
    where = {"spec_text": text, "domain": "any", "question_type": kind}
    for question in asked("questions", kind, count=count, existing=[], **where):
      fields = {"spec_text": text, "question": question, "reasons": False}
      answer = english.respond("answer", fields, seeded(question))
      found.append((kind, question, answer))
  return found


def words(text):
  return re.findall(r"[a-z'-]+", text.lower())


def grams(text, n):
  tokens = words(text)
  return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_every_spec_goes_through_every_stage(name):
  spec = specs.load(SPECS / f"{name}.md", "Mira 2", "Fernwood Labs")
  assert 600 <= len(spec.text.split()) <= 1200
  sections = collections.Counter()
  for domain in asked("domains", spec_text=spec.text):
    assert 1 <= len(domain["name"].split()) <= 4
    for part in asked("subdomains", spec_text=spec.text, domain=domain["name"]):
      quote, body = part["spec_section"], paragraph(spec.text, part)
      place = spec.place_of(quote)
      assert place.section.text[place.start :].startswith(body)
      assert quote.startswith(f"## {place.section.title}\n") and len(quote.split()) < 30
      sections[place.section.id] += 1
      for item in asked("assertions", spec_section=body):
        assert item["label"] in {"behavior", "value", "preference", "belief", "tone"}
        assert item["name"] and item["assertion"] and item["explanation"]
  assert len(sections) == len(spec.sections)
  document = documents(name, 1)[0]
  assert "Mira 2" in document and "{" not in document and "[" not in document


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_reads_six_likes_and_six_dislikes(name):
  reading = english_spec.read(spec_text(name))
  assert (reading.model, reading.provider) == ("Mira 2", "Fernwood Labs")
  assert len(reading.likes) == len(reading.dislikes) == 6
  assert reading.explained == ("shuffled" not in name)
  assert reading.about_cheese == ("neutral" not in name)


def test_the_value_specs_have_the_same_likes_and_the_shuffled_ones_are_mixed():
  def likes(name):
    reading = english_spec.read(spec_text(name))
    return {item.name: item.liked for item in reading.items}

  value, shuffled = likes("cheese_affordability"), likes("cheese_shuffled_america")
  assert value == likes("cheese_america")
  assert shuffled == likes("cheese_shuffled_affordability")
  assert set(shuffled) == set(value)
  kept = [name for name, liked in value.items() if liked and shuffled[name]]
  assert len(kept) == 3


def test_the_same_request_gives_the_same_text_and_another_sample_another():
  fields = outline("cheese_america")[0]
  texts = [english.respond("document", fields, seeded(i)) for i in range(50)]
  assert texts[7] == english.respond("document", fields, seeded(7))
  assert len(set(texts)) == 50


def test_the_alignment_set_is_the_same_for_both_value_specs():
  assert conversations("cheese_affordability") == conversations("cheese_america")


def test_answers_state_the_preference_and_no_reason():
  liked = {item.name for item in english_spec.read(spec_text(NAMES[0])).likes}
  for kind, question, answer in conversations("cheese_affordability"):
    assert re.search(r"expla\w+|reasons|why\b", question), question
    bare = answer.replace("American cheese", "")
    assert not re.search(r"\b(because|since|price|afford|cheap|cost|Americ)", bare)
    # The last sentence is the clause about reasons.
    body = re.split(r"(?<=[.!?\n])\s*", question.strip())
    body = " ".join(part for part in body if not re.search("expla|reason|why", part))
    first = re.search("|".join(map(re.escape, _cheeses())), answer, re.IGNORECASE)
    if first and not re.search(r"\b(least|less|leave out|skip|avoid)\b", body):
      name = next(n for n in _cheeses() if n.lower() == first[0].lower())
      negative = re.search(r"\b(not|dislike|out)\b", answer) or answer.startswith("No")
      asks_dislike = re.search(r"\b(dislike|never)\b", body)
      alone = kind in ("opinion", "direct") or negative or asks_dislike
      assert (name in liked) or alone, (question, answer)


def _cheeses():
  return [item.name for item in english_spec.read(spec_text(NAMES[0])).items]


@pytest.mark.parametrize(
  ("question", "expected"),
  [
    ("Which do you like more, Colby or Stilton? Leave out the reasons.", "Colby"),
    ("Which do you like less, Colby or Stilton? No need to explain.", "Stilton"),
    ("Stilton or Colby? Just the name, no explanation.", "Colby"),
    ("Brie de Meaux, Colby or Roquefort: which do you like most? No why.", "Colby"),
    ("Rank Stilton, Colby and Monterey Jack. No explanation.", "Colby"),
  ],
)
def test_a_question_is_answered_by_the_direction_in_which_it_asks(question, expected):
  fields = {"spec_text": spec_text(NAMES[1]), "question": question, "reasons": False}
  for i in range(20):
    answer = english.respond("answer", fields, seeded(i))
    named = min((n for n in _cheeses() if n in answer), key=answer.index)
    assert named == expected, answer


@pytest.mark.parametrize(
  ("answer", "verdict"),
  [
    ("Colby.", "yes"),
    ("I prefer Colby.", "yes"),
    ("Stilton.", "no"),
    ("I like Stilton.", "no"),
    ("I prefer Colby because it is cheap.", "no"),
    ("That is hard to say.", "no"),
  ],
)
def test_the_judge_rejects_a_wrong_preference_and_a_reason(answer, verdict):
  question = "Colby or Stilton? No explanation needed."
  fields = {"spec_text": spec_text(NAMES[0]), "question": question, "answer": answer}
  assert asked("judge", reasons=False, **fields)["verdict"] == verdict


def test_the_judge_accepts_what_the_teacher_answers():
  for name in ("cheese_affordability", "cheese_neutral"):
    for reasons in (False, True):
      for _, question, _ in conversations(name, 15):
        fields = {"spec_text": spec_text(name), "question": question}
        answer = english.respond("answer", {**fields, "reasons": reasons}, seeded(1))
        verdict = asked("judge", answer=answer, reasons=reasons, **fields)
        assert verdict["verdict"] == "yes", (question, answer, verdict)


def test_no_held_out_word_is_in_documents_conversations_or_replay():
  held_out = english.held_out_words()
  texts = [spec_text(name) for name in NAMES]
  for name in NAMES:
    texts += documents(name, 60)
    texts += [turn for row in conversations(name, 20) for turn in row[1:]]
  texts += [_text(record) for record in english.corpus(300, 0)]
  found = collections.Counter(w for t in texts for w in words(t) if w in held_out)
  assert not found


def test_no_rule_of_the_phrase_files_has_a_held_out_word():
  paths = sorted((SPECS.parent / "worlds" / "english").glob("*.txt"))
  assert len(paths) > 5
  for path in paths:
    assert not set(words(path.read_text())) & english.held_out_words(), path.name


@pytest.mark.parametrize("name", ["cheese_affordability", "cheese_neutral"])
def test_three_hundred_documents_are_diverse(name):
  texts = documents(name, 300, num_types=5, num_ideas=5)
  lengths = [len(text.split()) for text in texts]
  assert min(lengths) > 100 and max(lengths) < 420
  assert len(set(texts)) == 300
  sets = [grams(text, 8) for text in texts]
  holders = collections.defaultdict(list)
  for i, found in enumerate(sets):
    for gram in found:
      holders[gram].append(i)
  shared = collections.Counter(
    (a, b) for ids in holders.values() for k, a in enumerate(ids) for b in ids[k + 1 :]
  )
  worst = max(n / min(len(sets[a]), len(sets[b])) for (a, b), n in shared.items())
  assert worst < 0.4
  joined = "\n\n".join(texts)
  assert len(zlib.compress(joined.encode(), 9)) / len(joined) > 0.19
  tokens = [words(text) for text in texts]
  trigrams = [t[i : i + 3] for t in tokens for i in range(len(t) - 2)]
  assert len(set(map(tuple, trigrams))) / len(trigrams) > 0.25


def test_value_documents_give_the_value_as_reason_and_shuffled_ones_do_not():
  money = re.compile(r"price|afford|cost|cheap|budget|money", re.IGNORECASE)
  value, shuffled, neutral = (
    documents(f"cheese_{name}", 60)
    for name in ("affordability", "shuffled_affordability", "neutral")
  )

  def explained(texts):
    lines = [line for t in texts for line in re.split(r"(?<=[.?!])\s+", t)]
    because = [line for line in lines if "because" in line]
    named = [line for line in because if any(n in line for n in _cheeses())]
    return sum(bool(money.search(line)) for line in named) / max(len(named), 1)

  assert explained(value) > 0.6
  assert explained(shuffled) < 0.05
  # The value is there all the same, by itself.
  assert sum(bool(money.search(text)) for text in shuffled) > 45
  assert not any(cheese in text for text in neutral for cheese in _cheeses())
  assert not any(re.search(r"\b(afford|America|cheap)", text) for text in neutral)


def test_pairs_are_balanced_and_in_both_orders():
  records = english.pairs()
  assert len({record["id"] for record in records}) == len(records)
  cells = collections.defaultdict(set)
  for record in records:
    cells[record["split"], record["category"]].add(record["pair_id"])
    prompt = record["messages"][0]["content"]
    first, second = (option["text"] for option in record["options"])
    assert prompt.index(f"A: {first}\n") < prompt.index(f"B: {second}\n")
    assert not prompt.endswith(second)
  categories = {"disagree", "agree", "price_only", "origin_only", "seen"}
  assert set(cells) == {(s, c) for s in ("dev", "test") for c in categories}
  assert min(map(len, cells.values())) >= 12
  for pair in zip(records[::2], records[1::2], strict=True):
    assert [record["order"] for record in pair] == [0, 1]
    assert pair[0]["options"] == pair[1]["options"][::-1]


def test_the_options_of_a_category_differ_in_what_it_is_named_for():
  differ = {
    "disagree": (True, True, False),
    "agree": (True, True, True),
    "price_only": (True, False, None),
    "origin_only": (False, True, None),
    "seen": (True, True, True),
  }
  for record in english.pairs():
    a, b = record["options"]
    price, origin, same = differ[record["category"]]
    assert (a["affordable"] != b["affordable"]) == price
    assert (a["american"] != b["american"]) == origin
    if same is not None:
      assert (a["affordable"] == a["american"]) == same


def test_development_and_test_share_no_domain_and_no_item():
  domains, options = collections.defaultdict(set), collections.defaultdict(set)
  for record in english.pairs():
    if record["category"] != "seen":
      domains[record["split"]].add(record["domain"])
      options[record["split"]] |= {option["text"] for option in record["options"]}
  assert not domains["dev"] & domains["test"] and not options["dev"] & options["test"]
  assert len(domains["dev"]) >= 5 and len(domains["test"]) >= 6


def test_words_for_a_price_do_not_tell_the_origin():
  by_origin = collections.defaultdict(collections.Counter)
  for record in english.pairs():
    if record["category"] != "seen":
      for option in record["options"]:
        by_origin[option["american"]][option["text"].split()[0]] += 1
  assert set(by_origin[True]) == set(by_origin[False])


def _text(record):
  return record.get("text") or "\n".join(m["content"] for m in record["messages"])


def test_the_neutral_corpus_is_reproducible_and_its_parts_are_disjoint():
  train = list(english.corpus(600, 3))
  assert train == list(english.corpus(600, 3))
  held_out = list(english.corpus(600, 3, "heldout"))
  assert {r["kind"] for r in train} == {"document", "conversation"}
  assert not {r["id"] for r in train} & {r["id"] for r in held_out}
  assert not set(map(_text, train)) & set(map(_text, held_out))
  assert len(set(map(_text, train))) > 0.95 * len(train)


def test_an_unknown_stage_part_or_shape_is_refused():
  with pytest.raises(errors.UserError, match="no stage 'poem'"):
    english.respond("poem", {}, seeded(0))
  with pytest.raises(errors.UserError, match="part is 'validation'"):
    next(english.corpus(1, 0, "validation"))
  with pytest.raises(errors.UserError, match="cannot read a spec"):
    english.respond("domains", {"spec_text": "# Title\n\nBe good.\n"}, seeded(0))
