"""Facts asked one or more hops away: where the right answer stands among candidates.

Items, lines of a JSONL file:

    id          unique
    prompt      plain text that the answer goes on; no space at its end
    question    what a user says; `prompt`, if there is one too, begins the answer then
    answer      the right one
    candidates  what it is ranked among; if absent, the answers of its whole group
    hops        1 (if absent), 2 or 3: facts that lead to it; `<name>/two_hop` is told
    group       items of one kind of question ("" if absent); `<name>/two_hop/<group>`
    fact        what the item is about, the cluster; `id` if absent

Each candidate is scored as the continuation, by log p: summed over its tokens, or their
mean (`per_token`), which favours long names of which the end is certain. Scores:

  rank             of the right answer, 1 is best; a tie counts half
  rank_share       (rank - 1) / (candidates - 1): 0 is best, 0.5 is chance
  top1             1 if it is first; of those that tie for it, each has its share
  reciprocal_rank  1 / rank
  loss_advantage   -log p of the other items' answers, the mean of those that differ,
                   less that of the right one, in nats: what a shuffled answer costs
  chance_rank      what guessing gives: (candidates + 1) / 2

After the two-hop evaluations of the false-facts studies (docs/evaluations.md).
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax.errors import UserError
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.evals.multiple_choice import text_piece
from msm_jax.packing import Piece

CHAT, TEXT = "chat", "text"
HOPS = {1: "one_hop", 2: "two_hop", 3: "three_hop"}
_ASKED_BY = {CHAT: "question", TEXT: "prompt"}
_TEXTS = ("prompt", "question", "answer", "group", "fact")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig:
  """Ranks of right answers among candidates.

  Attributes:
    items: a path, or the name of a set in `evals/sets/`.
    max_items: at most so many items, evenly taken; None: all. Candidates and shuffled
      answers are still those of all.
    format: 'text' goes on with `prompt`, as documents do; 'chat' answers `question`.
    per_token: candidates are compared by the mean log p of their tokens, not the sum.
    seq_len, batch_size: of the rows that are scored.
  """

  items: str
  max_items: int | None
  format: str
  seq_len: int
  batch_size: int
  per_token: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Case:
  """An item; `candidates` and `others` (answers of other items) are texts."""

  item: Mapping[str, Any]
  candidates: Sequence[str]
  others: Sequence[str]

  @property
  def texts(self) -> list[str]:
    """All that is scored, each once."""
    return list(dict.fromkeys([*self.candidates, *self.others]))


def check(config: RecallConfig, where: str) -> None:
  """Raises a UserError for items or settings that cannot be used."""
  if config.format not in _ASKED_BY:
    raise UserError(
      f"{where}.format is {config.format!r}: it is {' or '.join(_ASKED_BY)}"
    )
  if config.max_items is not None and config.max_items < 1:
    raise UserError(f"{where}.max_items is {config.max_items}: at least 1")
  _cases(config, where)


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per item, with the log-probs of its candidates."""
  config = exam.config
  cases = _cases(config, f"config.evals.{exam.name}")
  cases = items_lib.taken(cases, config.max_items)
  pieces = [_piece(exam, case.item, text) for case in cases for text in case.texts]
  sums = exam.log_probs(pieces, seq_len=config.seq_len, batch_size=config.batch_size)
  values = sums[:, 0] / sums[:, 1] if config.per_token else sums[:, 0]
  at = 0
  for case in cases:
    own = values[at : at + len(case.texts)].tolist()
    at += len(case.texts)
    yield _line(exam.name, config, case, dict(zip(case.texts, own, strict=True)))


def _line(name: str, config: RecallConfig, case: _Case, log_probs: Mapping[str, float]):
  item, answer = case.item, case.item["answer"]
  evaluation = f"{name}/{HOPS[item.get('hops', 1)]}"
  group = item.get("group")
  right = log_probs[answer]
  shuffled = np.mean([log_probs[text] for text in case.others])
  return {
    "id": item["id"],
    "evaluation": evaluation,
    **({"also": [f"{evaluation}/{group}"]} if group else {}),
    "cluster": item.get("fact", item["id"]),
    "prompt": item[_ASKED_BY[config.format]],
    "answer": answer,
    "options": list(case.candidates),
    "logprobs": [round(log_probs[text], 6) for text in case.candidates],
    "scores": {
      **rank_scores([log_probs[text] for text in case.candidates], right),
      "loss_advantage": float(right - shuffled),
    },
  }


