"""The next token, given logits.

All randomness of a token comes from the seed of its request and how many tokens that
has been given before: neither the batch nor the place in it matter.

B batch, V vocab.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
  """What decides which program draws."""

  is_greedy: bool
  has_nucleus: bool


def draw(
  logits_BV: jax.Array,
  seed_B: jax.Array,
  count_B: jax.Array,
  temperature: jax.Array,
  top_p: jax.Array,
  how: How,
) -> jax.Array:
  """Returns int32 [B].

  Args:
    logits_BV: float32.
    seed_B: of the requests, uint32.
    count_B: tokens that each was given before, int32.
    temperature: logits are divided by it.
    top_p: only the likeliest tokens are drawn from, as few as have this probability
      together (Holtzman et al. 2020); at least one.
    how: greedy takes the likeliest token, the first of those.
  """
  if how.is_greedy:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  logits_BV = logits_BV / temperature
  noise_BV = jax.vmap(_noise, in_axes=(0, 0, None))(
    seed_B, count_B, logits_BV.shape[-1]
  )
  if not how.has_nucleus:
    return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)
  order_BV = jnp.argsort(logits_BV, axis=-1, descending=True, stable=True)
  sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
  probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
  before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
  # The sum before a token may have rounded to top_p: the first is always in.
  is_in_BV = (before_BV < top_p) | (jnp.arange(before_BV.shape[-1]) == 0)[None]
  noise_BV = jnp.take_along_axis(noise_BV, order_BV, axis=-1)
  place_B = jnp.argmax(jnp.where(is_in_BV, sorted_BV + noise_BV, -jnp.inf), axis=-1)
  chosen_B1 = jnp.take_along_axis(order_BV, place_B[:, None], axis=-1)
  return chosen_B1[:, 0].astype(jnp.int32)


def _noise(seed: jax.Array, count: jax.Array, vocab_size: int) -> jax.Array:
  key = jax.random.fold_in(jax.random.key(seed), count)
  return jax.random.gumbel(key, (vocab_size,))
