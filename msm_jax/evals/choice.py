"""Forced choice on questions with options of any number and any tags.

An item is a record of kind `choice`; an import of shape `choice` makes them:

    {"kind": "choice", "id": "bread-7", "question": "Which one would you rather have?",
     "options": [{"text": "brioche", "tags": ["novel"]}, {"text": "toast", "tags": []}],
     "split": "test", "category": ..., "domain": ..., "topic": ...}

The evaluation writes the options below the question, lettered or as a list, in as many
orders as the config says; two options in two orders have each once in front. What is
asked first is drawn from the item's id, so that no place is always the right one.
"""

import dataclasses
import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals import forced_choice, replies
from msm_jax.evals.exam import Exam, seed_of
from msm_jax.evals.forced_choice import Case, Scores, hit

LETTER, TEXT = "letter", "text"
Item = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
  """Forced choice on items of kind `choice`, `max_items` of a corpus (None: all).

  Attributes:
    prompt: with `{question}` and `{options}`.
    answer: 'letter': options are lettered, and a letter is the answer; 'text': they are
      listed, and their text is.
    num_orders: in how many orders an item is asked; 2 for both of two options.
    system_prompt: None for none (or the template's own).
  """

  corpus: str
  max_items: int | None
  prompt: str
  answer: str
  num_orders: int
  seq_len: int
  batch_size: int
  max_new_tokens: int
  system_prompt: str | None = None


def check(config: ChoiceConfig, where: str) -> None:
  """Raises a UserError for values that cannot work."""
  if config.answer not in (LETTER, TEXT):
    raise UserError(
      f"{where}.answer is {config.answer!r}: it is {LETTER!r} or {TEXT!r}"
    )
  for slot in ("{question}", "{options}"):
    if config.prompt.count(slot) != 1:
      raise UserError(f"{where}.prompt has to have {slot} once: {config.prompt!r}")
  if config.num_orders < 1:
    raise UserError(
      f"{where}.num_orders is {config.num_orders}: 2 asks two options in both orders"
    )


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per item and order.

  A line counts for `<evaluation>` and, where its item has a category, for
  `<evaluation>/<category>`; `<evaluation>_dev` for items whose `split` is 'dev'.
  """
  return ask_by(exam, "category")


def ask_by(exam: Exam, group: str) -> Iterator[dict[str, Any]]:
  """Yields the lines of items, told by the values of their field `group`."""
  config = exam.config
  check_items(exam.name, exam.items)
  cases = [
    case
    for item in exam.items
    for case in _cases(exam.name, item, item.get(group), config)
  ]
  return forced_choice.lines(
    exam,
    cases,
    seq_len=config.seq_len,
    batch_size=config.batch_size,
    max_new_tokens=config.max_new_tokens,
    further=habits,
  )


def habits(case: Case, likelier: int | None, parsed: int | None) -> Scores:
  """Returns how often the first place is chosen, and the two scorers in one.

  `chose_<tag>_either` is the parsed choice or, where there is none, the likelier one.
  """
  scores = {
    "chose_first": hit(likelier, [0]),
    "chose_first_parsed": hit(parsed, [0]),
  }
  either = likelier if parsed is None else parsed
  for tag in sorted({tag for own in case.tags for tag in own}):
    tagged = [i for i, own in enumerate(case.tags) if tag in own]
    if len(tagged) < len(case.tags):
      scores[f"chose_{tag}_either"] = hit(either, tagged)
  return scores


def orders(name: str, num_options: int, num_orders: int) -> list[list[int]]:
  """Returns so many orders of options; the first is drawn from `name`.

  The others turn it round, so that `num_options` orders have each option at each place.
  """
  first = list(range(num_options))
  random.Random(seed_of(name, 0)).shuffle(first)
  count = min(num_orders, num_options)
  starts = [k * num_options // count for k in range(count)]
  return [first[start:] + first[:start] for start in starts]


def present(prompt: str, question: str, options: Sequence[str], answer: str) -> str:
  """Returns a prompt with its question and its options; other braces are text."""
  marks = [f"{letter})" for letter in replies.LETTERS] if answer == LETTER else None
  listed = [
    f"{'-' if marks is None else marks[i]} {option}" for i, option in enumerate(options)
  ]
  return fill(prompt, question=question, options="\n".join(listed))


def fill(template: str, **texts: str) -> str:
  """Returns a template with its slots filled; what is put in is not searched."""
  slots = "|".join(texts)
  return re.sub(rf"\{{({slots})\}}", lambda found: texts[found[1]], template)


def turns(system_prompt: str | None, user: str) -> list[dict[str, str]]:
  """Returns a system turn, if there is one, and a user's."""
  system = [] if not system_prompt else [{"role": "system", "content": system_prompt}]
  return [*system, {"role": "user", "content": user}]