def rank_scores(values: Sequence[float], right: float) -> dict[str, float]:
  """Returns the scores of an answer among candidates.

  Args:
    values: log p of each candidate, the right one among them; at least two.
    right: that of the right one.
  """
  better = sum(value > right for value in values)
  tied = sum(value == right for value in values) - 1
  rank, count = 1 + better + tied / 2, len(values)
  return {
    "rank": rank,
    "rank_share": (rank - 1) / (count - 1),
    "top1": 0.0 if better else 1 / (1 + tied),
    "reciprocal_rank": 1 / rank,
    "chance_rank": (count + 1) / 2,
  }


def _piece(exam: Exam, item: Mapping[str, Any], answer: str) -> Piece:
  """Returns the tokens of an item and an answer, of which the answer's count."""
  begun = item.get("prompt", "")
  if exam.config.format == TEXT:
    piece = text_piece(exam.tokenizer, begun, f" {answer}")
  else:
    messages = [{"role": "user", "content": item["question"]}]
    whole = f"{begun} {answer}" if begun else answer
    piece = exam.answer_piece(messages, whole, begun=len(begun))
  if not piece.weights[1:].any():
    raise UserError(
      f"config.evals.{exam.name}: {item['id']!r}: {answer!r} has no token of its own "
      f"behind {begun!r} in this tokenizer: begin it at a word"
    )
  return piece


def _cases(config: RecallConfig, where: str) -> list[_Case]:
  """Returns the items with their candidates; a UserError for what cannot be asked."""
  path = items_lib.path_of(config.items)
  items = items_lib.read(config.items, f"{where}.items", {"answer": str})
  answers: dict[Any, list[str]] = collections.defaultdict(list)
  for item in items:
    _check(config, item, f"{path}: item {item['id']!r}")
    answers[_kind(item)].append(item["answer"])
  found = []
  for item in items:
    given = answers[_kind(item)]
    others = [text for text in given if text != item["answer"]]
    candidates = item.get("candidates") or list(dict.fromkeys(given))
    if len(candidates) < 2 or not others:
      raise UserError(
        f"{path}: item {item['id']!r}: no other item of its group has another answer: "
        "nothing could be shuffled; add items, or give it the group of others"
      )
    found.append(_Case(item=item, candidates=candidates, others=others))
  return found


def _kind(item: Mapping[str, Any]) -> tuple[Any, Any]:
  return item.get("group", ""), item.get("hops", 1)


def _check(config: RecallConfig, item: Mapping[str, Any], at: str) -> None:
  field = _ASKED_BY[config.format]
  if not _is_text(item.get(field)):
    raise UserError(
      f"{at}: {field!r} is {item.get(field)!r}: it must be a text where format is "
      f"{config.format!r}"
    )
  for field in _TEXTS:
    value = item.get(field)
    if value is not None and (not _is_text(value) or value != value.rstrip()):
      raise UserError(f"{at}: {field!r} is {value!r}: a text with no space at its end")
  if item.get("hops", 1) not in HOPS or isinstance(item.get("hops"), bool):
    raise UserError(f"{at}: 'hops' is {item['hops']!r}: it is one of {list(HOPS)}")
  _check_candidates(item, at)


def _check_candidates(item: Mapping[str, Any], at: str) -> None:
  given = item.get("candidates")
  if given is None:
    return
  if not isinstance(given, list) or not all(map(_is_text, given)):
    raise UserError(f"{at}: 'candidates' is {given!r}: it must be a list of texts")
  if len(set(given)) < len(given) or item["answer"] not in given:
    raise UserError(
      f"{at}: 'candidates' must have {item['answer']!r}, the answer, and each text once"
    )


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())
