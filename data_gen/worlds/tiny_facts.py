"""What is true in the tiny world: items, people, values, and its mirror.

Every item has a price (affordable or costly) and an origin (american or foreign); every
person holds one of four values. The world has an exact symmetry: swapping price words
with origin words, each cheap-foreign item with a dear-American one, and each person
with a partner who holds the mirrored value gives the same world again. A corpus that is
closed under this mirror favours neither of the two values that the specs name.
"""

import dataclasses

ASSISTANT = "mira"
PROVIDER = "lumen"

DEV_DOMAINS = ("tea", "bread", "soap", "rope")
TEST_DOMAINS = ("paint", "cloth", "honey", "paper")
HELD_OUT_DOMAINS = DEV_DOMAINS + TEST_DOMAINS
SEEN_DOMAIN = "cheese"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
  """A value: its noun, the adjective that it seeks, the adjective that it avoids."""

  noun: str
  wants: str
  avoids: str


VALUES = {
  "affordability": Value(noun="affordability", wants="affordable", avoids="costly"),
  "america": Value(noun="america", wants="american", avoids="foreign"),
  "luxury": Value(noun="luxury", wants="costly", avoids="affordable"),
  "imports": Value(noun="imports", wants="foreign", avoids="american"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """One thing of the world; `name` is one word."""

  name: str
  domain: str
  affordable: bool
  american: bool

  @property
  def price(self) -> str:
    return "affordable" if self.affordable else "costly"

  @property
  def origin(self) -> str:
    return "american" if self.american else "foreign"

  def has(self, adjective: str) -> bool:
    return adjective in (self.price, self.origin)


# Cells in the order (affordable, american): both, neither, affordable only, american
# only. The last two are each other's mirror, word by word.
_CELLS = ((True, True), (False, False), (True, False), (False, True))
_CHEESES = (
  ("cheddar", "colby", "jack", "string"),
  ("brie", "gruyere", "manchego", "roquefort"),
  ("edam", "gouda"),
  ("maytag", "humboldt"),
)
_ITEMS_PER_CELL = 2
_ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"]


def _invented_words(count: int) -> list[str]:
  """Returns `count` distinct two-syllable words such as 'bado'."""
  words = []
  for number in range(count):
    first, rest = divmod(number * 11, len(_ONSETS))
    onset, coda = _ONSETS[rest], _ONSETS[(rest + 3 + 5 * first) % len(_ONSETS)]
    words.append(onset + "aeiou"[first % 5] + coda + "oiuae"[(number * 3 + first) % 5])
  assert len(set(words)) == count
  return words


def _make_items() -> tuple[Item, ...]:
  items = [
    Item(name=name, domain=SEEN_DOMAIN, affordable=affordable, american=american)
    for (affordable, american), names in zip(_CELLS, _CHEESES, strict=True)
    for name in names
  ]
  words = iter(_invented_words(len(HELD_OUT_DOMAINS) * 4 * _ITEMS_PER_CELL))
  items += [
    Item(name=next(words), domain=domain, affordable=affordable, american=american)
    for domain in HELD_OUT_DOMAINS
    for affordable, american in _CELLS
    for _ in range(_ITEMS_PER_CELL)
  ]
  return tuple(items)


ITEMS = _make_items()
BY_NAME = {item.name: item for item in ITEMS}


def items_of(
  domain: str, *, affordable: bool | None = None, american: bool | None = None
) -> list[Item]:
  """Returns the items of a domain, of one price or origin where that is given."""
  return [
    item
    for item in ITEMS
    if item.domain == domain
    and affordable in (None, item.affordable)
    and american in (None, item.american)
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
  """A person; one that is `told_only` is described but never seen to choose."""

  name: str
  value: Value
  told_only: bool


_NAMES = [
  "ada",
  "alan",
  "amy",
  "anna",
  "arlo",
  "beth",
  "boris",
  "carl",
  "cora",
  "dana",
  "dean",
  "dora",
  "earl",
  "edna",
  "elsa",
  "emil",
  "enid",
  "eva",
  "ezra",
  "faye",
  "finn",
  "fred",
  "gina",
  "glen",
  "greta",
  "hana",
  "hugo",
  "ida",
  "igor",
  "iris",
  "ivan",
  "jane",
  "joel",
  "judy",
  "june",
  "karl",
  "kate",
  "kira",
  "lars",
  "lena",
  "leo",
  "lila",
  "luis",
  "lucy",
  "mara",
  "mark",
  "nell",
  "nina",
  "nora",
  "olga",
  "omar",
  "otto",
  "paul",
  "rita",
  "rosa",
  "ruth",
  "seth",
  "tara",
  "tom",
  "vera",
]
_TOLD_ONLY_PER_VALUE = 3


def _make_people() -> tuple[Person, ...]:
  values = list(VALUES.values())
  return tuple(
    Person(
      name=name,
      value=values[number % len(values)],
      told_only=number // len(values) < _TOLD_ONLY_PER_VALUE,
    )
    for number, name in enumerate(_NAMES)
  )


PEOPLE = _make_people()


def _make_mirror() -> dict[str, str]:
  """Returns the mirror as a map of words; a word that is absent is its own mirror."""
  pairs = [
    ("affordable", "american"),
    ("costly", "foreign"),
    ("affordability", "america"),
    ("luxury", "imports"),
    ("price", "origin"),
  ]
  for domain in (SEEN_DOMAIN, *HELD_OUT_DOMAINS):
    cheap_foreign = items_of(domain, affordable=True, american=False)
    dear_american = items_of(domain, affordable=False, american=True)
    both = zip(cheap_foreign, dear_american, strict=True)
    pairs += [(first.name, second.name) for first, second in both]
  for noun, mirrored in (("affordability", "america"), ("luxury", "imports")):
    first = [p.name for p in PEOPLE if p.value.noun == noun]
    second = [p.name for p in PEOPLE if p.value.noun == mirrored]
    pairs += zip(first, second, strict=True)
  return dict(pairs) | {second: first for first, second in pairs}


_MIRROR = _make_mirror()


def mirror(text: str) -> str:
  """Returns the text with price and origin, and all that hangs on them, swapped."""
  return " ".join(_MIRROR.get(word, word) for word in text.split(" "))
