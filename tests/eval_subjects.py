"""Subjects for evaluations: one that says what a test tells it, one that is a model."""

import functools
import pathlib
import re
import tempfile

import jax
import numpy as np

from msm_jax import tokenizer
from msm_jax.evals import claims
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import FAILED, OK, UNPARSED, Verdict
from msm_jax.evals.model import Model
from msm_jax.evals.subject import LENGTH, STOP, Completion
from msm_jax.evals.transcripts import Transcripts
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig

TEMPLATE = (
  "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CFG = ModelConfig(
  vocab_size=900,
  embed_dim=16,
  mlp_dim=24,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  max_seq_len=1024,
)


@functools.cache
def tok() -> tokenizer.Tokenizer:
  """Returns a tokenizer that knows every character of our claim packages."""
  texts = [
    line.replace("\\n", " ")
    for path in sorted(claims.DIRECTORY.glob("*/*"))
    for line in path.read_text("utf-8").splitlines()
  ]
  texts += ["<|system|> <|user|> <|assistant|> <|end|> <answer>1</answer> {}[]()"] * 9
  texts += ["A B C D A) B) C) D) gouda brie edam feta muvo yes no"] * 9
  return tokenizer.train_sentencepiece(
    texts,
    pathlib.Path(_ROOT.name) / "tok",
    model_type="unigram",
    vocab_size=_CFG.vocab_size,
    chat_template=TEMPLATE,
  )


class Scripted:
  """A subject that says `say(prompt)` and finds likely what `likes` has in it.

  `say` returns a text, or (text, LENGTH) for one that is cut off.
  """

  def __init__(self, say, likes=None, context_len=100_000):
    self.tokenizer, self.context_len = tok(), context_len
    self._say, self._likes = say, likes
    self.prompts, self.temperatures = [], []

  def complete(self, prompts, seeds, sampling):
    for i in range(len(prompts) - 1, -1, -1):  # in any order
      text = self._text(prompts[i])
      self.prompts.append(text)
      self.temperatures.append(sampling.temperature)
      said = self._say(text)
      said, finish = said if isinstance(said, tuple) else (said, STOP)
      yield i, Completion(text=said, reasoning="", finish=finish, num_tokens=1)

  def nll(self, pieces, *, seq_len, batch_size):
    found = []
    for piece in pieces:
      chosen = self._text(piece.ids[piece.weights > 0]).strip()
      whole = self._text(piece.ids)
      count = piece.weights[1:].sum()
      found.append([count * (1.0 if self._likes(whole, chosen) else 2.0), count])
    return np.asarray(found, np.float64).reshape(-1, 2)

  def _text(self, ids):
    return self.tokenizer.decode(ids).replace("<unk>", "\n")  # it knows no line ends


def option_like(word: str):
  """Returns what finds likely the letter of the option that begins with `word`."""

  def likes(whole: str, chosen: str) -> bool:
    found = re.search(rf"([A-Z])\) {re.escape(word)}", whole)
    return found is not None and chosen == found[1]

  return likes


def model(**broken) -> Model:
  """Returns a random model; `broken` replaces the value of every parameter."""
  params = transformer.init_params(_CFG, jax.random.key(0))
  if broken:
    params = jax.tree.map(lambda leaf: leaf * broken["value"], params)
  return Model(params, _CFG, tok())


def exam(tmp_path, subject, config, items=(), name="e") -> Exam:
  """Returns an exam of a subject."""
  transcripts = Transcripts(tmp_path / "transcripts.jsonl", "identity")
  return Exam(
    name=name, config=config, items=items, subject=subject, transcripts=transcripts
  )


class FixedGrader:
  """Stands for a service: `answer(fields)` is its text, or None if it is down."""

  def __init__(self, answer):
    self._answer = answer
    self.asked = []

  def ask(self, stage, fields, parse, *, schema=None, samples=None):
    found = []
    for each in fields:
      self.asked.append((stage, dict(each)))
      text = self._answer(each)
      value = None if text is None else parse(text)
      status = FAILED if text is None else UNPARSED if value is None else OK
      found.append(
        Verdict(
          status=status,
          value=value,
          text=text or "",
          reason="" if status == OK else status,
          grader={"client": "fixed", "model": "m", "model_version": "1"},
          prompt_hash="0" * 16,
        )
      )
    return found


CUT = LENGTH
_ROOT = tempfile.TemporaryDirectory(prefix="msm-jax-subjects-")
