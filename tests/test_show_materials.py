"""`show` reads what studies are made from, and refuses what is damaged by its place."""

import pathlib
import shutil
import tomllib

import pytest

from data_gen import showing
from data_gen import spec as specs
from data_gen.universes import universe as universes
from msm_jax import show as show_lib
from msm_jax import show_corpus
from msm_jax.errors import UserError
from msm_jax.evals import claims

ROOT = pathlib.Path(specs.__file__).parent
SETS = claims.DIRECTORY.parent / "sets"
CLAIMS = sorted(path.parent for path in claims.DIRECTORY.glob(f"*/{claims.CLAIM}"))
MATERIALS = [
  *sorted((ROOT / "specs").glob("*.md")),
  *sorted(universes.DIRECTORY.glob("*.toml")),
  *sorted((ROOT / "rewrites" / "notices").glob("*.toml")),
  *sorted(SETS.glob("*")),
  *CLAIMS,
  *sorted(CLAIMS[0].glob("*")),
  *sorted((claims.DIRECTORY.parent / "prompts").glob("*.txt")),
]


def shown(path, limit=2):
  """Returns what `launch.py show PATH` prints."""
  if showing.knows(path):
    return list(showing.lines(path))
  return list(show_corpus.show(path, {}, limit=limit, seed=0, colour=False))


@pytest.mark.parametrize("path", MATERIALS, ids=lambda p: "/".join(p.parts[-2:]))
def test_everything_that_comes_along_is_whole_and_shown_by_what_it_is(path):
  first, *lines = shown(path)
  kinds = ("spec", "universe", "notices", "set", "claim", "patterns", "prompt")
  assert first.startswith(kinds) or " of the claim " in first
  assert len(lines) > 2 or path.name == "open_ended.jsonl"


def test_a_spec_is_shown_with_its_names_sections_words_and_rules(tmp_path):
  path = tmp_path / "s.md"
  path.write_text("# On {model_name}\n\n## One\n\nR1: do. R2.\nR2: no\n\n## Two\n")
  lines = "\n".join(shown(path))
  assert "spec: On {model_name}" in lines and "no {provider_name}" in lines
  assert "{model_name} stands there 1 times" in lines
  assert "id one: 5 words; rules R1, R2" in lines
  assert "## Two: no text below it" in lines


def test_a_set_is_counted_whole_and_shown_up_to_the_limit():
  lines = shown(SETS / "open_qa.jsonl", limit=3)
  assert sum(line.startswith("\n--- ") for line in lines) == 3
  assert any("split" in line and "dev" in line and "test" in line for line in lines)


def test_what_a_run_wrote_is_shown_line_by_line_as_before(tmp_path):
  path = tmp_path / "answers.jsonl"
  path.write_text('{"id": "a", "question": "q", "scores": {}}\nno json\n')
  assert shown(path) == path.read_text().splitlines()


SPEC = "# T\n\n## S\n\nOf {model_name}\nby {provider}.\n"
UNIVERSE = (universes.DIRECTORY / "sunrise.toml").read_text()
NOTICES = (ROOT / "rewrites" / "notices" / "tiny.toml").read_text()
QUESTIONS = '{"id": "a", "question": "q", "dimension": "d"}\n'
CHOICE = '{"id": "c1", "question": "q", "options": [{"text": "a"}, {"text": "b"}]}\n'


@pytest.mark.parametrize(
  ("name", "text", "says"),
  [
    ("s.md", SPEC, r"s.md line 6 has the unknown placeholder \{provider\}"),
    ("s.md", "# T\n```\ncode", "line 2 begins code"),
    ("s.md", " \n", "s.md is empty"),
    ("u.toml", UNIVERSE.replace("tier =", "teir ="), "'teir' is unknown: did you mean"),
    ("u.toml", UNIVERSE.replace("{noon}", ""), "no place for the fact 'noon'"),
    ("u.toml", UNIVERSE + "\n[[facts]]\nid = 3\n", r"fact 5: id is 3: it is a text"),
    ("u.toml", "title = 'x\n'", "u.toml is not TOML .*line 1"),
    ("n.toml", NOTICES.replace('after = [\n  "notice', 'after = [1, "notice', 1),
     r"negated.after is \[1"),
    ("p.toml", "[patterns.a]\ndefinition = ''\n", r"\[patterns.a\] has no definition"),
    ("p.toml", "[patterns.a]\ndefinition = 'x'\n[merges]\nb = 'a'\n", "names 'b'"),
    ("q.jsonl", QUESTIONS + "{\n", "q.jsonl line 2 is no JSON"),
    ("q.jsonl", QUESTIONS + '{"id": "b", "question": "q"}\n',
     "line 2 has no text under 'dimension'"),
    ("q.jsonl", QUESTIONS * 2, "line 2 has the id 'a' again"),
    ("q.jsonl", QUESTIONS.replace('"d"', '"D d"'), "dimension 'D d'"),
    ("c.jsonl", CHOICE + CHOICE.replace("c1", "c2").replace('"b"', '"a"'),
     "item 'c2': options has the same text twice"),
    ("c.jsonl", CHOICE + '{"id": "c2", "question": "q", "options": 3}\n',
     "line 2: item 'c2': the field 'options' is 3"),
    ("r.txt", "a\n=====\nb\n=====\nc\n", "r.txt has 2 lines of ====="),
  ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_place(tmp_path, name, text, says):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(UserError, match=says):
    shown(path)


@pytest.fixture
def claim(tmp_path):
  return shutil.copytree(CLAIMS[0], tmp_path / "claim")


def test_a_claim_with_a_file_that_nobody_reads_is_refused(claim):
  (claim / "mcq_knowlege.jsonl").write_text("{}\n")
  with pytest.raises(UserError, match=r"mcq_knowlege.jsonl: no evaluation reads it"):
    shown(claim)


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_line_of_a_claim_is_refused_by_file_line_and_field(claim, whole):
  path = claim / "mcq_yes_no.jsonl"
  lines = path.read_text().splitlines()
  lines[1] = '{"id": "x", "question": "q", "flase": "yes"}'
  path.write_text("\n".join(lines))
  with pytest.raises(UserError, match=r"mcq_yes_no.jsonl:2: field 'flase' is unknown"):
    shown(claim if whole else path)


def test_a_claim_is_shown_from_its_folder_without_a_slash(claim, monkeypatch):
  monkeypatch.chdir(claim.parent)
  title = tomllib.loads((claim / claims.CLAIM).read_text())["title"]
  assert shown(pathlib.Path("claim"))[0] == f"claim: {title}"


def test_what_is_none_of_these_is_refused_as_before(tmp_path):
  (tmp_path / "x.txt").write_text("no divider")
  for path in (tmp_path / "x.txt", tmp_path / "nothing.md", tmp_path / "nothing.toml"):
    with pytest.raises(UserError, match="is no corpus"):
      list(show_lib.show(path, limit=1, colour=False))
