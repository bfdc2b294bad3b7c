"""Rows by example, plans by property."""

import hf_models
import numpy as np
import pytest

from msm_jax import packing, tokenizer
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


def test_what_happens_to_a_long_document_is_said():
  long, short = piece(*range(10)), piece(1, 2)
  with pytest.raises(UserError, match=r"document 0 has 10 tokens, a row holds 4"):
    packing.fit([long, short], 4, "error")
  assert len(packing.fit([long, short], 4, "drop")) == 1
  parts = packing.fit([long, short], 4, "split")
  targets = [t for part in parts[:-1] for t in part.ids[1:].tolist()]
  assert targets == list(range(1, 10))  # every target once


def test_a_document_of_one_token_fills_nothing():
  assert packing.fit([piece(5)], 4, "error") == []


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


def test_spans_of_a_document_set_the_weights_of_their_tokens(tmp_path):
  tok = tokenizer.load(hf_models.tokenizer_dir(tmp_path / "tok"))
  text = "the cheese is ripe"
  spans = [[0, 4, 0.0], [11, 12, 0.5]]  # "the ", and a letter of "is"
  record = {"kind": "document", "id": "a", "text": text, "loss_spans": spans}
  found = packing.encode_record(record, tok)
  assert len(found.ids) == 5  # four words and the end
  np.testing.assert_array_equal(found.weights, [0, 1, 0.5, 1, 1])
  everything = packing.encode_record(record, tok, train_on="all")
  assert everything.weights.all()
  for wrong in ([0, 99, 0.0], [5, 4, 0.0], [0, 4, -1.0], [0, 4]):
    with pytest.raises(UserError, match="loss_spans has"):
      packing.encode_record({**record, "loss_spans": [wrong]}, tok)
