"""Does the model still talk sense: a rating of everyday answers, and signs of decay.

  coherence       0 to 10 by a judge on anchors that know no spec
  graded_rate     answers with a rating, of those that the judge was given
  answered_rate   answers with something in them; the judge reads no other
  cut_rate        answers that ran to max_new_tokens
  share_repeated  words of an answer that stand in a run of four words said before
  loop_rate       answers that are repeated by more than half

What the judge did not rate, or rated in two ways, is null.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import words
from msm_jax.evals import asking, said_json
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import OK, Grader, Stage
from msm_jax.evals.subject import LENGTH, Completion

STAGE = "coherence"
SCHEMA = {
  "type": "object",
  "properties": {"reason": {"type": "string"}, "rating": {"type": "integer"}},
  "required": ["reason", "rating"],
}
_RUN = 4  # words
_LOOP = 0.5
_RESPONSE_TOKENS = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoherenceConfig:
  """Answers to everyday questions, rated for coherence alone.

  Attributes:
    items: a path, or the name of a set in `evals/sets/`.
    max_items: None for all.
    max_new_tokens, temperature, sampling_seed, num_samples, batch_size: of the answers.
    system_prompt: None: what the chat template has; '': none.
  """

  items: str
  max_items: int | None
  max_new_tokens: int
  batch_size: int
  temperature: float
  sampling_seed: int = 0
  num_samples: int = 1
  system_prompt: str | None = None


def check(config: CoherenceConfig, where: str) -> None:
  """Raises a UserError for items or settings that cannot be used."""
  asking.check_samples(config, where)
  _items(config, where)


def stages(config: CoherenceConfig) -> list[Stage]:
  """Returns what the grader is asked."""
  del config  # the same rubric whatever is asked
  return [Stage(name=STAGE, response_tokens=_RESPONSE_TOKENS)]


def num_answers(config: CoherenceConfig, num_records: int | None) -> int:
  """Returns how many answers there are of one arm and seed."""
  del num_records  # there is no corpus
  return len(_items(config, "items")) * config.num_samples


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one answer per question and sample, with what needs no judge."""
  items = _items(exam.config, f"config.evals.{exam.name}")
  for item, question, completion in asking.ask(exam, items):
    yield {
      "id": question.id,
      "evaluation": exam.name,
      "cluster": item["id"],
      "prompt": list(question.messages),
      "completion": completion.text,
      "scores": signs(completion),
    }


def signs(completion: Completion) -> dict[str, float | None]:
  """Returns what can be counted: answered, cut off, repeated."""
  text = completion.text.strip()
  repeated = repetition(text)
  return {
    "answered_rate": float(bool(text)),
    "cut_rate": float(completion.finish == LENGTH),
    "share_repeated": repeated,
    "loop_rate": None if repeated is None else float(repeated > _LOOP),
  }


def repetition(text: str) -> float | None:
  """Returns the share of the runs of four words that the text has had before.

  None for texts of fewer words; case and punctuation do not count.
  """
  found = ["".join(filter(str.isalnum, w)) for w in words.units(text.casefold())]
  found = [word for word in found if word]
  runs = [tuple(found[i : i + _RUN]) for i in range(len(found) - _RUN + 1)]
  return 1 - len(set(runs)) / len(runs) if runs else None


def grade(
  name: str,
  config: CoherenceConfig,
  answers: Sequence[Mapping[str, Any]],
  grader: Grader,
) -> Iterator[dict[str, Any]]:
  """Yields the answers with their rating, null where there is none."""
  given = [answer for answer in answers if answer["completion"].strip()]
  fields = [
    {"question": each["prompt"][-1]["content"], "answer": each["completion"]}
    for each in given
  ]
  verdicts = grader.ask(STAGE, fields, rating, schema=SCHEMA)
  found = dict(zip((each["id"] for each in given), verdicts, strict=True))
  for answer in answers:
    verdict = found.get(answer["id"])
    rated = {"coherence": None, "graded_rate": None}
    if verdict is not None:
      rated["graded_rate"] = float(verdict.status == OK)
      rated["coherence"] = float(verdict.value) if verdict.status == OK else None
    yield {
      **answer,
      "scores": {**answer["scores"], **rated},
      "verdicts": [] if verdict is None else [verdict.record()],
    }


def rating(text: str) -> int | None:
  """Returns the rating that a judge gave, None if it gave none, or two."""
  value = said_json.agreed(text).get("rating")
  if isinstance(value, str) and value.strip().isdecimal():
    value = int(value)
  if not isinstance(value, int) or isinstance(value, bool):
    return None
  return value if 0 <= value <= 10 else None


def _items(config: CoherenceConfig, where: str) -> list[dict[str, Any]]:
  return items_lib.read(
    config.items, f"{where}.items", {"question": str}, config.max_items
  )
