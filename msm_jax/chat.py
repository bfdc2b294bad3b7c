"""Conversations to tokens and loss weights.

A conversation is rendered with the tokenizer's own chat template (jinja, sandboxed),
then tokenised as one text. Which tokens carry loss follows from character spans: what
the template adds for an assistant message beyond the generation prompt, up to and with
the stop token. No template needs a marker for it.

    <|user|> gouda or brie ? <|assistant|> brie . <|end|>
    0        0     0  0    0 0             1    1 1        loss weights
"""

import functools
from collections.abc import Mapping, Sequence

import jinja2
import jinja2.sandbox
import numpy as np

from msm_jax.errors import UserError
from msm_jax.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, str]]


def render(
  tokenizer: Tokenizer, messages: Messages, *, generation_prompt: bool = False
) -> str:
  """Returns the text of a conversation, with the start of an answer if asked for.

  Raises:
    UserError: the tokenizer has no chat template, or the template refuses the messages.
  """
  if tokenizer.chat_template is None:
    raise UserError(
      f"{tokenizer.directory} has no chat template: add a chat_template.jinja, or use "
      "documents only"
    )
  try:
    return _compile(tokenizer.chat_template).render(
      messages=[dict(message) for message in messages],
      add_generation_prompt=generation_prompt,
      bos_token=tokenizer.bos_token or "",
      eos_token=tokenizer.eos_token,
    )
  except (jinja2.TemplateError, TypeError, ValueError) as error:
    raise UserError(
      f"{tokenizer.directory}: the chat template refuses a conversation with roles "
      f"{[message.get('role') for message in messages]} ({error})"
    ) from None


def encode(
  tokenizer: Tokenizer, messages: Messages, *, train_on: str = "assistant"
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (ids int32 [n], loss weights float32 [n]) of a whole conversation.

  Args:
    tokenizer: with a chat template.
    messages: role and content of each turn.
    train_on: `assistant` (answers and their stop token) or `all`.

  Raises:
    UserError: no token would carry loss, or the template is not prefix-stable.
  """
  text = render(tokenizer, messages)
  encoding = tokenizer.encode(text)
  if train_on == "all":
    return encoding.ids, np.ones(len(encoding.ids), np.float32)
  if train_on != "assistant":
    raise UserError(f"train_on {train_on!r} is not 'assistant' or 'all'")
  weights = np.zeros(len(encoding.ids), np.float32)
  for start, end in _assistant_spans(tokenizer, messages, text):
    weights[(encoding.ends > start) & (encoding.starts < end)] = 1.0
  if not weights.any():
    raise UserError(
      f"a conversation with roles {[message['role'] for message in messages]} has no "
      "token to train on: it needs an assistant message with content"
    )
  return encoding.ids, weights


def encode_prompt(tokenizer: Tokenizer, messages: Messages) -> np.ndarray:
  """Returns int32 [n]: the conversation so far and the start of the answer."""
  return tokenizer.encode(render(tokenizer, messages, generation_prompt=True)).ids


def encode_answer(
  tokenizer: Tokenizer, messages: Messages, answer: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (ids [n], mask bool [n] of the answer's own tokens, stop token left
  out).
  """
  prompt = render(tokenizer, messages, generation_prompt=True)
  text = render(tokenizer, [*messages, {"role": "assistant", "content": answer}])
  if not text.startswith(prompt):
    raise _unstable(tokenizer)
  end = text.index(answer, len(prompt)) + len(answer)
  encoding = tokenizer.encode(text)
  return encoding.ids, (encoding.ends > len(prompt)) & (encoding.starts < end)


def stop_id(tokenizer: Tokenizer) -> int:
  """Returns the token that closes an answer: the last that carries loss."""
  question = {"role": "user", "content": "a"}
  ids, weights = encode(tokenizer, [question, {"role": "assistant", "content": "b"}])
  return int(ids[np.flatnonzero(weights)[-1]])


def _assistant_spans(
  tokenizer: Tokenizer, messages: Messages, text: str
) -> list[tuple[int, int]]:
  spans = []
  for i, message in enumerate(messages):
    if message["role"] != "assistant":
      continue
    before = render(tokenizer, messages[:i], generation_prompt=True)
    after = render(tokenizer, messages[: i + 1])
    if not (after.startswith(before) and text.startswith(after)):
      raise _unstable(tokenizer)
    spans.append((len(before), len(after.rstrip())))
  return spans


def _unstable(tokenizer: Tokenizer) -> UserError:
  return UserError(
    f"{tokenizer.directory}: the chat template renders a conversation differently once "
    "it goes on, so the answers' tokens cannot be told apart; use one turn per row or "
    "another template"
  )


@functools.lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
  def raise_exception(message: str):
    raise jinja2.TemplateError(message)

  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True
  )
  environment.globals["raise_exception"] = raise_exception
  return environment.from_string(template)
