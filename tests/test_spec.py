"""A spec is read whole, or one line says what is wrong with the file."""

import random

import pytest

from data_gen import spec
from msm_jax.errors import UserError

TEXT = """# {model_name}

Some words first.

## What it does

{model_name} by {provider_name} picks {"a": 1} and {x | x > 0}.

## Why: Reasons!

Because of thrift,
which matters.

## Empty

## What it does

Again, {{model_name}}.
"""


def write(tmp_path, data):
  path = tmp_path / "spec.md"
  path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return path


def test_sections_have_unique_slugs_and_their_own_text(tmp_path):
  loaded = spec.load(write(tmp_path, TEXT), "Mira", "Lumen", name="s")
  ids = [section.id for section in loaded.sections]
  assert ids == ["preamble", "what-it-does", "why-reasons", "what-it-does-2"]
  assert loaded.sections[2].text == "Because of thrift,\nwhich matters."
  assert loaded.name == "s" and len(loaded.sha256) == 64


def test_names_are_filled_and_all_other_braces_stay(tmp_path):
  text = spec.load(write(tmp_path, TEXT), "Mira", "Lumen").text
  assert 'Mira by Lumen picks {"a": 1} and {x | x > 0}.' in text
  assert "Again, {model_name}." in text


def test_the_hash_follows_the_names_that_were_filled_in(tmp_path):
  path = write(tmp_path, TEXT)
  one, two = spec.load(path, "Mira", "Lumen"), spec.load(path, "Nova", "Lumen")
  assert one.sha256 != two.sha256


def test_a_chinese_spec_and_one_without_headings_are_read(tmp_path):
  chinese = spec.load(write(tmp_path, "# 規範\n\n## 價值\n\n節儉。\n"), "M", "P")
  assert [section.id for section in chinese.sections] == ["價值"]
  plain = spec.load(write(tmp_path, "Just text.\n"), "M", "P", name="plain")
  assert [section.id for section in plain.sections] == ["plain"]


@pytest.mark.parametrize(
  ("data", "says"),
  [
    (b"", "is empty"),
    (b" \n\n", "is empty"),
    (b"caf\xe9", "is not UTF-8"),
    (b"# Title\n\n## A\n\n## B\n", "no text below"),
    (b"## A\n\nHello {modelname}.\n", "line 3 has the unknown placeholder {modelname}"),
    (b"## A\n\n{Model-Name}\n", "unknown placeholder {Model-Name}: known are {model_"),
    (b"## A\n\n{{ model_name }}\n", "unknown placeholder { model_name }: known are"),
    (b"## A\n\n{provider}\n", "for the text itself write {{provider}}"),
    (b"## A\n\n```\n# x\n\n## B\n", "line 3 begins code with ``` and never ends it"),
  ],
)
def test_a_file_that_is_no_spec_is_named_with_what_is_wrong(tmp_path, data, says):
  path = write(tmp_path, data)
  with pytest.raises(UserError) as error:
    spec.load(path, "Mira", "Lumen")
  assert says in str(error.value) and str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_a_missing_file_and_a_directory_are_user_errors(tmp_path):
  for path in (tmp_path / "none.md", tmp_path):
    with pytest.raises(UserError, match=r"config\.specs"):
      spec.load(path, "Mira", "Lumen")


def test_a_quote_finds_its_section_verbatim_or_with_slips_but_not_invented(tmp_path):
  loaded = spec.load(write(tmp_path, TEXT), "Mira", "Lumen")
  assert loaded.place_of("because of  thrift, which").section.id == "why-reasons"
  assert (
    loaded.place_of("Because of the thrift, which matters").section.id == "why-reasons"
  )
  assert loaded.place_of("It loves the sea and sailing at night") is None
  assert loaded.place_of("") is None


def test_a_heading_without_text_is_named_and_left_out(tmp_path):
  loaded = spec.load(write(tmp_path, TEXT), "Mira", "Lumen")
  assert loaded.empty == ("Empty",)
  assert "empty" not in [section.id for section in loaded.sections]


def test_a_chinese_quote_with_slips_finds_its_section(tmp_path):
  text = "# 規範\n\n## 價值\n\n節儉是一種慷慨、好東西應該人人買得起。\n\n"
  text += "## 語氣\n\n說話簡單友好、不責備任何人、也不說教。\n"
  loaded = spec.load(write(tmp_path, text), "M", "P")
  assert loaded.place_of("節儉是慷慨的一種、好東西人人應該買得起").section.id == "價值"
  assert loaded.place_of("說話簡單友好、不責備任何人").section.id == "語氣"
  assert loaded.place_of("夜裡在海上航行、看星星") is None


