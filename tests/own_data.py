"""Somebody's own data for tests: drawn rows, in every format, and their import."""

import gzip
import json

import pytest

from data_gen import generate, settings
from msm_jax import records

ALPHABET = "ab \n\r\t\"\\{}[]|:,'\u00e9\u4e2d\u2028\U0001f9c0"


def drawn_text(rng):
  return "x" + "".join(rng.choices(ALPHABET, k=rng.randint(0, 60)))


def drawn_rows(rng, count=40):
  """Draws rows of documents and conversations with columns of their own."""
  rows = []
  for i in range(count):
    row = {"id": f"row {i}", "domain": rng.choice("pq"), "score": i / 4}
    if rng.random() < 0.5:
      row["text"] = drawn_text(rng)
    else:
      row["messages"] = [
        {"role": role, "content": drawn_text(rng)} for role in ("user", "assistant")
      ]
    rows.append(row)
  return rows


def wanted(rows):
  """Returns the records that rows of `drawn_rows` become."""
  return [
    {
      "kind": "document" if "text" in row else "conversation",
      "id": row["id"],
      **{key: row[key] for key in ("text", "messages", "domain") if key in row},
      "metadata": {"score": row["score"]},
    }
    for row in rows
  ]


def lines(rows, end="\n"):
  return "".join(json.dumps(row) + end for row in rows).encode()


def table(arrow, rows):
  """Returns rows as a table with all of their columns."""
  names = dict.fromkeys(name for row in rows for name in row)
  return arrow.table({name: [row.get(name) for row in rows] for name in names})


def write(path, rows):
  """Writes rows in the format that the name asks for."""
  name = path.name
  if name.endswith((".parquet", ".arrow", ".zst")):
    arrow = pytest.importorskip("pyarrow")
  if name.endswith(".jsonl"):
    path.write_bytes(lines(rows))
  elif name.endswith(".gz"):
    path.write_bytes(gzip.compress(lines(rows)))
  elif name.endswith(".zst"):
    with arrow.CompressedOutputStream(str(path), "zstd") as file:
      file.write(lines(rows))
  elif name.endswith(".json"):
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), "utf-8")
  elif name.endswith(".parquet"):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table(arrow, rows), path, row_group_size=7)
  else:
    whole = table(arrow, rows)
    with arrow.ipc.new_stream(str(path), whole.schema) as writer:
      writer.write_table(whole, max_chunksize=9)
  return path


def run(workdir, path, **changes):
  """Imports `path`; returns records, rejects and manifest."""
  corpus = settings.ImportCorpus(path=str(path), **changes)
  generate.generate(settings.Job(corpora={"own": corpus}), workdir)
  directory = workdir / "corpus" / "own"
  lost = (directory / "rejects.jsonl").read_text("utf-8").splitlines()
  rows = list(records.read_dataset(directory))
  manifest = records.read_manifest(directory)
  assert manifest["planned"] == len(rows) + len(lost)
  assert manifest["rejected"] == len(lost)
  return rows, [json.loads(line) for line in lost], manifest