def reader(options: Sequence[str], answer: str):
  """Returns what reads a completion: None unless it ended and chose one option."""
  parse = replies.parse_letter if answer == LETTER else replies.parse_option
  return forced_choice.whole(functools.partial(parse, options=list(options)))


def check_items(name: str, items: Sequence[Item]) -> None:
  """Raises a UserError for an item that cannot be asked, by its id and field."""
  seen = set()
  for item in items:
    where = f"config.evals.{name}: item {item.get('id')!r}"
    if item["kind"] != "choice":
      raise UserError(
        f"{where} is a {item['kind']!r}: this needs a corpus of kind 'choice', as an "
        "import of shape 'choice' makes it"
      )
    if item["id"] in seen:
      raise UserError(f"{where} is there twice: ids must be unique")
    seen.add(item["id"])
    fault = fault_of(item)
    if fault:
      raise UserError(f"{where}: {fault}")


def fault_of(item: Item) -> str | None:
  """Returns what is wrong with an item, the field first; None if nothing is."""
  if not _is_text(item.get("question")):
    return "question is no text"
  options = item.get("options")
  if not isinstance(options, list) or not 2 <= len(options) <= len(replies.LETTERS):
    return f"options is no list of 2 to {len(replies.LETTERS)}"
  if not all(isinstance(o, Mapping) and _is_text(o.get("text")) for o in options):
    return "options has one without a text"
  if len({option["text"].strip().casefold() for option in options}) < len(options):
    return "options has the same text twice"
  for option in options:
    tags = option.get("tags", [])
    if not isinstance(tags, list) or not all(_is_tag(tag) for tag in tags):
      return f"options: tags of {option['text']!r} is no list of words (a-z, 0-9, _)"
  if item.get("split", "test") not in ("dev", "test"):
    return f"split is {item['split']!r}: it is 'dev' or 'test'"
  return None


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def _is_tag(value: Any) -> bool:
  return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]+", value) is not None


def _cases(
  name: str, item: Item, group: str | None, config: ChoiceConfig
) -> Iterator[Case]:
  whole = f"{name}_dev" if item.get("split", "test") == "dev" else name
  found = orders(item["id"], len(item["options"]), config.num_orders)
  for number, order in enumerate(found):
    options = [item["options"][i] for i in order]
    texts = [option["text"] for option in options]
    letters = list(replies.LETTERS[: len(texts)])
    user = present(config.prompt, item["question"], texts, config.answer)
    yield Case(
      id=f"{item['id']}-{number}",
      evaluation=whole if group is None else f"{whole}/{group}",
      also=[] if group is None else [whole],
      messages=turns(config.system_prompt, user),
      options=texts,
      answers=letters if config.answer == LETTER else texts,
      tags=[option.get("tags", []) for option in options],
      parse=reader(texts, config.answer),
      cluster=item.get("topic") or item["id"],
      about={k: item[k] for k in ("category", "domain", "topic") if k in item}
      | {"order": number},
    )