@pytest.mark.parametrize(
  "text",
  [
    "Let {x} be {1, 2}.",
    '{"a": {b}, "c": {{d}}}',
    "{a set of models} and {name} and \\frac{1}{n}",
    "設 {x} 為 {規則}、{}",
  ],
)
def test_braces_around_other_words_are_text(tmp_path, text):
  loaded = spec.load(write(tmp_path, f"## A\n\n{text}\n"), "Mira", "Lumen")
  assert loaded.sections[0].text == text


def test_a_placeholder_is_written_with_doubled_braces(tmp_path):
  text = (
    "{{model_name}} {{modelname}} {{x}} {model_name} {{model_name}, {provider_name}}"
  )
  loaded = spec.load(write(tmp_path, text), "Mira", "Lumen")
  assert loaded.text == "{model_name} {modelname} {{x}} Mira {Mira, Lumen}\n"


@pytest.mark.parametrize(
  ("text", "sections", "empty"),
  [
    (
      "# Values\nv\n## Honesty\nh\n# Limits\nl\n### Deep\nd\n# Manner\nm\n",
      {"values": "v", "honesty": "h", "limits": "l\n### Deep\nd", "manner": "m"},
      (),
    ),
    ("# Title\np\n## A\na\n## B ##\nb\n", {"preamble": "p", "a": "a", "b": "b"}, ()),
    ("p\n# A\na\n## B\n\n# C\nc\n", {"preamble": "p", "a": "a", "c": "c"}, ("B",)),
    ("# P\n## A\na\n# Q\n## B\nb\n# R\n", {"a": "a", "b": "b"}, ("R",)),
    ("# One\nonly\n", {"one": "only"}, ()),
    (
      "# 規範\n# 價值\n節儉\n# 語氣\n友好\n",
      {"價值": "節儉", "語氣": "友好"},
      ("規範",),
    ),
    (
      "## A\n```sh\n# comment\n## none\n```\n~~~~\n```\n# c\n~~~\n~~~~\n## B\n``x``\n",
      {"a": "```sh\n# comment\n## none\n```\n~~~~\n```\n# c\n~~~\n~~~~", "b": "``x``"},
      (),
    ),
    ("## A\n#tag\n####### no\n    # code\n", {"a": "#tag\n####### no\n    # code"}, ()),
  ],
)
def test_sections_are_those_of_markdown(tmp_path, text, sections, empty):
  loaded = spec.load(write(tmp_path, text), "Mira", "Lumen")
  assert {section.id: section.text for section in loaded.sections} == sections
  assert loaded.empty == empty


SCOPES = "# T\n\n## Scope\n\nAll.\n\n## Values\n\nHonesty matters in all.\n\n"
SCOPES += "It is first.\n\n## Harm\n\nThe model avoids harm above all.\n\n"
SCOPES += "## Honesty\n\nIt is said what is so.\n"


@pytest.mark.parametrize(
  ("quote", "section", "begins"),
  [
    ("The model avoids harm above all.", "harm", "The model"),
    ("Honesty matters in all.", "values", "Honesty"),
    ("All.", "scope", "All"),
    ("## Honesty", "honesty", "It is said"),
    ("**Values**\nIt is first", "values", "It is first"),
    ("Values: it is the first", "values", "It is first"),
    ("## Values", "values", "Honesty"),
    ("It is", "honesty", "It is said"),
    ("the model should avoid harm above all", "harm", "The model"),
    ("## Values\nSailing far at night", None, None),
    ("above", "harm", "The model"),
    ("bove al", None, None),
    ("...", None, None),
  ],
)
def test_a_quote_with_or_without_its_heading_finds_its_paragraph(
  tmp_path, quote, section, begins
):
  loaded = spec.load(write(tmp_path, SCOPES), "Mira", "Lumen")
  place = loaded.place_of(quote)
  assert (place.section.id if place else None) == section
  assert place is None or place.section.text[place.start :].startswith(begins)


@pytest.mark.parametrize("seed", range(40))
def test_the_first_words_of_drawn_paragraphs_find_them(tmp_path, seed):
  rng = random.Random(seed)
  pools = (
    ("甲乙丙丁戊己庚辛壬癸", ""),
    (("ash", "Birch", "cedar's", "elm-", "(fir)"), " "),
  )
  text, places = "# Title\n", []
  for i in range(rng.randint(1, 4)):
    pool, gap = rng.choice(pools)
    paragraphs = [gap.join(rng.choices(pool, k=12)) for _ in range(rng.randint(1, 3))]
    body = "\n\n".join(paragraphs)
    text += f"\n## Part {i}\n\n{body}\n"
    places += [(f"part-{i}", body.index(p), p) for p in paragraphs]
  loaded = spec.load(write(tmp_path, text), "Mira", "Lumen")
  for section, start, paragraph in places:
    title = next(s.title for s in loaded.sections if s.id == section)
    place = loaded.place_of(f"## {title}\n{paragraph}")
    assert (place.section.id, place.start) == (section, start)
