"""Records and answers as they are shown on the page: a title, turns, provenance."""

import json
from collections.abc import Mapping
from typing import Any

from msm_jax.report import wording
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings

_MAX_CHARS = 3000
_BODY = {"kind", "text", "messages", "options"}


def clip(text: str, most: int = _MAX_CHARS) -> str:
  """Returns `text`, shortened to `most` characters with a note of what was cut."""
  if len(text) <= most:
    return text
  return f"{text[:most]} ... ({len(text) - most} more characters)"


def plain(value: Any) -> str:
  """Returns a value of a record, manifest or config as one line of text."""
  if value is None or value == "" or value == {} or value == []:
    return wording.DASH
  if isinstance(value, Mapping):
    return "; ".join(f"{key}: {plain(item)}" for key, item in value.items())
  if isinstance(value, list | tuple):
    return ", ".join(plain(item) for item in value)
  if isinstance(value, float):
    return f"{value:.4g}"
  return str(value)


def record(value: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {title, turns: [(role, text)], provenance: [(field, text)]} of a record."""
  if value.get("kind") == "document":
    turns = [("", str(value.get("text", "")))]
  else:
    turns = messages(value.get("messages") or [])
  turns += [("option", str(each.get("text"))) for each in value.get("options") or ()]
  about = [value.get(key) for key in ("doc_type", "domain", "subdomain", "category")]
  title = ", ".join(str(item) for item in about if item)
  return {
    "title": title or str(value.get("id", "")),
    "turns": [(role, clip(text)) for role, text in turns],
    "provenance": [
      (key, plain(item))
      for key, item in value.items()
      if key not in _BODY and item not in (None, "", {}, [])
    ],
  }


def messages(value: Any) -> list[tuple[str, str]]:
  """Returns (role, text) of a list of messages, or of a plain prompt."""
  if isinstance(value, str):
    return [("", value)]
  return [(str(turn.get("role", "")), str(turn.get("content", ""))) for turn in value]


def questions(results: Results, settings: Settings) -> list[dict[str, Any]]:
  """Returns a few questions, each with the answer of every arm (first seed).

  The headline's evaluation gives all the questions that were kept, the others one each.
  """
  shown: dict[str, int] = {}
  found = []
  for evaluation, name in sorted(
    results.answers, key=lambda key: (list(results.metrics).index(key[0]), key[1])
  ):
    limit = 3 if evaluation == settings.headline[0] else 1
    if shown.get(evaluation, 0) >= limit:
      continue
    shown[evaluation] = shown.get(evaluation, 0) + 1
    found.append(_question(evaluation, name, results, settings))
  return found


def _question(
  evaluation: str, name: str, results: Results, settings: Settings
) -> dict[str, Any]:
  lines = results.answers[evaluation, name]
  first = next(iter(lines.values()))
  options = [option(each) for each in first.get("options") or ()]
  return {
    "evaluation": evaluation,
    "id": name,
    "seed": first["seed"],
    "prompt": [(role, clip(text)) for role, text in messages(first["prompt"])],
    "options": options,
    "answers": [(arm, _answer(lines[arm])) for arm in settings.arms if arm in lines],
    "without": [arm for arm in settings.arms if arm not in lines],
  }


def option(value: Any) -> str:
  """Returns the text of an option with the properties that hold for it."""
  if not isinstance(value, Mapping):
    return str(value)
  holds = [key for key, item in value.items() if item is True]
  return f"{value.get('text')} ({', '.join(holds) or 'neither'})"


def _answer(line: Mapping[str, Any]) -> dict[str, str]:
  completion, parsed = line.get("completion"), line.get("parsed")
  return {
    "completion": wording.DASH if completion is None else clip(str(completion)),
    "parsed": "unparsed" if parsed is None else plain(parsed),
    "logprobs": _logprobs(line.get("logprobs")),
    "scores": plain(line["scores"]),
  }


def _logprobs(value: Any) -> str:
  if isinstance(value, Mapping):
    return "; ".join(f"{key}: {_logprobs(item)}" for key, item in value.items())
  if isinstance(value, list | tuple):
    return " / ".join(_logprobs(item) for item in value)
  if isinstance(value, int | float):
    return f"{value:.3f}".replace("-", wording.MINUS)
  return plain(value)


def pretty(value: Any) -> str:
  """Returns a config as indented JSON."""
  return json.dumps(value, indent=2, ensure_ascii=False, default=str)
