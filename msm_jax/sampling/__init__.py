"""Completions of prompts: prompts are read, then all rows go on token by token.

A fixed number of rows is at work; one that finishes is given the next prompt. What a
request is answered depends on its prompt and its seed alone: not on the batch, the row
or the order.

Parameters lie as they do in training: whole or divided on a mesh (`jax.set_mesh`), the
base quantised or not, adapters beside it. Several adapters on one base are one program.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import chat, sharding
from msm_jax.errors import UserError
from msm_jax.models import attention, decoding
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.sampling.drawing import How
from msm_jax.sampling.programs import Program, Settings
from msm_jax.sampling.slots import Batch, Request, Sampled
from msm_jax.tokenizer import Tokenizer

__all__ = [
  "MemberSampled",
  "Sampled",
  "Sampler",
  "SamplingConfig",
  "complete",
  "complete_population",
  "complete_texts",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """How completions are drawn.

  Attributes:
    max_new_tokens: of a completion, its stop id among them.
    stop_ids: end a completion.
    temperature: 0 is greedy.
    top_p: probability of the tokens that are drawn from, 1 for all.
    batch_size: rows that are at work at once.
    seed: of the seeds of requests that have none of their own.
  """

  max_new_tokens: int
  stop_ids: tuple[int, ...]
  temperature: float = 0.0
  top_p: float = 1.0
  batch_size: int = 64
  seed: int = 0

  def __post_init__(self):
    if self.max_new_tokens < 1 or self.batch_size < 1:
      raise UserError(
        f"max_new_tokens ({self.max_new_tokens}) and batch_size ({self.batch_size}) "
        "must be at least 1"
      )
    if not 0 <= self.temperature < float("inf"):
      raise UserError(
        f"temperature is {self.temperature}: it must be 0 (greedy) or positive"
      )
    if not 0 < self.top_p <= 1:
      raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1")


class MemberSampled(NamedTuple):
  """Which member of a population said what to which prompt."""

  member: int
  number: int
  sampled: Sampled


class Sampler:
  """A model that is ready to be asked; asked within `jax.set_mesh` if it is on one.

  Args:
    params: the base, with adapters of one model beside it or not.
    cfg: the model.
    adapters: of the members of a population on this base, all of one shape.
    unstack: whether layers are arrays of their own; None: as the platform wants it.
  """

  def __init__(
    self,
    params: Params,
    cfg: ModelConfig,
    adapters: Sequence[Params] | None = None,
    *,
    unstack: bool | None = None,
  ):
    self.cfg = cfg
    self._platform = _platform(params)
    unstack = self._platform == "cpu" if unstack is None else unstack
    base = decoding.prepare(params, cfg, unstack=unstack)
    self._num_members = None if adapters is None else len(adapters)
    joined: Params = {}
    if adapters is not None:
      each = [decoding.prepare(adapter, cfg, unstack=unstack) for adapter in adapters]
      joined = _stacked(*each)
    self._params = base, joined

  def complete(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int], config: SamplingConfig
  ) -> Iterator[tuple[int, Sampled]]:
    """Yields (number of the prompt, its completion) in the order in which they end.

    Args:
      prompts: int32 ids each.
      seeds: one for each, uint32.
      config: its `seed` is not looked at.

    Raises:
      UserError: a prompt is empty or does not fit the context with its completion, or
        the model's logits are no numbers.
    """
    assert self._num_members is None
    for found in self._complete(prompts, [seeds], config):
      yield found.number, found.sampled

  def complete_members(
    self,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[Sequence[int]],
    config: SamplingConfig,
  ) -> Iterator[MemberSampled]:
    """Yields what each member of the population says; `seeds` for each member."""
    assert self._num_members == len(seeds)
    return self._complete(prompts, seeds, config)

  def _complete(self, prompts, seeds, config) -> Iterator[MemberSampled]:
    self._check(prompts, config)
    if not prompts:
      return
    requests = [
      Request(member, number, np.asarray(prompt, np.int32), int(seed))
      for member, own in enumerate(seeds)
      for number, (prompt, seed) in enumerate(zip(prompts, own, strict=True))
    ]
    for request, sampled in self._batch(config, max(map(len, prompts))).run(requests):
      yield MemberSampled(request.member, request.number, sampled)

  def _batch(self, config: SamplingConfig, longest: int) -> Batch:
    has_members = self._num_members is not None
    # Prompts come in many widths, which only these two take on every platform.
    backend = "dense" if longest <= attention.SHORT else "blocked"
    program = Program(
      cfg=self.cfg,
      how=How(is_greedy=config.temperature == 0, has_nucleus=config.top_p < 1),
      attention=backend,
      has_members=has_members,
    )
    settings = Settings(
      temperature=np.float32(config.temperature),
      top_p=np.float32(config.top_p),
      stop_ids=np.asarray(config.stop_ids or (-1,), np.int32),
    )
    shards = _num_batch_shards()
    return Batch(
      params=self._params,
      program=program,
      settings=settings,
      num_members=self._num_members or 1,
      num_rows=-(-config.batch_size // shards) * shards,
      max_new_tokens=config.max_new_tokens,
    )

  def _check(self, prompts, config: SamplingConfig) -> None:
    limit = self.cfg.max_seq_len - config.max_new_tokens
    for number, prompt in enumerate(prompts):
      if not len(prompt):
        raise UserError(f"prompt {number} is empty: a model goes on from a token")
      if len(prompt) > limit:
        raise UserError(
          f"prompt {number} of {len(prompt)} tokens and max_new_tokens "
          f"{config.max_new_tokens} do not fit the model's context of "
          f"{self.cfg.max_seq_len}: shorten the prompt or lower max_new_tokens"
        )


def complete(
  params: Params,
  cfg: ModelConfig,
  prompts: Sequence[np.ndarray],
  config: SamplingConfig,
) -> list[np.ndarray]:
  """Returns a completion (int32 ids) for every prompt (int32 ids), in order.

  The seed of a prompt follows from its number and `config.seed`.

  Raises:
    UserError: see `Sampler.complete`.
  """
  seeds = _seeds(config.seed, len(prompts))
  found = dict(Sampler(params, cfg).complete(prompts, seeds, config))
  return [found[number].ids for number in range(len(prompts))]


def complete_population(
  base: Params,
  adapters: Sequence[Params],
  cfg: ModelConfig,
  prompts: Sequence[np.ndarray],
  seeds: Sequence[Sequence[int]],
  config: SamplingConfig,
) -> Iterator[MemberSampled]:
  """Yields what every adapter on a base says to the prompts, asked as one program.

  Each says what it would alone. See `Sampler`.
  """
  yield from Sampler(base, cfg, adapters).complete_members(prompts, seeds, config)


def complete_texts(
  params: Params,
  cfg: ModelConfig,
  tok: Tokenizer,
  prompts: Sequence[str],
  *,
  raw: bool,
  temperature: float,
  max_new_tokens: int,
  system_prompt: str | None = None,
) -> list[str]:
  """Returns the completions of user turns, or of plain text (`raw`).

  A completion ends with the tokenizer's end token, or with the one that closes an
  answer in its chat template. A system prompt stands before user turns.

  Raises:
    UserError: a system prompt and plain text.
  """
  if raw and system_prompt is not None:
    raise UserError(
      "--raw: this arm is asked behind a system prompt, which has no place before "
      "plain text: leave --raw out, or sample the arm that it is of"
    )
  bos = [] if tok.bos_id is None else [tok.bos_id]
  ids = []
  for prompt in prompts:
    if raw:
      ids.append(np.asarray([*bos, *tok.encode(prompt).ids], np.int32))
    else:
      turn = {"role": "user", "content": prompt}
      ids.append(chat.encode_prompt(tok, chat.behind(system_prompt, [turn])))
  stops = (tok.eos_id,) if raw else (tok.eos_id, chat.stop_id(tok))
  config = SamplingConfig(
    max_new_tokens=max_new_tokens,
    stop_ids=tuple(dict.fromkeys(stops)),
    temperature=temperature,
    batch_size=len(prompts),
  )
  return [tok.decode(done).strip() for done in complete(params, cfg, ids, config)]


def _seeds(seed: int, count: int) -> list[int]:
  """Returns a seed for each of `count` numbers, whatever the count."""
  return [
    int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    for number in range(count)
  ]


@jax.jit
def _stacked(*adapters: Params) -> Params:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)


def _platform(params: Params) -> str:
  for leaf in jax.tree.leaves(params):
    if isinstance(leaf, jax.Array):
      return next(iter(leaf.sharding.device_set)).platform
  return jax.default_backend()


def _num_batch_shards() -> int:
  sizes = sharding.mesh_shape()
  if sizes is None:
    return 1
  return int(np.prod([sizes[axis] for axis in sharding.axes_of("batch")]))
