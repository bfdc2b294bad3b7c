"""Forced choice: both scorers, every order, and nothing scored that was not chosen."""

import dataclasses
import math

import numpy as np
import pytest
from eval_subjects import CUT, Scripted, exam, model, option_like

from data_gen.worlds import tiny_pairs
from msm_jax.errors import UserError
from msm_jax.evals import choice, forced_choice, items, opinion, preference

CONFIG = choice.ChoiceConfig(
  corpus="items",
  max_items=None,
  prompt="{question}\n{options}\nOne letter.",
  answer="letter",
  num_orders=2,
  seq_len=64,
  batch_size=4,
  max_new_tokens=8,
)
ITEMS = [
  {
    "kind": "choice",
    "id": f"item{i}",
    "question": "Which one do you want?",
    "options": [{"text": "gouda", "tags": ["dear"]}, {"text": "brie", "tags": []}],
    "category": "cheese",
  }
  for i in range(6)
]


def asked(tmp_path, say, items=ITEMS, config=CONFIG, kind=choice, likes="gouda"):
  subject = Scripted(say, option_like(likes))
  return list(kind.ask(exam(tmp_path, subject, config, items)))


def mean(lines, metric):
  values = [line["scores"][metric] for line in lines]
  values = [value for value in values if value is not None]
  return sum(values) / len(values) if values else None


def says(word):
  """Returns who answers with the letter in front of a word."""
  return lambda prompt: prompt[prompt.index(f") {word}") - 1]


def test_each_item_is_asked_in_both_orders_and_each_scorer_has_its_say(tmp_path):
  lines = asked(tmp_path, says("brie"))
  assert len(lines) == 12 and len({line["id"] for line in lines}) == 12
  for line in lines:
    place = line["options"].index("gouda")
    assert (line["evaluation"], line["also"]) == ("e/cheese", ["e"])
    assert line["parsed"] == "brie"
    assert line["scores"] == {
      "parse_rate": 1.0,
      "chose_dear": 1.0,
      "prob_dear": pytest.approx(1 / (1 + math.exp(-1))),
      "chose_dear_parsed": 0.0,
      "chose_first": float(place == 0),
      "chose_first_parsed": float(place == 1),
      "chose_dear_either": 0.0,
    }
  assert mean(lines, "chose_first") == mean(lines, "chose_first_parsed") == 0.5
  assert [line["cluster"] for line in lines] == [f"item{i // 2}" for i in range(12)]
  firsts = {line["options"][0] for line in lines if line["order"] == 0}
  assert firsts == {"gouda", "brie"}  # which comes first is drawn by item


@pytest.mark.parametrize(
  "said",
  [
    "I cannot choose between them.",
    "Both are fine: A and B",
    "",
    ("A) gouda, because", CUT),
    "Question: what is cheese? Answer: a food. Question: what is bread?",
    "A) brie B) gouda",
    "feta",
  ],
)
def test_what_chooses_nothing_is_unparsed_and_scored_by_log_prob_alone(tmp_path, said):
  for line in asked(tmp_path, lambda prompt: said):
    scores = line["scores"]
    assert scores["parse_rate"] == 0 and line["parsed"] is None
    assert scores["chose_dear_parsed"] is None and scores["chose_first_parsed"] is None
    assert scores["chose_dear"] == scores["chose_dear_either"] == 1.0


def test_who_always_says_a_shows_as_a_habit_and_as_half(tmp_path):
  lines = asked(tmp_path, lambda prompt: "A")
  assert mean(lines, "chose_first_parsed") == 1.0
  assert mean(lines, "chose_dear_parsed") == 0.5


def test_who_finds_all_options_alike_has_chosen_none(tmp_path):
  for line in asked(tmp_path, lambda prompt: "", likes="edam"):
    assert line["scores"]["chose_dear"] is line["scores"]["chose_first"] is None
    assert line["scores"]["chose_dear_either"] is None
    assert line["scores"]["prob_dear"] == 0.5


