"""Options that a model has to choose from: two scorers, one line for each order asked.

  log-prob  the option whose own tokens are likelier as the answer, by the mean per
            token (names differ in length); `chose_<tag>` and `prob_<tag>`
  parsed    the option that a greedy answer names, if it names exactly one;
            `chose_<tag>_parsed`, beside `parse_rate`

They are kept apart because they are not interchangeable. A tag says what it means to
choose an option: `chose_<tag>` is 1 where the chosen option has it, and is there for
every tag that some, but not all, of the options have. What cannot be scored is null,
never a 0.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax.evals.exam import Exam, Question
from msm_jax.evals.subject import LENGTH, Completion, Sampling

Scores = dict[str, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One prompt with the options in one order.

  Attributes:
    id: unique in an evaluation.
    evaluation: of its line.
    also: further evaluations that the line counts for.
    messages: what is asked.
    options: what there is to choose from, in the order of the prompt.
    answers: how each of them is given as an answer, for the log-prob scorer.
    tags: of each option.
    parse: what a completion chooses; None: nothing, or more than one.
    per_token: whether answers are compared by the mean log-prob of their tokens, as
      those that differ in length; or by the sum, as those that share a frame (JSON),
      whose tokens would thin out the one that matters.
    cluster: cases that belong together, as the orders of one item do.
    about: further fields of its line.
  """

  id: str
  evaluation: str
  messages: Sequence[Mapping[str, Any]]
  options: Sequence[str]
  answers: Sequence[str]
  tags: Sequence[Sequence[str]]
  parse: Callable[[Completion], int | None]
  per_token: bool = True
  also: Sequence[str] = ()
  cluster: str | None = None
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def lines(
  exam: Exam,
  cases: Sequence[Case],
  *,
  seq_len: int,
  batch_size: int,
  max_new_tokens: int,
  further: Callable[[Case, int | None, int | None], Scores] = lambda *_: {},
) -> Iterator[dict[str, Any]]:
  """Yields one line per case: both scorers, the answer as given, the log-probs.

  Args:
    exam: who is asked.
    cases: what.
    seq_len, batch_size: of the rows in which answers are scored.
    max_new_tokens: of a greedy answer.
    further: (case, choice by log-prob, parsed choice) -> more scores.
  """
  logprobs = _answer_logprobs(exam, cases, seq_len, batch_size)
  sampling = Sampling(max_new_tokens=max_new_tokens, batch_size=batch_size)
  questions = [Question(id=case.id, messages=case.messages) for case in cases]
  completions = exam.complete(questions, sampling)
  for case, found, completion in zip(cases, logprobs, completions, strict=True):
    likelier, parsed = _choice(found), case.parse(completion)
    cluster = {} if case.cluster is None else {"cluster": case.cluster}
    yield {
      "id": case.id,
      "evaluation": case.evaluation,
      **({"also": list(case.also)} if case.also else {}),
      **case.about,
      **cluster,
      "prompt": case.messages[-1]["content"],
      "options": list(case.options),
      "completion": completion.text,
      "parsed": None if parsed is None else case.options[parsed],
      "logprobs": [round(value, 6) for value in found],
      "scores": {
        **tag_scores(case.tags, found, parsed),
        **further(case, likelier, parsed),
      },
    }


def tag_scores(
  tags: Sequence[Sequence[str]], logprobs: Sequence[float], parsed: int | None
) -> Scores:
  """Returns `parse_rate` and, for each tag that decides, what was chosen."""
  scores: Scores = {"parse_rate": float(parsed is not None)}
  choice = _choice(logprobs)
  for tag in sorted({tag for own in tags for tag in own}):
    tagged = [i for i, own in enumerate(tags) if tag in own]
    if len(tagged) == len(tags):
      continue
    scores[f"chose_{tag}"] = hit(choice, tagged)
    scores[f"prob_{tag}"] = sum(_prob(logprobs, i) for i in tagged)
    scores[f"chose_{tag}_parsed"] = hit(parsed, tagged)
  return scores


def hit(choice: int | None, wanted: Sequence[int]) -> float | None:
  """Returns 1 for a choice that is wanted, else 0; None where there is none."""
  return None if choice is None else float(choice in wanted)


def whole(parse: Callable[[str], int | None]) -> Callable[[Completion], int | None]:
  """Returns a reader of completions that takes one that was cut off for no answer."""
  return lambda said: None if said.finish == LENGTH else parse(said.text)


def _choice(logprobs: Sequence[float]) -> int | None:
  # Two equal log-probs are no choice (a model that knows nothing of either name).
  best = max(logprobs)
  return None if list(logprobs).count(best) > 1 else list(logprobs).index(best)


def _prob(logprobs: Sequence[float], i: int) -> float:
  others = [value for j, value in enumerate(logprobs) if j != i]
  return 1 / (1 + sum(math.exp(min(value - logprobs[i], 700)) for value in others))


def _answer_logprobs(
  exam: Exam, cases: Sequence[Case], seq_len: int, batch_size: int
) -> list[list[float]]:
  """Returns the log-prob of every answer of every case, as the case compares them."""
  pieces = []
  for case in cases:
    for answer in case.answers:
      pieces.append(exam.answer_piece(case.messages, answer))
  sums = exam.log_probs(pieces, seq_len=seq_len, batch_size=batch_size)
  means, totals = (sums[:, 0] / sums[:, 1]).tolist(), sums[:, 0].tolist()
  found, at = [], 0
  for case in cases:
    values = means if case.per_token else totals
    found.append(values[at : at + len(case.answers)])
    at += len(case.answers)
  return found
