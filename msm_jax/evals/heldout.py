"""Held-out text: loss per token and bits per byte.

Bits per byte do not depend on the tokenizer: nats of a document / ln 2 / its bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import chat, tokenise
from msm_jax.evals import scoring
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.tokenizer import Tokenizer


def evaluate(
  params: Params,
  cfg: ModelConfig,
  tokenizer: Tokenizer,
  items: Sequence[Mapping[str, Any]],
  *,
  evaluation: str,
  seq_len: int,
  batch_size: int,
) -> Iterator[dict[str, Any]]:
  """Yields one line per held-out record, all of its tokens scored."""
  pieces = [tokenise.encode_record(item, tokenizer, train_on="all") for item in items]
  kept = [i for i, piece in enumerate(pieces) if 0 < piece.num_slots <= seq_len]
  sums = scoring.piece_nll(
    params, cfg, [pieces[i] for i in kept], seq_len=seq_len, batch_size=batch_size
  )
  scored = dict(zip(kept, sums, strict=True))
  for i, item in enumerate(items):
    if i not in scored:  # never scored as anything
      missing = {"loss": None, "bits_per_byte": None}
      yield {"id": item["id"], "evaluation": evaluation, "scores": missing}
      continue
    nll, num_tokens = map(float, scored[i])
    num_bytes = len(_text(item, tokenizer).encode("utf-8"))
    yield {
      "id": item["id"],
      "evaluation": evaluation,
      "scores": {
        "loss": nll / num_tokens,
        "bits_per_byte": nll / math.log(2) / num_bytes,
      },
      "weights": {"loss": num_tokens, "bits_per_byte": num_bytes},
    }


def _text(item: Mapping[str, Any], tokenizer: Tokenizer) -> str:
  if item["kind"] == "document":
    return item["text"]
  return chat.whole_text(tokenizer, item["messages"], tools=item.get("tools"))
