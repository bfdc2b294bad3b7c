"""Datasets appear whole, and damage is named."""

import json

import pytest

from msm_jax import records
from msm_jax.errors import UserError

RECORDS = [{"kind": "document", "id": str(i), "text": "x" * i} for i in range(25)]


def make(tmp_path, name="data", **changes):
  settings = {"manifest": {"spec": "s"}, "records_per_shard": 10} | changes
  records.write_dataset(tmp_path / name, iter(RECORDS), **settings)
  return tmp_path / name


def test_what_is_written_is_read_in_order_over_several_shards(tmp_path):
  path = make(tmp_path)
  assert list(records.read_dataset(path)) == RECORDS
  manifest = records.read_manifest(path)
  assert manifest["num_records"] == 25 and manifest["spec"] == "s"
  assert [shard["num_records"] for shard in manifest["shards"]] == [10, 10, 5]
  assert sorted(p.name for p in path.iterdir())[0] == "data-00000-of-00003.array_record"


def test_the_same_records_give_the_same_bytes(tmp_path):
  first, second = make(tmp_path, "a"), make(tmp_path, "b")
  assert records.read_manifest(first) == records.read_manifest(second)


def test_an_empty_dataset_has_no_shard(tmp_path):
  records.write_dataset(tmp_path / "none", [], manifest={})
  assert list(records.read_dataset(tmp_path / "none")) == []


def test_a_writer_that_dies_leaves_nothing_behind(tmp_path):
  def dying():
    yield RECORDS[0]
    raise RuntimeError("power cut")

  with pytest.raises(RuntimeError, match="power cut"):
    records.write_dataset(tmp_path / "data", dying(), manifest={})
  assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_never_overwritten(tmp_path):
  make(tmp_path)
  with pytest.raises(UserError, match="exists already: delete it"):
    make(tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_shard_is_named(tmp_path, damage):
  shard = make(tmp_path) / "data-00001-of-00003.array_record"
  data = bytearray(shard.read_bytes())
  if damage == "truncate":
    shard.write_bytes(data[: len(data) // 2])
  elif damage == "flip":
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
  else:
    shard.unlink()
  with pytest.raises(UserError, match="data-00001-of-00003"):
    list(records.read_dataset(tmp_path / "data"))


def test_a_missing_or_damaged_manifest_says_what_to_do(tmp_path):
  with pytest.raises(UserError, match=r"manifest.json does not exist.*make it first"):
    records.read_manifest(tmp_path)
  (tmp_path / "manifest.json").write_text("{")
  with pytest.raises(UserError, match="not valid JSON"):
    records.read_manifest(tmp_path)


def test_a_record_of_another_schema_is_refused():
  import msgpack

  with pytest.raises(UserError, match="schema version 2"):
    records.decode(msgpack.packb({"v": 2}))


def test_hashes_do_not_depend_on_the_order_of_keys():
  assert records.sha256_json({"a": 1, "b": 2}) == records.sha256_json({"b": 2, "a": 1})


def test_extra_files_lie_beside_the_shards(tmp_path):
  path = make(tmp_path, extra_files={"rejects.jsonl": b"{}\n"})
  assert json.loads((path / "rejects.jsonl").read_text()) == {}
