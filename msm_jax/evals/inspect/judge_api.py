"""Graders of ours as a provider of Inspect, so that its own scorers ask through them.

    INSPECT_GRADER_MODEL=msm_jax_judge/WORKDIR[:ROLE]   config.judge of a study
    INSPECT_GRADER_MODEL=msm_jax_judge/stub             a rehearsal: reads nothing

What a scorer asks goes out as it is (stage `inspect`), by the client, model, ledger and
budget of the grader; its settings stand in the config, a scorer's own are left aside.
What is not answered raises, so that nothing is scored.
"""

import contextlib
import contextvars
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput

from msm_jax.errors import UserError
from msm_jax.evals.grading import OK, Grader, Verdict
from msm_jax.evals.inspect import collecting
from msm_jax.evals.inspect.settings import STAGE

Fields = Mapping[str, str]
Answer = Callable[[Fields], Any]  # -> an awaitable verdict


@dataclasses.dataclass
class Hearing:
  """What graders say while a sample is scored.

  Attributes:
    verdicts: what they said.
    waits: a question has been noted, and is to be asked first.
  """

  verdicts: list[Verdict] = dataclasses.field(default_factory=list)
  waits: bool = False


hearing: contextvars.ContextVar[Hearing | None] = contextvars.ContextVar(
  "hearing", default=None
)


class UngradedError(Exception):
  """A grader did not answer; nothing is scored."""


class JudgeAPI(ModelAPI):
  """Answers what scorers ask."""

  def __init__(
    self,
    model_name: str,
    base_url: str | None = None,
    api_key: str | None = None,
    config: GenerateConfig = GenerateConfig(),  # noqa: B008 (as Inspect's are)
    *,
    open_: Callable[[str], Answer],
    **model_args: Any,
  ):
    """See `ModelAPI`; `open_` finds the grader that a name means."""
    if base_url is not None or model_args:
      raise UserError("msm_jax_judge takes no arguments: its settings are config.judge")
    super().__init__(model_name, config=config)
    self._answer = open_(model_name)

  def max_connections(self) -> int:
    """Returns how many requests Inspect may have open; the grader has its own limit."""
    return 10_000

  async def count_text_tokens(self, text: str) -> int:
    """Returns about how many tokens a text has; nothing is decided by it."""
    return len(text) // 4 + 1

  async def generate(
    self,
    input: list[ChatMessage],
    tools: list,
    tool_choice: Any,
    config: GenerateConfig,
  ) -> ModelOutput:
    """Returns what the grader says.

    Raises:
      UngradedError: it does not answer.
      UserError, Stopped: it cannot be asked.
    """
    if tools:
      raise UserError(
        "msm_jax_judge calls no tools: use another grader for this scorer"
      )
    verdict: Verdict = await self._answer(as_fields(input))
    found = hearing.get()
    if found is not None:
      found.verdicts.append(verdict)
    if verdict.status != OK:
      raise UngradedError(f"the grader did not answer: {verdict.reason}")
    output = ModelOutput.from_content(model=self.model_name, content=verdict.value)
    output.metadata = {
      "grader": dict(verdict.grader),
      "prompt_hash": verdict.prompt_hash,
    }
    return output


def as_fields(messages: Sequence[ChatMessage]) -> Fields:
  """Returns what goes into the places of the stage's prompt."""
  system = [one.text for one in messages if one.role == "system"]
  rest = [one for one in messages if one.role != "system"]
  talk = [one.text if len(rest) == 1 else f"{one.role}: {one.text}" for one in rest]
  return {"system": "\n\n".join(system), "prompt": "\n\n".join(talk)}


def text_of(answer: str) -> str | None:
  """Returns a grader's answer, None for an empty one; the scorer parses it."""
  return answer if answer.strip() else None


class Desk:
  """Answers from what is known, and notes what is not: the grader is asked later.

  So all that the scorers of an evaluation ask goes out together, and asking is nobody's
  business within Inspect's event loop.
  """

  def __init__(self):
    self._known: dict[tuple, Verdict] = {}
    self._open: dict[tuple, Fields] = {}

  async def answer(self, fields: Fields) -> Verdict:
    """Returns a verdict that is known.

    Raises:
      UngradedError: it is not yet; it has been noted.
    """
    key = tuple(sorted(fields.items()))
    if key not in self._known:
      self._open[key] = fields
      found = hearing.get()
      if found is not None:
        found.waits = True
      raise UngradedError("not asked yet")
    return self._known[key]

  def ask(self, grader: Grader) -> None:
    """Asks what was noted."""
    asked, self._open = self._open, {}
    assert asked, "a scorer waits for what nobody has asked"
    verdicts = grader.ask(STAGE, list(asked.values()), text_of)
    self._known |= dict(zip(asked, verdicts, strict=True))


_DESKS: dict[str, Desk] = {}
_numbers = itertools.count()  # Inspect keeps models by name: none is used twice


@contextlib.contextmanager
def at(desk: Desk) -> Iterator[str]:
  """Yields the name by which scorers ask at a desk."""
  name = f"desk{next(_numbers)}"
  _DESKS[name] = desk
  try:
    yield f"msm_jax_judge/{name}"
  finally:
    del _DESKS[name]


def desks() -> dict[str, Desk]:
  """Returns the desks that are open, by the names that `at` gave them."""
  return dict(_DESKS)


def asking(grader: Grader) -> Answer:
  """Returns a way to ask a grader from coroutines, in batches, each from a thread."""

  def work(batch: Sequence[Fields]) -> Iterator[tuple[int, Verdict]]:
    yield from enumerate(grader.ask(STAGE, batch, text_of))

  return collecting.Collector(work).ask


@dataclasses.dataclass(frozen=True)
class Stub:
  """A grader that reads nothing and says so; its verdict is always no."""

  text: str = (
    "<reasoning>This is the stub grader: it has read nothing and measures nothing."
    "</reasoning>\n<answer>no</answer>"
  )

  async def answer(self, fields: Fields) -> Verdict:
    """Returns the verdict."""
    del fields
    return Verdict(
      status=OK,
      value=self.text,
      text=self.text,
      reason="",
      grader={"client": "stub", "model": "none: a rehearsal", "model_version": ""},
      prompt_hash="",
    )
