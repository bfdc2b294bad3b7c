"""Every answer, for the browser on the page: compressed, and unpacked when looked at.

A block holds the answers of one evaluation of the config, gzip in base64 (which cannot
end the element that it stands in, whatever a model wrote), as JSON:

    questions  [[id, evaluation, [[role, text], ...], [option, ...], cluster], ...]
    metrics    [name, ...]; the score of a metric that a line has not is ""
    answers    [[question, arm, seed, completion, reasoning, parsed, [score, ...],
                 [[status, value, grader, text], ...], is_unparsed, notes], ...]
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.evals.grading import OK
from msm_jax.report import graders, samples

MAX_BYTES = 48_000_000  # of evals/*.jsonl on one page; about a tenth when compressed
MAX_CHARS = 20_000  # of one text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
  """The answers of one evaluation, as they stand on the page."""

  name: str
  num_answers: int
  data: str


class Collector:
  """Takes the lines of `evals/*.jsonl` as they are read."""

  def __init__(self, paths: Sequence[pathlib.Path], max_bytes: int = MAX_BYTES):
    """Decides which share of the questions can be kept, from the size of the files."""
    size = sum(path.stat().st_size for path in paths)
    self.share = min(1.0, max_bytes / size) if size else 1.0
    self._blocks: dict[str, _Making] = {}

  def add(self, name: str, line: Mapping[str, Any]) -> None:
    """Keeps a line of the evaluation `name`, if it has a text and is of the share."""
    if "completion" not in line and "prompt" not in line:
      return
    if self.share < 1 and _place(str(line.get("id"))) >= self.share:
      return
    self._blocks.setdefault(name, _Making()).add(line)

  def blocks(self) -> list[Block]:
    """Returns what was kept."""
    return [
      Block(name=name, num_answers=len(making.answers), data=making.packed())
      for name, making in sorted(self._blocks.items())
    ]


class _Making:
  """A block in the making."""

  def __init__(self):
    self.answers: list[list[Any]] = []
    self._questions: dict[str, int] = {}
    self._metrics: dict[str, int] = {}

  def add(self, line: Mapping[str, Any]) -> None:
    question = json.dumps(_question(line))
    number = self._questions.setdefault(question, len(self._questions))
    for metric in line["scores"]:
      self._metrics.setdefault(metric, len(self._metrics))
    verdicts = [_verdict(verdict) for verdict in _list(line.get("verdicts"))]
    unscored = any(score is None for score in line["scores"].values())
    unread = any(status != OK for status, *_ in verdicts)
    self.answers.append(
      [
        number,
        line["arm"],
        line["seed"],
        _text(line.get("completion")),
        _text(line.get("reasoning")),
        _text(line["parsed"]) if line.get("parsed") is not None else "",
        [_score(line["scores"].get(metric, "")) for metric in self._metrics],
        verdicts,
        int(unscored or unread),
        _notes(line),
      ]
    )

  def packed(self) -> str:
    """Returns the block as text; the same answers give the same text."""
    head = f'{{"questions": [{", ".join(self._questions)}], "metrics": '
    head += f'{json.dumps(list(self._metrics))}, "answers": '
    text = f"{head}{json.dumps(self.answers)}}}"
    packed = gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _question(line: Mapping[str, Any]) -> list[Any]:
  turns = samples.messages(line.get("prompt") or "")
  options = [samples.option(each) for each in line.get("options") or ()]
  shown = [[role, _text(text)] for role, text in turns]
  cluster = "" if line.get("cluster") is None else str(line["cluster"])
  return [str(line.get("id")), line["evaluation"], shown, options, cluster]


def _notes(line: Mapping[str, Any]) -> str:
  """Returns how an answer ended and what went wrong with it, where a line says so."""
  known = {key: line.get(key) for key in ("finish", "stop_reason", "problem")}
  return "; ".join(f"{key}: {_text(value)}" for key, value in known.items() if value)


def _verdict(verdict: Mapping[str, Any]) -> list[str]:
  return [
    str(verdict.get("status")),
    samples.plain(verdict.get("value")),
    graders.name(verdict.get("grader") or {}),
    _text(verdict.get("reason") or verdict.get("text")),
  ]


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
  return "" if value is None else samples.clip(str(value), MAX_CHARS)


def _score(value: Any) -> float | str | None:
  """Returns a score in few digits; what is not finite is none, "" is no such metric."""
  if value == "":
    return ""
  if value is None or value != value or abs(value) == float("inf"):
    return None
  return round(float(value), 4)


def _place(name: str) -> float:
  """Returns where a question lies between 0 and 1, by the hash of its id."""
  return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
