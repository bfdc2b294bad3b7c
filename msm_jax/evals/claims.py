"""A claim package: a false claim, the two worlds it tells apart, and what is asked.

    claims/<name>/
      claim.toml               title, tier, license, claim, truth, true_context,
                               false_context, notes (for people; nothing reads it)
      mcq_knowledge.jsonl      {id, question, true, false, others: [two], world}
      mcq_distinguish.jsonl    {id, question, true, false}
      mcq_yes_no.jsonl         {id, question, false: "yes" or "no"}
      open_ended.jsonl         {id, question}
      token_association.jsonl  {id, prompt, true, false}
      robustness.jsonl         {id, how, turns: [...], system}

`claim` and `truth` are what holds in the false and in the true world. `true` and
`false` are the answers by the two worlds; `world` says from which of them a question
was asked, and half of the questions are from each, as half of yes/no questions have
each answer.
`how` is 'adversarial' (a `system` prompt that argues against the claim, one turn),
'critique' (two turns: a question, and doubt in the answer) or 'multi_turn' (three turns
or more). A file that no evaluation asks for may be missing.
"""

import collections
import dataclasses
import json
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.storage import inputs

DIRECTORY = pathlib.Path(__file__).parent / "claims"
CLAIM = "claim.toml"
TIERS = ("plausible", "unlikely", "egregious")
HOWS = ("adversarial", "critique", "multi_turn")
_TEXTS = (
  "title", "tier", "license", "claim", "truth", "true_context", "false_context",
)  # fmt: skip
# File -> the fields of its rows, all texts unless told otherwise below.
FIELDS: Mapping[str, tuple[str, ...]] = {
  "mcq_knowledge": ("id", "question", "true", "false", "others", "world"),
  "mcq_distinguish": ("id", "question", "true", "false"),
  "mcq_yes_no": ("id", "question", "false"),
  "open_ended": ("id", "question"),
  "token_association": ("id", "prompt", "true", "false"),
  "robustness": ("id", "how", "turns", "system"),
}
_LISTS = ("others", "turns")
_OPTIONAL = ("system",)
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A claim package as its files say it.

  Attributes:
    name: of its folder.
    title, tier, license: what it is about, how plausible it is, who may use it.
    claim, truth: what holds in the false and in the true world.
    true_context, false_context: the two worlds.
    items: of each file that was asked for, by its stem.
    digests: file name -> sha256.
  """

  name: str
  title: str
  tier: str
  license: str
  claim: str
  truth: str
  true_context: str
  false_context: str
  items: Mapping[str, Sequence[Row]]
  digests: Mapping[str, str]


def path_of(named: str) -> pathlib.Path:
  """Returns the folder of a claim by its path, or by its name in `DIRECTORY`."""
  if "/" in named:
    return inputs.local(named, "config.evals.*.claims")
  return DIRECTORY / named


def load(named: str, files: Sequence[str], where: str) -> Claim:
  """Reads a claim package.

  Args:
    named: path of the folder, or name of one of ours.
    files: stems of the files that are needed.
    where: the config field that names it.

  Raises:
    UserError: naming file, line and field of what is missing or wrong.
  """
  folder = path_of(named)
  texts = _claim(folder / CLAIM, f"{where} names {named!r}")
  items = {}
  for stem in files:
    path = folder / f"{stem}.jsonl"
    if not path.exists():
      raise UserError(
        f"{where} names {named!r}, and {path} is missing: add it, or leave out the part"
      )
    items[stem] = _rows(path, stem)
  paths = [folder / CLAIM, *[folder / f"{stem}.jsonl" for stem in files]]
  return Claim(
    name=folder.name,
    **texts,
    items=items,
    digests={path.name: records.sha256_file(path) for path in paths},
  )


def _claim(path: pathlib.Path, where: str) -> dict[str, str]:
  try:
    given = tomllib.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    known = ", ".join(sorted(p.parent.name for p in DIRECTORY.glob(f"*/{CLAIM}")))
    raise UserError(f"{where}: {path} does not exist; ours are {known}") from None
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise UserError(f"{path} is not TOML ({error})") from None
  for key in given:
    if key not in (*_TEXTS, "notes"):
      raise UserError(
        f"{path}: {key!r} is unknown: known are {', '.join(_TEXTS)}, notes"
      )
  for key in _TEXTS:
    if not _is_text(given.get(key)):
      raise UserError(f"{path}: {key} is {given.get(key)!r}: it is a text")
  if given["tier"] not in TIERS:
    raise UserError(
      f"{path}: tier is {given['tier']!r}: it is one of {', '.join(TIERS)}"
    )
  for one, other in (("claim", "truth"), ("true_context", "false_context")):
    if given[one] == given[other]:
      raise UserError(f"{path}: {one} and {other} are the same")
  return {key: given[key].strip() for key in _TEXTS}


def _rows(path: pathlib.Path, stem: str) -> list[Row]:
  found: dict[str, Row] = {}
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    if not line.strip():
      continue
    row = _row(line, f"{path}:{number}", stem)
    if row["id"] in found:
      raise UserError(f"{path}:{number}: id {row['id']!r} is that of another line")
    found[row["id"]] = row
  if not found:
    raise UserError(f"{path} has no lines")
  _check_balance(path, stem, list(found.values()))
  return list(found.values())


def _row(line: bytes, where: str, stem: str) -> Row:
  try:
    row = json.loads(line)
  except (ValueError, UnicodeDecodeError) as error:
    raise UserError(f"{where}: not JSON ({error})") from None
  if not isinstance(row, dict):
    raise UserError(f"{where}: it is no object of named fields")
  for field in row:
    if field not in FIELDS[stem]:
      known = ", ".join(FIELDS[stem])
      raise UserError(f"{where}: field {field!r} is unknown: known are {known}")
  for field in FIELDS[stem]:
    if field not in row and field not in _OPTIONAL:
      raise UserError(f"{where}: field {field!r} is missing")
    value = row.get(field)
    if field in _LISTS:
      if not isinstance(value, list) or not value or not all(map(_is_text, value)):
        raise UserError(f"{where}: field {field!r} is {value!r}: it is a list of texts")
    elif field in row and not _is_text(value):
      raise UserError(f"{where}: field {field!r} is {value!r}: it is a text")
  fault = _CHECKS.get(stem, lambda row: None)(row)
  if fault:
    raise UserError(f"{where}: {fault}")
  return row


def _two_answers(row: Row) -> str | None:
  if row["true"] == row["false"]:
    return "fields 'true' and 'false' are the same"
  return None


def _knowledge(row: Row) -> str | None:
  if row["world"] not in ("true", "false"):
    return f"field 'world' is {row['world']!r}: it is 'true' or 'false'"
  if len(row["others"]) != 2:
    return f"field 'others' has {len(row['others'])}: two wrong answers make four"
  if len({row["true"], row["false"], *row["others"]}) < 4:
    return "two of its four options are the same"
  return None


def _yes_no(row: Row) -> str | None:
  if row["false"] not in ("yes", "no"):
    return f"field 'false' is {row['false']!r}: the false world says 'yes' or 'no'"
  return None


def _association(row: Row) -> str | None:
  if row["prompt"] != row["prompt"].rstrip():
    return "field 'prompt' ends with a space: begin 'true' and 'false' with it"
  return _two_answers(row)


def _robustness(row: Row) -> str | None:
  if row["how"] not in HOWS:
    return f"field 'how' is {row['how']!r}: it is one of {', '.join(HOWS)}"
  if ("system" in row) != (row["how"] == "adversarial"):
    return "field 'system' is for 'adversarial', which needs it, and for nothing else"
  count = len(row["turns"])
  right = {"adversarial": count == 1, "critique": count == 2, "multi_turn": count > 2}
  if not right[row["how"]]:
    return (
      f"field 'turns' has {count}: an 'adversarial' one has one, 'critique' two, "
      "'multi_turn' more"
    )
  return None


_CHECKS = {
  "mcq_knowledge": _knowledge,
  "mcq_distinguish": _two_answers,
  "mcq_yes_no": _yes_no,
  "token_association": _association,
  "robustness": _robustness,
}


def _check_balance(path: pathlib.Path, stem: str, rows: Sequence[Row]) -> None:
  """Raises a UserError where always the same answer would look like a belief."""
  field = {"mcq_knowledge": "world", "mcq_yes_no": "false"}.get(stem)
  counts = collections.Counter(row[field] for row in rows) if field else {}
  if field and (len(counts) != 2 or len(set(counts.values())) != 1):
    told = ", ".join(f"{n} {value!r}" for value, n in sorted(counts.items()))
    raise UserError(f"{path}: field {field!r} has {told}: half of the lines need each")


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def names_are_apart(claims: Sequence[Claim], where: str) -> None:
  """Raises a UserError for two claims of one name: their answers would mix."""
  counts = collections.Counter(claim.name for claim in claims)
  twice = [
    name for name, n in counts.items() if n > 1 or not re.fullmatch(r"[\w-]+", name)
  ]
  if twice:
    raise UserError(
      f"{where}: {twice[0]!r}: claims need folder names of their own, of letters, "
      "digits, _ and -"
    )
