"""Models and graders that answer by a rule, for evaluations without weights."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from msm_jax import records, tokenizer
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import FAILED, OK, UNPARSED, Verdict
from msm_jax.evals.subject import STOP, Completion, Sampling
from msm_jax.evals.transcripts import Transcripts

TEMPLATE = (
  "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
  "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING = (
  "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>"
  "{% if m['reasoning_content'] %}<think>{{ m['reasoning_content'] }}</think>"
  "{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>"
  "{% if enable_thinking is defined and not enable_thinking %}<think></think>"
  "{% endif %}{% endif %}"
)
_SPECIAL = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def bytes_tokenizer(root: pathlib.Path, template: str | None = TEMPLATE):
  """Returns a tokenizer with a token per byte; it puts a BOS before every text."""
  root.mkdir(parents=True)
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  made = tokenizers.Tokenizer(models.BPE(vocab=_numbered(alphabet), merges=[]))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens(list(_SPECIAL))
  made.post_processor = processors.TemplateProcessing(
    single="<|bos|> $A", special_tokens=[("<|bos|>", made.token_to_id("<|bos|>"))]
  )
  made.save(str(root / "tokenizer.json"))
  config = {"bos_token": "<|bos|>", "eos_token": "<|end|>"}
  records.write_json(root / "tokenizer_config.json", config)
  if template is not None:
    (root / "chat_template.jinja").write_text(template)
  return tokenizer.load(root)


def _numbered(words: Sequence[str]) -> dict[str, int]:
  return {word: number for number, word in enumerate(words)}


class Speaker:
  """A model that says what `say(prompt, seed)` returns: a text or a Completion."""

  def __init__(self, tokenizer_: Any, say: Callable, context_len: int = 100_000):
    self.tokenizer = tokenizer_
    self.context_len = context_len
    self.asked: list[tuple[str, int, Sampling]] = []
    self.batches: list[int] = []
    self._say = say

  def complete(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int], sampling: Sampling
  ) -> Iterator[tuple[int, Completion]]:
    """See `Subject`; the last prompt is answered first."""
    self.batches.append(len(prompts))
    for i in reversed(range(len(prompts))):
      prompt = self.tokenizer.decode(prompts[i])
      self.asked.append((prompt, seeds[i], sampling))
      said = self._say(prompt, seeds[i])
      if isinstance(said, str):
        said = Completion(text=said, reasoning="", finish=STOP, num_tokens=len(said))
      yield i, said

  def nll(self, pieces, *, seq_len: int, batch_size: int) -> np.ndarray:
    """See `Subject`."""
    raise NotImplementedError


class Reader:
  """A grader that says what `say(stage, fields)` returns; None: it does not answer."""

  is_rehearsal = False

  def __init__(self, say: Callable[[str, Mapping[str, Any]], str | None]):
    self.asked: list[tuple[str, Mapping[str, Any]]] = []
    self.calls = 0
    self._say = say

  def ask(self, stage, fields, parse, *, schema=None, samples=None) -> list[Verdict]:
    """See `Grader`."""
    self.calls += 1
    self.asked += [(stage, one) for one in fields]
    return [self._verdict(self._say(stage, one), parse) for one in fields]

  def _verdict(self, text: str | None, parse) -> Verdict:
    value = None if text is None else parse(text)
    status = FAILED if text is None else UNPARSED if value is None else OK
    return Verdict(
      status=status,
      value=value,
      text=text or "",
      reason="" if status == OK else "down" if text is None else "unparsed",
      grader={"client": "stand-in", "model": "rule", "model_version": "1"},
      prompt_hash="0" * 16,
    )


def exam(root: pathlib.Path, config: Any, subject: Any, name: str = "agentic") -> Exam:
  """Returns an evaluation of a subject in a workdir; asked again, it goes on."""
  path = root / "evals" / "transcripts" / f"{name}.base.seed0.jsonl"
  path.parent.mkdir(parents=True, exist_ok=True)
  return Exam(
    name=name,
    config=config,
    items=[],
    subject=subject,
    transcripts=Transcripts(path, "same"),
    about={
      "study": "study",
      "arm": "base",
      "seed": 0,
      "step": 3,
      "identity": "0123456789abcdef",
    },
  )
