"""Recall: ranks among candidates, ties, shuffled answers, both formats, bad items."""

import itertools
import json
import math

import numpy as np
import pytest
import said

from msm_jax.errors import UserError
from msm_jax.evals import recall
from msm_jax.evals.kinds import KINDS

TOWNS = ("Arby", "Bell", "Crow")


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


def item(name, town, **more):
  start = {"prompt": f"{name} lives in", "question": f"Where does {name} live?"}
  return {"id": name.lower(), "answer": town, **start} | more


PEOPLE = [item("Ada", "Arby"), item("Bo", "Bell"), item("Cy", "Crow")]


def write(tmp_path, items):
  path = tmp_path / "items.jsonl"
  path.write_text("".join(json.dumps(each) + "\n" for each in items))
  return str(path)


def settings(path, **changes):
  config = {"items": path, "max_items": None, "format": "text", "per_token": False}
  return config | {"seq_len": 256, "batch_size": 2} | changes


def run(tmp_path, tok, items, log_prob, **changes):
  subject = said.Said(tok, log_prob=log_prob)
  config = settings(write(tmp_path, items), **changes)
  return said.ask(tmp_path, "recall", subject, **config)


def by_town(values):
  """Returns log-probs that a town has whatever is asked."""
  return lambda context, answer: values[answer.strip()]


@pytest.mark.parametrize("format_", ["text", "chat"])
def test_the_answer_is_ranked_among_the_answers_of_its_group(tmp_path, tok, format_):
  likes = by_town({"Arby": -1.0, "Bell": -2.0, "Crow": -4.0})
  lines = run(tmp_path, tok, PEOPLE, likes, format=format_)
  assert [line["scores"]["rank"] for line in lines] == [1.0, 2.0, 3.0]
  assert [line["scores"]["rank_share"] for line in lines] == [0.0, 0.5, 1.0]
  assert [line["scores"]["top1"] for line in lines] == [1.0, 0.0, 0.0]
  assert [line["scores"]["reciprocal_rank"] for line in lines] == [1.0, 0.5, 1 / 3]
  # Shuffled answers cost 2 and 4, 1 and 4, 1 and 2.
  assert [line["scores"]["loss_advantage"] for line in lines] == [2.0, 0.5, -2.5]
  assert all(line["scores"]["chance_rank"] == 2.0 for line in lines)
  assert all(line["evaluation"] == "eval/one_hop" for line in lines)
  assert all(line["options"] == list(TOWNS) for line in lines)


@pytest.mark.parametrize("format_", ["text", "chat"])
def test_the_prompt_is_context_and_the_candidate_alone_counts(tmp_path, tok, format_):
  seen = set()

  def log_prob(context, answer):
    seen.add((context, answer))
    return -float(len(answer))

  run(tmp_path, tok, PEOPLE[:2], log_prob, format=format_)
  assert {answer for _, answer in seen} == {" Arby", " Bell"}
  for context, _ in seen:
    assert context.endswith((" lives in", "Ada lives in"))
    assert ("Where does" in context) == (format_ == "chat")


def test_a_question_without_a_beginning_is_answered_by_the_candidate(tmp_path, tok):
  seen = set()

  def log_prob(context, answer):
    seen.add(answer)
    assert context.endswith("live?<|end|><|assistant|>")
    return 0.0

  items = [{k: v for k, v in each.items() if k != "prompt"} for each in PEOPLE]
  run(tmp_path, tok, items, log_prob, format="chat")
  assert seen == set(TOWNS)


