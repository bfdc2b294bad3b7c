"""Which records, how much of them: exact, drawn by a seed, or refused."""

import dataclasses
import hashlib
import types

import numpy as np
import pytest

from msm_jax import mixture, packing, pieces
from msm_jax.errors import UserError
from msm_jax.mixture import DataConfig
from msm_jax.pieces import Piece


def corpus(seed: int, count: int = 80) -> pieces.Pieces:
  """Draws records of which some have several parts, with some loss weights."""
  rng = np.random.default_rng(seed)
  drawn = []
  for size in rng.integers(3, 60, count).tolist():
    weights = rng.choice([0.0, 1.0], size).astype(np.float32)
    weights[1] = 1.0
    ids = rng.integers(0, 99, size).astype(np.int32)
    drawn.append(Piece(ids, np.ones_like(weights) if rng.random() < 0.5 else weights))
  return packing.fit(pieces.gather(drawn), 25, "split")


def stage(*data, **changes) -> types.SimpleNamespace:
  fields = {"name": "s", "batch_size": 8, "min_steps": 1, "num_epochs": None}
  return types.SimpleNamespace(
    **fields | {"num_train_steps": None, "data": data} | changes
  )


@pytest.mark.parametrize("seed", range(5))
def test_a_number_of_documents_is_exact_and_nested(seed):
  every = corpus(seed)
  rng = np.random.default_rng(seed)
  few, many = sorted(rng.choice(np.arange(1, 80), 2, replace=False).tolist())
  found = [
    mixture.choose(every, DataConfig(corpus="c", num_documents=n, seed=seed), "here")
    for n in (few, many)
  ]
  assert [len(np.unique(one.records)) for one in found] == [few, many]
  assert set(found[0].records) <= set(found[1].records)
  whole = every.take(np.isin(every.records, found[1].records))  # all of their parts
  np.testing.assert_array_equal(found[1].starts, whole.starts)


@pytest.mark.parametrize("seed", range(8))
def test_a_number_of_target_tokens_is_exact_and_nested(seed):
  every = corpus(seed)
  total = int(every.num_targets.sum())
  few, many = sorted(np.random.default_rng(seed).integers(1, total, 2).tolist())
  found = [
    mixture.choose(every, DataConfig(corpus="c", num_target_tokens=n), "here")
    for n in (few, many, total)
  ]
  assert [int(one.num_targets.sum()) for one in found] == [few, many, total]
  assert (found[0].num_targets > 0).all()
  places = [
    {
      (int(start) + k)
      for start, piece in zip(one.starts, one, strict=True)
      for k in np.flatnonzero(piece.weights[1:])
    }
    for one in found
  ]
  assert places[0] <= places[1] <= places[2]


def test_more_than_a_corpus_has_is_refused():
  every = corpus(0)
  for name, has in (("num_documents", 80), ("num_target_tokens", r"\d+")):
    part = DataConfig(corpus="c", **{name: 10**6})
    with pytest.raises(UserError, match=rf"here\.{name} is 1000000, .* 'c' has {has} "):
      mixture.choose(every, part, "here")


def test_another_seed_chooses_other_records():
  every = corpus(0)
  one, other = (
    mixture.choose(every, DataConfig(corpus="c", num_documents=10, seed=s), "here")
    for s in (0, 1)
  )
  assert set(one.records) != set(other.records)


def test_exact_amounts_come_first_and_shares_divide_the_rest():
  data = (
    DataConfig(corpus="a", share=3.0),
    DataConfig(corpus="poison", num_documents=5),
    DataConfig(corpus="b", share=1.0),
    DataConfig(corpus="replay", num_rows=7),
  )
  found = mixture.schedule(stage(*data, num_train_steps=10), [100, 3, 50, 20])
  assert found.counts == (53, 3, 17, 7) and found.num_padding == 0
  assert sum(found.counts) == 80


def test_steps_follow_from_exact_amounts_and_empty_rows_fill_the_last_batch():
  data = (
    DataConfig(corpus="a", num_epochs=2),
    DataConfig(corpus="b", num_target_tokens=900),
  )
  found = mixture.schedule(stage(*data), [11, 5])
  assert (found.num_train_steps, found.counts, found.num_padding) == (4, (22, 5), 5)
  assert mixture.schedule(stage(*data, num_train_steps=4), [11, 5]) == found
  for steps in (3, 5):
    with pytest.raises(UserError, match=r"are 27: set it to 4, or to None"):
      mixture.schedule(stage(*data, num_train_steps=steps), [11, 5])


