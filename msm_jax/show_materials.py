"""Looks at what evaluations ask: claim packages, sets of items, patterns, rubrics.

Each is checked as the evaluation that reads it would check it, before a line is shown.
"""

import collections
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax import records, words
from msm_jax.errors import UserError
from msm_jax.evals import (
  choice,
  claims,
  coherence,
  identity,
  multiple_choice,
  open_qa,
  pattern_files,
  recall,
  truth_probe,
)
from msm_jax.evals import items as items_lib

_HERE = "show"  # where messages say that the path was given
_GROUPS = ("split", "dimension", "category", "domain", "asks", "group", "hops", "topic")
_MARK = "\n=====\n"
_FIELD = re.compile(r"\{([a-z_]+)\}")
_ANSWERS = {"scores", "completion", "reason"}  # fields of what a run wrote
_SAMPLING = dict(max_new_tokens=1, batch_size=1, temperature=0.0)
_ROWS = dict(seq_len=1, batch_size=1)


def knows(path: pathlib.Path) -> bool:
  """Returns whether what lies at `path` is shown here."""
  if path.name == claims.CLAIM or (path / claims.CLAIM).is_file():
    return True
  if not path.is_file():
    return False
  if path.suffix == ".toml":
    return True
  if path.suffix == ".txt":
    return _MARK in path.read_text("utf-8", errors="replace")
  return path.suffix == ".jsonl" and (_is_of_claim(path) or _shape(path) is not None)


def show(path: pathlib.Path, *, limit: int) -> Iterator[str]:
  """Yields lines about a claim package, a set (`limit` items), patterns or a rubric.

  Raises:
    UserError: naming file, line and field of what is wrong.
  """
  if path.name == claims.CLAIM or path.is_dir():
    return _claim(path if path.is_dir() else path.parent, limit)
  if path.suffix == ".toml":
    return _patterns(path)
  if path.suffix == ".txt":
    return _rubric(path)
  return _claim_file(path, limit) if _is_of_claim(path) else _set(path, limit)


def _claim(folder: pathlib.Path, limit: int) -> Iterator[str]:
  stems = sorted(path.stem for path in folder.glob("*.jsonl"))
  for stem in stems:
    if stem not in claims.FIELDS:
      raise UserError(
        f"{folder / stem}.jsonl: no evaluation reads it; the files of a claim are "
        f"{', '.join(claims.FIELDS)}"
      )
  claim = claims.load(str(folder.absolute()), stems, _HERE)
  yield f"claim: {claim.title}"
  for field in ("tier", "license", "claim", "truth"):
    yield f"  {field:10} {getattr(claim, field)}"
  for field in ("true_context", "false_context"):
    yield f"  {field}: {words.num_words(getattr(claim, field))} words"
  for name, digest in claim.digests.items():
    yield f"  sha256 of {name}: {digest}"
  for stem, rows in claim.items.items():
    yield f"\n{stem}: {len(rows)} items"
    yield from _items(rows, limit)


def _claim_file(path: pathlib.Path, limit: int) -> Iterator[str]:
  claim = claims.load(str(path.parent.absolute()), [path.stem], _HERE)
  rows = claim.items[path.stem]
  yield f"{path.stem} of the claim {claim.title!r}: {len(rows)} items"
  yield from _items(rows, limit)


def _is_of_claim(path: pathlib.Path) -> bool:
  return (path.parent / claims.CLAIM).is_file() and path.stem in claims.FIELDS


def _set(path: pathlib.Path, limit: int) -> Iterator[str]:
  shape = _shape(path)
  assert shape is not None  # `knows` has said so
  what, read = shape
  items = read(path)
  yield f"set: {len(items)} {what}"
  yield f"  {'sha256':10} {records.sha256_file(path)}"
  for group in _GROUPS:
    counts = collections.Counter(str(item[group]) for item in items if group in item)
    if 1 < len(counts) <= len(items) / 2:
      told = ", ".join(f"{value} {n}" for value, n in sorted(counts.items()))
      yield f"  {group:10} {told}"
  yield from _items(items, limit)


def _items(items: Sequence[Mapping[str, Any]], limit: int) -> Iterator[str]:
  for item in items[:limit]:
    yield f"\n--- {item['id']}"
    for field, value in item.items():
      if field != "id":
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"  {field:10} {text}"


