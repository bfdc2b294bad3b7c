"""Questions of one turn, each asked once or several times, under a system prompt.

Of a config: max_new_tokens, batch_size, temperature, sampling_seed, num_samples,
system_prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import chat
from msm_jax.errors import UserError
from msm_jax.evals.exam import Exam, Question
from msm_jax.evals.subject import Completion, Sampling
from msm_jax.tokenizer import Tokenizer

Item = Mapping[str, Any]


def check_samples(config: Any, where: str) -> None:
  """Raises a UserError for samples that would be the same answer several times."""
  if config.num_samples < 1:
    raise UserError(f"{where}.num_samples ({config.num_samples}) must be at least 1")
  if config.num_samples > 1 and config.temperature == 0:
    raise UserError(
      f"{where}.num_samples is {config.num_samples}, and at temperature 0 all samples "
      "are alike: set it to 1, or raise the temperature"
    )


def ask(
  exam: Exam, items: Sequence[Item]
) -> Iterator[tuple[Item, Question, Completion]]:
  """Yields what a model says to the `question` of every item, sample by sample."""
  config = exam.config
  system = system_turn(exam.tokenizer, config.system_prompt)
  asked = []
  for item in items:
    turn = {"role": "user", "content": item["question"]}
    for n in range(config.num_samples):
      asked.append((item, Question(id=f"{item['id']}#{n}", messages=[*system, turn])))
  sampling = Sampling(
    max_new_tokens=config.max_new_tokens,
    batch_size=config.batch_size,
    temperature=config.temperature,
    seed=config.sampling_seed,
  )
  completions = exam.complete([question for _, question in asked], sampling)
  for (item, question), completion in zip(asked, completions, strict=True):
    yield item, question, completion


def system_turn(
  tokenizer: Tokenizer, system_prompt: str | None
) -> list[dict[str, str]]:
  """Returns the turn that gives a model this system prompt.

  None leaves it to the template; '' is an empty turn where the template would write a
  prompt of its own, no turn where it would not.
  """
  if system_prompt is None:
    return []
  if not system_prompt and chat.default_system_prompt(tokenizer) is None:
    return []
  return [{"role": "system", "content": system_prompt}]
