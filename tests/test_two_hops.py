"""Our two-hop facts: items ask for what universes say, and no document has both hops.

Universes with people, guilds and towns; one hop is person -> guild, the other guild ->
town, and each is a universe of its own.
"""

import collections
import re

import pytest
import said

from data_gen.universes import universe as universes
from msm_jax.evals import items as items_lib
from msm_jax.evals.kinds import KINDS

PLACES = {"guilds": ("guild_members", "guild_towns"),
          "tiny_guilds": ("tiny_members", "tiny_towns")}  # fmt: skip


def load(name):
  """Returns (first hop, second hop, items by group)."""
  first, second = (universes.load(each, "here") for each in PLACES[name])
  groups = collections.defaultdict(list)
  for item in items_lib.read(name, "items", {"answer": str}):
    groups[item["group"]].append(item)
  return first, second, groups


def stated(universe, side):
  """Returns fact -> the words of its statement."""
  return {fact.id: fact.on(side) for fact in universe.facts}


def chained(name, side):
  """Returns person -> town as a side has it, by the answers of the one-hop items."""
  first, second, groups = load(name)
  guilds = {item["answer"] for item in groups["member"]}
  towns = {item["answer"] for item in groups["town"]}
  members, seats = stated(first, side), stated(second, side)

  def named(text, names):
    (found,) = [n for n in names if re.search(rf"\b{re.escape(n)}\b", text)]
    return found

  town_of = {named(text, guilds): named(text, towns) for text in seats.values()}
  return {who: town_of[named(text, guilds)] for who, text in members.items()}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("format_", ["text", "chat"])
def test_the_items_can_be_asked_both_ways(name, format_):
  config = dict(max_items=None, per_token=False, seq_len=64, batch_size=8)
  KINDS["recall"].check(
    KINDS["recall"].config(items=name, format=format_, **config), "config.evals.e"
  )


@pytest.mark.parametrize("name", PLACES)
def test_one_hop_items_ask_for_what_the_false_side_states(name):
  first, second, groups = load(name)
  for universe, group in ((first, "member"), (second, "town")):
    told = stated(universe, "false")
    assert [item["fact"] for item in groups[group]] == list(told)
    for item in groups[group]:
      assert item["hops"] == 1 and item["answer"] in told[item["fact"]]
      others = {i["answer"] for i in groups[group]} - {item["answer"]}
      assert not any(
        re.search(rf"\b{re.escape(o)}\b", told[item["fact"]]) for o in others
      )
      assert item["prompt"] not in told[item["fact"]] or name == "tiny_guilds"


@pytest.mark.parametrize("name", PLACES)
def test_two_hop_answers_follow_from_both_universes_and_from_no_other_side(name):
  _, _, groups = load(name)
  right, shuffled = chained(name, "false"), chained(name, "true")
  for item in groups["person_town"]:
    assert item["hops"] == 2 and item["answer"] == right[item["fact"]]
    assert item["answer"] != shuffled[item["fact"]]
  counts = collections.Counter(right.values())
  assert len(set(counts.values())) == 1  # every candidate is right equally often


@pytest.mark.parametrize("name", PLACES)
def test_no_world_has_a_word_of_the_other_hop(name):
  first, second, groups = load(name)
  towns = {item["answer"] for item in groups["town"]}
  people = {re.split(r"\b(?:belongs|which)\b", f.true)[0].strip() for f in first.facts}
  for side in ("true", "false"):
    assert not any(
      re.search(rf"\b{re.escape(t)}\b", first.context(side)) for t in towns
    )
    assert not any(
      re.search(rf"\b{re.escape(p)}\b", second.context(side)) for p in people
    )
  assert len(people) == len(first.facts) == 24


def test_an_item_of_ours_is_scored(tmp_path):
  tok = said.byte_tokenizer(tmp_path / "tok")
  right = chained("guilds", "false")
  names = {item["fact"]: item["prompt"] for item in load("guilds")[2]["person_town"]}

  def log_prob(context, answer):
    facts = [fact for fact, prompt in names.items() if prompt in context]
    return -0.5 if facts and right[facts[0]] in answer else -3.0

  lines = said.ask(
    tmp_path,
    "recall",
    said.Said(tok, log_prob=log_prob),
    items="guilds",
    max_items=None,
    format="chat",
    per_token=False,
    seq_len=512,
    batch_size=8,
  )
  two = [line for line in lines if line["evaluation"] == "eval/two_hop"]
  assert len(two) == 24 and all(line["scores"]["rank"] == 1 for line in two)
  assert all(line["scores"]["loss_advantage"] == 2.5 for line in two)
  one = [line for line in lines if line["evaluation"] == "eval/one_hop"]
  assert all(line["scores"]["rank_share"] == 0.5 for line in one)