def _patterns(path: pathlib.Path) -> Iterator[str]:
  patterns = pattern_files.read(path)
  yield f"patterns of reasoning: {len(patterns.definitions)}"
  yield f"  {'sha256':10} {records.sha256_file(path)}"
  for name, definition in patterns.definitions.items():
    target = patterns.merges.get(name)
    yield f"\n{name}{f', counted as {target}' if target else ''}"
    yield f"  {definition}"


def _rubric(path: pathlib.Path) -> Iterator[str]:
  try:
    text = path.read_bytes().decode("utf-8")
  except UnicodeDecodeError as error:
    raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None
  parts = text.split(_MARK)
  if len(parts) != 2 or not all(part.strip() for part in parts):
    raise UserError(
      f"{path} has {len(parts) - 1} lines of =====, or no text on one side of it: one "
      "stands between what is the same for all and what is asked"
    )
  yield f"prompt: {path.stem}"
  yield f"  {'sha256':10} {records.sha256_file(path)}"
  for what, part in zip(("for all", "asked"), parts, strict=True):
    fields = ", ".join(dict.fromkeys(_FIELD.findall(part))) or "none"
    yield f"  {what}: {words.num_words(part)} words, fields: {fields}"
  yield ""
  yield text.rstrip("\n")


def _shape(path: pathlib.Path) -> tuple[str, Callable] | None:
  """Returns what a set holds and what reads it, by its first readable line."""
  for line in path.read_text("utf-8", errors="replace").splitlines():
    try:
      item = json.loads(line)
    except ValueError:
      continue
    if not isinstance(item, dict) or "id" not in item or _ANSWERS & set(item):
      return None
    for fields, what, read in _SHAPES:
      if fields <= set(item):
        return what, read
    return None
  return None


def _choices(path: pathlib.Path) -> list[dict[str, Any]]:
  found = items_lib.read(str(path), _HERE, {"question": str, "options": list})
  if all(isinstance(option, str) for option in found[0]["options"]):
    config = multiple_choice.MultipleChoiceConfig(
      items=str(path), max_items=None, num_shots=0, format="chat", **_ROWS
    )
    multiple_choice.check(config, _HERE)
    return found
  for item in found:
    if fault := choice.fault_of(item):
      raise UserError(f"{path}: item {item['id']!r}: {fault}")
  return found


def _recall(path: pathlib.Path) -> list[dict[str, Any]]:
  for format_ in ("text", "chat"):
    config = recall.RecallConfig(
      items=str(path), max_items=None, format=format_, **_ROWS
    )
    recall.check(config, _HERE)
  return items_lib.read(str(path), _HERE, {"answer": str})


def _questions(path: pathlib.Path) -> list[dict[str, Any]]:
  config = open_qa.OpenQaConfig(
    items=str(path), rubric=open_qa.NEUTRAL, spec=None, max_items=None, **_SAMPLING
  )
  open_qa.check(config, _HERE)
  return items_lib.read(str(path), _HERE, {"dimension": str})


def _identity(path: pathlib.Path) -> list[dict[str, Any]]:
  config = identity.IdentityConfig(
    items=str(path),
    max_items=None,
    model_names=("a",),
    provider_names=("b",),
    system_prompt=None,
    **_SAMPLING,
  )
  identity.check(config, _HERE)
  return items_lib.read(str(path), _HERE, {"asks": str})


def _everyday(path: pathlib.Path) -> list[dict[str, Any]]:
  config = coherence.CoherenceConfig(items=str(path), max_items=None, **_SAMPLING)
  coherence.check(config, _HERE)
  return items_lib.read(str(path), _HERE, {"question": str})


def _statements(path: pathlib.Path) -> list[dict[str, Any]]:
  config = truth_probe.TruthProbeConfig(
    items=str(path), claims=None, depth=0.5, **_ROWS
  )
  truth_probe.check(config, _HERE)
  return items_lib.read(str(path), _HERE, {"true": str, "false": str})


def _sides(path: pathlib.Path) -> list[dict[str, Any]]:
  return items_lib.read(str(path), _HERE, {"true": str, "false": str})


# The fields by which a set is known, what it holds, what reads and checks it.
_SHAPES: tuple[tuple[set[str], str, Callable], ...] = (
  ({"question", "options"}, "questions with options", _choices),
  ({"question", "prompt", "answer"}, "questions about taught facts", _recall),
  ({"question", "dimension"}, "open questions", _questions),
  ({"question", "asks"}, "questions about itself", _identity),
  ({"true", "false", "split"}, "pairs of statements", _statements),
  ({"true", "false"}, "claims with both answers", _sides),
  ({"question"}, "everyday questions", _everyday),
)
