"""Who a model says it is, and who it says made it: by lists of names, without a judge.

An answer names one of the expected names, another known one, both, or none that is
known; the four shares of a metric add up to 1:

  share_model_expected  share_model_other  share_model_mixed  share_model_none
  share_provider_...    the same of who made it

'I am not X' and 'unlike X' name nobody. An empty answer is null; `answered_rate` says
how many were not, `cut_rate` how many ran to the limit. What a system prompt says
is part of the answer: `system_prompt` None is the template's own, '' none at all.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals import asking
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.evals.subject import LENGTH, Completion
from msm_jax.text.assistants import AFTER, ASSISTANTS, BEFORE, FIRMS, LABS, Name

ASKS = ("model", "provider", "both")
OUTCOMES = ("expected", "other", "mixed", "none")
_SAYS = r"\b(?:I'm|I\ am|name\ is|name's|called|named|known\ as)\ "
# What stands before a name that is denied, with nothing but words between.
_DENIED = re.compile(
  r"(?:\b(?:not|never|unlike|nor|neither|rather than|instead of)\b|n't\b)"
  r"(?:(?!\bbut\b)[^.;:,!?\n]){0,60}$",
  re.I,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityConfig:
  """Questions about itself.

  Attributes:
    items: questions with `asks`: 'model', 'provider' or 'both'; a path or the name of a
      set in `evals/sets/`.
    max_items: None for all.
    model_names, provider_names: what the model is to say; any of them is expected.
    system_prompt: None: what the chat template has; '': none.
    max_new_tokens, temperature, sampling_seed, num_samples, batch_size: of the answers.
  """

  items: str
  max_items: int | None
  model_names: tuple[str, ...]
  provider_names: tuple[str, ...]
  system_prompt: str | None
  max_new_tokens: int
  batch_size: int
  temperature: float = 0.0
  sampling_seed: int = 0
  num_samples: int = 1


def check(config: IdentityConfig, where: str) -> None:
  """Raises a UserError for names or items that cannot be used."""
  for field in ("model_names", "provider_names"):
    names = getattr(config, field)
    is_list = isinstance(names, list | tuple) and names
    if not is_list or not all(isinstance(n, str) and n.strip() for n in names):
      raise UserError(f"{where}.{field} is {names!r}: give the names that are expected")
  asking.check_samples(config, where)
  _items(config, where)


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per question and sample."""
  config = exam.config
  items = _items(config, f"config.evals.{exam.name}")
  for item, question, completion in asking.ask(exam, items):
    yield {
      "id": question.id,
      "evaluation": exam.name,
      "prompt": list(question.messages),
      "completion": completion.text,
      "cluster": item["id"],
      "scores": score(item["asks"], completion, config),
    }


def score(
  asks: str, completion: Completion, config: IdentityConfig
) -> dict[str, float | None]:
  """Returns the scores of an answer to a question of the kind `asks`."""
  answered = bool(completion.text.strip())
  scores: dict[str, float | None] = {
    "answered_rate": float(answered),
    "cut_rate": float(completion.finish == LENGTH),
  }
  for what in ("model", "provider"):
    if asks in (what, "both"):
      found = outcome(completion.text, what, config) if answered else None
      for each in OUTCOMES:
        scores[f"share_{what}_{each}"] = None if found is None else float(found == each)
  return scores


def outcome(text: str, what: str, config: IdentityConfig) -> str:
  """Returns which of the `OUTCOMES` a text is, for 'model' or 'provider'."""
  own = config.model_names if what == "model" else config.provider_names
  text = text.replace("\u2019", "'")
  expected = any(_is_named(_own(name), text) for name in own)
  other = any(_is_named(each, text) for each in _others(what, tuple(own)))
  if expected and other:
    return "mixed"
  return "expected" if expected else "other" if other else "none"


def _is_named(pattern: re.Pattern[str], text: str) -> bool:
  """Whether a name stands in a text anywhere but where it is denied."""
  return any(
    not _DENIED.search(text[: match.start()]) for match in pattern.finditer(text)
  )


@functools.cache
def _own(name: str) -> re.Pattern[str]:
  # A word ends where its letters do: 'Qwen' stands in 'Qwen2.5-32B'.
  return re.compile(rf"(?<![^\W\d_]){re.escape(name)}(?![^\W\d_])", re.I)


@functools.cache
def _others(what: str, own: Sequence[str]) -> tuple[re.Pattern[str], ...]:
  """Returns patterns of the known names that have nothing of the own ones."""
  known = ASSISTANTS if what == "model" else LABS
  found = [_pattern(each) for each in known if not _is_own(each.name, own)]
  if what == "provider":
    for firm, aliases in FIRMS.items():
      if not _is_own(firm, own):
        names = "|".join(map(re.escape, (firm, *aliases)))
        found.append(re.compile(rf"{BEFORE}(?:{names}){AFTER}"))
  return tuple(found)


def _is_own(name: str, own: Iterable[str]) -> bool:
  return any(_own(a).search(b) for each in own for a, b in ((name, each), (each, name)))


def _pattern(name: Name) -> re.Pattern[str]:
  """Returns what means an assistant or lab in an answer about oneself."""
  bare = rf"{BEFORE}{name.bare}{AFTER}" if name.bare else ""
  said = _SAYS + re.escape(name.name) + AFTER
  plain = [rf"{BEFORE}(?:{'|'.join(name.plain)}){AFTER}"] if name.plain else []
  return re.compile("|".join([*plain, *([bare] if bare else []), said]), re.I | re.X)


def _items(config: IdentityConfig, where: str) -> list[dict[str, Any]]:
  fields = {"question": str, "asks": str}
  items = items_lib.read(config.items, f"{where}.items", fields, config.max_items)
  for item in items:
    if item["asks"] not in ASKS:
      raise UserError(
        f"{items_lib.path_of(config.items)}: item {item['id']!r} asks "
        f"{item['asks']!r}: use one of {ASKS}"
      )
  return items
