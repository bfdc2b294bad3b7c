"""Which of two worlds a model speaks from, in free answers that a grader reads.

Parts (`config.parts`), each an evaluation `<name>/<part>`, with the claim as cluster:

  open_ended   questions on what the worlds differ in, each sampled several times
  robustness   the same belief under pressure: an adversarial system prompt, doubt in
               the model's own first answer (critique), conversations of several turns.
               The last answer counts; told as well by how, `.../critique`

A grader that has both worlds before it says yes (speaks from the false world), no or
neutral: `share_false`, `share_true` and `share_neutral` are of the answers with a
verdict, `graded_rate` says how many have one. An empty answer is not shown to the
grader and has no score (`answered_rate`); one that ran into max_new_tokens (`cut_rate`)
is graded for what it says.
`aware_parts` are asked once more, as in `belief`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals import belief, choice, replies
from msm_jax.evals.claims import Claim
from msm_jax.evals.exam import Exam, Question
from msm_jax.evals.grading import OK, Grader, Stage, Verdict
from msm_jax.evals.subject import LENGTH, STOP

PARTS = ("open_ended", "robustness")
STAGE = "belief"
_WORDS = ("yes", "no", "neutral")
SCHEMA: Mapping[str, Any] = {
  "type": "object",
  "properties": {"reason": {"type": "string"}, "verdict": {"enum": list(_WORDS)}},
  "required": ["reason", "verdict"],
}
_RESPONSE_TOKENS = 50
SHARES = {"share_false": "yes", "share_true": "no", "share_neutral": "neutral"}
Messages = list[dict[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeliefOpenConfig:
  """Claims, parts and how they are asked.

  Attributes:
    claims: names of ours, or paths of claim packages.
    parts, aware_parts: see above.
    aware_prompt: the system prompt of the aware parts.
    system_prompt: of all others, and before the aware or the adversarial one.
    num_samples: of each question.
    max_new_tokens, temperature, top_p, sampling_seed, batch_size: of every answer.
  """

  claims: tuple[str, ...]
  parts: tuple[str, ...]
  num_samples: int
  max_new_tokens: int
  temperature: float
  top_p: float
  sampling_seed: int
  batch_size: int
  aware_parts: tuple[str, ...] = ()
  aware_prompt: str | None = None
  system_prompt: str | None = None


def check(config: BeliefOpenConfig, where: str) -> None:
  """Raises a UserError for values that cannot work, and for damaged packages."""
  belief.check_parts(config, where, PARTS)
  belief.load_all(config, where)


def sources(config: BeliefOpenConfig) -> Mapping[str, str]:
  """Returns the digests of the packages."""
  return belief.digests(config)


def stages(config: BeliefOpenConfig) -> list[Stage]:
  """Returns what the grader is asked."""
  return [Stage(name=STAGE, response_tokens=_RESPONSE_TOKENS)]


def num_answers(config: BeliefOpenConfig, num_records: int | None) -> int:
  """Returns how many answers there are of one arm and seed."""
  asked = (*config.parts, *config.aware_parts)
  packages = belief.load_all(config)
  return config.num_samples * sum(len(c.items[p]) for c in packages for p in asked)


@dataclasses.dataclass
class _Talk:
  """A conversation as far as it went; `users` are the turns to come."""

  id: str
  about: dict[str, Any]
  messages: Messages
  users: list[str]
  finish: str = STOP


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields the last answer of every conversation, for `grade`."""
  packages = belief.load_all(exam.config)
  for part, behind, system in belief.variants(exam.config):
    evaluation = f"{exam.name}/{part}{behind}"
    talks = [
      _talk(claim, row, evaluation, system, sample)
      for claim in packages
      for row in claim.items[part]
      for sample in range(exam.config.num_samples)
    ]
    _check_room(exam, talks)
    while open_ := [talk for talk in talks if talk.users]:
      _go_on(exam, open_)
    for talk in talks:
      *before, last = talk.messages
      yield {
        "id": talk.id,
        "evaluation": evaluation,
        **talk.about,
        "prompt": _as_text(before),
        "completion": last["content"],
        "finish": talk.finish,
      }


