"""One evaluation of one model: what a kind of evaluation has at hand."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import chat, records
from msm_jax.errors import UserError
from msm_jax.evals.subject import Completion, Sampling, Subject
from msm_jax.evals.transcripts import Transcripts
from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """What a model is to go on with: a conversation, or plain text.

  Attributes:
    id: unique in an evaluation; two samples of one prompt have two ids.
    messages: ends with a user's turn.
    text: instead of `messages`, for models or questions without a template.
  """

  id: str
  messages: Sequence[Mapping[str, Any]] = ()
  text: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exam:
  """An evaluation of a model.

  Attributes:
    name: the evaluation's, in config.evals.
    config: of its kind.
    items: the records of `config.corpus`; none for kinds without one.
    subject: who is asked.
    transcripts: what was answered already.
    about: study, arm, seed, step and identity of who is asked.
    system_prompt: of config.asked: stands before every conversation that is asked (see
      `chat.behind`); None for none. Plain text stands alone.
    differs_in_text: whether the answers to plain text are this subject's own, and not
      once more those of the arm that it is asked differently of.
    export: writes the subject as a Hugging Face directory, for those who ask it
      through another program.
  """

  name: str
  config: Any
  items: Sequence[Mapping[str, Any]]
  subject: Subject
  transcripts: Transcripts
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  export: Callable[[pathlib.Path], None] | None = None
  system_prompt: str | None = None
  differs_in_text: bool = True

  @property
  def tokenizer(self) -> Tokenizer:
    """The subject's tokenizer."""
    return self.subject.tokenizer

  def complete(
    self, questions: Sequence[Question], sampling: Sampling
  ) -> list[Completion]:
    """Returns a completion for every question, in order; each is asked once only.

    Raises:
      UserError: two questions have the same id, or one does not fit the context.
    """
    self._check_ids(questions)
    prompts = [self._ids(question) for question in questions]
    self._check_lengths(questions, prompts, sampling)
    keys = [
      [prompt.tolist(), dataclasses.asdict(sampling) | {"batch_size": None}]
      for prompt in prompts
    ]
    pairs = list(zip(questions, keys, strict=True))
    found = [self.transcripts.get(each.id, key) for each, key in pairs]
    open_ = [i for i, completion in enumerate(found) if completion is None]
    seeds = [seed_of(questions[i].id, sampling.seed) for i in open_]
    asked = self.subject.complete([prompts[i] for i in open_], seeds, sampling)
    try:
      for number, completion in asked:
        i = open_[number]
        self.transcripts.add(questions[i].id, keys[i], completion)
        found[i] = completion
    finally:
      self.transcripts.flush()
    return found

  def answer_piece(
    self, messages: Sequence[Mapping[str, Any]], answer: str, begun: int = 0
  ) -> Piece:
    """Returns a conversation with an answer, of which the answer's own tokens count.

    Its first `begun` characters are given, and do not count.
    """
    asked = chat.behind(self.system_prompt, messages)
    ids, mask = chat.encode_answer(self.tokenizer, asked, answer, begun=begun)
    return Piece(ids, mask.astype(np.float32))

  def log_probs(
    self, pieces: Sequence[Piece], *, seq_len: int, batch_size: int
  ) -> np.ndarray:
    """Returns float64 [len(pieces), 2]: (sum of weighted log p, sum of weights).

    Raises:
      UserError: a piece is longer than `seq_len`, or the model gives no number.
    """
    longest = max((piece.num_slots for piece in pieces), default=0)
    if longest > seq_len:
      raise UserError(
        f"config.evals.{self.name}.seq_len is {seq_len}, and a prompt with its answer "
        f"has {longest} tokens{self._before()}: raise it"
      )
    if self.system_prompt is not None and longest > self.subject.context_len:
      raise UserError(
        f"config.evals.{self.name}: a prompt with its answer has {longest} tokens"
        f"{self._before()}, and the model's context is {self.subject.context_len}: "
        "shorten it"
      )
    sums = self.subject.nll(pieces, seq_len=seq_len, batch_size=batch_size)
    if not np.isfinite(sums).all():
      raise UserError(
        f"config.evals.{self.name}: the model's log-probs are not finite for "
        f"{int((~np.isfinite(sums).all(axis=1)).sum())} of {len(pieces)} continuations;"
        " nothing was scored: look at its training loss, or use dtype='float32'"
      )
    return sums * [-1.0, 1.0]

  def _ids(self, question: Question) -> np.ndarray:
    if question.text is None:
      asked = chat.behind(self.system_prompt, question.messages)
      return chat.encode_prompt(self.tokenizer, asked)
    bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
    return np.asarray([*bos, *self.tokenizer.encode(question.text).ids], np.int32)

  def _before(self) -> str:
    """Returns what is said of the length of a system prompt."""
    if self.system_prompt is None:
      return ""
    count = len(self.tokenizer.encode(self.system_prompt).ids)
    where = f"config.asked.{self.about.get('arm')}.system_prompt"
    return f" ({count} of them are {where})"

  def _check_ids(self, questions: Sequence[Question]) -> None:
    seen = set()
    for question in questions:
      if question.id in seen:
        raise UserError(
          f"config.evals.{self.name} asks {question.id!r} twice: ids must be unique"
        )
      seen.add(question.id)

  def _check_lengths(self, questions, prompts, sampling: Sampling) -> None:
    limit = self.subject.context_len - sampling.max_new_tokens
    for question, prompt in zip(questions, prompts, strict=True):
      if len(prompt) > limit:
        raise UserError(
          f"config.evals.{self.name}: {question.id!r} has {len(prompt)} tokens"
          f"{self._before()}, and with max_new_tokens {sampling.max_new_tokens} the "
          f"model's context of {self.subject.context_len} leaves room for {limit}: "
          "shorten it or lower max_new_tokens"
        )


def seed_of(name: str, seed: int) -> int:
  """Returns the seed of a question, uint32: of its id and the evaluation's seed."""
  return int(records.sha256_json([name, seed])[:8], 16)
