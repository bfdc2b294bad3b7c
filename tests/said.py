"""A model that says what a test has it say, with a tokenizer of single bytes."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tokenizers

from msm_jax import records, tokenizer
from msm_jax.evals.exam import Exam
from msm_jax.evals.kinds import KINDS
from msm_jax.evals.subject import STOP, Completion
from msm_jax.evals.transcripts import Transcripts

# Writes a system prompt of its own where the conversation has none.
TEMPLATE = (
  "{% if messages[0]['role'] != 'system' %}<|system|>You are Tilly.<|end|>{% endif %}"
  "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(
  directory: pathlib.Path, template: str | None = TEMPLATE
) -> tokenizer.Tokenizer:
  """Writes and returns a tokenizer with one token for each byte."""
  letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  marks = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
  vocab = {token: i for i, token in enumerate(["</s>", *marks, *letters])}
  inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
  inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = tokenizers.decoders.ByteLevel()
  inner.add_special_tokens(["</s>", *marks])
  directory.mkdir(parents=True, exist_ok=True)
  inner.save(str(directory / "tokenizer.json"))
  config = {"eos_token": "</s>", "clean_up_tokenization_spaces": False}
  if template is not None:
    config["chat_template"] = template
  records.write_json(directory / "tokenizer_config.json", config)
  return tokenizer.load(directory)


def completion(text: str, finish: str = STOP) -> Completion:
  """Returns an answer."""
  return Completion(text=text, reasoning="", finish=finish, num_tokens=len(text))


@dataclasses.dataclass
class Said:
  """A subject.

  Attributes:
    tokenizer: of single bytes.
    answer: the whole prompt -> what is said.
    log_prob: (context, continuation) -> log p of the continuation.
    asked: every prompt that was completed.
  """

  tokenizer: tokenizer.Tokenizer
  answer: Callable[[str], Completion] | None = None
  log_prob: Callable[[str, str], float] | None = None
  context_len: int = 4096
  asked: list[str] = dataclasses.field(default_factory=list)

  def complete(self, prompts, seeds, sampling):
    """See `Subject`."""
    for i, prompt in enumerate(prompts):
      text = self.tokenizer.decode(prompt)
      self.asked.append(text)
      yield i, self.answer(text)

  def nll(self, pieces: Sequence, *, seq_len: int, batch_size: int) -> np.ndarray:
    """See `Subject`."""
    found = []
    for piece in pieces:
      start = int(np.flatnonzero(piece.weights)[0])
      context, continuation = map(
        self.tokenizer.decode, (piece.ids[:start], piece.ids[piece.weights > 0])
      )
      log_prob = self.log_prob(context, continuation)
      found.append((-log_prob, piece.weights[1:].sum()))
    return np.asarray(found, np.float64).reshape(-1, 2)


def exam(tmp_path, kind: str, subject: Said, items=(), /, **config) -> Exam:
  """Returns an exam named `eval` of a kind with this config."""
  return Exam(
    name="eval",
    config=KINDS[kind].config(**config),
    items=items,
    subject=subject,
    transcripts=Transcripts(tmp_path / "transcripts.jsonl", "id"),
  )


def ask(tmp_path, kind: str, subject: Said, items=(), /, **config) -> list[dict]:
  """Returns what a kind yields for a model."""
  return list(KINDS[kind].ask(exam(tmp_path, kind, subject, items, **config)))
