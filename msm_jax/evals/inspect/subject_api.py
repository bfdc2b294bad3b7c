"""A model of ours for Inspect: `--model msm_jax/WORKDIR:ARM[:SEED][@STEP]`.

Nothing is exported: the checkpoint is read onto the study's mesh and asked by our own
sampler, in the batches that Inspect's coroutines add up to. The chat template is the
study's, with what it decided about reasoning; it writes its BOS itself.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
  ChatCompletionChoice,
  ChatMessage,
  ChatMessageAssistant,
  ContentReasoning,
  ContentText,
  GenerateConfig,
  ModelAPI,
  ModelOutput,
  ModelUsage,
)

from msm_jax import chat, records
from msm_jax.errors import UserError
from msm_jax.evals.exam import seed_of
from msm_jax.evals.inspect import collecting
from msm_jax.evals.subject import STOP, Completion, Sampling, Subject
from msm_jax.evals.transcripts import Transcripts

DEFAULT_MAX_TOKENS = 2048  # or what the context leaves, if that is less
_BATCH_SIZE = 16
# Each would change what is drawn, and our sampler has none of them.
_UNKNOWN = (
  "best_of",
  "frequency_penalty",
  "logit_bias",
  "logprobs",
  "num_choices",
  "presence_penalty",
  "prompt_logprobs",
  "reasoning_effort",
  "reasoning_tokens",
  "response_schema",
  "top_k",
  "top_logprobs",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
  """A model that a provider asks.

  Attributes:
    subject: the model.
    mesh: it lies on; None: none.
    about: which checkpoint it is; goes into the log with every answer.
    transcripts: what it said before; None: everything is asked.
    system_prompt: before every chat (see `chat.behind`); None for none.
  """

  subject: Subject
  mesh: Any
  about: Mapping[str, Any]
  transcripts: Transcripts | None = None
  system_prompt: str | None = None


@dataclasses.dataclass(frozen=True)
class _Request:
  id: str
  prompt: np.ndarray
  sampling: Sampling


class SubjectAPI(ModelAPI):
  """Completes chats with a model of a study."""

  def __init__(
    self,
    model_name: str,
    base_url: str | None = None,
    api_key: str | None = None,
    config: GenerateConfig = GenerateConfig(),  # noqa: B008 (as Inspect's are)
    *,
    open_: Callable[[str], Asked],
    batch_size: int = _BATCH_SIZE,
    **model_args: Any,
  ):
    """See `ModelAPI`; `open_` reads the model that a name means.

    Raises:
      UserError: an argument is not known, the model is not there, or its tokenizer has
        no chat template.
    """
    if base_url is not None or model_args:
      given = (
        "--model-base-url" if base_url is not None else f"-M {next(iter(model_args))}"
      )
      raise UserError(
        f"{given} means nothing to msm_jax models: it has -M batch_size=N"
      )
    super().__init__(model_name, config=config)
    self._batch_size = int(batch_size)
    if self._batch_size < 1:
      raise UserError(f"-M batch_size={batch_size}: at least 1")
    self._asked = open_(model_name)
    chat.stop_id(self._asked.subject.tokenizer)  # refuses one without a template
    self._kept = self._asked.transcripts
    self._collector = collecting.Collector(self._complete)
    self._counts: collections.Counter[str] = collections.Counter()

  def max_connections(self) -> int:
    """Returns how many requests Inspect may have open: more than fit a batch."""
    return 8 * self._batch_size

  def connection_key(self) -> str:
    """Returns what limits of open requests are kept by."""
    return f"msm_jax/{self.model_name}"

  async def count_text_tokens(self, text: str) -> int:
    """Returns how many tokens a text has, by the model's tokenizer."""
    return len(self._asked.subject.tokenizer.encode(text).ids)

  async def generate(
    self,
    input: list[ChatMessage],
    tools: list,
    tool_choice: Any,
    config: GenerateConfig,
  ) -> ModelOutput:
    """Returns the completion of a chat; see `ModelAPI`.

    Raises:
      UserError: tools, a setting that we do not have, or too long for the context.
    """
    request = self._request(input, tools, tool_choice, config)
    completion: Completion = await self._collector.ask(request)
    return _output(
      completion,
      model=f"msm_jax/{self.model_name}",
      num_input_tokens=len(request.prompt),
      stops=config.stop_seqs or (),
      metadata={"checkpoint": dict(self._asked.about), "request": request.id},
    )

  def _request(self, input, tools, tool_choice, config: GenerateConfig) -> _Request:
    if tools and tool_choice != "none":
      raise UserError(
        f"msm_jax/{self.model_name} calls no tools ({tools[0].name}): use a task that "
        "has them written as text, or an export with Inspect's vllm provider"
      )
    unknown = [name for name in _UNKNOWN if getattr(config, name, None) is not None]
    if unknown:
      raise UserError(
        f"msm_jax/{self.model_name} has no {unknown[0]}: it has temperature, top_p, "
        "max_tokens, stop_seqs and seed; leave it out"
      )
    subject = self._asked.subject
    messages = [_message(one) for one in input]
    asked = chat.behind(self._asked.system_prompt, messages)
    prompt = chat.encode_prompt(subject.tokenizer, asked)
    sampling = Sampling(
      max_new_tokens=self._room(len(prompt), config.max_tokens),
      batch_size=self._batch_size,
      temperature=1.0 if config.temperature is None else config.temperature,
      top_p=1.0 if config.top_p is None else config.top_p,
      seed=config.seed or 0,
    )
    return _Request(self._id(prompt), prompt, sampling)

  def _room(self, num_tokens: int, wanted: int | None) -> int:
    """Returns how many tokens may be drawn after a prompt."""
    context = self._asked.subject.context_len
    left = context - num_tokens
    if left < (wanted or 1):
      raise UserError(
        f"a prompt of {num_tokens} tokens"
        + (f" and --max-tokens {wanted}" if wanted else "")
        + f" do not fit the context of {context} of msm_jax/{self.model_name}: nothing "
        "is cut; lower --max-tokens, or use another model"
      )
    return wanted or min(left, DEFAULT_MAX_TOKENS)

  def _id(self, prompt: np.ndarray) -> str:
    """Returns what decides the randomness of a request: the same in every run.

    That is sample and epoch, the prompt, and how often it was asked before.
    """
    active = sample_active()
    whose = "" if active is None else f"{active.sample.id}.{active.epoch}."
    name = whose + records.sha256_json(prompt.tolist())[:8]
    self._counts[name] += 1
    return name if self._counts[name] == 1 else f"{name}.{self._counts[name]}"

  def _complete(self, requests: Sequence[_Request]) -> Iterator[tuple[int, Completion]]:
    """Yields (number, completion) of a batch; in a thread of its own."""
    open_ = []
    for i, request in enumerate(requests):
      found = self._kept and self._kept.get(request.id, _key(request))
      if found:
        yield i, found
      else:
        open_.append(i)
    try:
      yield from self._complete_new(requests, open_)
    finally:
      if self._kept:
        self._kept.flush()

  def _complete_new(
    self, requests: Sequence[_Request], open_: Sequence[int]
  ) -> Iterator[tuple[int, Completion]]:
    """Yields (number, completion) of those that nobody has asked before."""
    alike: dict[Sampling, list[int]] = {}
    for i in open_:
      alike.setdefault(requests[i].sampling, []).append(i)
    for sampling, numbers in alike.items():
      seeds = [seed_of(requests[i].id, sampling.seed) for i in numbers]
      prompts = [requests[i].prompt for i in numbers]
      with jax.set_mesh(self._asked.mesh):
        for n, completion in self._asked.subject.complete(prompts, seeds, sampling):
          request = requests[numbers[n]]
          if self._kept:
            self._kept.add(request.id, _key(request), completion)
          yield numbers[n], completion


