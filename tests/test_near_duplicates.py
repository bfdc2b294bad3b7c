"""Near duplicates: what is planted is found and nothing else, in bulk or one by one."""

import random

import numpy as np
import pytest

from data_gen.filters import sketch, words
from data_gen.filters.buckets import Buckets
from data_gen.filters.near import NearDuplicates

VOCABULARY = [f"word{i}" for i in range(3000)]
HAN = [chr(0x4E00 + i) for i in range(2000)]


def drawn(rng, size=200, vocabulary=VOCABULARY):
  return rng.choices(vocabulary, k=size)


def edited(rng, text, share, vocabulary=VOCABULARY):
  """Returns `text` with a share of its words replaced, each by itself."""
  return [rng.choice(vocabulary) if rng.random() < share else word for word in text]


def shingles(text):
  """Returns the shingles of a list of words, the plain way."""
  size = min(5, len(text))
  return {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}


def similarity(one, two):
  a, b = shingles(one), shingles(two)
  return len(a & b) / len(a | b)


def corpus(seed, count=250, sep=" ", vocabulary=VOCABULARY):
  """Yields texts; about a third of them repeat a former one in part."""
  rng, originals = random.Random(seed), []
  for _ in range(count):
    if originals and rng.random() < 0.4:
      share = rng.choice([0.0, 0.005, 0.02, 0.05, 0.1])
      text = edited(rng, rng.choice(originals), share, vocabulary)
    else:
      text = drawn(rng, rng.randrange(60, 160), vocabulary)
      originals.append(text)
    yield sep.join(text)


def repeats(texts, threshold):
  """Returns for each list of words whether a former kept one is similar."""
  kept, found = [], []
  for one in map(shingles, texts):
    shared = (len(one & two) for two in kept)
    found.append(
      any(
        n >= threshold * (len(one) + len(two) - n)
        for n, two in zip(shared, kept, strict=True)
      )
    )
    if not found[-1]:
      kept.append(one)
  return found


@pytest.mark.parametrize(("sep", "vocabulary"), [(" ", VOCABULARY), ("", HAN)])
def test_planted_near_duplicates_are_found_and_nothing_else(sep, vocabulary):
  texts = list(corpus(0, sep=sep, vocabulary=vocabulary))
  expected = repeats([text.split() if sep else list(text) for text in texts], 0.7)
  near = NearDuplicates(0.7)
  got = [near.first_of(t, str(i)) is not None for i, t in enumerate(texts)]
  wrong = [i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a > b]
  missed = [i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a < b]
  assert sum(expected) > 40
  assert wrong == []  # candidates are verified by their shingles
  assert len(missed) <= 0.02 * sum(expected)


def test_the_similarity_is_the_true_one_and_the_match_the_first():
  rng = random.Random(1)
  near = NearDuplicates(0.5)
  text = drawn(rng)
  other = edited(rng, text, 0.03)
  assert near.first_of(" ".join(text), "a") is None
  assert near.first_of(" ".join(drawn(rng)), "b") is None
  match = near.first_of(" ".join(other), "c")
  assert match.identity == "a"
  assert match.similarity == pytest.approx(similarity(text, other))
  assert near.first_of(" ".join(text).upper(), "d") == ("a", 1.0)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 1.0])
def test_the_threshold_decides(threshold):
  rng = random.Random(2)
  near = NearDuplicates(threshold)
  base = [drawn(rng, 120) for _ in range(60)]
  for i, text in enumerate(base):
    assert near.first_of(" ".join(text), str(i)) is None
  missed = found = 0
  for i, text in enumerate(base):
    other = edited(rng, text, rng.choice([0, 0.01, 0.03, 0.08]))
    similar = similarity(text, other) >= threshold
    match = near.first_of(" ".join(other), f"other {i}")
    assert match is None or similar
    missed, found = missed + (similar and match is None), found + similar
  assert found > 5 and missed <= 1


def test_bulk_and_one_by_one_agree():
  named = [(text, str(i)) for i, text in enumerate(corpus(3, count=600))]
  one, all_at_once = NearDuplicates(0.7), NearDuplicates(0.7)
  expected = [one.first_of(*pair) for pair in named]
  assert list(all_at_once.first_of_all(iter(named))) == expected
  assert any(expected)


@pytest.mark.slow
def test_processes_give_the_same_answer():
  named = [(text, str(i)) for i, text in enumerate(corpus(4, count=600))]
  expected = list(NearDuplicates(0.7).first_of_all(named))
  assert list(NearDuplicates(0.7).first_of_all(named, num_workers=2)) == expected


def test_texts_of_no_few_and_equal_words():
  near = NearDuplicates(0.7)
  assert [near.first_of(text, text) for text in ("", "...", " ")] == [None] * 3
  assert near.first_of("two words", "d") is None
  assert near.first_of("Two words!", "e") == ("d", 1.0)
  assert near.first_of("two words more", "f") is None
  assert near.first_of("a " * 500, "g") is None
  assert near.first_of("a " * 900, "h") == ("g", 1.0)
  assert near.first_of("a " * 900, "g") is None  # its own text


def test_the_signature_estimates_the_similarity_without_bias():
  rng = random.Random(5)
  errors = []
  for _ in range(60):
    one = drawn(rng, 150)
    two = edited(rng, one, rng.uniform(0, 0.1))
    a, b = (sketch.sketch(" ".join(text)) for text in (one, two))
    true = sketch.jaccard(a.shingles, b.shingles)
    assert true == pytest.approx(similarity(one, two))
    errors.append(float((a.signature == b.signature).mean()) - true)
  # The deviation of one estimate is at most 0.5 / sqrt(128) = 0.044.
  assert abs(np.mean(errors)) < 3 * 0.044 / 60**0.5
  assert np.std(errors) < 0.055


def test_pairs_as_similar_as_the_threshold_are_candidates():
  for threshold in (0.3, 0.5, 0.7, 0.9):
    rows = sketch.band_rows(threshold)
    bands = sketch.NUM_PERMUTATIONS // rows
    assert 1 - (1 - threshold**rows) ** bands >= 0.98
  assert sketch.band_rows(0.9) > sketch.band_rows(0.5) > sketch.band_rows(0.2)


def test_buckets_agree_with_a_dictionary_also_when_they_grow():
  rng = np.random.default_rng(0)
  buckets, plain = Buckets(3), {}
  for member in range(2500):
    # Few different keys, many of them neighbours: chains, and places that are taken.
    low = rng.integers(1, 3000, 3).astype(np.uint64)
    keys = (low << np.uint64(4)) + np.arange(3, dtype=np.uint64)
    slots, members = buckets.find(keys)
    expected = sorted({m for key in keys.tolist() for m in plain.get(key, ())})
    assert members.tolist() == expected
    assert buckets.add(keys, slots) == member
    for key in keys.tolist():
      plain.setdefault(key, []).append(member)
  assert len(buckets) == 2500


def test_distinct_values_are_those_of_a_set():
  rng = np.random.default_rng(0)
  for size in (0, 1, 2, 50):
    values = rng.integers(0, 20, size).astype(np.uint64)
    assert words.distinct(values).tolist() == sorted(set(values.tolist()))
