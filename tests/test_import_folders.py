"""Folders of data: splits, cards, saved datasets, the hub's cache, and traps."""

import json
import os

import pytest

from data_gen import generate, settings
from data_gen.importing import folders
from msm_jax import records
from msm_jax.errors import UserError


def put(path, *texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
  return path


def find(path, **changes):
  """Returns the names of the files that an import of `path` would read."""
  corpus = settings.ImportCorpus(path=str(path), **changes)
  return [file.name for file in folders.find("own", corpus).files]


def texts(tmp_path, path, **changes):
  """Imports `path` and returns the texts."""
  corpus = settings.ImportCorpus(path=str(path), **changes)
  generate.generate(settings.Job(corpora={"own": corpus}), tmp_path / "w")
  rows = list(records.read_dataset(tmp_path / "w" / "corpus" / "own"))
  return [row["text"] for row in rows]


def card(root, front):
  root.mkdir(parents=True, exist_ok=True)
  (root / "README.md").write_text(f"---\n{front}---\n# words\n")


def test_a_folder_and_a_glob_are_all_of_their_files_in_order(tmp_path):
  for name in ("b/2.jsonl", "a.jsonl", "b/1.jsonl.gz", ".hidden.jsonl", "notes.md"):
    put(tmp_path / "d" / name, name)
  assert find(tmp_path / "d") == ["a.jsonl", "b/1.jsonl.gz", "b/2.jsonl"]
  assert find(tmp_path / "d" / "*" / "*.jsonl") == ["2.jsonl"]
  assert find(tmp_path / "d" / "**" / "*.jsonl") == ["a.jsonl", "b/2.jsonl"]


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(tmp_path):
  assert find(put(tmp_path / "a[1].jsonl", "x")) == ["a[1].jsonl"]


@pytest.mark.parametrize(
  ("name", "split"),
  [
    ("data/train-00000-of-00002.parquet", "train"),
    ("data/train_sft-00001-of-00004-0a1b2c.parquet", "train_sft"),
    ("data-00000-of-00001.arrow", None),
    ("test.jsonl", "test"),
    ("my_dev.jsonl.gz", "validation"),
    ("valid/part1.jsonl", "validation"),
    ("contest.jsonl", None),
    ("evaluation/a.jsonl", "test"),
  ],
)
def test_splits_have_the_names_that_the_hub_understands(name, split):
  assert folders.split_of(name) == split


def test_several_splits_have_to_be_chosen_from(tmp_path):
  put(tmp_path / "data" / "train-00000-of-00001.jsonl", "a")
  put(tmp_path / "data" / "test-00000-of-00001.jsonl", "b")
  with pytest.raises(UserError, match=r"has the splits test, train: choose one with"):
    find(tmp_path)
  with pytest.raises(UserError, match=r"split is 'dev': .* has test, train"):
    find(tmp_path, split="dev")
  assert find(tmp_path, split="test") == ["data/test-00000-of-00001.jsonl"]
  put(tmp_path / "other.jsonl", "c")
  with pytest.raises(UserError, match=r"other.jsonl belongs to no split"):
    find(tmp_path, split="test")


def test_the_card_of_a_folder_says_what_its_files_are(tmp_path):
  root = tmp_path / "set"
  put(root / "x" / "1.jsonl", "one")
  put(root / "x" / "2.jsonl", "two")
  put(root / "y.jsonl", "why")
  put(root / "rest.jsonl", "rest")
  card(
    root,
    "license: cc-by-4.0\nconfigs:\n"
    "- config_name: ex\n  data_files:\n  - {split: train, path: x/*.jsonl}\n"
    "  - {split: test, path: [y.jsonl]}\n"
    "- config_name: why\n  data_files: y.jsonl\n",
  )
  with pytest.raises(UserError, match="has the subsets ex, why: choose one"):
    find(root)
  assert find(root, subset="why") == ["y.jsonl"]
  assert find(root, subset="ex", split="train") == ["x/1.jsonl", "x/2.jsonl"]
  with pytest.raises(UserError, match=r"subset is 'z': the README of .* has ex, why"):
    find(root, subset="z")
  assert texts(tmp_path, root, subset="ex", split="test") == ["why"]
  manifest = records.read_manifest(tmp_path / "w" / "corpus" / "own")
  assert manifest["license"] == "cc-by-4.0"


@pytest.mark.parametrize("data_files", ["'x'", "[x/1.jsonl]", "{train: x/*}"])
def test_data_files_have_several_forms(tmp_path, data_files):
  put(tmp_path / "x" / "1.jsonl", "one")
  put(tmp_path / "2.jsonl", "two")
  card(tmp_path, f"configs:\n- data_files: {data_files}\n")
  assert find(tmp_path) == ["x/1.jsonl"]


@pytest.mark.parametrize(
  ("front", "says"),
  [
    ("configs:\n- data_files: ../secret.jsonl\n", "is not in that folder"),
    ("configs:\n- data_files: /etc/*.json\n", "is not in that folder"),
    ("configs:\n- data_files: hf://datasets/a/b.jsonl\n", "is not in that folder"),
    ("configs:\n- data_files: lost-*.jsonl\n", "no such file is there"),
    ("configs:\n- data_files: [{split: train, path: 3}]\n", "are not understood"),
    ("configs: [\n", "the front matter is not YAML"),
    ("configs: !!python/object/apply:os.system [echo]\n", "the front matter is not"),
  ],
)
def test_a_card_cannot_lead_out_of_its_folder(tmp_path, front, says):
  put(tmp_path / "secret.jsonl", "s")
  put(tmp_path / "set" / "a.jsonl", "a")
  card(tmp_path / "set", front)
  with pytest.raises(UserError, match=says):
    find(tmp_path / "set")


def test_a_card_without_files_leaves_them_to_their_names(tmp_path):
  put(tmp_path / "a.jsonl", "a")
  for front in ("license: mit\n", "configs: 3\n", "- a list\n", "configs: [{}, 4]\n"):
    card(tmp_path, front)
    assert find(tmp_path) == ["a.jsonl"]


def test_links_that_lead_out_or_in_circles_are_refused(tmp_path):
  secret = put(tmp_path / "secret.jsonl", "s")
  root = tmp_path / "set"
  put(root / "a.jsonl", "a")
  os.symlink(root, root / "loop")
  assert find(root) == ["a.jsonl"]
  os.symlink("b.jsonl", root / "b.jsonl")
  with pytest.raises(UserError, match=r"b\.jsonl cannot be read"):
    find(root)
  (root / "b.jsonl").unlink()
  os.symlink(secret, root / "b.jsonl")
  with pytest.raises(UserError, match=r"b\.jsonl leads out of"):
    find(root)
  assert find(root / "b.jsonl") == ["b.jsonl"]  # named by the user


def test_a_snapshot_in_the_cache_of_the_hub_is_found(tmp_path):
  root = tmp_path / "datasets--a--b"
  put(root / "blobs" / "0123", "a")
  (root / "refs").mkdir()
  (root / "refs" / "main").write_text("abc")
  data = root / "snapshots" / "abc" / "data"
  data.mkdir(parents=True)
  os.symlink("../../../blobs/0123", data / "train-00000-of-00001.jsonl")
  assert texts(tmp_path, root) == ["a"]
  assert find(root / "snapshots" / "abc") == ["data/train-00000-of-00001.jsonl"]


def save_to_disk(folder, rows, num_files=1):
  """Lays rows out as `Dataset.save_to_disk` does."""
  arrow = pytest.importorskip("pyarrow")
  folder.mkdir(parents=True)
  names = [f"data-{i:05d}-of-{num_files:05d}.arrow" for i in range(num_files)]
  for i, name in enumerate(names):
    table = arrow.table({"text": rows[i::num_files]})
    with arrow.ipc.new_stream(str(folder / name), table.schema) as writer:
      writer.write_table(table)
  files = [{"filename": name} for name in names]
  (folder / "state.json").write_text(json.dumps({"_data_files": files}))
  (folder / "dataset_info.json").write_text("{}")


def test_what_save_to_disk_wrote_is_read(tmp_path):
  save_to_disk(tmp_path / "one", ["a", "b", "c"], num_files=2)
  assert texts(tmp_path, tmp_path / "one") == ["a", "c", "b"]
  both = tmp_path / "both"
  save_to_disk(both / "train", ["a"])
  save_to_disk(both / "test", ["b"])
  (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
  with pytest.raises(UserError, match="has the splits train, test"):
    find(both)
  assert find(both, split="test") == ["test/data-00000-of-00001.arrow"]


@pytest.mark.parametrize(
  ("state", "says"),
  [
    ({"_data_files": [{"filename": "../a.arrow"}]}, "is no plain name"),
    ({"_data_files": [{"filename": None}]}, "is no plain name"),
    ({"_data_files": [3]}, "is no plain name"),
    ({"_data_files": []}, "has no _data_files"),
    ([], "has no _data_files"),
    ({"_data_files": [{"filename": "lost.arrow"}]}, "lost.arrow cannot be read"),
    ({"_indices_data_files": [{"filename": "i"}]}, "saved with an index"),
  ],
)
def test_a_saved_dataset_cannot_lead_out_of_its_folder(tmp_path, state, says):
  (tmp_path / "state.json").write_text(json.dumps(state))
  with pytest.raises(UserError, match=says):
    find(tmp_path)


def test_files_of_several_formats_are_not_mixed(tmp_path):
  put(tmp_path / "a.jsonl", "a")
  (tmp_path / "a.parquet").write_bytes(b"PAR1")
  with pytest.raises(UserError, match=r"several formats \(a.jsonl, a.parquet\)"):
    find(tmp_path)


def test_a_place_with_nothing_in_it_is_named(tmp_path):
  with pytest.raises(UserError, match="has no file that can be read"):
    find(tmp_path)
  with pytest.raises(UserError, match="matches no file"):
    find(tmp_path / "*.jsonl")
  with pytest.raises(UserError, match="does not exist"):
    find(tmp_path / "a.jsonl")
  os.mkfifo(tmp_path / "pipe.jsonl")
  with pytest.raises(UserError, match="is no file"):
    find(tmp_path / "pipe.jsonl")


def test_files_with_other_columns_are_imported_together(tmp_path):
  put(tmp_path / "d" / "a.jsonl", "a")
  (tmp_path / "d" / "b.jsonl").write_text('{"text": "b", "domain": "x", "n": 1}\n')
  put(tmp_path / "d" / "empty.jsonl")
  assert texts(tmp_path, tmp_path / "d") == ["a", "b"]
