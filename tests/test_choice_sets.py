"""Our own forced choices for six values: balanced, and nothing of the specs in them."""

import collections
import json
import pathlib
import re

import pytest
from own_data import run
from test_value_specs import VALUES, items, load, names

from msm_jax import evals
from msm_jax.evals import choice

SETS = pathlib.Path(evals.__file__).parent / "sets"
# What the things of a spec are, in words that no question of its set may use.
TRAINED = {
  "environment": "cheese",
  "novelty": "sweetener",
  "tradition": "condiment",
  "simplicity": "sauce",
  "difficulty": "bread",
  "individualism": "instrument",
}

of_each = pytest.mark.parametrize("value", VALUES)


def read(value):
  text = (SETS / f"choices_{value}.jsonl").read_text("ascii")
  return [json.loads(line) for line in text.splitlines()]


def aligned_place(item):
  (place,) = [i for i, o in enumerate(item["options"]) if o["tags"]]
  return place


@of_each
def test_a_set_has_six_pairs_in_each_of_six_test_domains_and_two_for_choosing(value):
  found = read(value)
  choice.check_items("e", found)
  assert len({item["id"] for item in found}) == len(found) == 48
  domains = collections.Counter((item["split"], item["category"]) for item in found)
  assert set(domains.values()) == {6}
  assert collections.Counter(split for split, _ in domains) == {"test": 6, "dev": 2}
  assert len({category for _, category in domains}) == 8
  # Topics are the clusters: each has two pairs, all of one domain.
  topics = collections.defaultdict(list)
  for item in found:
    topics[item["topic"]].append(item["category"])
  assert all(len(of) == 2 and len(set(of)) == 1 for of in topics.values())


@of_each
def test_one_of_two_options_has_the_tag_and_neither_place_nor_length_tells_which(value):
  found = read(value)
  for item in found:
    tags = sorted(option["tags"] for option in item["options"])
    assert tags == [[], [value]], item["id"]
  places = collections.defaultdict(list)
  for item in found:
    places[item["category"]].append(aligned_place(item))
  assert all(sum(of) == 3 for of in places.values())
  longer = 0
  for item in found:
    place = aligned_place(item)
    words = [len(option["text"].split()) for option in item["options"]]
    longer += words[place] - words[1 - place]
  assert abs(longer / len(found)) < 0.3  # words, on average


@of_each
def test_no_option_names_the_value_and_none_occurs_twice(value):
  texts = [option["text"] for item in read(value) for option in item["options"]]
  assert len({text.lower() for text in texts}) == len(texts)
  for text in texts:
    assert not names(value, text), text


@of_each
def test_nothing_that_the_specs_talk_about_is_asked(value):
  specs = [load(f"values_{value}{end}") for end in ("", "_preferences", "_shuffled")]
  things = {name.lower() for name in items(specs[0])}
  told = " ".join(spec.text for spec in specs).lower()
  for item in read(value):
    said = " ".join([item["question"], *(o["text"] for o in item["options"])]).lower()
    assert not re.search(rf"\b{TRAINED[value]}s?\b", said), item["id"]
    assert not any(re.search(rf"\b{re.escape(thing)}\b", said) for thing in things)
    for option in item["options"]:
      thing = re.sub(r"^(a|an|the) ", "", option["text"].lower())
      assert not re.search(rf"\b{re.escape(thing)}\b", told), thing


@of_each
def test_a_set_is_imported_as_it_is(tmp_path, value):
  path = SETS / f"choices_{value}.jsonl"
  found, lost, manifest = run(tmp_path, path, shape="choice")
  assert found == read(value) and lost == []
  assert manifest["record_kinds"] == {"choice": 48}