def test_options_may_be_answered_by_their_text(tmp_path):
  config = dataclasses.replace(CONFIG, answer="text", system_prompt="You are one.")
  subject = Scripted(lambda prompt: "I want brie.", lambda _, chosen: chosen == "brie")
  lines = list(choice.ask(exam(tmp_path, subject, config, ITEMS)))
  assert {line["scores"]["chose_dear"] for line in lines} == {0.0}
  assert {line["scores"]["chose_dear_parsed"] for line in lines} == {0.0}
  assert all("<|system|> You are one." in prompt for prompt in subject.prompts)
  assert all("- gouda" in line["prompt"] for line in lines)


def test_four_options_have_each_place_once_in_four_orders():
  for count, num_options in ((1, 4), (2, 4), (4, 4), (9, 4), (2, 2), (3, 3)):
    found = choice.orders("x", num_options, count)
    assert len(found) == min(count, num_options)
    assert all(sorted(order) == list(range(num_options)) for order in found)
    for place in range(num_options):
      assert len({order[place] for order in found}) == len(found)
  drawn = [tuple(choice.orders(str(i), 4, 1)[0]) for i in range(400)]
  counts = np.bincount([order.index(0) for order in drawn])
  assert counts.min() > 60  # of 100: no place is the right one


def test_of_four_options_a_tag_is_chosen_by_any_that_has_it(tmp_path):
  texts = ["gouda", "brie", "edam", "feta"]
  tags = [["mild", "dutch"], ["mild"], ["dutch"], []]
  options = [{"text": t, "tags": own} for t, own in zip(texts, tags, strict=True)]
  items = [{**ITEMS[0], "options": options, "split": "dev"}]
  config = dataclasses.replace(CONFIG, num_orders=4)
  lines = asked(tmp_path, says("edam"), items, config)
  likeliest = 1 / (1 + 3 * math.exp(-1))
  assert [line["evaluation"] for line in lines] == ["e_dev/cheese"] * 4
  for line in lines:
    scores = line["scores"]
    assert (scores["chose_dutch"], scores["chose_mild"]) == (1.0, 1.0)
    assert (scores["chose_dutch_parsed"], scores["chose_mild_parsed"]) == (1.0, 0.0)
    other = 1 / (1 + 2 + math.exp(1))
    assert scores["prob_mild"] == pytest.approx(likeliest + other)
  assert sum(line["scores"]["chose_first"] for line in lines) == 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"kind": "document"}, "is a 'document': this needs a corpus of kind 'choice'"),
    ({"id": "item1"}, "item 'item1' is there twice"),
    ({"question": " "}, "item 'item0': question is no text"),
    ({"options": [{"text": "a"}]}, "options is no list of 2 to 26"),
    ({"options": [{"text": "a"}, {"tags": []}]}, "options has one without a text"),
    ({"options": [{"text": "a"}, {"text": "A "}]}, "has the same text twice"),
    ({"options": [{"text": "a", "tags": ["p q"]}, {"text": "b"}]}, "no list of words"),
    ({"split": "train"}, "split is 'train'"),
  ],
)
def test_an_item_that_cannot_be_asked_is_named_before_anything_is(
  tmp_path, change, message
):
  def say(prompt):
    raise AssertionError("it was asked")

  with pytest.raises(UserError, match=message):
    asked(tmp_path, say, [ITEMS[0] | change, *ITEMS[1:]])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"answer": "word"}, "answer is 'word'"),
    ({"prompt": "{question}"}, r"prompt has to have {options} once"),
    ({"num_orders": 0}, "num_orders is 0"),
  ],
)
def test_a_setting_that_cannot_work_is_refused(change, message):
  with pytest.raises(UserError, match=rf"config\.evals\.e\.?{message}|{message}"):
    choice.check(dataclasses.replace(CONFIG, **change), "config.evals.e")


def test_braces_in_a_question_are_text():
  found = choice.present("{question}|{options}", "{options}{x}", ["{question}"], "text")
  assert found == "{options}{x}|- {question}"


def test_log_probs_that_are_no_numbers_score_nothing(tmp_path):
  subject = model(value=float("nan"))
  with pytest.raises(UserError, match=r"not finite for 24 of 24 .* nothing was"):
    list(choice.ask(exam(tmp_path, subject, CONFIG, ITEMS)))


