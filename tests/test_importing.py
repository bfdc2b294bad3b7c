"""Files of rows to a corpus: every format, damage, size, resuming, changed sources."""

import gzip
import json
import random
import tracemalloc

import pytest
from own_data import drawn_rows, lines, run, wanted, write

from data_gen import generate, settings
from data_gen.importing import corpus as importing
from data_gen.importing import folders, readers
from data_gen.planning import estimates as planning
from data_gen.planning import tree
from msm_jax import records
from msm_jax.errors import UserError


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
  "name",
  ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet", "a.arrow"],
)
def test_rows_of_any_format_become_records_to_the_letter(tmp_path, name, seed):
  rows = drawn_rows(random.Random(seed))
  found, lost, manifest = run(tmp_path, write(tmp_path / name, rows))
  assert found == wanted(rows) and not lost
  digest = records.sha256_file(tmp_path / name)
  assert [file["sha256"] for file in manifest["source_files"]] == [digest]


def test_a_list_of_any_layout_is_read_piece_by_piece(tmp_path, monkeypatch):
  monkeypatch.setattr(readers, "_CHUNK", 7)
  rows = drawn_rows(random.Random(5), 20)
  for indent in (None, 1):
    path = tmp_path / "a.json"
    path.write_text("\n " + json.dumps(rows, indent=indent) + "\n")
    file = folders.find("own", settings.ImportCorpus(path=str(path))).files[0]
    assert [row for _, row, _ in readers.rows(file, 1 << 20)] == rows


@pytest.mark.parametrize(
  ("name", "data", "says"),
  [
    ("a.jsonl", b"", "has no rows"),
    ("a.jsonl", b"\n \n", "has no rows"),
    ("a.json", b"[]", "has no rows"),
    ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "is in UTF-16"),
    (
      "a.jsonl",
      b'{"txt": "a"}\n' * 3,
      r"none of 3 rows.*fields txt; did.*text_field='t",
    ),
    ("a.jsonl", b"[1]\n", "none of 1 rows.*the rows have no fields"),
    ("a.json", b'[{"text": "a"}, {"text": ]', "element 2 of the list is not JSON"),
    ("a.json", b'[{"text": "a"}', "has no end"),
    ("a.json", b'[{"text": "a"} {"text": "b"}]', "',' is missing before"),
    ("a.json", b'[{"text": "\xff"}]', "is not UTF-8"),
    (
      "a.jsonl.gz",
      gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9],
      "cannot be read to its",
    ),
    ("a.jsonl.gz", b"plain", "cannot be read to its"),
    ("a.jsonl.gz", gzip.compress(bytes(80 << 20)), "more than 200 times its size"),
    ("a.parquet", b"PAR1 and nothing", "is no parquet file or is damaged"),
    ("a.arrow", b"nothing", "is no arrow file or is damaged"),
    ("a.csv", b"text\na\n", "it takes .jsonl"),
  ],
)
def test_files_that_cannot_be_imported_are_named(tmp_path, name, data, says):
  (tmp_path / name).write_bytes(data)
  if name.endswith((".parquet", ".arrow")):
    pytest.importorskip("pyarrow")
  with pytest.raises(UserError, match=says) as error:
    run(tmp_path / "w", tmp_path / name)
  assert name in str(error.value) and "\n" not in str(error.value)
  assert not list((tmp_path / "w").glob("corpus/*"))


def test_a_long_file_is_never_held(tmp_path):
  path = tmp_path / "a.jsonl"
  with path.open("wb") as file:
    for _ in range(20):
      file.write(b'{"text": "%s"}\n' % (b"a" * (1 << 20)))
    file.write(b'{"text": "%s"}\n' % (b"b" * (60 << 20)))
  source = folders.find("own", settings.ImportCorpus(path=str(path)))
  tracemalloc.start()
  found = [type(row) for _, row, _ in readers.rows(source.files[0], 4 << 20)]
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found == [dict] * 20 + [readers.Bad] and peak < 24 << 20


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_as_many_records_are_kept_as_asked_for(tmp_path, seed):
  rows = [{"id": str(i), "text": "t" if i % 3 else ""} for i in range(300)]
  path = write(tmp_path / "a.jsonl", rows)
  found, _, _ = run(tmp_path, path, max_records=50, seed=seed)
  numbers = [int(record["id"]) for record in found]
  assert len(numbers) == 50 and numbers == sorted(numbers)
  assert (max(numbers) < 75) == (seed is None)
  again, _, _ = run(tmp_path / "again", path, max_records=50, seed=seed)
  assert again == found
  assert run(tmp_path / "all", path, max_records=999, seed=4)[2]["num_records"] == 200


