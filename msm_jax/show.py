"""Looks at what a run made: corpora, packed rows, runs. Plain text for people.

In rows, tokens that carry loss are green, context is grey; without colour, loss is
marked by underscores.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np

from msm_jax import packing, records, tokenizer
from msm_jax.errors import UserError

_GREEN, _GREY, _OFF = "\x1b[32m", "\x1b[90m", "\x1b[0m"


def show(path: pathlib.Path, *, limit: int, colour: bool) -> Iterator[str]:
  """Yields lines about a corpus, the rows of a stage, a run, or an answers file.

  Raises:
    UserError: there is nothing at `path` that can be shown.
  """
  if path.suffix == ".jsonl" and path.is_file():
    yield from _lines(path, limit)
  elif (path / "done.json").exists() or (path / "metrics.jsonl").exists():
    yield from _run(path)
  elif (path / records.MANIFEST).exists():
    manifest = records.read_json(path / records.MANIFEST)
    if "components" in manifest:
      yield from _rows(path, manifest, limit, colour)
    else:
      yield from _corpus(path, manifest, limit)
  elif path.suffix == ".array_record" and path.is_file():
    yield from _shard(path, limit)
  else:
    raise UserError(
      f"{path} is no corpus, rows, run, shard or .jsonl file: name a directory under "
      "corpus/, rows/ or runs/"
    )


def _corpus(path: pathlib.Path, manifest: dict, limit: int) -> Iterator[str]:
  facts = {k: v for k, v in manifest.items() if not isinstance(v, dict | list)}
  yield json.dumps(facts, ensure_ascii=False)
  for number, record in enumerate(records.read_dataset(path)):
    if number == limit:
      return
    yield from _record(number, record)


def _record(number: int, record: dict) -> Iterator[str]:
  body = ("text", "messages", "options")
  about = {k: v for k, v in record.items() if k not in body}
  yield f"\n--- {number}  {json.dumps(about, ensure_ascii=False)}"
  if "text" in record:
    yield record["text"]
  for message in record.get("messages", ()):
    yield f"{message['role']}: {message['content']}"
  for option in record.get("options", ()):
    yield f"  option {json.dumps(option, ensure_ascii=False)}"


def _shard(path: pathlib.Path, limit: int) -> Iterator[str]:
  manifest = records.read_manifest(path.parent)
  sizes = {shard["path"]: shard["num_records"] for shard in manifest["shards"]}
  if path.name not in sizes:
    raise UserError(f"{path} is not listed in {path.parent / records.MANIFEST}")
  for number, data in enumerate(records.read_shard(path, sizes[path.name])):
    if number == limit:
      return
    yield from _record(number, records.decode(data))


def _rows(path, manifest: dict, limit: int, colour: bool) -> Iterator[str]:
  yield json.dumps({k: v for k, v in manifest.items() if k != "identity"})
  tok = tokenizer.load(path.parent.parent / "tokenizer")
  for part in manifest["components"]:
    yield f"\n=== {part['corpus']}"
    for number, record in enumerate(records.read_dataset(path / part["corpus"])):
      if number == limit:
        break
      yield f"\n--- row {number}"
      yield from _row(packing.from_record(record), tok, colour)


def _row(row: dict[str, np.ndarray], tok: tokenizer.Tokenizer, colour: bool):
  """Yields one line per document of a row, its targets marked by their loss weight."""
  for segment in range(1, int(row["segment_ids"].max()) + 1):
    at = np.flatnonzero(row["segment_ids"] == segment)
    shown = [_token(tok.decode([row["inputs"][at[0]]]), 0.0, colour)]
    shown += [
      _token(tok.decode([row["targets"][i]]), float(row["loss_weights"][i]), colour)
      for i in at
    ]
    yield " ".join(shown)


def _token(text: str, weight: float, colour: bool) -> str:
  text = text.replace("\n", "\\n")
  if colour:
    return f"{_GREEN if weight else _GREY}{text}{_OFF}"
  return f"_{text}_" if weight else text


def _run(path: pathlib.Path) -> Iterator[str]:
  done = path / "done.json"
  yield done.read_text("utf-8").strip() if done.exists() else f"{path}: not done yet"
  yield from _lines(path / "metrics.jsonl", None)


def _lines(path: pathlib.Path, limit: int | None) -> Iterator[str]:
  with path.open(encoding="utf-8") as file:
    for number, line in enumerate(file):
      if number == limit:
        return
      yield line.rstrip("\n")
