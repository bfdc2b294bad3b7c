"""What is selected is spread over the sections, and the same each time."""

import collections
import random

from data_gen import filters, selection


def items(sizes):
  return [(stratum, i) for stratum, size in sizes.items() for i in range(size)]


def test_every_prefix_is_spread_evenly_over_the_strata():
  order = selection.stratified(items({"a": 50, "b": 50, "c": 50}), lambda x: x[0], 1)
  for count in (3, 30, 75):
    counts = collections.Counter(stratum for stratum, _ in order[:count])
    assert set(counts.values()) == {count // 3}


def test_all_items_are_there_once_whatever_the_sizes():
  rng = random.Random(0)
  for seed in range(20):
    given = items({name: rng.randrange(9) for name in "abcd"})
    order = selection.stratified(given, lambda x: x[0], seed)
    assert sorted(order) == sorted(given)


def test_the_order_depends_on_the_seed_and_not_on_the_names():
  first = selection.stratified(items({"a": 9, "b": 9}), lambda x: x[0], 1)
  twin = selection.stratified(items({"x": 9, "y": 9}), lambda x: x[0], 1)
  other = selection.stratified(items({"a": 9, "b": 9}), lambda x: x[0], 2)
  names = {"a": "x", "b": "y"}
  assert [(names[stratum], i) for stratum, i in first] == twin
  assert first != other


def test_texts_that_differ_in_case_space_and_punctuation_are_duplicates():
  seen = filters.Duplicates()
  assert seen.first_of("Mira likes cheddar.", "1") is None
  assert seen.first_of("mira  likes\ncheddar", "2") == "1"
  assert seen.first_of("mira likes brie", "3") is None


def drawn_items(rng, count):
  """Returns (section, type, size, number) of drawn documents."""
  return [
    (rng.choice("abc"), rng.choice("xyzw"), rng.randrange(300, 1200), i)
    for i in range(count)
  ]


STRATA = (lambda item: item[0], lambda item: item[1])


def to_budget(items, budget, seed=0):
  return selection.to_budget(
    items, budget, size=lambda item: item[2], strata=STRATA, seed=seed
  )


def test_a_budget_is_met_exactly_and_never_passed():
  rng = random.Random(0)
  missed = 0
  for _ in range(40):
    given = drawn_items(rng, rng.randrange(60, 300))
    budget = rng.randrange(20_000, sum(item[2] for item in given) - 20_000)
    chosen = to_budget(given, budget)
    total = sum(item[2] for item in chosen)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(given)
    assert total <= budget
    missed += total != budget
  assert missed == 0


def test_sections_take_turns_and_types_within_a_section():
  # The first section has one type, the second four: they are chosen equally often.
  given = [("a", "x", 100, i) for i in range(400)]
  given += [("b", "xyzw"[i % 4], 100, i) for i in range(400)]
  chosen = to_budget(given, 24_000)
  counts = collections.Counter(item[:2] for item in chosen)
  assert counts == {("a", "x"): 120, **{("b", kind): 30 for kind in "xyzw"}}


def test_the_same_items_and_seed_give_the_same_choice():
  given = drawn_items(random.Random(1), 200)
  assert to_budget(given, 40_000) == to_budget(given, 40_000)
  assert to_budget(given, 40_000) != to_budget(given, 40_000, seed=1)
  names = {"a": "p", "b": "q", "c": "r"}
  renamed = [(names[section], *rest) for section, *rest in given]
  twins = [(names[section], *rest) for section, *rest in to_budget(given, 40_000)]
  assert to_budget(renamed, 40_000) == twins


def test_budgets_at_the_edges():
  given = [("a", "x", size, i) for i, size in enumerate((500, 300, 700))]
  assert to_budget([], 100) == []
  assert to_budget(given, 0) == to_budget(given, 299) == []
  assert [item[2] for item in to_budget(given, 300)] == [300]
  assert {item[2] for item in to_budget(given, 1000)} == {300, 700}
  assert sum(item[2] for item in to_budget(given, 1499)) == 1200
  assert len(to_budget(given, 1500)) == len(to_budget(given, 10_000)) == 3


def test_one_level_of_strata_is_spread_as_evenly_as_before():
  order = selection.round_robin(items({"a": 50, "b": 50}), [lambda x: x[0]], 1)
  assert sorted(order) == sorted(items({"a": 50, "b": 50}))
  for count in (2, 30, 76):
    counts = collections.Counter(stratum for stratum, _ in order[:count])
    assert set(counts.values()) == {count // 2}