def test_without_pyarrow_only_lines_are_read(tmp_path, monkeypatch):
  path = tmp_path / "a.parquet"
  path.write_bytes(b"PAR1")
  monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
  with pytest.raises(UserError, match=r"a.parquet needs pyarrow: pip install 'msm-jax"):
    run(tmp_path, path)
  assert run(tmp_path, write(tmp_path / "a.jsonl", [{"text": "a"}]))[0]


def test_plan_counts_rows_and_bytes_and_writes_nothing(tmp_path):
  path = write(tmp_path / "a.jsonl", drawn_rows(random.Random(1), 12))
  corpus = settings.ImportCorpus(path=str(path), max_records=10)
  job = settings.Job(corpora={"own": corpus}, max_dollars=0.0)
  cost = planning.plan(job, tmp_path)["own"]
  assert (cost.num_records, cost.requests, cost.dollars) == (10, 0, 0)
  costs = tree.whole(job, tmp_path, {"own": cost})
  assert "MB in 1 files" in "\n".join(tree.lines(job, costs))
  assert not (tmp_path / "corpus").exists()


def test_what_is_imported_is_skipped_and_a_changed_file_is_noticed(tmp_path):
  path = write(tmp_path / "a.jsonl", drawn_rows(random.Random(1), 12))
  first = run(tmp_path, path)
  shard = tmp_path / "corpus" / "own" / first[2]["shards"][0]["path"]
  before = shard.stat().st_mtime_ns
  assert run(tmp_path, path) == first and shard.stat().st_mtime_ns == before
  write(path, drawn_rows(random.Random(2), 12))
  with pytest.raises(UserError, match=r"source\.files\.a\.jsonl \('.*delete that dir"):
    run(tmp_path, path)
  path.unlink()  # what was imported needs its source no more
  assert run(tmp_path, path) == first
  with pytest.raises(UserError, match=r"a\.jsonl does not exist"):
    run(tmp_path / "other", path)


def test_what_is_still_to_be_downloaded_can_be_planned_but_not_made(tmp_path):
  fields = {"kind": "import", "path": "downloads/set", "split": "train"}
  fields |= {"source": "org/set", "max_records": 70}
  job = settings.Job(corpora={"own": settings.corpus("own", fields)})
  cost = planning.plan(job, tmp_path)["own"]
  assert cost.num_records == 70 and not cost.done
  assert "downloads/set is not there yet: download org/set" in cost.note
  with pytest.raises(UserError, match=r"own\.path=.* does not exist: download org/set"):
    generate.generate(job, tmp_path)


def test_an_import_that_dies_leaves_nothing_that_counts(tmp_path, monkeypatch):
  path = write(tmp_path / "a.jsonl", drawn_rows(random.Random(1), 12))
  leftover = tmp_path / "corpus" / ".own.tmp-999999999"
  leftover.mkdir(parents=True)
  with monkeypatch.context() as patch:
    patch.setattr(importing.filters, "num_words", lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      run(tmp_path, path)
  assert list((tmp_path / "corpus").iterdir()) == []
  straight = run(tmp_path / "straight", path)
  assert run(tmp_path, path) == straight


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
  path = write(tmp_path / "a.jsonl", [{"text": "a"}])

  def grow(text):
    path.write_bytes(lines([{"text": "a"}] * 2))
    return 1

  monkeypatch.setattr(importing.filters, "num_words", grow)
  with pytest.raises(UserError, match="changed while it was read"):
    run(tmp_path, path)


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"path": 3}, r"own\.path is 3: it is text"),
    ({"path": ""}, r"own\.path is ''"),
    ({"shape": "chat"}, r"own\.shape is 'chat': it is one of text"),
    ({"max_records": 0}, r"own\.max_records is 0"),
    ({"seed": 1}, r"own\.seed is 1, but nothing is drawn"),
    ({"split": "train"}, r"own\.split is 'train', but .* is no folder"),
    ({"text_field": None}, r"own\.text_field is None: it is text"),
  ],
)
def test_settings_of_an_import_are_checked(tmp_path, changes, says):
  path = write(tmp_path / "a.jsonl", [{"text": "a"}])
  fields = {"kind": "import", "path": str(path), **changes}
  with pytest.raises(UserError, match=says):
    job = settings.Job(corpora={"own": settings.corpus("own", fields)})
    planning.plan(job, tmp_path)
