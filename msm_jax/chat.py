"""Conversations to tokens and loss weights.

A conversation is rendered with the tokenizer's own chat template, then tokenised as one
text, with no special token added: the template writes its BOS itself. What carries loss
follows from where the answers stand in the text (`text/turns.py`): from the end of the
generation prompt up to and with the stop token. No template needs a marker for it.

    <|user|> gouda or brie ? <|assistant|> brie . <|end|>
    0        0     0  0    0 0             1    1 1        loss weights

Templates that reason (`<think>`) need a choice, which stands in the tokenizer directory
(`chat_template.Choices`) and so holds for rows, prompts and exports alike:

    keep      reasoning and answer carry loss. An answer without reasoning is trained
              behind an empty think block, an earlier one whose reasoning the template
              drops is context: neither teaches to skip the reasoning
    strip     reasoning is taken out of the messages; the empty block that the prompt
              ends with is context, the answer carries loss
    no_think  the same, but `/no_think` ends the user's turns and the model writes the
              empty block, which carries loss
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax.errors import UserError
from msm_jax.text import chat_template, templating, turns
from msm_jax.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
Talk = tuple[Messages, Tools]


def render(
  tokenizer: Tokenizer,
  messages: Messages,
  *,
  generation_prompt: bool = False,
  tools: Sequence[Mapping[str, Any]] | None = None,
  **variables: Any,
) -> str:
  """Returns the text of a conversation, with the start of an answer if asked for.

  Args:
    tokenizer: with a chat template; for `tools` the one named `tool_use`, if any.
    messages: role and content of each turn, and what else the template knows
      (`tool_calls`, `reasoning_content`, content as a list of parts).
    generation_prompt: adds the start of the next answer.
    tools: JSON schemas, for templates that know tools.
    **variables: anything else, as `documents` or `enable_thinking`.

  Raises:
    UserError: the tokenizer has no chat template, or the template refuses the messages.
  """
  return _render(tokenizer, [(messages, generation_prompt)], tools, variables)[0]


def render_all(tokenizer: Tokenizer, conversations: Sequence[Messages]) -> list[str]:
  """Returns what `render` does for each, faster than one by one."""
  return _render(tokenizer, [(messages, False) for messages in conversations], None, {})


def encode(
  tokenizer: Tokenizer,
  messages: Messages,
  *,
  train_on: str = "assistant",
  tools: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (ids int32 [n], loss weights float32 [n]) of a whole conversation.

  Args:
    tokenizer: with a chat template.
    messages: role and content of each turn.
    train_on: `assistant` (answers and their stop token) or `all`.
    tools: JSON schemas, for templates that know tools.

  Raises:
    UserError: no token would carry loss, or the answers cannot be told apart.
  """
  return encode_all(tokenizer, [(messages, tools)], train_on=train_on)[0]


