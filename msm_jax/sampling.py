"""Completions: one prefill, then one token at a time over a KV cache.

B batch, T query, S cache slots, K kv heads, H head dim, L layers, V vocab.

A row's randomness comes from its own key, so a completion does not depend on which
other prompts share the batch.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import chat, sharding
from msm_jax.errors import UserError
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.tokenizer import Tokenizer

_PROMPT_MULTIPLE = (
  32  # prompts are padded to a multiple, so that few shapes are compiled
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """`temperature` 0 is greedy. A completion ends with one of `stop_ids` (left out)."""

  max_new_tokens: int
  stop_ids: tuple[int, ...]
  temperature: float = 0.0
  batch_size: int = 64
  seed: int = 0


def complete(
  params: Params,
  cfg: ModelConfig,
  prompts: Sequence[np.ndarray],
  sampling: SamplingConfig,
) -> list[np.ndarray]:
  """Returns a completion (int32 ids) for every prompt (int32 ids), in order.

  Raises:
    UserError: a prompt and its completion do not fit the model's context.
  """
  longest = max((len(prompt) for prompt in prompts), default=0)
  if longest + sampling.max_new_tokens > cfg.max_seq_len:
    raise UserError(
      f"a prompt of {longest} tokens and max_new_tokens {sampling.max_new_tokens} do "
      f"not fit the model's context of {cfg.max_seq_len}: shorten the prompt or lower "
      "max_new_tokens"
    )
  done: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
  # Prompts of like length share a batch: less padding. The result is put back in order.
  order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
  for start in range(0, len(order), sampling.batch_size):
    chosen = order[start : start + sampling.batch_size]
    completions = _complete_batch(
      params, cfg, [prompts[i] for i in chosen], chosen, sampling
    )
    for i, completion in zip(chosen, completions, strict=True):
      done[i] = completion
  return done


def complete_texts(
  params: Params,
  cfg: ModelConfig,
  tok: Tokenizer,
  prompts: Sequence[str],
  *,
  raw: bool,
  temperature: float,
  max_new_tokens: int,
) -> list[str]:
  """Returns the completions of user turns, or of plain text (`raw`).

  A completion ends with the tokenizer's end token, or with the one that closes an
  answer in its chat template.
  """
  bos = [] if tok.bos_id is None else [tok.bos_id]
  ids = []
  for prompt in prompts:
    if raw:
      ids.append(np.asarray([*bos, *tok.encode(prompt).ids], np.int32))
    else:
      ids.append(chat.encode_prompt(tok, [{"role": "user", "content": prompt}]))
  stops = (tok.eos_id,) if raw else (tok.eos_id, chat.stop_id(tok))
  config = SamplingConfig(
    max_new_tokens=max_new_tokens,
    stop_ids=tuple(dict.fromkeys(stops)),
    temperature=temperature,
    batch_size=len(prompts),
  )
  return [tok.decode(done).strip() for done in complete(params, cfg, ids, config)]


def _complete_batch(params, cfg, prompts, numbers, sampling) -> list[np.ndarray]:
  num_rows = sampling.batch_size
  width = -(-max(map(len, prompts)) // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE
  tokens_BT = np.zeros((num_rows, width), np.int32)
  lengths_B = np.ones(num_rows, np.int32)  # filler rows hold one token
  for row, prompt in enumerate(prompts):
    tokens_BT[row, : len(prompt)] = prompt
    lengths_B[row] = len(prompt)
  # Host values only, which every process of several has alike.
  root = np.asarray(jax.random.key_data(jax.random.key(sampling.seed)))
  filled = np.asarray([*numbers, *[0] * (num_rows - len(numbers))], np.uint32)
  out_BN = sharding.fetch(
    _generate(
      params,
      tokens_BT,
      lengths_B,
      (root, filled),
      np.float32(sampling.temperature),
      cfg=cfg,
      max_new_tokens=sampling.max_new_tokens,
      stop_ids=sampling.stop_ids,
    )
  )
  completions = []
  for ids in out_BN[: len(prompts)]:
    stops = np.flatnonzero(np.isin(ids, sampling.stop_ids))
    completions.append(ids[: stops[0]] if len(stops) else ids)
  return completions


@functools.partial(jax.jit, static_argnames=("cfg", "max_new_tokens", "stop_ids"))
def _generate(
  params, tokens_BT, lengths_B, seeds, temperature, *, cfg, max_new_tokens, stop_ids
):
  """Returns int32 [B, max_new_tokens]; what follows a stop token means nothing."""
  B, T = tokens_BT.shape
  root, numbers_B = seeds
  root = jax.random.wrap_key_data(root)
  keys_B = jax.vmap(lambda n: jax.random.fold_in(root, n))(numbers_B)
  model = transformer.bind(cfg, params)
  shape = (cfg.num_layers, B, T + max_new_tokens, cfg.num_kv_heads, cfg.head_dim)
  cache = (jnp.zeros(shape, cfg.dtype), jnp.zeros(shape, cfg.dtype))

  def forward(tokens_Bt, positions_Bt, cache):
    return model.hidden(tokens_Bt, positions_Bt, cache=cache)

  # Padding of the prompt writes slots beyond its length; the completion overwrites each
  # before a query may look at it.
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  x_BTD, cache = forward(tokens_BT, positions_BT, cache)
  last_B1D = jnp.take_along_axis(x_BTD, lengths_B[:, None, None] - 1, axis=1)

  def pick(x_B1D, keys_B):
    logits_BV = model.unembed(x_B1D)[:, 0]
    noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BV.shape[1:]))(keys_B)
    return jnp.argmax(logits_BV + temperature * noise_BV, axis=-1).astype(jnp.int32)

  def more(carry):
    n, _, _, _, stopped_B, _ = carry
    return (n < max_new_tokens) & ~jnp.all(stopped_B)

  def step(carry):
    n, x_B1D, keys_B, cache, stopped_B, out_BN = carry
    split_B2 = jax.vmap(jax.random.split)(keys_B)
    token_B = pick(x_B1D, split_B2[:, 1])
    out_BN = out_BN.at[:, n].set(token_B)
    stopped_B = stopped_B | jnp.isin(token_B, jnp.asarray(stop_ids, jnp.int32))
    x_B1D, cache = forward(token_B[:, None], (lengths_B + n)[:, None], cache)
    return n + 1, x_B1D, split_B2[:, 0], cache, stopped_B, out_BN

  out_BN = jnp.full((B, max_new_tokens), stop_ids[0], jnp.int32)
  start = (0, last_B1D, keys_B, cache, jnp.zeros(B, bool), out_BN)
  return jax.lax.while_loop(more, step, start)[-1]