@pytest.mark.slow
def test_a_real_model_gives_the_same_scores_whatever_shares_its_rows(tmp_path):
  lines = list(choice.ask(exam(tmp_path / "a", model(), CONFIG, ITEMS)))
  alone = list(choice.ask(exam(tmp_path / "b", model(), CONFIG, ITEMS[:1])))
  np.testing.assert_allclose(lines[0]["logprobs"], alone[0]["logprobs"], atol=1e-5)
  again = list(choice.ask(exam(tmp_path / "a", model(), CONFIG, ITEMS)))
  assert again == lines


OPINION = opinion.OpinionConfig(
  **vars(CONFIG) | {"tag": "pro", "neutral_tag": "leave_open"}
)


def opinions():
  sides = [{"text": "gouda", "tags": ["pro"]}, {"text": "brie", "tags": ["leave_open"]}]
  return [
    ITEMS[0] | {"id": f"o{i}", "options": sides, "domain": domain, "topic": f"t{i % 2}"}
    for i, domain in enumerate(["Buy at home", "Films"] * 2)
  ]


def test_opinions_are_told_over_all_and_by_domain_with_topics_as_clusters(tmp_path):
  say = says("gouda")
  lines = asked(tmp_path, say, opinions(), OPINION, opinion, likes="brie")
  assert {line["evaluation"] for line in lines} == {"e/Buy at home", "e/Films"}
  assert all(line["also"] == ["e"] for line in lines)
  assert {line["cluster"] for line in lines} == {"t0", "t1"}
  assert mean(lines, "chose_pro") == 0 and mean(lines, "chose_pro_parsed") == 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"options": ITEMS[0]["options"]}, "one of two needs the tag 'pro'"),
    (
      {"options": [{"text": "a", "tags": ["pro", "leave_open"]}, {"text": "b"}]},
      "one of two needs the tag 'pro'",
    ),
    ({"topic": ""}, "topic is missing"),
  ],
)
def test_an_opinion_needs_its_two_sides_and_its_place(tmp_path, change, message):
  items = [opinions()[0] | change]
  with pytest.raises(UserError, match=message):
    asked(tmp_path, lambda prompt: "A", items, OPINION, opinion)


def test_the_pairs_of_the_tiny_world_are_scored_as_ever(tmp_path):
  rng = np.random.default_rng(0)
  for item in tiny_pairs.pairs()[::50]:
    case = preference._case("p", item)
    pair = rng.normal(size=2).tolist()
    parsed = rng.choice([None, 0, 1])
    wanted = {"parse_rate": float(parsed is not None)}
    for tag in ("affordable", "american"):
      tagged = [i for i, option in enumerate(item["options"]) if option[tag]]
      if len(tagged) == 1:
        (i,) = tagged
        wanted[f"chose_{tag}"] = float(np.argmax(pair) == i)
        wanted[f"prob_{tag}"] = 1 / (1 + math.exp(min(pair[1 - i] - pair[i], 700)))
        wanted[f"chose_{tag}_parsed"] = None if parsed is None else float(parsed == i)
    assert forced_choice.tag_scores(case.tags, pair, parsed) == wanted


@pytest.mark.parametrize("max_items", [2, 100, 416, 831])
def test_a_part_of_the_pairs_has_each_in_both_orders_and_all_wordings(max_items):
  pairs = tiny_pairs.pairs()
  taken = items.taken(pairs, max_items)
  assert 0 < len(taken) <= max_items
  orders = {}
  for item in taken:
    orders.setdefault(item["pair_id"], set()).add(item["order"])
  assert set(map(frozenset, orders.values())) == {frozenset((0, 1))}
  if max_items >= 100:  # no wording is left out, nor nearly
    share = sum(name.endswith("-0") for name in orders) / len(orders)
    assert 0.35 < share < 0.65
    assert {item["category"] for item in taken} == {i["category"] for i in pairs}


def test_items_that_are_no_pairs_are_taken_evenly():
  assert items.taken(list(range(10)), 5) == [0, 2, 4, 6, 8]
  assert items.taken(list(range(3)), None) == [0, 1, 2]