def _key(request: _Request) -> Any:
  settings = dataclasses.asdict(request.sampling) | {"batch_size": None}
  return [request.prompt.tolist(), settings]


def _message(message: ChatMessage) -> dict[str, Any]:
  """Returns a message as our templates take it; anything but text is refused."""
  content = message.content
  if not isinstance(content, str):
    others = [part.type for part in content if part.type not in ("text", "reasoning")]
    if others:
      raise UserError(f"msm_jax models read text, not {others[0]}: use another task")
    content = message.text
  found = {"role": message.role, "content": content}
  reasoning = [
    part.reasoning
    for part in (message.content if not isinstance(message.content, str) else ())
    if part.type == "reasoning"
  ]
  return found | ({"reasoning_content": "\n".join(reasoning)} if reasoning else {})


def _output(
  completion: Completion,
  *,
  model: str,
  num_input_tokens: int,
  stops: Sequence[str],
  metadata: Mapping[str, Any],
) -> ModelOutput:
  """Returns a completion as Inspect has it, cut at the first of `stops`."""
  text, reason = completion.text, "stop" if completion.finish == STOP else "max_tokens"
  cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
  if cuts:
    text, reason = text[: min(cuts)], "stop"
  content: Any = text
  if completion.reasoning:
    content = [ContentReasoning(reasoning=completion.reasoning), ContentText(text=text)]
  message = ChatMessageAssistant(content=content, model=model, source="generate")
  return ModelOutput(
    model=model,
    choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
    usage=ModelUsage(
      input_tokens=num_input_tokens,
      output_tokens=completion.num_tokens,
      total_tokens=num_input_tokens + completion.num_tokens,
    ),
    metadata=dict(metadata),
  )
