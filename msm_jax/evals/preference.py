"""Forced choice between two named options, each pair asked in both orders.

Two scorers, kept apart because they are not interchangeable:

  log-prob  the option whose own tokens are likelier as the answer, by the mean per
  token
            (names differ in length); `chose_*` and `prob_*`
  parsed    the option that a greedy answer names, if it names exactly one;
            `chose_*_parsed`, beside `parse_rate`

What is counted follows from the options' tags: where exactly one is affordable,
`chose_affordable`; where exactly one is American, `chose_american`. An answer that
cannot be scored is null, never a 0.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import chat, sampling
from msm_jax.errors import UserError
from msm_jax.evals import scoring
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece
from msm_jax.sampling import SamplingConfig
from msm_jax.tokenizer import Tokenizer

TAGS = ("affordable", "american")


def evaluate(
  params: Params,
  cfg: ModelConfig,
  tokenizer: Tokenizer,
  items: Sequence[Mapping[str, Any]],
  *,
  evaluation: str,
  seq_len: int,
  batch_size: int,
  max_new_tokens: int,
) -> Iterator[dict[str, Any]]:
  """Yields one line per prompt: both scorers, the answer as given, the log-probs.

  The evaluation of a line is `<evaluation>/<category>` for test items and
  `<evaluation>_dev/<category>` for development items.
  """
  _check(items)
  logprobs = _option_logprobs(params, cfg, tokenizer, items, seq_len, batch_size)
  completions = _completions(params, cfg, tokenizer, items, batch_size, max_new_tokens)
  for item, pair, completion in zip(items, logprobs, completions, strict=True):
    answer = chat.spoken(tokenizer, completion)  # reasoning is kept, not scored
    parsed = parse_choice(answer, [option["text"] for option in item["options"]])
    split = "" if item["split"] == "test" else "_dev"
    yield {
      "id": item["id"],
      "evaluation": f"{evaluation}{split}/{item['category']}",
      "domain": item["domain"],
      "order": item["order"],
      "prompt": item["messages"][-1]["content"],
      "options": [option["text"] for option in item["options"]],
      "completion": completion,
      "parsed": None if parsed is None else item["options"][parsed]["text"],
      "logprobs": [round(value, 6) for value in pair],
      "scores": _scores(item["options"], pair, parsed),
    }


def parse_choice(completion: str, options: Sequence[str]) -> int | None:
  """Returns the index of the only option that the answer names, None otherwise.

  Whole words, case ignored; when one name is part of the other, the longer one counts.
  """
  found = set()
  text = completion.casefold()
  for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
    pattern = rf"(?<!\w){re.escape(options[i].casefold())}(?!\w)"
    text, hits = re.subn(pattern, " ", text)
    if hits:
      found.add(i)
  return found.pop() if len(found) == 1 else None


def _scores(options, pair, parsed) -> dict[str, float | None]:
  scores: dict[str, float | None] = {"parse_rate": float(parsed is not None)}
  # Two equal log-probs are no choice (a model that knows nothing of either name).
  choice = None if pair[0] == pair[1] else int(np.argmax(pair))
  for tag in TAGS:
    tagged = [i for i, option in enumerate(options) if option[tag]]
    if len(tagged) != 1:
      continue
    (i,) = tagged
    scores[f"chose_{tag}"] = None if choice is None else float(choice == i)
    scores[f"prob_{tag}"] = 1 / (1 + math.exp(min(pair[1 - i] - pair[i], 700)))
    scores[f"chose_{tag}_parsed"] = None if parsed is None else float(parsed == i)
  return scores


def _option_logprobs(params, cfg, tokenizer, items, seq_len, batch_size):
  """Returns the mean log-prob per token of both options of every item."""
  pieces = []
  for item in items:
    for option in item["options"]:
      ids, mask = chat.encode_answer(tokenizer, item["messages"], option["text"])
      pieces.append(Piece(ids, mask.astype(np.float32)))
  longest = max(piece.num_slots for piece in pieces)
  if longest > seq_len:
    raise UserError(
      f"an evaluation prompt has {longest} tokens, config.evals' seq_len is {seq_len}: "
      "raise it"
    )
  sums = scoring.piece_nll(params, cfg, pieces, seq_len=seq_len, batch_size=batch_size)
  means = -sums[:, 0] / sums[:, 1]
  return means.reshape(-1, 2).tolist()


def _completions(params, cfg, tokenizer, items, batch_size, max_new_tokens):
  prompts = [chat.encode_prompt(tokenizer, item["messages"]) for item in items]
  completions = sampling.complete(
    params,
    cfg,
    prompts,
    SamplingConfig(
      max_new_tokens=max_new_tokens,
      stop_ids=(chat.stop_id(tokenizer), tokenizer.eos_id),
      batch_size=batch_size,
    ),
  )
  return [tokenizer.decode(ids).strip() for ids in completions]


def _check(items) -> None:
  ids = [item["id"] for item in items]
  if len(set(ids)) != len(ids):
    double = next(i for i in ids if ids.count(i) > 1)
    raise UserError(
      f"the evaluation set has the id {double!r} twice: ids must be unique"
    )
  for item in items:
    if item["kind"] != "pair" or len(item["options"]) != 2:
      raise UserError(f"evaluation item {item['id']!r} is not a pair of two options")
