"""Where the answers stand in a rendered conversation, on any chat template.

Templates trim, drop reasoning of earlier turns, move the system prompt, insert blocks:
the text up to an answer is not always the text that the same messages give on their
own, so counting characters of prefixes goes wrong without a word. Instead each piece of
the messages is replaced by a mark that occurs nowhere else, and the template renders
those too:

    <|im_start|>user\\n [0] <|im_end|>\\n<|im_start|>assistant\\n [1] <|im_end|>\\n

What stands between the marks is the template's own text. Putting the pieces back must
give the real text, character by character, or the template is refused. An answer then
begins where the generation prompt, marked in the same way, ends, and it ends with what
the template writes after it when nothing follows: its stop token.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError

Message = Mapping[str, Any]
Render = Callable[[list[tuple[Sequence[Message], bool]]], list[str]]
# Names of a message's reasoning, as transformers knows them, the first one first.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
EMPTY_BLOCK = re.compile(r"<think>\s*</think>\s*")
_OPEN, _CLOSE = "\ue0f1", "\ue0f2"  # private characters: no template looks for them
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_PROMPT_BLOCK = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
_INLINE = re.compile(r"(.*?<think>)?(.*)</think>(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
  """One answer in a rendered text; spans are half-open, in characters.

  Attributes:
    message: its number.
    start: where the generation prompt ends.
    end: behind the stop token.
    content: of the answer's own words; None if the template shows none (tool calls).
    reasoning: says whether its reasoning is in the text.
    missing: what the generation prompt has at its end and the text has not: an empty
      think block that the template writes before an answer only while it is awaited.
  """

  message: int
  start: int
  end: int
  content: tuple[int, int] | None
  reasoning: bool
  missing: str

  def moved(self, length: int) -> "Turn":
    """Returns the turn behind `length` more characters."""
    start, end = self.start + length, self.end + length
    content = self.content and (self.content[0] + length, self.content[1] + length)
    return dataclasses.replace(self, start=start, end=end, content=content, missing="")


@dataclasses.dataclass(frozen=True)
class _Piece:
  message: int
  field: str  # content, reasoning or call
  text: str


def find(
  messages: Sequence[Message], render: Render, *, thinks: bool, where: str
) -> tuple[str, list[Turn]]:
  """Returns the text of a conversation and its answers, in order.

  Args:
    messages: without fields that are None.
    render: (messages, with generation prompt?), ... -> texts.
    thinks: whether `<think>...</think>` in an answer is reasoning to the template.
    where: whose template it is, for messages.

  Raises:
    UserError: the answers cannot be told apart in the text.
  """
  return find_all([messages], render, thinks=thinks, where=where)[0]


def find_all(
  conversations: Sequence[Sequence[Message]],
  render: Render,
  *,
  thinks: bool,
  where: str,
) -> list[tuple[str, list[Turn]]]:
  """Returns what `find` does for each, with a few renders of many texts."""
  searches = [_search(messages, thinks, where) for messages in conversations]
  found: dict[int, tuple[str, list[Turn]]] = {}
  asked = {i: next(search) for i, search in enumerate(searches)}
  while asked:
    texts = iter(render([job for jobs in asked.values() for job in jobs]))
    again = {}
    for i, jobs in asked.items():
      try:
        again[i] = searches[i].send([next(texts) for _ in jobs])
      except StopIteration as done:
        found[i] = done.value
    asked = again
  return [found[i] for i in range(len(conversations))]


def _search(messages: Sequence[Message], thinks: bool, where: str):
  """Yields what to render, is sent the texts, returns what `find` does."""
  if any(mark in json.dumps(messages, ensure_ascii=False) for mark in (_OPEN, _CLOSE)):
    raise UserError(f"{where}: a message has the private characters U+E0F1 or U+E0F2")
  # A template may look into what others say (a tool's response in a user turn), so the
  # second attempt leaves that as it is.
  for everyone in (True, False):
    pieces: list[_Piece] = []
    marked = [
      _mark(i, message, pieces, thinks)
      if everyone or message["role"] == "assistant"
      else message
      for i, message in enumerate(messages)
    ]
    found = _Layout(messages, marked, pieces, where)
    found.fill((yield found.asked()))
    if found.agrees():
      return found.text, found.turns()
  raise UserError(
    f"{where}: the chat template changes what the messages say, so the answers' tokens "
    "cannot be told apart; use another template"
  )


def without_reasoning(message: Message) -> dict[str, Any]:
  """Returns an answer without its reasoning, inline or beside the content."""
  kept = {k: v for k, v in message.items() if k not in REASONING_FIELDS}
  content = kept.get("content")
  if message["role"] == "assistant" and isinstance(content, str):
    kept["content"] = content.split("</think>")[-1].lstrip("\n")
  return kept


class _Layout:
  """A conversation with marks: renders, and what follows from them."""

  def __init__(self, messages, marked, pieces: list[_Piece], where: str):
    self.messages, self.marked = messages, marked
    self.pieces, self.where = pieces, where
    self.answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    self.inner = [i for i in self.answers if i + 1 < len(messages)]

  def asked(self) -> list[tuple[Sequence[Message], bool]]:
    """Returns what has to be rendered: (messages, with generation prompt?)."""
    asked = [(self.messages, False), (self.marked, False)]
    asked += [(self.marked[:i], True) for i in self.answers]
    return asked + [(self.marked[: i + 1], False) for i in self.inner]

  def fill(self, texts: Sequence[str]) -> None:
    """Takes the texts of what was asked for."""
    self.text, self.skeleton, *more = texts
    self.prompts = dict(zip(self.answers, more, strict=False))
    self.closed = dict.fromkeys(self.answers, self.skeleton)
    self.closed |= dict(zip(self.inner, more[len(self.answers) :], strict=True))

  def agrees(self) -> bool:
    """Says whether the pieces in the place of their marks give the real text."""
    # [template, number, template, number, ..., template]
    self.parts = _MARK.split(self.skeleton)
    self.places: list[tuple[int, int]] = []  # of each mark, in the text
    at = 0
    for i, part in enumerate(self.parts):
      options = _forms(self.pieces[int(part)].text) if i % 2 else [part]
      found = [option for option in options if self.text.startswith(option, at)]
      if not found:
        return False
      if i % 2:
        self.places.append((at, at + len(found[0])))
      at += len(found[0])
    return at == len(self.text)

  def turns(self) -> list[Turn]:
    numbers = [int(part) for part in self.parts[1::2]]
    turns = []
    for i in self.answers:
      at = [k for k, n in enumerate(numbers) if self.pieces[n].message == i]
      self._check_shown(i, [numbers[k] for k in at])
      if at:
        if len({numbers[k] for k in at}) < at[-1] - at[0] + 1:
          raise self._error(i, "is not in one place")
        turns.append(self._turn(i, numbers, at))
    return turns

  def _turn(self, i: int, numbers: list[int], at: list[int]) -> Turn:
    first, last = at[0], at[-1]
    before, after = self.parts[2 * first], self.parts[2 * last + 2]
    length, missing = self._prompt_length(i, before, numbers[:first])
    stop = self._stop(i, numbers[last])
    if not after.startswith(stop):
      raise self._error(i, "ends differently once the conversation goes on")
    fields = {self.pieces[numbers[k]].field: self.places[k] for k in at}
    contents = [
      self.places[k] for k in at if self.pieces[numbers[k]].field == "content"
    ]
    return Turn(
      message=i,
      start=self.places[first][0] - len(before) + length,
      end=self.places[last][1] + len(stop),
      content=(contents[0][0], contents[-1][1]) if contents else None,
      reasoning="reasoning" in fields,
      missing=missing,
    )

  def _prompt_length(self, i: int, before: str, seen: list[int]) -> tuple[int, str]:
    """Returns how much of the template's text before an answer is its prompt.

    Also what the prompt has beyond that: a think block.
    """
    *marks, tail = _MARK.split(self.prompts[i])
    shown = [int(number) for number in marks[1::2]]
    if shown[-1:] == seen[-1:]:
      if before.startswith(tail):
        return len(tail), ""
      block = _PROMPT_BLOCK.search(tail)
      if block and before.startswith(tail[: block.start()]):
        return block.start(), block[0]
    raise self._error(i, "begins differently than the generation prompt ends")

  def _stop(self, i: int, last: int) -> str:
    """Returns what the template writes behind an answer when nothing follows."""
    *marks, tail = _MARK.split(self.closed[i])
    stop = tail.rstrip()
    if not marks or int(marks[-1]) != last:
      raise self._error(i, "ends differently once the conversation goes on")
    if not stop:
      raise self._error(
        i,
        "has no end: the template writes nothing behind it, so nothing would teach "
        "the model to stop",
      )
    return stop

  def _check_shown(self, i: int, shown: list[int]) -> None:
    own = [n for n, piece in enumerate(self.pieces) if piece.message == i]
    fields = {self.pieces[n].field for n in own}
    if len(set(shown)) < len(shown):
      raise self._error(i, "is written twice")
    hidden = {self.pieces[n].field for n in own if n not in shown}
    if "call" in hidden or ("content" in hidden and "call" not in fields):
      raise self._error(i, "is not shown by the template")

  def _error(self, i: int, what: str) -> UserError:
    return UserError(
      f"{self.where}: message {i} (an answer) {what}; the answers' tokens cannot be "
      "told apart with this chat template, use another"
    )


def _forms(text: str) -> list[str]:
  """Returns how a template may write a piece: as it is, or inside JSON."""
  return [text, json.dumps(text, ensure_ascii=False)[1:-1]]


def _mark(i: int, message: Message, pieces: list[_Piece], thinks: bool) -> Message:
  """Returns a message with marks for its texts, which are added to `pieces`."""

  def put(field: str, text: str) -> str:
    """Marks all but the white space at the ends, which a template may trim."""
    core = text.strip()
    if not core:
      return text
    pieces.append(_Piece(i, field, core))
    mark = f"{_OPEN}{len(pieces) - 1}{_CLOSE}"
    left = len(text) - len(text.lstrip())
    return text[:left] + mark + text[left + len(core) :]

  answer = message["role"] == "assistant"
  marked = dict(message)
  for field in REASONING_FIELDS if answer else ():
    if isinstance(marked.get(field), str):
      marked[field] = put("reasoning", marked[field])
  content = marked.get("content")
  inline = (
    _INLINE.fullmatch(content) if answer and thinks and _is_text(content) else None
  )
  if inline:
    opening, reasoning, rest = inline.groups()
    reasoning = put("reasoning", reasoning)
    marked["content"] = f"{opening or ''}{reasoning}</think>{put('content', rest)}"
  elif _is_text(content):
    marked["content"] = put("content", content)
  elif isinstance(content, list):
    marked["content"] = [
      dict(part, text=put("content", part["text"])) if _has_text(part) else part
      for part in content
    ]
  if answer and marked.get("tool_calls"):
    marked["tool_calls"] = [_mark_call(call, put) for call in marked["tool_calls"]]
  return marked


def _mark_call(call: Mapping[str, Any], put) -> dict[str, Any]:
  if "function" in call:
    return {**call, "function": _mark_call(call["function"], put)}
  return {**call, "name": put("call", call["name"])}


def _is_text(content: Any) -> bool:
  return isinstance(content, str)


def _has_text(part: Any) -> bool:
  return isinstance(part, Mapping) and isinstance(part.get("text"), str)
