"""Looks at what a run made: corpora, packed rows, runs. Plain text for people.

In rows, tokens that carry loss are green, with part of a weight yellow, context is grey
and special tokens are bold; without colour, loss is marked by underscores and a weight
between 0 and 1 is written behind: _word_@0.5. A tokenizer directory is shown by what it
does to an example conversation.
"""

import itertools
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from msm_jax import chat, packing, records, show_materials, tokenizer
from msm_jax.errors import UserError
from msm_jax.storage import inputs
from msm_jax.text import tokenizer_files

_GREEN, _YELLOW, _GREY = "\x1b[32m", "\x1b[33m", "\x1b[90m"
_BOLD, _OFF = "\x1b[1m", "\x1b[0m"
_EXAMPLE = (
  {"role": "user", "content": "Gouda or brie?"},
  {"role": "assistant", "content": "Brie.", "reasoning_content": "Both are good."},
  {"role": "user", "content": "Why?"},
  {"role": "assistant", "content": "It melts.", "reasoning_content": "It is soft."},
)


def show(path: pathlib.Path, *, limit: int, colour: bool) -> Iterator[str]:
  """Yields lines about a corpus, rows, a run, answers, or what evaluations ask.

  Raises:
    UserError: there is nothing at `path` that can be shown.
  """
  if show_materials.knows(path):
    yield from show_materials.show(path, limit=limit)
  elif path.suffix == ".jsonl" and path.is_file():
    yield from _lines(path, limit)
  elif (path / "done.json").exists() or (path / "metrics.jsonl").exists():
    yield from _run(path)
  elif (path / records.MANIFEST).exists():
    manifest = records.read_json(path / records.MANIFEST)
    if "components" in manifest:
      yield from _rows(path, manifest, limit, colour)
    elif is_rows(path):
      for number in range(min(limit, manifest["num_records"])):
        yield from packed_row(path, str(number), colour=colour)
    else:
      yield from _corpus(path, manifest, limit)
  elif path.suffix == ".array_record" and path.is_file():
    yield from _shard(path, limit)
  elif any((path / name).is_file() for name in tokenizer_files.VOCABULARIES):
    yield from _tokenizer(tokenizer.load(path), colour)
  else:
    raise UserError(
      f"{path} is no corpus, rows, run, tokenizer, shard or .jsonl file: name a "
      "directory under corpus/, rows/ or runs/, or tokenizer/"
    )


def find(path: str) -> pathlib.Path:
  """Returns what is to be shown, on this machine.

  Of a bucket that is without checkpoints, and with the tokenizer of packed rows.
  """
  root, rows, below = path.rstrip("/").rpartition("/rows/")
  if not inputs.is_remote(path):
    return pathlib.Path(path)
  if not rows:
    return inputs.local(path, "show", wanted=_is_shown, variant="show")

  def wanted(name: str) -> bool:
    return name.startswith(("tokenizer/", f"rows/{below}/"))

  return inputs.local(root, "show", wanted=wanted, variant=path) / "rows" / below


def _is_shown(name: str) -> bool:
  return "checkpoints" not in name.split("/")


def is_rows(path: pathlib.Path) -> bool:
  """Returns whether packed rows of one component of a stage lie at `path`."""
  return (path.parent.parent.name == "rows") and (path / records.MANIFEST).exists()


def packed_row(path: pathlib.Path, which: str, *, colour: bool) -> Iterator[str]:
  """Yields row number `which` of a component of a stage.

  Raises:
    UserError: there is no such row.
  """
  total = records.read_manifest(path)["num_records"]
  if not which.isdigit() or int(which) >= total:
    raise UserError(f"--row={which}: {path} has rows 0 to {total - 1}")
  tok = tokenizer.load(path.parent.parent.parent / "tokenizer")
  rows = records.read_dataset(path, verify=False)
  record = next(itertools.islice(rows, int(which), None))
  yield f"row {which} of {total}"
  yield from _row(packing.from_record(record), tok, colour)


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
  yield from _about_rows(manifest)
  tok = tokenizer.load(path.parent.parent / "tokenizer")
  for part in manifest["components"]:
    yield f"\n=== {part['corpus']}"
    yield json.dumps({k: v for k, v in part.items() if k != "corpus"})
    for number, record in enumerate(records.read_dataset(path / part["corpus"])):
      if number == limit:
        break
      yield f"\n--- row {number}"
      yield from _row(packing.from_record(record), tok, colour)


