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


def test_the_nearest_prefix_is_within_half_an_item_of_the_target():
  rng = random.Random(0)
  for _ in range(50):
    sizes = [rng.randrange(1, 100) for _ in range(60)]
    target = rng.randrange(sum(sizes) + 1)
    count = selection.nearest_prefix(sizes, target)
    assert abs(sum(sizes[:count]) - target) <= max(sizes) / 2


def test_texts_that_differ_in_case_space_and_punctuation_are_duplicates():
  seen = filters.Duplicates()
  assert seen.first_of("Mira likes cheddar.", "1") is None
  assert seen.first_of("mira  likes\ncheddar", "2") == "1"
  assert seen.first_of("mira likes brie", "3") is None
