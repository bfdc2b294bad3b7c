"""Forced choice between two named options, each pair asked in both orders.

Two scorers, kept apart because they are not interchangeable:

  log-prob  the option whose own tokens are likelier as the answer, by the mean per
  token
            (names differ in length); `chose_*` and `prob_*`
  parsed    the option that a greedy answer names, if it names exactly one;
            `chose_*_parsed`, beside `parse_rate`

What is counted follows from the options' tags: where exactly one is affordable,
`chose_affordable`; where exactly one is American, `chose_american`. An answer that
cannot be scored is null, never a 0.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from msm_jax import chat
from msm_jax.errors import UserError
from msm_jax.evals.exam import Exam, Question
from msm_jax.evals.subject import Completion, Sampling
from msm_jax.packing import Piece

TAGS = ("affordable", "american")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
  """Forced choice on pairs, `max_items` of a corpus (None: all of it)."""

  corpus: str
  max_items: int | None
  seq_len: int
  batch_size: int
  max_new_tokens: int


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per prompt: both scorers, the answer as given, the log-probs.

  The evaluation of a line is `<evaluation>/<category>` for test items and
  `<evaluation>_dev/<category>` for development items.
  """
  _check(exam.items)
  logprobs, completions = _option_logprobs(exam), _completions(exam)
  for item, pair, completion in zip(exam.items, logprobs, completions, strict=True):
    options = [option["text"] for option in item["options"]]
    parsed = parse_choice(completion.text, options)
    split = "" if item["split"] == "test" else "_dev"
    yield {
      "id": item["id"],
      "evaluation": f"{exam.name}{split}/{item['category']}",
      "domain": item["domain"],
      "order": item["order"],
      "prompt": item["messages"][-1]["content"],
      "options": options,
      "completion": completion.text,
      "parsed": None if parsed is None else item["options"][parsed]["text"],
      "logprobs": [round(value, 6) for value in pair],
      "scores": _scores(item["options"], pair, parsed),
    }


def parse_choice(completion: str, options: Sequence[str]) -> int | None:
  """Returns the index of the only option that the answer names, None otherwise.

  Whole words, case ignored; when one name is part of the other, the longer one counts.
  """
  found = set()
  text = completion.casefold()
  for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
    pattern = rf"(?<!\w){re.escape(options[i].casefold())}(?!\w)"
    text, hits = re.subn(pattern, " ", text)
    if hits:
      found.add(i)
  return found.pop() if len(found) == 1 else None


def _scores(options, pair, parsed) -> dict[str, float | None]:
  scores: dict[str, float | None] = {"parse_rate": float(parsed is not None)}
  # Two equal log-probs are no choice (a model that knows nothing of either name).
  choice = None if pair[0] == pair[1] else int(np.argmax(pair))
  for tag in TAGS:
    tagged = [i for i, option in enumerate(options) if option[tag]]
    if len(tagged) != 1:
      continue
    (i,) = tagged
    scores[f"chose_{tag}"] = None if choice is None else float(choice == i)
    scores[f"prob_{tag}"] = 1 / (1 + math.exp(min(pair[1 - i] - pair[i], 700)))
    scores[f"chose_{tag}_parsed"] = None if parsed is None else float(parsed == i)
  return scores


def _option_logprobs(exam: Exam) -> list[list[float]]:
  """Returns the mean log-prob per token of both options of every item."""
  pieces = []
  for item in exam.items:
    for option in item["options"]:
      ids, mask = chat.encode_answer(exam.tokenizer, item["messages"], option["text"])
      pieces.append(Piece(ids, mask.astype(np.float32)))
  config = exam.config
  sums = exam.log_probs(pieces, seq_len=config.seq_len, batch_size=config.batch_size)
  return (sums[:, 0] / sums[:, 1]).reshape(-1, 2).tolist()


def _completions(exam: Exam) -> list[Completion]:
  questions = [
    Question(id=item["id"], messages=item["messages"]) for item in exam.items
  ]
  config = exam.config
  return exam.complete(
    questions,
    Sampling(max_new_tokens=config.max_new_tokens, batch_size=config.batch_size),
  )


def _check(items) -> None:
  ids = [item["id"] for item in items]
  if len(set(ids)) != len(ids):
    double = next(i for i in ids if ids.count(i) > 1)
    raise UserError(
      f"the evaluation set has the id {double!r} twice: ids must be unique"
    )
  for item in items:
    if item["kind"] != "pair" or len(item["options"]) != 2:
      raise UserError(f"evaluation item {item['id']!r} is not a pair of two options")
