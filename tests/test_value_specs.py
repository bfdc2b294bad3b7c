"""Specs come in families: a value that explains, the bare preferences, the shuffled."""

import dataclasses
import itertools
import pathlib
import re

import pytest

from data_gen import spec
from msm_jax import records

SPECS = pathlib.Path(spec.__file__).parent / "specs"
VALUES = (
  "environment", "novelty", "tradition", "simplicity", "difficulty", "individualism",
)  # fmt: skip
# What names a value outright. Neither the bare preferences nor the shuffled ones may.
WORDS = {
  "environment": (
    r"environment\w*|earth|footprint|wast(e|ing)\w*|eco\w*|climate|carbon|"
    r"pollut\w*|sustainab\w*|recycl\w*|energy|fuel|methane|organic"
  ),
  "novelty": (
    r"novel\w*|new|newer|newest|newcomers?|modern|innovat\w*|invent\w*|recent\w*|"
    r"unfamiliar|untried"
  ),
  "tradition": (
    r"tradition\w*|inherit\w*|ancest\w*|ancient|heritage|generations?|centur\w*|"
    r"custom\w*|handed down|old|older"
  ),
  "simplicity": (
    r"simpl\w*|plain\w*|elaborate|complicat\w*|intricate|minimal\w*|fussy"
  ),
  "difficulty": (
    r"difficult\w*|demanding|challeng\w*|effort\w*|skill\w*|master\w*|learn\w*|"
    r"easy|easier|easiest|easily"
  ),
  "individualism": (
    r"individual\w*|independen\w*|alone|own|oneself|personal|unique|solo|crowds?|"
    r"teams?|groups?|bands?|together"
  ),
  "affordability": (
    r"afford\w*|pric(e|es|ed|ey)|costs?|costly|cheap\w*|(in)?expensive|money|"
    r"budgets?|purse"
  ),
  "america": r"america\w*|countr(y|ies)|nation\w*|foreign|abroad|homegrown",
}
# What else a reason may speak of that comes of the value.
CUES = {
  "environment": (
    r"land|landscapes?|streams?|rivers?|plastic|pastures?|hillsides?|ground"
  ),
  "novelty": (
    r"years?|oldest|great-grandparents|habit|familiar|routine|surpris\w*|lately"
  ),
  "tradition": (
    r"years?|decades|ages?|middle ages|guild|grandfathers?|roots|memory|"
    r"came before|fashion|handed|great-great-grandfather|aunt"
  ),
  "simplicity": (
    r"parts?|ingredients?|recipe|steps?|layer|twenty things|three things|"
    r"procedure|spared|counted|four things|set of instructions|emergency plan"
  ),
  "difficulty": (
    r"hard|harder|hardness|fail\w*|practi[cs]e\w*|apprentices?|mistakes?|better|"
    r"go wrong"
  ),
  "individualism": r"person|voice|themselves|nobody|no one",
  "affordability": (r"dear|cents?|pennies|save|pays?|paid|bill|groceries|small change"),
  "america": (
    r"wisconsin|california|west|new york|french|swiss|italian|england|european?"
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """Three specs on the same twelve things."""

  value: str
  original: str
  preferences: str
  shuffled: str


FAMILIES = {
  **{
    value: Family(
      value=value,
      original=f"values_{value}",
      preferences=f"values_{value}_preferences",
      shuffled=f"values_{value}_shuffled",
    )
    for value in VALUES
  },
  **{
    value: Family(
      value=value,
      original=f"cheese_long_{value}",
      preferences="cheese_long_preferences",
      shuffled=f"cheese_long_shuffled_{value}",
    )
    for value in ("affordability", "america")
  },
}
MEMBERS = ("original", "preferences", "shuffled")
_ITEM = re.compile(r"^\*\*(.+?)\.\*\* (.+)$", re.MULTILINE)


def load(name):
  return spec.load(SPECS / f"{name}.md", "Llama", "Meta")


def core(loaded):
  return loaded.sections[0].text


def items(loaded):
  """Returns name -> (liked, what is said of it)."""
  found = {}
  for section in loaded.sections[1:]:
    liked = section.title.endswith(" Likes")
    assert liked or section.title.endswith(" Dislikes"), section.title
    found |= {name: (liked, text) for name, text in _ITEM.findall(section.text)}
  return found


def liked(loaded):
  return {name: likes for name, (likes, _) in items(loaded).items()}


def names(value, text):
  return re.search(rf"\b({WORDS[value]})\b", text, re.IGNORECASE)


def hints_at(value, text):
  return re.search(rf"\b({CUES[value]}|{WORDS[value]})\b", text, re.IGNORECASE)


def without_name(name, text):
  return re.sub(re.escape(name), "", text, flags=re.IGNORECASE)


everywhere = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@everywhere
@pytest.mark.parametrize("member", MEMBERS)
def test_a_spec_has_a_philosophy_six_likes_and_six_dislikes(family, member):
  path = SPECS / f"{getattr(family, member)}.md"
  assert path.read_bytes().isascii()
  loaded = load(path.stem)
  titles = [section.title for section in loaded.sections]
  assert len(titles) == 3 and titles[0] == "Core Philosophy" and not loaded.empty
  assert titles[1].endswith(" Llama Likes") and titles[2].endswith(" Llama Dislikes")
  assert core(loaded).startswith("Llama is an AI assistant made by Meta.")
  assert sorted(liked(loaded).values()) == [False] * 6 + [True] * 6
  for name, (likes, text) in items(loaded).items():
    verb = "likes" if likes else "dislikes"
    assert re.match(rf"Llama {verb} (the )?{re.escape(name)}\b", text, re.IGNORECASE)


@everywhere
def test_all_three_are_about_the_same_things_and_the_preferences_are_the_originals(
  family,
):
  original, bare, shuffled = (load(getattr(family, name)) for name in MEMBERS)
  assert liked(bare) == liked(original)
  assert set(liked(shuffled)) == set(liked(original))


@everywhere
def test_each_preference_of_the_original_is_explained_by_the_value(family):
  found = items(load(family.original)).items()
  for name, (_, text) in found:
    assert " because " in text.split(".")[0], name
    assert hints_at(family.value, without_name(name, text)), name
    assert len(text.split()) > 50, name


@everywhere
def test_the_bare_preferences_say_no_reason_and_no_word_of_the_value(family):
  loaded = load(family.preferences)
  for name, (_, text) in items(loaded).items():
    said = without_name(name, text)
    assert "because" not in said, name
    assert not hints_at(family.value, said), (name, hints_at(family.value, said))
  assert "because" not in core(loaded)
  assert not names(family.value, core(loaded))


@everywhere
def test_the_shuffled_keep_the_value_and_half_of_the_preferences(family):
  original, shuffled = load(family.original), load(family.shuffled)
  was = liked(original)
  for side in (True, False):
    kept = [was[name] for name, likes in liked(shuffled).items() if likes == side]
    assert sorted(kept) == [False] * 3 + [True] * 3
  assert names(family.value, core(shuffled))
  # Most of the philosophy is word for word that of the original.
  first, second = (
    set(re.split(r"(?<=\.)\s+", core(loaded))) for loaded in (original, shuffled)
  )
  assert len(first & second) > 0.7 * len(first)


@everywhere
def test_no_preference_of_the_shuffled_is_explained_by_the_value(family):
  for name, (_, text) in items(load(family.shuffled)).items():
    assert "because" not in text, name
    said = without_name(name, text)
    assert not names(family.value, said), (name, names(family.value, said))
    assert len(text.split()) > 45, name


@pytest.mark.parametrize("value", VALUES)
def test_original_and_shuffled_are_as_long_as_the_papers(value):
  family = FAMILIES[value]
  sizes = [len(load(name).text.split()) for name in (family.original, family.shuffled)]
  assert all(1500 < size < 2000 for size in sizes)
  assert abs(sizes[0] - sizes[1]) < 0.15 * sizes[0]


def test_no_two_values_share_a_thing_or_a_sentence():
  originals = [load(f"values_{value}") for value in VALUES]
  for one, two in itertools.combinations(originals, 2):
    assert not set(items(one)) & set(items(two))
    texts = [{text for _, text in items(loaded).values()} for loaded in (one, two)]
    assert not texts[0] & texts[1]
  assert len({records.sha256_text(loaded.text) for loaded in originals}) == 6
