"""What evaluations ask: a model that completes prompts and scores continuations."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer

STOP, LENGTH = "stop", "length"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How completions are drawn; `temperature` 0 is greedy.

  Attributes:
    max_new_tokens: of a completion, reasoning included.
    temperature, top_p: of the distribution that is drawn from.
    seed: with the id of a question it decides all randomness of its completion.
    batch_size: prompts that are completed at once.
  """

  max_new_tokens: int
  batch_size: int
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
  """What a model said.

  Attributes:
    text: its answer, without reasoning.
    reasoning: what it thought before, "" where its template knows no reasoning.
    finish: STOP, or LENGTH where it was cut off.
    num_tokens: all that were drawn, the stop token left out.
  """

  text: str
  reasoning: str
  finish: str
  num_tokens: int


class Subject(Protocol):
  """A model.

  Attributes:
    tokenizer: its tokenizer, with its chat template.
    context_len: how long prompt and completion may be together, in tokens.
  """

  tokenizer: Tokenizer
  context_len: int

  def complete(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int], sampling: Sampling
  ) -> Iterator[tuple[int, Completion]]:
    """Yields (number of the prompt, its completion) in the order in which they end.

    Args:
      prompts: int32 ids each.
      seeds: one for each; same prompt and seed, same completion, whatever the others.
      sampling: its seed is in `seeds` already.
    """
    ...

  def nll(
    self, pieces: Sequence[Piece], *, seq_len: int, batch_size: int
  ) -> np.ndarray:
    """Returns float64 [len(pieces), 2]: (sum of weighted -log p, sum of weights)."""
    ...

  def states(
    self, pieces: Sequence[Piece], *, depth: float, seq_len: int, batch_size: int
  ) -> np.ndarray:
    """Returns float64 [len(pieces), D]: what it holds at the last token but one.

    States are those behind `depth` of its layers (1: all), each of rms 1.
    """
    ...
