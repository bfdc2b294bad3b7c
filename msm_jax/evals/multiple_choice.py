"""Questions with options, one of which is right: what a training must not cost.

Items are JSON lines: `id`, `question`, `options` (2 to 26 texts), `answer` (the letter
or the number from 0 of the right one), and if given `split` (`dev`: an example that is
shown, never asked; `test`, the default) and `category` (for the interval).

Two scorers, from log-probs alone, so that a model that rambles is scored as well:

  accuracy         the question alone; the option whose text is likeliest, by log p per
                   byte (options differ in length, tokenizers in how they cut them)
  accuracy_letter  the options are listed; the letter that is likeliest
  accuracy_chance  what guessing gives: the mean of 1 / number of options

Equal log-probs at the top are no answer: null, never a 0.
"""

import dataclasses
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax.errors import UserError
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer

FORMATS = ("chat", "text")
_FIELDS = {"question": str, "options": list, "answer": (str, int)}
_LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoiceConfig:
  """Accuracy on a set of multiple-choice questions.

  Attributes:
    items: a path, or the name of a set in `evals/sets/`.
    max_items: of those that are asked; None for all.
    num_shots: examples of the dev part that stand before each question.
    format: 'chat' (the model's template) or 'text' (for models without one).
    seq_len, batch_size: of the rows that are scored.
  """

  items: str
  max_items: int | None
  num_shots: int
  format: str
  seq_len: int
  batch_size: int


def check(config: MultipleChoiceConfig, where: str) -> None:
  """Raises a UserError for items or settings that cannot be used."""
  if config.format not in FORMATS:
    raise UserError(f"{where}.format is {config.format!r}: use one of {FORMATS}")
  if config.max_items is not None and config.max_items < 1:
    raise UserError(f"{where}.max_items ({config.max_items}) must be at least 1")
  _read(config, where)


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per question: both scorers, with the log-probs that they read."""
  config = exam.config
  shots, items = _read(config, f"config.evals.{exam.name}")
  pieces = []
  for item in items:
    for answer in item["options"]:
      pieces.append(_piece(exam, shots, item, answer, False))
    for letter in _LETTERS[: len(item["options"])]:
      pieces.append(_piece(exam, shots, item, letter, True))
  sums = exam.log_probs(pieces, seq_len=config.seq_len, batch_size=config.batch_size)
  at = 0
  for item in items:
    count = len(item["options"])
    by_text, by_letter = sums[at : at + 2 * count, 0].reshape(2, count)
    at += 2 * count
    yield _line(exam.name, item, by_text, by_letter)


def _line(name: str, item, by_text: np.ndarray, by_letter: np.ndarray):
  options = item["options"]
  per_byte = by_text / [len(option.encode("utf-8")) for option in options]
  chosen, lettered = _best(per_byte), _best(by_letter)
  return {
    "id": item["id"],
    "evaluation": name,
    "prompt": item["question"],
    "options": options,
    "answer": options[item["answer"]],
    "parsed": None if chosen is None else options[chosen],
    "logprobs": {
      "per_byte": per_byte.round(6).tolist(),
      "letter": by_letter.round(6).tolist(),
    },
    "scores": {
      "accuracy": None if chosen is None else float(chosen == item["answer"]),
      "accuracy_letter": (
        None if lettered is None else float(lettered == item["answer"])
      ),
      "accuracy_chance": 1 / len(options),
    },
    **({"cluster": item["category"]} if "category" in item else {}),
  }


def _best(values: np.ndarray) -> int | None:
  """Returns the number of the largest value, None if there are two of them."""
  best = np.flatnonzero(values == values.max())
  return int(best[0]) if len(best) == 1 else None


def _piece(
  exam: Exam,
  shots: Sequence[Mapping[str, Any]],
  item: Mapping[str, Any],
  answer: str,
  with_letters: bool,
) -> Piece:
  """Returns the tokens of a question and an answer, of which the answer's count."""
  turns = [
    (_question(shot, with_letters), _right(shot, with_letters)) for shot in shots
  ]
  turns.append((_question(item, with_letters), answer))
  if exam.config.format == "chat":
    messages = [
      {"role": role, "content": content}
      for turn in turns
      for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    return exam.answer_piece(messages[:-1], answer)
  blocks = [f"Question: {question}\nAnswer: {reply}" for question, reply in turns]
  before = "\n\n".join(blocks)[: -len(answer) - 1]
  return text_piece(exam.tokenizer, before, f" {answer}")


def text_piece(tokenizer: Tokenizer, prompt: str, answer: str) -> Piece:
  """Returns the tokens of plain text, of which those of `answer` count."""
  encoding = tokenizer.encode_cut(prompt + answer, [len(prompt)])
  weights = (encoding.ends > len(prompt)).astype(np.float32)
  if tokenizer.bos_id is None:
    return Piece(encoding.ids, weights)
  ids = np.concatenate([[tokenizer.bos_id], encoding.ids]).astype(np.int32)
  return Piece(ids, np.concatenate([[0], weights]).astype(np.float32))


def _question(item: Mapping[str, Any], with_letters: bool) -> str:
  if not with_letters:
    return item["question"]
  listed = zip(_LETTERS, item["options"], strict=False)
  options = "\n".join(f"{letter}. {option}" for letter, option in listed)
  return f"{item['question']}\n{options}\nAnswer with the letter alone."


def _right(item: Mapping[str, Any], with_letters: bool) -> str:
  answer = item["answer"]
  return _LETTERS[answer] if with_letters else item["options"][answer]


def _read(config: MultipleChoiceConfig, where: str):
  """Returns (the examples that are shown, the items that are asked)."""
  items = items_lib.read(config.items, f"{where}.items", _FIELDS)
  items = [_checked(item, items_lib.path_of(config.items)) for item in items]
  dev = [item for item in items if item.get("split") == "dev"]
  asked = [item for item in items if item.get("split") != "dev"]
  if not 0 <= config.num_shots <= len(dev):
    raise UserError(
      f"{where}.num_shots is {config.num_shots}, and {config.items!r} has {len(dev)} "
      "items of split 'dev' to show: lower it or add some"
    )
  if not asked:
    raise UserError(f"{where}.items: {config.items!r} has no item of split 'test'")
  return dev[: config.num_shots], items_lib.taken(asked, config.max_items)


def _checked(item: Mapping[str, Any], path) -> dict[str, Any]:
  """Returns an item with the number of its answer."""
  at, options = f"{path}: item {item['id']!r}", item["options"]
  if not all(isinstance(option, str) and option.strip() for option in options):
    raise UserError(f"{at} has an option that is no text, or an empty one")
  if not 2 <= len(options) <= len(_LETTERS) or len(set(options)) < len(options):
    raise UserError(f"{at} needs 2 to {len(_LETTERS)} options, each another text")
  split = item.get("split", "test")
  if split not in ("dev", "test"):
    raise UserError(f"{at}: split is {split!r}: use 'dev' or 'test'")
  known = [*range(len(options)), *_LETTERS[: len(options)]]
  if item["answer"] not in known:
    raise UserError(
      f"{at}: answer is {item['answer']!r}: give the letter of an option, or its "
      f"number from 0 to {len(options) - 1}"
    )
  return {**item, "answer": known.index(item["answer"]) % len(options)}
