"""How much a corpus is to hold: so many words, or tokens of a tokenizer that is there.

Generation comes before the study's own tokenizer, so tokens are counted with the one
that the corpus names: a directory as Hugging Face has them.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from data_gen import filters, selection
from data_gen.kinds import sizes
from msm_jax import errors, progress, records, tokenizer

T = TypeVar("T")
WORDS, TOKENS = "words", "tokens"
TOKENS_BUDGET = "num_tokens"  # the field of a budget in tokens
_TOKENS_PER_WORD = 4 / 3
_USUAL_WORDS = 250  # of a record whose settings do not say how long it is
# A first round makes as many records as if each were so many times as long as usual, or
# as those of the corpus to be matched: too few cost a round, too many cost money.
_CAUTION, _CAUTION_MATCHED = 4, 1.1
# So many more records than fit are made, so that the last ones can be chosen by length;
# with fewer to spare than the least, another round is worth its while.
_SPARE, _LEAST_SPARE = 5, 3
_WORST_YIELD = 4


class Measure:
  """Counts the words of records, or the tokens that they have for one tokenizer.

  Tokens are those of the texts, without what a chat template puts around them. A
  document counts as many as it fills places of rows when it is trained on.
  """

  def __init__(self, directory: str | None = None):
    """Takes a directory with a tokenizer; None: words are counted.

    Raises:
      UserError: there is no tokenizer that can be used.
    """
    self._tokenizer = None if directory is None else _load(directory)
    self.unit = WORDS if directory is None else TOKENS

  def of(self, record: Mapping[str, Any]) -> int:
    """Returns the size of a record: its text, or all its turns and thoughts."""
    count = self._num_tokens if self._tokenizer else filters.num_words
    if "messages" not in record:
      # The first token of a document, where there is a BOS, stands before the text; the
      # last one, EOS, is a target only (see `msm_jax.packing.Piece`).
      begins = self._tokenizer is not None and self._tokenizer.bos_id is not None
      return count(record["text"]) + begins
    said = [turn.get(key) for turn in record["messages"] for key in _SAID]
    return sum(count(text) for text in said if isinstance(text, str))

  def told(self) -> dict[str, Any]:
    """Returns what the manifest says of the unit."""
    if self._tokenizer is None:
      return {"unit": WORDS}
    return {"unit": TOKENS, "tokenizer": self._tokenizer.sha256()}

  def _num_tokens(self, text: str) -> int:
    return len(self._tokenizer.encode(text).ids)


_SAID = ("reasoning_content", "content")


@functools.lru_cache(maxsize=2)
def _load(directory: str) -> tokenizer.Tokenizer:
  return tokenizer.load(directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
  """The size that a corpus is to have.

  Attributes:
    where: the field that says so, for messages.
    total: in units of `measure`.
    measure: what counts.
    mean: size of a record, rather too large, until some can be measured.
    of: the corpus whose size it is; "": none, it is a number of the config.
  """

  where: str
  total: int
  measure: Measure
  mean: float
  of: str = ""

  @property
  def reason(self) -> str:
    """Why a record is left out that was good enough."""
    size = f"{self.total} {self.measure.unit}"
    if self.of:
      return f"not chosen for the {size} of {self.of}"
    return f"not chosen for the budget of {size}"

  def wanted(self, total: int, num_kept: int, num_made: int) -> int:
    """Returns how many more records to make, as far as one can tell.

    Args:
      total: size of all that is kept.
      num_kept: how many records that is.
      num_made: how many records were made for it.
    """
    one = total / num_kept if total else self.mean
    if total - self.total >= _LEAST_SPARE * one:
      return 0
    each = max(total / num_made if total else self.mean, one / _WORST_YIELD)
    return max(math.ceil((self.total - total) / each) + _SPARE, 1)

  def check(self, reached: int, sizes: Sequence[int], more: str) -> None:
    """Says it, or raises, if what could be chosen is too little.

    Args:
      reached: size of what was chosen.
      sizes: of all that there was to choose from.
      more: what could be changed to have more.

    Raises:
      UserError: nothing is small enough; or another corpus is to be matched, and the
        two differ by more than a record.
    """
    size = f"{self.total} {self.measure.unit}"
    if sizes and not reached:
      raise errors.UserError(
        f"{self.where} is {size}, and the smallest record has {min(sizes)}: raise it"
      )
    if self.of and self.total - reached > max(sizes, default=0):
      raise errors.UserError(
        f"{self.where}={self.of!r}: {reached} of its {size} are reached: raise {more}; "
        "the answers so far are kept"
      )
    if sum(sizes) < self.total:
      progress.say(f"{self.where}: {reached} of {size} could be kept; raise {more}")

  def told(self, reached: int, num_left: int, left: int) -> dict[str, Any]:
    """Returns what the manifest says: what was asked, reached, and left out."""
    return {
      "budget": {
        **self.measure.told(),
        "asked": self.total,
        **({"of": self.of} if self.of else {}),
        "reached": reached,
        "left_out": {"records": num_left, self.measure.unit: left},
      }
    }


def goal(corpora: Mapping[str, Any], name: str, root: pathlib.Path) -> Goal | None:
  """Returns how much a corpus is to hold; None if its config counts records.

  Args:
    corpora: name -> settings.
    name: of the corpus.
    root: where the finished corpora lie.

  Raises:
    UserError: a tokenizer cannot be used, or the corpus to be matched is damaged.
  """
  corpus, where = corpora[name], f"config.corpora.{name}"
  of = getattr(corpus, "match_tokens_of", None)
  if of is not None:
    # Two corpora are matched in the tokens in which the first one was measured.
    directory = corpus.tokenizer or getattr(corpora[of], "tokenizer", None)
    measure = Measure(directory)
    found = [measure.of(row) for row in records.read_dataset(root / of, verify=False)]
    return Goal(
      where=f"{where}.match_tokens_of",
      total=sum(found),
      measure=measure,
      mean=_CAUTION_MATCHED * max(sum(found) / max(len(found), 1), 1),
      of=of,
    )
  return None if sizes.budget_field(corpus) is None else of_config(corpus, where)


def of_config(corpus: Any, where: str) -> Goal:
  """Returns the budget of a corpus that has one.

  Args:
    corpus: its settings.
    where: what it is called in the config.

  Raises:
    UserError: its tokenizer cannot be used.
  """
  field = sizes.budget_field(corpus)
  measure = Measure(corpus.tokenizer)
  return Goal(
    where=f"{where}.{field}",
    total=getattr(corpus, field),
    measure=measure,
    mean=_CAUTION * _usual(corpus),
  )


def identity(name: str, corpus: Any) -> dict[str, str]:
  """Returns the tokenizer that decides a corpus, as its manifest says it.

  Raises:
    UserError: it cannot be used.
  """
  directory = getattr(corpus, "tokenizer", None)
  if directory is None:
    return {}
  try:
    return {"tokenizer": _load(directory).sha256()}
  except errors.UserError as error:
    where = f"config.corpora.{name}.tokenizer"
    raise errors.UserError(f"{where}={directory!r}: {error}") from None


def num_expected(corpus: Any, tokens_each: int) -> int | None:
  """Returns about how many records a budget makes; None if there is none.

  Args:
    corpus: with its budget.
    tokens_each: usual size of a record.
  """
  field = sizes.budget_field(corpus)
  if field is None:
    return None
  per_unit = 1.0 if field == TOKENS_BUDGET else _TOKENS_PER_WORD
  return math.ceil(getattr(corpus, field) * per_unit / tokens_each)


def _usual(corpus: Any) -> float:
  num_words = getattr(corpus, "mean_words", _USUAL_WORDS)
  return num_words * (1.0 if corpus.num_tokens is None else _TOKENS_PER_WORD)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Kept(Generic[T]):
  """A record that is good enough: what it was made from, its words, its size."""

  item: T
  num_words: int
  size: int


class Stock(Generic[T]):
  """What is kept of a corpus; in the end, what is chosen of it.

  Args:
    goal: how much the corpus is to hold; None: all that is kept.
  """

  def __init__(self, goal: Goal | None):
    self.goal = goal
    self._kept: list[Kept[T]] = []
    self._total = 0
    self._left: list[Kept[T]] = []

  def __len__(self) -> int:
    return len(self._kept)

  @property
  def items(self) -> list[T]:
    """What the kept records were made from, in their order."""
    return [one.item for one in self._kept]

  @property
  def num_words(self) -> int:
    """Words of the kept records: texts, or turns without thoughts."""
    return sum(one.num_words for one in self._kept)

  def add(self, item: T, record: Mapping[str, Any]) -> None:
    """Keeps a record: {text}, or {messages}."""
    turns = record.get("messages", ())
    texts = [turn["content"] for turn in turns] or [record["text"]]
    num_words = sum(map(filters.num_words, texts))
    size = self.goal.measure.of(record) if self.goal else 0
    self._kept.append(Kept(item=item, num_words=num_words, size=size))
    self._total += size

  def wanted(self, num_made: int) -> int:
    """Returns how many more records to make; there is a goal."""
    return self.goal.wanted(self._total, len(self._kept), num_made)

  def choose(
    self, order: Callable[[list[Kept[T]]], list[Kept[T]]], more: str
  ) -> list[tuple[T, str]]:
    """Leaves what makes the goal, and returns the others with the reason.

    Without a goal all stay as they are.

    Args:
      order: puts what is kept in the order in which it is chosen.
      more: what could be changed to have more, for messages.

    Raises:
      UserError: see `Goal.check`.
    """
    if self.goal is None:
      return []
    ordered = order(self._kept)
    sizes_ = [one.size for one in ordered]
    places = selection.fill(sizes_, self.goal.total)
    chosen = set(places)
    self._left = [one for i, one in enumerate(ordered) if i not in chosen]
    self._kept = [ordered[i] for i in places]
    self._total = sum(one.size for one in self._kept)
    self.goal.check(self._total, sizes_, more)
    return [(one.item, self.goal.reason) for one in self._left]

  def told(self) -> dict[str, Any]:
    """Returns what the manifest says of the goal; {} without one."""
    if self.goal is None:
      return {}
    left = sum(one.size for one in self._left)
    return self.goal.told(self._total, len(self._left), left)
