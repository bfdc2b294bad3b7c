"""Held-out text: loss per token and bits per byte.

Bits per byte do not depend on the tokenizer: nats of a document / ln 2 / its bytes.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from msm_jax import chat, tokenise
from msm_jax.evals.exam import Exam
from msm_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldoutConfig:
  """Loss and bits per byte on a corpus; `max_items` of it, None for all."""

  corpus: str
  max_items: int | None
  seq_len: int
  batch_size: int


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per held-out record, all of its tokens scored."""
  items, seq_len = exam.items, exam.config.seq_len
  encode = tokenise.encode_record
  pieces = [encode(item, exam.tokenizer, train_on="all") for item in items]
  kept = [i for i, piece in enumerate(pieces) if 0 < piece.num_slots <= seq_len]
  sums = exam.log_probs(
    [pieces[i] for i in kept], seq_len=seq_len, batch_size=exam.config.batch_size
  )
  scored = dict(zip(kept, sums, strict=True))
  for i, item in enumerate(items):
    if i not in scored:  # never scored as anything
      missing = {"loss": None, "bits_per_byte": None}
      yield {"id": item["id"], "evaluation": exam.name, "scores": missing}
      continue
    log_prob, num_tokens = map(float, scored[i])
    num_bytes = len(_text(item, exam.tokenizer).encode("utf-8"))
    yield {
      "id": item["id"],
      "evaluation": exam.name,
      "scores": {
        "loss": -log_prob / num_tokens,
        "bits_per_byte": -log_prob / math.log(2) / num_bytes,
      },
      "weights": {"loss": num_tokens, "bits_per_byte": num_bytes},
    }


def _text(item: Mapping[str, Any], tokenizer: Tokenizer) -> str:
  if item["kind"] == "document":
    return item["text"]
  return chat.whole_text(tokenizer, item["messages"], tools=item.get("tools"))