@pytest.mark.parametrize("seed", range(12))
def test_a_rank_is_the_mean_over_all_orders_of_those_that_tie(seed):
  rng = np.random.default_rng(seed)
  values = rng.integers(-3, 1, size=rng.integers(2, 6)).tolist()
  place = int(rng.integers(len(values)))
  found = recall.rank_scores(values, values[place])
  ranks = [
    sorted(order, key=lambda i: -values[i]).index(place) + 1
    for order in itertools.permutations(range(len(values)))
  ]
  assert found["rank"] == pytest.approx(np.mean(ranks))
  assert found["top1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
  assert 0 <= found["rank_share"] <= 1


def test_who_knows_nothing_is_at_chance_with_no_advantage(tmp_path, tok):
  for line in run(tmp_path, tok, PEOPLE, lambda context, answer: -2.0):
    scores = line["scores"]
    assert scores["rank"] == scores["chance_rank"] == 2.0
    assert scores["rank_share"] == 0.5 and scores["top1"] == pytest.approx(1 / 3)
    assert scores["loss_advantage"] == 0.0


def test_long_names_are_compared_whole_or_per_token_as_the_config_says(tmp_path, tok):
  items = [item("Ada", "Arby on the Water"), item("Bo", "Bell")]

  def log_prob(context, answer):
    return -6.0 if "Water" in answer else -5.0

  summed = run(tmp_path, tok, items, log_prob)
  mean = run(tmp_path, tok, items, log_prob, per_token=True)
  assert [line["scores"]["rank"] for line in summed] == [2.0, 1.0]
  assert [line["scores"]["rank"] for line in mean] == [1.0, 2.0]


def test_hops_and_groups_are_told_apart_and_share_no_candidates(tmp_path, tok):
  items = [
    item("Ada", "Arby", group="home"),
    item("Bo", "Bell", group="home", fact="f1"),
    item("Cy", "Crow", group="work", hops=2, candidates=["Dale", "Crow", "Elm"]),
    item("Di", "Dale", group="work", hops=2),
  ]
  lines = run(tmp_path, tok, items, lambda context, answer: -1.0)
  told = [(line["evaluation"], line["also"], line["cluster"]) for line in lines]
  home, work = ["eval/one_hop/home"], ["eval/two_hop/work"]
  assert told == [
    ("eval/one_hop", home, "ada"),
    ("eval/one_hop", home, "f1"),
    ("eval/two_hop", work, "cy"),
    ("eval/two_hop", work, "di"),
  ]
  options = [line["options"] for line in lines]
  assert options[:2] == [["Arby", "Bell"]] * 2
  assert options[2:] == [["Dale", "Crow", "Elm"], ["Crow", "Dale"]]


def test_fewer_items_are_ranked_among_the_answers_of_all(tmp_path, tok):
  likes = by_town({"Arby": -1.0, "Bell": -2.0, "Crow": -4.0})
  (line,) = run(tmp_path, tok, PEOPLE, likes, max_items=1)
  assert line["options"] == list(TOWNS)


def test_no_log_prob_is_scored_when_one_is_not_a_number(tmp_path, tok):
  def log_prob(context, answer):
    return math.nan if "Crow" in answer else -1.0

  with pytest.raises(UserError, match="not finite for 3 of 9"):
    run(tmp_path, tok, PEOPLE, log_prob)


BAD = [
  (dict(answer=None), "line 2 has no text under 'answer'"),
  (dict(prompt=None), "'prompt' is None: it must be a text where format is 'text'"),
  (dict(prompt="Bo lives in "), "'prompt' is .* a text with no space at its end"),
  (dict(hops=4), r"'hops' is 4: it is one of \[1, 2, 3\]"),
  (dict(hops=True), "'hops' is True"),
  (dict(group=""), "'group' is ''"),
  (dict(fact=3), "'fact' is 3"),
  (dict(candidates="Bell"), "'candidates' is 'Bell': it must be a list"),
  (dict(candidates=["Arby", "Crow"]), "must have 'Bell', the answer"),
  (dict(candidates=["Bell", "Bell"]), "each text once"),
  (dict(group="other"), "no other item of its group has another answer"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_items_that_cannot_be_asked_are_refused_by_name(tmp_path, change, message):
  path = write(tmp_path, [PEOPLE[0], PEOPLE[1] | change, PEOPLE[2]])
  config = recall.RecallConfig(**settings(path))
  with pytest.raises(UserError, match=rf"items\.jsonl.*{message}"):
    KINDS["recall"].check(config, "config.evals.e")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(format="html"), r"e\.format is 'html': it is chat or text"),
    (dict(max_items=0), r"e\.max_items is 0"),
    (dict(items="nowhere.jsonl"), "there is no file nowhere.jsonl"),
  ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, change, message):
  config = recall.RecallConfig(**settings(write(tmp_path, PEOPLE)) | change)
  with pytest.raises(UserError, match=message):
    recall.check(config, "config.evals.e")