def encode_all(
  tokenizer: Tokenizer, talks: Sequence[Talk], *, train_on: str = "assistant"
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns what `encode` does for each (messages, tools), faster than one by one."""
  if train_on not in ("assistant", "all"):
    raise UserError(f"train_on {train_on!r} is not 'assistant' or 'all'")
  talks = [(_as_chosen(tokenizer, messages), tools) for messages, tools in talks]
  found = _answers_of_all(tokenizer, talks)
  encodings = tokenizer.encode_cuts(
    [(text, [turn.start for turn in answers]) for text, answers in found]
  )
  return [
    (encoding.ids, _weights(tokenizer, messages, text, answers, encoding, train_on))
    for (messages, _), (text, answers), encoding in zip(
      talks, found, encodings, strict=True
    )
  ]


def _weights(tokenizer, messages, text, answers, encoding, train_on) -> np.ndarray:
  """Returns the loss weights of a conversation's tokens, float32 [n]."""
  if train_on == "all":
    return np.ones(len(encoding.ids), np.float32)
  weights = np.zeros(len(encoding.ids), np.float32)
  for start, end in _trained(tokenizer, messages, text, answers):
    weights[(encoding.ends > start) & (encoding.starts < end)] = 1.0
  if not weights.any():
    kept = tokenizer.choices.thinking == "keep"
    raise UserError(
      f"a conversation with roles {[message['role'] for message in messages]} has no "
      "token to train on: it needs an assistant message with content"
      + (
        ", and with config.tokenizer.thinking 'keep' its reasoning too" if kept else ""
      )
    )
  return weights


def encode_prompt(
  tokenizer: Tokenizer,
  messages: Messages,
  *,
  tools: Sequence[Mapping[str, Any]] | None = None,
) -> np.ndarray:
  """Returns int32 [n]: the conversation so far and the start of the answer.

  A template that reasons, in a directory without a choice, does what it does alone.
  """
  text = render(tokenizer, messages, generation_prompt=True, tools=tools)
  return tokenizer.encode(text).ids


def encode_answer(
  tokenizer: Tokenizer, messages: Messages, answer: str, begun: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (ids [n], mask bool [n] of the answer's own tokens, stop token left out).

  With a template that reasons, an empty think block stands before the answer. The first
  `begun` characters of the answer are given, as the prompt is.
  """
  messages = [*messages, {"role": "assistant", "content": answer}]
  text, answers = _answers(tokenizer, _as_chosen(tokenizer, messages), None)
  if not answers or answers[-1].message != len(messages) - 1:
    raise UserError(f"an answer to be scored is empty: {answer!r}")
  start, end = answers[-1].content
  cuts = [turn.start for turn in answers]
  if begun:
    start += begun
    cuts.append(start)
  encoding = tokenizer.encode_cut(text, cuts)
  return encoding.ids, (encoding.ends > start) & (encoding.starts < end)


def whole_text(
  tokenizer: Tokenizer,
  messages: Messages,
  *,
  tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
  """Returns the text whose ids `encode` gives, for counting its bytes."""
  return _answers(tokenizer, _as_chosen(tokenizer, messages), tools)[0]


def spoken(tokenizer: Tokenizer, completion: str) -> str:
  """Returns what a completion says, its reasoning left out.

  Nothing, if it ends within the reasoning.
  """
  template = tokenizer.chat_template
  if template is None or not chat_template.thinks(template):
    return completion
  if tokenizer.choices.thinking == "keep" and "</think>" not in completion:
    return ""
  return completion.split("</think>")[-1].strip()


def stop_id(tokenizer: Tokenizer) -> int:
  """Returns the token that closes an answer."""
  talk = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning_content": "c"},
  ]
  text, answers = _find(tokenizer, _as_chosen(tokenizer, talk), None)
  encoding = tokenizer.encode(text)
  return int(encoding.ids[np.flatnonzero(encoding.starts < answers[-1].end)[-1]])


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
  """Returns the tokens that end an answer: the template's and the tokenizer's own."""
  found = [] if tokenizer.chat_template is None else [stop_id(tokenizer)]
  return tuple(dict.fromkeys([*found, tokenizer.eos_id]))


def behind(system_prompt: str | None, messages: Messages) -> Messages:
  """Returns messages behind a system prompt; None leaves them as they are.

  A system turn that they have follows it after a blank line, in one turn: templates
  take one. The prompt that a template writes on its own gives way, as to any other.
  """
  if system_prompt is None:
    return messages
  turn: dict[str, Any] = {"role": "system", "content": system_prompt}
  if not messages or messages[0].get("role") != "system":
    return [turn, *messages]
  own, *rest = messages
  content = own.get("content")
  if isinstance(content, str) and content:
    turn["content"] = f"{system_prompt}\n\n{content}"
  elif content:  # a list of parts
    turn["content"] = [{"type": "text", "text": f"{system_prompt}\n\n"}, *content]
  return [{**own, **turn}, *rest]


def default_system_prompt(tokenizer: Tokenizer) -> str | None:
  """Returns the system prompt that a conversation without one gets, None for none."""
  question = {"role": "user", "content": "\ue0f3"}
  system = {"role": "system", "content": "\ue0f4"}
  (without,) = _render(tokenizer, [([question], False)], None, {})
  try:
    (given,) = _render(tokenizer, [([system, question], False)], None, {})
  except UserError:
    return None  # the template knows no system role
  before, _, rest = given.partition(system["content"])
  between = rest.partition(question["content"])[0]
  found = without.partition(question["content"])[0]
  if not (found.startswith(before) and found.endswith(between)):
    return None
  return found[len(before) : len(found) - len(between)].strip() or None


def facts(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns what rows and answers depend on beside the messages."""
  if tokenizer.chat_template is None:
    return {"chat_template": None}
  return {
    "thinking": tokenizer.choices.thinking,
    "date": tokenizer.choices.date,
    "system_prompt": default_system_prompt(tokenizer),
    "stop_token": tokenizer.token_text(stop_id(tokenizer)).strip(),
  }


def _answers(tokenizer, messages: Messages, tools) -> tuple[str, list[turns.Turn]]:
  """Returns what `_find` does; a template that reasons needs a choice."""
  return _answers_of_all(tokenizer, [(messages, tools)])[0]


def _answers_of_all(tokenizer, talks: Sequence[Talk]):
  """Returns what `_answers` does for each; those with the same tools go together."""
  found: list[Any] = [None] * len(talks)
  same: dict[str, list[int]] = {}
  for i, (_, tools) in enumerate(talks):
    same.setdefault(repr(tools), []).append(i)
  for group in same.values():
    tools = talks[group[0]][1]
    chat_template.check_thinking(
      _template(tokenizer, tools), tokenizer.choices.thinking, str(tokenizer.directory)
    )
    texts = _find_all(tokenizer, [talks[i][0] for i in group], tools)
    for i, one in zip(group, texts, strict=True):
      found[i] = one
  return found


def _find(tokenizer, messages: Messages, tools) -> tuple[str, list[turns.Turn]]:
  return _find_all(tokenizer, [messages], tools)[0]


def _find_all(tokenizer, conversations: Sequence[Messages], tools):
  """Returns the text of conversations, as a model that answers sees them, and turns."""
  found = turns.find_all(
    conversations,
    lambda jobs: _render(tokenizer, jobs, tools, {}),
    thinks=chat_template.thinks(_template(tokenizer, tools)),
    where=str(tokenizer.directory),
  )
  return [
    _with_block(messages, text, answers)
    for messages, (text, answers) in zip(conversations, found, strict=True)
  ]


def _with_block(messages: Messages, text: str, found: list[turns.Turn]):
  """Puts back a think block that the template leaves out once the answer is there.

  So the last answer stands behind its whole generation prompt.
  """
  if not found or found[-1].message != len(messages) - 1:
    return text, found
  last = found[-1]
  if (
    last.missing
    and not last.reasoning
    and not turns.EMPTY_BLOCK.match(text, last.start)
  ):
    text = text[: last.start] + last.missing + text[last.start :]
    found[-1] = last.moved(len(last.missing))
  return text, found


def _trained(tokenizer, messages, text, answers) -> list[tuple[int, int]]:
  """Returns the spans of characters that carry loss."""
  thinking = tokenizer.choices.thinking
  spans = []
  for turn in answers:
    if thinking is None and _has_reasoning(messages[turn.message]):
      raise UserError(
        f"{tokenizer.directory}: an answer has reasoning_content, which the chat "
        "template does not show: write it into the content, or take it out"
      )
    block = turns.EMPTY_BLOCK.match(text, turn.start)
    if block and thinking in ("keep", "strip"):
      spans.append((block.end(), turn.end))
    elif turn.reasoning or thinking != "keep":
      spans.append((turn.start, turn.end))
  return spans


def _has_reasoning(message: Mapping[str, Any]) -> bool:
  return any(message.get(field) for field in turns.REASONING_FIELDS)


def _as_chosen(tokenizer: Tokenizer, messages: Messages) -> Messages:
  """Returns the messages as the tokenizer's choice about reasoning wants them."""
  messages = [
    {k: v for k, v in message.items() if v is not None} for message in messages
  ]
  if tokenizer.choices.thinking in ("strip", "no_think"):
    return [turns.without_reasoning(message) for message in messages]
  return messages


def _template(tokenizer: Tokenizer, tools) -> str:
  templates = tokenizer.templates
  if tools is not None and "tool_use" in templates:
    return templates["tool_use"]
  if tokenizer.chat_template is None:
    named = f", only templates named {sorted(templates)}" if templates else ""
    raise UserError(
      f"{tokenizer.directory} has no chat template{named}: set "
      "config.tokenizer.chat_template, add a chat_template.jinja, or use documents only"
    )
  return tokenizer.chat_template


def _render(tokenizer: Tokenizer, jobs, tools, variables: Mapping[str, Any]):
  """Returns the text of each (messages, with generation prompt?)."""
  special = tokenizer.special_tokens or {
    "bos_token": tokenizer.bos_token or "",
    "eos_token": tokenizer.eos_token,
  }
  return templating.render(
    _template(tokenizer, tools),
    [
      {
        "documents": None,
        **special,
        **variables,
        "messages": [_plain(message) for message in messages],
        "tools": tools,
        "add_generation_prompt": generation_prompt,
      }
      for messages, generation_prompt in jobs
    ],
    where=str(tokenizer.directory),
    date=tokenizer.choices.date,
  )


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a message as transformers hands it to a template.

  Fields that are None are left out; reasoning stands under each of its names.
  """
  message = {k: v for k, v in message.items() if v is not None}
  given = [message[k] for k in turns.REASONING_FIELDS if k in message]
  if given:
    message = {"thinking": given[0], **message, "reasoning_content": given[0]}
  return message