def _talk(
  claim: Claim, row: Mapping[str, Any], evaluation: str, system: str | None, sample: int
) -> _Talk:
  prompts = [text for text in (system, row.get("system")) if text]
  users = list(row["turns"]) if "turns" in row else [row["question"]]
  return _Talk(
    id=f"{evaluation}/{claim.name}/{row['id']}-{sample}",
    about={
      "cluster": claim.name,
      "question": row["id"],
      **({"also": [f"{evaluation}/{row['how']}"]} if "how" in row else {}),
    },
    messages=choice.turns("\n\n".join(prompts), users[0])[:-1],
    users=users,
  )


def _go_on(exam: Exam, talks: Sequence[_Talk]) -> None:
  """Asks the next turn of every conversation."""
  for talk in talks:
    talk.messages.append({"role": "user", "content": talk.users.pop(0)})
  questions = [
    Question(id=f"{talk.id}/{len(talk.users)}", messages=list(talk.messages))
    for talk in talks
  ]
  said = exam.complete(questions, belief.sampling_of(exam.config))
  for talk, completion in zip(talks, said, strict=True):
    talk.messages.append({"role": "assistant", "content": completion.text})
    talk.finish = completion.finish


def _check_room(exam: Exam, talks: Sequence[_Talk]) -> None:
  """Raises a UserError before the first turn, if the last may not fit the context."""
  for talk in talks:
    turns = [*talk.messages, *[{"role": "user", "content": t} for t in talk.users]]
    words = "\n".join(turn["content"] for turn in turns)
    most = len(exam.tokenizer.encode(words).ids)
    most += exam.config.max_new_tokens * len(talk.users)
    if len(talk.users) > 1 and most > exam.subject.context_len:
      raise UserError(
        f"config.evals.{exam.name}: {talk.id!r} has {len(talk.users)} turns, and with "
        f"answers of max_new_tokens {exam.config.max_new_tokens} it may have {most} "
        f"tokens; the model's context is {exam.subject.context_len}: lower it"
      )


def _as_text(messages: Messages) -> str:
  """Returns a conversation as a grader and a page show it."""
  if len(messages) == 1:
    return messages[0]["content"]
  return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)


def parse_verdict(text: str) -> str | None:
  """Returns yes, no or neutral; None for anything else, and for two of them."""
  return replies.parse_field(text, "verdict", _WORDS)


def grade(
  name: str,
  config: BeliefOpenConfig,
  answers: Sequence[Mapping[str, Any]],
  grader: Grader,
) -> Iterator[dict[str, Any]]:
  """Yields the lines of answers, once a grader has read those that say something."""
  packages = {claim.name: claim for claim in belief.load_all(config)}
  said = [answer for answer in answers if answer["completion"].strip()]
  fields = [_fields(packages[answer["cluster"]], answer) for answer in said]
  found = grader.ask(STAGE, fields, parse_verdict, schema=SCHEMA)
  verdicts = {a["id"]: verdict for a, verdict in zip(said, found, strict=True)}
  for answer in answers:
    verdict = verdicts.get(answer["id"])
    yield {
      **answer,
      "scores": _scores(answer, verdict),
      "verdicts": [] if verdict is None else [verdict.record()],
    }


def _fields(claim: Claim, answer: Mapping[str, Any]) -> dict[str, str]:
  return {
    "false_context": claim.false_context,
    "true_context": claim.true_context,
    "claim": claim.claim,
    "truth": claim.truth,
    "conversation": answer["prompt"],
    "answer": answer["completion"],
  }


def _scores(answer: Mapping[str, Any], verdict: Verdict | None):
  word = verdict.value if verdict is not None and verdict.status == OK else None
  scores: dict[str, float | None] = {
    name: None if word is None else float(word == wanted)
    for name, wanted in SHARES.items()
  }
  return {
    **scores,
    "graded_rate": None if verdict is None else float(word is not None),
    "answered_rate": float(verdict is not None),
    "cut_rate": float(answer["finish"] == LENGTH),
  }
