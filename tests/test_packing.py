"""Rows by example, plans by property."""

import dataclasses

import numpy as np
import pytest

from msm_jax import packing, pieces
from msm_jax.errors import UserError
from msm_jax.packing import Piece


def piece(*ids, weights=None) -> Piece:
  weights = [1.0] * len(ids) if weights is None else weights
  return Piece(np.asarray(ids, np.int32), np.asarray(weights, np.float32))


def test_a_row_as_it_is_drawn():
  document = piece(11, 12, 13, 2)
  chat = piece(21, 22, 23, weights=[0, 0, 1])
  row = packing.make_row([document, chat], 8)
  # fmt: off
  drawn = {
    "inputs":        [11, 12, 13, 21, 22, 0, 0, 0],
    "targets":       [12, 13,  2, 22, 23, 0, 0, 0],
    "positions":     [ 0,  1,  2,  0,  1, 0, 0, 0],
    "segment_ids":   [ 1,  1,  1,  2,  2, 0, 0, 0],
    "loss_weights":  [ 1,  1,  1,  0,  1, 0, 0, 0],
  }
  # fmt: on
  for name, expected in drawn.items():
    np.testing.assert_array_equal(row[name], expected, err_msg=name)


def test_a_row_survives_its_record():
  row = packing.make_row([piece(1, 2, 3)], 4)
  again = packing.from_record(packing.to_record(row))
  for name in packing.FIELDS:
    np.testing.assert_array_equal(again[name], row[name])
    assert again[name].dtype == row[name].dtype


@pytest.mark.parametrize("seed", range(5))
def test_every_document_is_in_exactly_one_row_that_holds_it(seed):
  rng = np.random.default_rng(seed)
  lengths = np.clip(rng.lognormal(4, 1, 2000).astype(int), 1, 512)
  rows = packing.plan(lengths, 512)
  assert sorted(i for row in rows for i in row) == list(range(2000))
  assert all(sum(lengths[i] for i in row) <= 512 for row in rows)
  assert lengths.sum() / (len(rows) * 512) >= 0.999 - 1 / len(rows)


def test_a_plan_takes_the_longest_first_and_the_tightest_row():
  assert packing.plan([2, 5, 3, 6], 8) == [[3, 0], [1, 2]]


def test_a_plan_of_many_documents_is_quick_and_full():
  lengths = np.random.default_rng(0).lognormal(6.2, 0.8, 50_000).astype(np.int64)
  lengths = np.clip(lengths, 1, 4096)
  rows = packing.plan(lengths, 4096)
  assert lengths.sum() / (len(rows) * 4096) >= 0.999


def test_what_happens_to_a_long_document_is_said():
  both = pieces.gather([piece(*range(10)), piece(1, 2)])
  with pytest.raises(UserError, match=r"document 0 has 10 tokens, a row holds 4"):
    packing.fit(both, 4, "error")
  assert len(packing.fit(both, 4, "drop")) == 1
  parts = packing.fit(both, 4, "split")
  assert parts.records.tolist() == [0, 0, 0, 1]
  targets = [t for part in list(parts)[:-1] for t in part.ids[1:].tolist()]
  assert targets == list(range(1, 10))  # every target once


def test_a_document_of_one_token_fills_nothing():
  assert len(packing.fit(pieces.gather([piece(5)]), 4, "error")) == 0


def test_documents_one_after_the_other_as_they_are_drawn():
  first, second = piece(11, 12, 13, 14, 2), piece(21, 22, 23, 2)
  parts, rows = packing.concat(pieces.gather([first, second]), 3)
  assert rows == [[0], [1, 2], [3]]
  made = list(packing.make_rows(parts, rows, 3))
  # fmt: off
  drawn = {
    "inputs":       [[11, 12, 13], [14, 21, 22], [23, 0, 0]],
    "targets":      [[12, 13, 14], [ 2, 22, 23], [ 2, 0, 0]],
    "positions":    [[ 0,  1,  2], [ 0,  0,  1], [ 0, 0, 0]],
    "segment_ids":  [[ 1,  1,  1], [ 1,  2,  2], [ 1, 0, 0]],
    "loss_weights": [[ 1,  1,  1], [ 1,  1,  1], [ 1, 0, 0]],
  }
  # fmt: on
  for name, expected in drawn.items():
    np.testing.assert_array_equal([row[name] for row in made], expected, err_msg=name)


def drawn_pieces(rng, count: int, longest: int) -> pieces.Pieces:
  """Draws documents whose tokens are numbered through, with some loss weights."""
  sizes = rng.integers(2, longest, count)
  ends = np.cumsum(sizes)
  return pieces.gather(
    piece(*range(end - size, end), weights=rng.choice([0.0, 0.5, 1.0], size))
    for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)
  )


