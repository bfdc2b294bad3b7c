"""What runs on the devices: rows are begun, and all rows go on for some tokens.

A population (several adapters on one base) has an axis P before the rows; products with
the base are made for the rows of all its members at once. The column of the cache is
the same for all.

P population, B rows (slots), R rows to begin with, T slots of prompts, n tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from msm_jax.models import decoding, lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.decoding import Cache
from msm_jax.sampling import drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """What decides which programs are compiled, shapes aside.

  `attention` is the backend that reads prompts; `has_members` says that there is an
  axis P.
  """

  cfg: ModelConfig
  how: drawing.How
  attention: str
  has_members: bool


class Asked(NamedTuple):
  """Requests that rows begin with; a row that does not exist is filler."""

  tokens_RT: Any  # the last slot is the last token
  length_R: Any
  row_R: Any
  limit_R: Any  # tokens at most
  seed_R: Any


class Rows(NamedTuple):
  """What is known of every row."""

  cache: Cache
  length_B: jax.Array  # tokens in the cache
  token_B: jax.Array  # the newest, not yet in the cache
  count_B: jax.Array  # tokens that were drawn
  limit_B: jax.Array
  seed_B: jax.Array
  is_open_B: jax.Array  # not finished
  is_bad_B: jax.Array  # its logits were no numbers
  out_Bn: jax.Array  # the tokens


class Settings(NamedTuple):
  """Numbers that are no part of a program."""

  temperature: Any
  top_p: Any
  stop_ids: Any


@functools.partial(
  jax.jit, static_argnames=("program", "num_members", "num_rows", "sizes")
)
def empty(params, *, program: Program, num_members, num_rows, sizes) -> Rows:
  """Returns rows that have nothing to do; `sizes` are (columns, tokens at most)."""
  base, adapters = params

  def make(adapter):
    zeros = jnp.zeros(num_rows, jnp.int32)
    nobody = jnp.zeros(num_rows, bool)
    return Rows(
      cache=decoding.Decoder(program.cfg, lora.join(base, adapter)).empty(
        num_rows, sizes[0]
      ),
      length_B=zeros,
      token_B=zeros,
      count_B=zeros,
      limit_B=zeros,
      seed_B=zeros.astype(jnp.uint32),
      is_open_B=nobody,
      is_bad_B=nobody,
      out_Bn=jnp.zeros((num_rows, sizes[1]), jnp.int32),
    )

  if not program.has_members:
    return make(adapters)
  return jax.vmap(make, axis_size=num_members)(adapters)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="rows")
def begin(params, rows: Rows, column, asked: Asked, settings, *, program) -> Rows:
  """Returns the rows with some begun anew, each with its first token drawn."""
  base, adapters = params

  def one(adapter, rows, asked):
    decoder = decoding.Decoder(program.cfg, lora.join(base, adapter))
    x_RD, kept = decoder.read(asked.tokens_RT, asked.length_R, program.attention)
    count_R = jnp.zeros_like(asked.length_R)
    drawn = _draw(decoder, x_RD, asked.seed_R, count_R, settings, program.how)
    token_R, is_bad_R, is_stop_R = drawn

    def put(old, new):
      return old.at[asked.row_R].set(new, mode="drop")

    return Rows(
      cache=decoding.begin_rows(rows.cache, kept, asked.row_R, column),
      length_B=put(rows.length_B, asked.length_R),
      token_B=put(rows.token_B, token_R),
      count_B=put(rows.count_B, 1),
      limit_B=put(rows.limit_B, asked.limit_R),
      seed_B=put(rows.seed_B, asked.seed_R),
      is_open_B=put(rows.is_open_B, ~is_stop_R & (asked.limit_R > 1)),
      is_bad_B=put(rows.is_bad_B, is_bad_R),
      out_Bn=rows.out_Bn.at[asked.row_R, 0].set(token_R, mode="drop"),
    )

  return _over(one, program)(adapters, rows, asked)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="rows")
def go_on(params, rows: Rows, column, wait, settings, *, program):
  """Returns (rows, column) after several tokens more.

  Args:
    params: the base, and the adapters.
    rows: from `begin`.
    column: where the keys and values of the next tokens go.
    wait: (least rows that must be open to go on, of each member [P] or of the only
      one; most tokens).
    settings: of drawing.
    program: what to compile.
  """
  base, adapters = params
  least_open, most_tokens = wait
  num_columns = rows.cache.keys[0].shape[-2]

  def one(adapter, rows, column):
    decoder = decoding.Decoder(program.cfg, lora.join(base, adapter))
    x_BD, cache = decoder.step(rows.token_B, rows.length_B, column, rows.cache)
    drawn = _draw(decoder, x_BD, rows.seed_B, rows.count_B, settings, program.how)
    token_B, is_bad_B, is_stop_B = drawn
    is_open_B, count_B = rows.is_open_B, rows.count_B
    nowhere = rows.out_Bn.shape[1]
    at = jnp.arange(token_B.shape[0]), jnp.where(is_open_B, count_B, nowhere)
    out_Bn = rows.out_Bn.at[at].set(token_B, mode="drop")
    count_B = count_B + is_open_B
    return rows._replace(
      cache=cache,
      length_B=rows.length_B + 1,
      token_B=token_B,
      count_B=count_B,
      is_open_B=is_open_B & ~is_stop_B & (count_B < rows.limit_B),
      is_bad_B=rows.is_bad_B | (is_bad_B & is_open_B),
      out_Bn=out_Bn,
    )

  def more(carry):
    n, _, rows = carry
    num_open = jnp.sum(rows.is_open_B, axis=-1)
    return (n < most_tokens) & jnp.any(num_open > 0) & jnp.all(num_open >= least_open)

  def step(carry):
    n, column, rows = carry
    rows = _over(one, program, extra=1)(adapters, rows, column)
    return n + 1, (column + 1) % num_columns, rows

  _, column, rows = jax.lax.while_loop(more, step, (0, column, rows))
  return rows, column


def _draw(decoder, x_BD, seed_B, count_B, settings: Settings, how):
  """Returns (tokens, which logits are no numbers, which tokens are stops)."""
  logits_BV = decoder.unembed(x_BD)
  numbers = settings.temperature, settings.top_p
  token_B = drawing.draw(logits_BV, seed_B, count_B, *numbers, how)
  is_stop_B = jnp.isin(token_B, settings.stop_ids)
  return token_B, ~jnp.isfinite(jnp.max(logits_BV, axis=-1)), is_stop_B


def _over(fn: Callable[..., Any], program: Program, extra: int = 0):
  """Returns `fn(adapter, rows, asked)` over all members, where there are any.

  The last `extra` arguments are the same for all.
  """
  if not program.has_members:
    return fn
  axes = (0, 0) + (() if extra else (0,)) + (None,) * extra
  return jax.vmap(fn, in_axes=axes)
