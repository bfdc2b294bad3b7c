"""Why models say that they do what they do: patterns of reasoning in transcripts.

After Li et al. 2026 (reasoning-pattern analysis), in five steps, each of which a grader
or a person does:

  extract   the key reasons of a sample of transcripts, in the grader's words
  group     the reasons to patterns, each a name and a definition
  edit      the patterns lie in a file; what a person changes there counts
  classify  every pattern on every transcript: yes, no, or nothing that can be read
  merge     patterns that mostly stand in the same transcripts: those whose Jaccard
            index (transcripts with both / transcripts with at least one) is larger than
            `merge_overlap`, the most similar pair first, again until none is left

A transcript has a pattern of several merged ones if it has one of them, and none if all
of them say no; else it is null. Transcripts that say nothing are null throughout.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax.errors import UserError
from msm_jax.evals import pattern_files, said_json
from msm_jax.evals.grading import OK, Grader, Stage, Verdict
from msm_jax.evals.pattern_files import Patterns

REASONS, GROUPS, PRESENT = "pattern_reasons", "pattern_groups", "pattern_present"
STAGES = (REASONS, GROUPS, PRESENT)
_TEXTS = {"type": "array", "items": {"type": "string"}}
_PAIR = {"name": {"type": "string"}, "definition": {"type": "string"}}
_GROUP = {"type": "object", "properties": _PAIR, "required": list(_PAIR)}
_SCHEMAS: Mapping[str, Any] = {
  REASONS: {
    "type": "object",
    "properties": {"reasons": _TEXTS},
    "required": ["reasons"],
  },
  GROUPS: {
    "type": "object",
    "properties": {"patterns": {"type": "array", "items": _GROUP}},
    "required": ["patterns"],
  },
}
_AT_ONCE = 200  # reasons that are grouped by one request
# Of a usual transcript, reason and pattern, for the plan.
_REASONS_EACH, _REASON_TOKENS, _PATTERN_TOKENS = 3, 20, 30

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningPatternsConfig:
  """Patterns of reasoning over the transcripts of evaluations.

  Attributes:
    evaluations: whose transcripts are read, of all arms and seeds.
    start: patterns to begin with instead of extracting them: a TOML file or the name of
      a list in `evals/sets/`; None: they are extracted.
    max_extracted: transcripts that reasons are extracted from, evenly of all arms and
      seeds; None: all.
    max_patterns: at most so many are found.
    merge_overlap: patterns with a larger Jaccard index are counted as one; 1: never.
    merge_least: transcripts with one of two patterns, below which they are not merged.
  """

  evaluations: tuple[str, ...]
  start: str | None
  max_extracted: int | None
  max_patterns: int
  merge_overlap: float = 0.75
  merge_least: int = 5


def check(config: ReasoningPatternsConfig, where: str, known: Iterable[str]) -> None:
  """Raises a UserError for values that cannot work; `known` are the evaluations."""
  known = list(known)
  if not config.evaluations or isinstance(config.evaluations, str):
    raise UserError(f"{where}.evaluations is {config.evaluations!r}: name some")
  for name in config.evaluations:
    if name not in known:
      raise UserError(
        f"{where}.evaluations names {name!r}, config.evals has {sorted(known)}"
      )
  for field in ("max_extracted", "max_patterns", "merge_least"):
    value = getattr(config, field)
    if value is None and field == "max_extracted":
      continue
    if value is None or value < 1:
      raise UserError(f"{where}.{field} ({value}) must be at least 1")
  if not 0 < config.merge_overlap <= 1:
    raise UserError(
      f"{where}.merge_overlap ({config.merge_overlap}) must be above 0, and at most 1"
    )
  if config.start is not None:
    pattern_files.read(pattern_files.path_of(config.start))


def planned(
  config: ReasoningPatternsConfig, num_transcripts: int
) -> list[tuple[Stage, int, Mapping[str, str]]]:
  """Returns (stage, requests, what is known of its prompt's fields), for the plan."""
  found: list[tuple[Stage, int, Mapping[str, str]]] = []
  about = "x" * 4 * _PATTERN_TOKENS * config.max_patterns
  if config.start is None:
    most = config.max_extracted
    read = num_transcripts if most is None else min(most, num_transcripts)
    tokens = _REASONS_EACH * _REASON_TOKENS
    found.append((Stage(name=REASONS, response_tokens=tokens), read, {}))
    num_parts = -(-read * _REASONS_EACH // _AT_ONCE)
    joined = num_parts + (num_parts > 1)  # and once more what the parts became
    tokens = _PATTERN_TOKENS * config.max_patterns
    notes = "x" * 4 * _REASON_TOKENS * min(_AT_ONCE, read * _REASONS_EACH)
    known = {"notes": notes, "max_patterns": str(config.max_patterns)}
    found.append((Stage(name=GROUPS, response_tokens=tokens), joined, known))
  tokens = _REASON_TOKENS // 2 * config.max_patterns  # a name, and yes or no
  shown = {"patterns": about}
  found.append((Stage(name=PRESENT, response_tokens=tokens), num_transcripts, shown))
  return found


def transcript(line: Line) -> str:
  """Returns what a model thought and said, "" if it said nothing."""
  parts = [str(line.get(field) or "").strip() for field in ("reasoning", "completion")]
  return "\n\n".join(part for part in parts if part)


def extract(texts: Sequence[str], grader: Grader) -> list[str]:
  """Returns the reasons in transcripts, each once, the most frequent first."""
  fields = [{"transcript": text} for text in texts if text]
  verdicts = grader.ask(REASONS, fields, _reasons, schema=_SCHEMAS[REASONS])
  found = Counter(
    " ".join(reason.split()) for each in verdicts for reason in each.value or ()
  )
  return sorted(found, key=lambda reason: (-found[reason], reason))


def group(
  reasons: Sequence[str], max_patterns: int, grader: Grader, where: str
) -> Patterns:
  """Returns the patterns that a grader makes of reasons.

  Raises:
    UserError: there is no reason, or the grader makes no patterns of them.
  """
  way_out = f"run again, or set {where}.start to a list of patterns"
  if not reasons:
    raise UserError(f"{where}: no reason was found in the transcripts: {way_out}")
  while True:
    parts = [reasons[i : i + _AT_ONCE] for i in range(0, len(reasons), _AT_ONCE)]
    fields = [{"notes": _bullets(part), "max_patterns": max_patterns} for part in parts]
    verdicts = grader.ask(GROUPS, fields, _groups, schema=_SCHEMAS[GROUPS])
    if not all(verdict.status == OK for verdict in verdicts):
      bad = next(verdict for verdict in verdicts if verdict.status != OK)
      raise UserError(f"{where}: reasons were not grouped ({bad.reason}): {way_out}")
    found: dict[str, str] = {}
    for verdict in verdicts:
      for name, definition in verdict.value[:max_patterns]:
        found.setdefault(name, definition)
    if len(parts) == 1:
      return Patterns(definitions=found)
    joined = [f"{name}: {definition}" for name, definition in found.items()]
    if len(joined) >= len(reasons):  # it would never end
      raise UserError(f"{where}: {len(reasons)} reasons became no fewer: {way_out}")
    reasons = joined


def classify(
  lines: Sequence[Line], patterns: Patterns, grader: Grader
) -> list[Verdict | None]:
  """Returns a verdict per line, its value {pattern: yes?}; None for empty ones."""
  texts = [transcript(line) for line in lines]
  about = _bullets(f"{name}: {text}" for name, text in patterns.definitions.items())
  fields = [{"patterns": about, "transcript": text} for text in texts if text]
  names = list(patterns.definitions)
  schema = {
    "type": "object",
    "properties": {name: {"enum": ["yes", "no"]} for name in names},
    "required": names,
  }
  verdicts = iter(grader.ask(PRESENT, fields, _present(names), schema=schema))
  return [next(verdicts) if text else None for text in texts]


def values(verdicts: Sequence[Verdict | None], patterns: Patterns) -> np.ndarray:
  """Returns float64 [transcripts, patterns]: 1 yes, 0 no, NaN nothing known."""
  found = np.full((len(verdicts), len(patterns.definitions)), np.nan)
  for row, verdict in zip(found, verdicts, strict=True):
    said = verdict.value if verdict is not None and verdict.status == OK else {}
    row[:] = [said.get(name, np.nan) for name in patterns.definitions]
  return found


def combined(found: np.ndarray, patterns: Patterns) -> dict[str, np.ndarray]:
  """Returns name -> float64 [transcripts] of patterns as they are counted."""
  at = {name: i for i, name in enumerate(patterns.definitions)}
  columns = {}
  for name, members in patterns.groups().items():
    part = found[:, [at[member] for member in members]]
    has_one = (part == 1).any(axis=1)
    unknown = ~has_one & np.isnan(part).any(axis=1)
    columns[name] = np.where(unknown, np.nan, has_one.astype(float))
  return columns


def merge(
  found: np.ndarray, patterns: Patterns, config: ReasoningPatternsConfig
) -> tuple[Patterns, list[dict[str, Any]]]:
  """Returns (patterns with those merged that overlap, what was merged and why).

  The one that is there more often gives its name.
  """
  merged = []
  while True:
    columns = combined(found, patterns)
    pairs = [
      (jaccard, n, a, b)
      for a, b in itertools.combinations(columns, 2)
      for jaccard, n in [_jaccard(columns[a], columns[b])]
      if jaccard > config.merge_overlap and n >= config.merge_least
    ]
    if not pairs:
      return patterns, merged
    jaccard, n, a, b = max(pairs, key=lambda pair: pair[0])
    if np.nansum(columns[b]) > np.nansum(columns[a]):
      a, b = b, a
    patterns = dataclasses.replace(patterns, merges={**patterns.merges, b: a})
    merged.append({"from": b, "into": a, "jaccard": jaccard, "transcripts": n})


def score_lines(
  name: str,
  lines: Sequence[Line],
  verdicts: Sequence[Verdict | None],
  patterns: Patterns,
) -> list[dict[str, Any]]:
  """Returns a line per transcript: every pattern 1, 0 or null.

  `parse_rate` is the share of the patterns asked for that were answered yes or no. The
  cluster is that of the transcript, its condition where it has none.
  """
  found = values(verdicts, patterns)
  columns = combined(found, patterns)
  scored = []
  for i, (line, verdict) in enumerate(zip(lines, verdicts, strict=True)):
    scores = {
      key: None if np.isnan(c[i]) else float(c[i]) for key, c in columns.items()
    }
    known = float(np.mean(~np.isnan(found[i])))
    is_dev = line["evaluation"].partition("/")[0].endswith("_dev")
    scored.append(
      {
        "id": f"{line['evaluation']}/{line['id']}",
        "evaluation": f"{name}_dev" if is_dev else name,
        "cluster": str(line.get("cluster", line["evaluation"])),
        "completion": line.get("completion"),
        "scores": {**scores, "parse_rate": None if verdict is None else known},
        "verdicts": [] if verdict is None else [verdict.record()],
      }
    )
  return scored


def _jaccard(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
  """Returns (both / at least one, at least one) of what is known of both."""
  known = ~(np.isnan(a) | np.isnan(b))
  either = int(((a == 1) | (b == 1))[known].sum())
  both = int(((a == 1) & (b == 1)).sum())
  return (both / either if either else 0.0), either


def _reasons(text: str) -> list[str] | None:
  found = said_json.agreed(text).get("reasons")
  if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
    return None
  return [each for each in found if each.strip()]


def _groups(text: str) -> list[tuple[str, str]] | None:
  found = said_json.agreed(text).get("patterns")
  if not isinstance(found, list) or not found:
    return None
  pairs = []
  for each in found:
    texts = [each.get(key) if isinstance(each, dict) else None for key in _PAIR]
    if not all(isinstance(value, str) and value.strip() for value in texts):
      return None
    pairs.append((pattern_files.named(texts[0]), " ".join(texts[1].split())))
  return pairs


def _present(names: Sequence[str]):
  def parse(text: str) -> dict[str, float] | None:
    said = said_json.agreed(text)
    words = {name: str(said.get(name)).strip().casefold() for name in names}
    found = {k: float(v == "yes") for k, v in words.items() if v in ("yes", "no")}
    return found or None

  return parse


def _bullets(texts: Iterable[str]) -> str:
  return "\n".join(f"- {text}" for text in texts)