def test_epochs_are_of_the_first_component_with_a_share():
  data = (
    DataConfig(corpus="poison", num_rows=4),
    DataConfig(corpus="a", share=0.5),
    DataConfig(corpus="b", share=0.5),
  )
  found = mixture.schedule(stage(*data, num_epochs=1.0), [1, 30, 9])
  assert found.num_train_steps == 8 and found.counts == (4, 30, 30)


def test_a_component_that_gets_no_row_is_refused():
  data = DataConfig(corpus="a", share=1.0), DataConfig(corpus="b", share=0.001)
  with pytest.raises(UserError, match=r"data\[1\]\.share \(0.001\) .* 'b' is no row"):
    mixture.schedule(stage(*data, num_train_steps=2), [9, 9])
  full = DataConfig(corpus="a"), DataConfig(corpus="b", num_rows=16)
  with pytest.raises(UserError, match=r"16 and 1 more have a share: .* to 3 or"):
    mixture.schedule(stage(*full, num_train_steps=2), [9, 9])


@pytest.mark.parametrize("seed", range(10))
def test_drawn_schedules_give_every_component_what_it_asks_for(seed):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, 40, rng.integers(1, 5)).tolist()
  data = [
    [
      DataConfig(corpus="c", share=float(rng.uniform(0.2, 3))),
      DataConfig(corpus="c", num_rows=int(rng.integers(1, 50))),
      DataConfig(corpus="c", num_epochs=int(rng.integers(1, 4))),
    ][rng.integers(3)]
    for _ in sizes
  ]
  shared = any(part.share for part in data)
  steps = 60 if shared else None
  found = mixture.schedule(stage(*data, num_train_steps=steps), sizes)
  total = sum(found.counts) + found.num_padding
  assert total == 8 * found.num_train_steps and 0 <= found.num_padding < 8
  for part, size, count in zip(data, sizes, found.counts, strict=True):
    name, value = part.amount
    assert name == "share" or count == value * {"num_rows": 1, "num_epochs": size}[name]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"share": 0.5, "num_rows": 3}, r"share \(0.5\) and num_rows \(3\) both say how"),
    ({"num_rows": 3, "num_epochs": 1}, "both say how much"),
    ({"num_documents": 3, "num_target_tokens": 1}, "both say how much"),
    ({"num_rows": 0}, r"here\.num_rows \(0\) must be a whole number"),
    ({"num_epochs": 1.5}, r"num_epochs \(1.5\) must be a whole number"),
    ({"num_documents": True}, "must be a whole number"),
    ({"share": float("nan")}, r"here\.share \(nan\) must be above 0"),
    ({"seed": -1}, r"here\.seed \(-1\)"),
    ({"prefix": ""}, r"here\.prefix \(''\) must be a text"),
    ({"system_prompt": ""}, r"here\.system_prompt \(''\) must be a text"),
    ({"train_on": "user"}, r"train_on \('user'\) is not one of"),
  ],
)
def test_a_component_that_contradicts_itself_is_refused(fields, message):
  with pytest.raises(UserError, match=message):
    DataConfig(corpus="c", **fields).check("here")


def test_a_length_that_has_nothing_to_count_is_refused():
  exact = (DataConfig(corpus="c", num_rows=3),)
  mixture.check(exact, None, None, "here")
  with pytest.raises(UserError, match=r"here\.num_epochs is 2.0, but every component"):
    mixture.check(exact, None, 2.0, "here")
  with pytest.raises(UserError, match="set one of num_train_steps"):
    mixture.check((DataConfig(corpus="c"),), None, None, "here")


def test_what_rows_depended_on_before_is_said_as_before():
  part = DataConfig(corpus="c", share=0.5, train_on="all")
  assert part.identity() == {"corpus": "c", "share": 0.5, "train_on": "all"}
  assert DataConfig(corpus="c").identity() == {
    "corpus": "c",
    "share": 1.0,
    "train_on": "assistant",
  }
  chosen = dataclasses.replace(part, share=None, num_documents=3)
  assert chosen.identity() == {
    "corpus": "c",
    "num_documents": 3,
    "num_epochs": 1,
    "train_on": "all",
  }


def test_the_order_of_rows_is_what_it_always_was():
  order = packing.row_order([40, 7], [90, 20], 3)
  # Another order would be other runs: a resumed one would repeat and skip rows.
  assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == (
    "014c1d00d86f78510552778a2cead6421fcfbb2c74d6b1cf560d94d7689c78ad"
  )
