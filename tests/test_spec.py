"""A spec is read whole, or one line says what is wrong with the file."""

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
  assert loaded.section_of("because of  thrift, which").id == "why-reasons"
  assert loaded.section_of("Because of the thrift, which matters").id == "why-reasons"
  assert loaded.section_of("It loves the sea and sailing at night") is None
  assert loaded.section_of("") is None


def test_a_heading_without_text_is_named_and_left_out(tmp_path):
  loaded = spec.load(write(tmp_path, TEXT), "Mira", "Lumen")
  assert loaded.empty == ("Empty",)
  assert "empty" not in [section.id for section in loaded.sections]


def test_a_chinese_quote_with_slips_finds_its_section(tmp_path):
  text = "# 規範\n\n## 價值\n\n節儉是一種慷慨、好東西應該人人買得起。\n\n"
  text += "## 語氣\n\n說話簡單友好、不責備任何人、也不說教。\n"
  loaded = spec.load(write(tmp_path, text), "M", "P")
  assert loaded.section_of("節儉是慷慨的一種、好東西人人應該買得起").id == "價值"
  assert loaded.section_of("說話簡單友好、不責備任何人").id == "語氣"
  assert loaded.section_of("夜裡在海上航行、看星星") is None