def _about_rows(manifest: dict) -> Iterator[str]:
  """Yields what a stage reads: how much of which corpus, in which order."""
  told = {"components", "identity", "order_sha256"}
  yield json.dumps({k: v for k, v in manifest.items() if k not in told})
  total = manifest["num_train_steps"] * manifest["batch_size"]
  for part in manifest["components"]:
    targets = part["num_target_tokens"] * part["epochs"]
    yield (
      f"{part['corpus']}: {part['count']} of {total} rows, {part['epochs']:.4g} epochs "
      f"of {part['num_rows']} rows, {round(targets)} target tokens in the run"
    )
  if manifest.get("num_padding_rows"):
    yield f"empty rows: {manifest['num_padding_rows']} of {total}"
  for seed, digest in manifest.get("order_sha256", {}).items():
    yield f"order of seed {seed}: {manifest['order']}, sha256 {digest}"


def _row(row: dict[str, np.ndarray], tok: tokenizer.Tokenizer, colour: bool):
  """Yields one line per document of a row, its targets marked by their loss weight."""
  for segment in range(1, int(row["segment_ids"].max()) + 1):
    at = np.flatnonzero(row["segment_ids"] == segment)
    ids = [row["inputs"][at[0]], *row["targets"][at]]
    yield _tokens(tok, ids, [0.0, *row["loss_weights"][at]], colour)


def _tokenizer(tok: tokenizer.Tokenizer, colour: bool) -> Iterator[str]:
  """Yields what a tokenizer does at the ends of documents and in conversations."""
  begin = "nothing" if tok.bos_id is None else tok.token_text(tok.bos_id)
  yield f"{tok.vocab_size} tokens; documents: {begin} + text + {tok.eos_token}"
  try:
    yield from _conversation(tok, colour)
  except UserError as error:  # a directory that no study has set up
    yield f"conversations: {error}"


def _conversation(tok: tokenizer.Tokenizer, colour: bool) -> Iterator[str]:
  facts = chat.facts(tok)
  yield json.dumps(facts, ensure_ascii=False)
  if tok.chat_template is None:
    return
  messages = [dict(message) for message in _EXAMPLE]
  if facts["thinking"] is None:
    for message in messages:
      message.pop("reasoning_content", None)
  yield "\nan example:"
  yield _tokens(tok, *chat.encode(tok, messages), colour)


def _tokens(tok: tokenizer.Tokenizer, ids, weights, colour: bool) -> str:
  """Returns tokens with their loss weights, on one line."""
  shown = [
    _token(tok.token_text(i), float(w), colour, tok.is_special(i))
    for i, w in zip(ids, weights, strict=True)
  ]
  return ("" if colour else " ").join(shown)


def _token(text: str, weight: float, colour: bool, special: bool) -> str:
  for character, escaped in (("\n", "\\n"), ("\r", "\\r"), ("\x1b", "\\e")):
    text = text.replace(character, escaped)
  partial = 0 < weight < 1
  if colour:
    tint = _YELLOW if partial else _GREEN if weight else _GREY
    return f"{_BOLD if special else ''}{tint}{text}{_OFF}"
  text = text.strip() or "\N{OPEN BOX}" * len(text)
  if not weight:
    return text
  return f"_{text}_@{weight:g}" if weight != 1 else f"_{text}_"


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