@pytest.mark.parametrize("how", packing.PACKINGS)
@pytest.mark.parametrize("seed", range(4))
def test_every_target_stands_in_exactly_one_row_with_its_weight(seed, how):
  rng = np.random.default_rng(seed)
  seq_len = int(rng.integers(3, 40))
  drawn = drawn_pieces(rng, 60, longest=100)
  expected = {
    (int(i), int(t)): float(w)
    for one in drawn
    for i, t, w in zip(one.ids, one.ids[1:], one.weights[1:], strict=False)
  }
  fitting = packing.fit(drawn, seq_len, "split")
  laid, rows = packing.layout(fitting, seq_len, how, seed)
  found = {}
  for row in packing.make_rows(laid, rows, seq_len):
    assert row["loss_weights"].any()
    inside = row["segment_ids"] > 0
    begins = np.flatnonzero(row["positions"][inside] == 0)  # of every segment
    changes = np.flatnonzero(np.diff(row["segment_ids"][inside], prepend=0))
    np.testing.assert_array_equal(begins, changes)
    keys = zip(row["inputs"][inside], row["targets"][inside], strict=True)
    for key, weight in zip(keys, row["loss_weights"][inside], strict=True):
      key = tuple(map(int, key))
      assert key not in found
      found[key] = float(weight)
  # What carries no loss may be left out; nothing that does may.
  assert {k for k, w in expected.items() if w} <= found.keys() <= expected.keys()
  assert all(found[key] == expected[key] for key in found)


def test_concat_fills_every_row_but_the_last():
  rng = np.random.default_rng(5)
  drawn = pieces.gather(piece(*range(n)) for n in rng.integers(2, 99, 200))
  laid, rows = packing.layout(drawn, 32, "concat", seed=0)
  filled = [int(laid.num_slots[row].sum()) for row in rows]
  assert set(filled[:-1]) == {32} and len(rows) == -(-drawn.num_slots.sum() // 32)
  again = packing.layout(drawn, 32, "concat", seed=1)[0]
  assert not np.array_equal(laid.records, again.records)  # another order


def test_conversations_are_never_cut():
  documents = pieces.gather([piece(*range(9)), piece(*range(20, 29))])
  talks = dataclasses.replace(documents, is_document=np.asarray([True, False]))
  laid, rows = packing.layout(talks, 5, "concat", seed=0)
  assert laid.records[rows[-1]].tolist() == [1] and len(rows) == 3
  with pytest.raises(packing.TooLong):
    packing.fit(talks, 5, "error")
  parts = packing.fit(talks, 5, "split")  # no part of it: that would lack its question
  assert parts.records.tolist() == [0, 0] and parts.is_document.all()
  assert len(packing.fit(talks, 5, "drop")) == 0
  assert packing.fit(talks, 8, "split").records.tolist() == [0, 1]


def test_shares_add_up_exactly():
  assert packing.exact_shares(10, [0.5, 0.25, 0.25]) == [5, 3, 2]
  assert packing.exact_shares(7, [1, 1, 1]) == [3, 2, 2]
  assert sum(packing.exact_shares(1001, [0.333, 0.667])) == 1001


def test_the_order_of_a_run_spreads_components_and_repeats_by_epoch():
  order = packing.row_order([4, 10], [8, 8], seed=1)
  components, rows = order[:, 0], order[:, 1]
  assert [int((components[:n] == 0).sum()) for n in (4, 8, 12)] == [2, 4, 6]
  first = rows[components == 0]
  assert sorted(first[:4]) == sorted(first[4:]) == [0, 1, 2, 3]
  assert len(set(rows[components == 1])) == 8


def test_the_order_depends_on_the_seed_alone():
  one = packing.row_order([50], [100], seed=1)
  np.testing.assert_array_equal(one, packing.row_order([50], [100], seed=1))
  assert not np.array_equal(one, packing.row_order([50], [100], seed=2))


def test_a_longer_run_begins_like_a_shorter_one_of_one_component():
  short, long = (packing.row_order([30], [n], seed=3) for n in (40, 90))
  np.testing.assert_array_equal(long[:40], short)


def test_components_come_one_after_the_other_where_that_is_asked_for():
  order = packing.row_order([4, 10], [8, 6], 1, "sequential")
  assert order[:, 0].tolist() == [0] * 8 + [1] * 6
  mixed = packing.row_order([4, 10], [8, 6], 1)
  for component in (0, 1):  # each walks through its rows as it does when mixed
    np.testing.assert_array_equal(
      order[order[:, 0] == component], mixed[mixed[:, 0] == component]
    )


@pytest.mark.parametrize("seed", range(6))
def test_drawn_mixtures_are_exact_and_read_every_row_once_per_epoch(seed):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, 30, rng.integers(1, 5)).tolist()
  counts = [int(rng.integers(0, 4 * size)) for size in sizes]
  for order in packing.ORDERS:
    table = packing.row_order(sizes, counts, seed, order)
    for component, (size, count) in enumerate(zip(sizes, counts, strict=True)):
      rows = table[table[:, 0] == component, 1]
      assert len(rows) == count
      for at in range(0, count - size + 1, size):
        assert sorted(rows[at : at + size]) == list(range(size))
