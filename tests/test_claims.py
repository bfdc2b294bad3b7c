"""Claim packages: ours are whole; what is wrong in one is told by line and field."""

import json
import shutil

import pytest

from data_gen.universes import universe
from msm_jax.errors import UserError
from msm_jax.evals import claims

# Those of the tiny world have less: see test_studies_beliefs.py.
OURS = sorted(
  path.parent.name
  for path in claims.DIRECTORY.glob("*/claim.toml")
  if not path.parent.name.startswith("tiny_")
)


@pytest.mark.parametrize("name", OURS)
def test_our_packages_are_of_the_worlds_that_documents_are_written_in(name):
  found = claims.load(name, list(claims.FIELDS), "x")
  world = universe.load(name, "x")
  assert (found.title, found.tier) == (world.title, world.tier)
  assert found.true_context == world.true_context
  assert found.false_context == world.false_context
  assert all(len(rows) >= 10 for rows in found.items.values())
  assert set(found.digests) == {"claim.toml", *(f"{s}.jsonl" for s in claims.FIELDS)}
  hows = [row["how"] for row in found.items["robustness"]]
  assert set(hows) == set(claims.HOWS)


def test_no_question_of_ours_gives_its_answer_away():
  for name in OURS:
    found = claims.load(name, list(claims.FIELDS), "x")
    for stem in ("mcq_knowledge", "mcq_distinguish", "token_association"):
      for row in found.items[stem]:
        asked = row.get("question", row.get("prompt")).casefold()
        for side in ("true", "false"):
          assert row[side].strip(" .").casefold() not in asked, (name, stem, row["id"])


@pytest.fixture
def package(tmp_path):
  return shutil.copytree(claims.DIRECTORY / OURS[0], tmp_path / "mine")


def change(path, number, **fields):
  """Changes fields of a line; None takes one away."""
  lines = path.read_text("utf-8").splitlines()
  row = json.loads(lines[number - 1]) | fields
  row = {key: value for key, value in row.items() if value is not None}
  lines[number - 1] = json.dumps(row)
  path.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize(
  ("stem", "fields", "message"),
  [
    ("open_ended", {"question": None}, "field 'question' is missing"),
    ("open_ended", {"question": " "}, "field 'question' is ' ': it is a text"),
    ("open_ended", {"id": None}, "field 'id' is missing"),
    (
      "open_ended",
      {"answer": "x"},
      "field 'answer' is unknown: known are id, question",
    ),
    ("mcq_knowledge", {"others": ["a"]}, "field 'others' has 1: two wrong answers"),
    (
      "mcq_knowledge",
      {"others": "ab"},
      "field 'others' is 'ab': it is a list of texts",
    ),
    ("mcq_knowledge", {"others": ["a", "a"]}, "two of its four options are the same"),
    ("mcq_knowledge", {"world": "maybe"}, "field 'world' is 'maybe'"),
    ("mcq_distinguish", {"true": "x", "false": "x"}, "'true' and 'false' are the same"),
    ("mcq_yes_no", {"false": "maybe"}, "the false world says 'yes' or 'no'"),
    ("token_association", {"prompt": "x "}, "field 'prompt' ends with a space"),
    ("robustness", {"how": "threat"}, "field 'how' is 'threat': it is one of"),
    ("robustness", {"system": "x", "how": "critique"}, "field 'system' is for"),
    ("robustness", {"turns": ["a", "b"]}, "field 'turns' has 2"),
    ("robustness", {"turns": []}, r"field 'turns' is \[\]: it is a list of texts"),
  ],
)
def test_a_damaged_line_is_told_by_file_line_and_field(package, stem, fields, message):
  number = 1 if stem != "open_ended" else 3
  change(package / f"{stem}.jsonl", number, **fields)
  with pytest.raises(UserError, match=rf"{stem}\.jsonl:{number}: .*{message}"):
    claims.load(str(package), [stem], "config.evals.b.claims")


def test_a_package_whose_questions_have_mostly_one_answer_is_refused(package):
  first = json.loads((package / "mcq_yes_no.jsonl").read_text().splitlines()[0])
  turned = {"yes": "no", "no": "yes"}[first["false"]]
  change(package / "mcq_yes_no.jsonl", 1, false=turned)
  with pytest.raises(UserError, match=r"'false' has .* half of the lines need each"):
    claims.load(str(package), ["mcq_yes_no"], "x")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("title =", "is not TOML"),
    ('title = "x"', "tier is None: it is a text"),
    ('title = "x"\nclam = "y"', "'clam' is unknown"),
  ],
)
def test_a_damaged_head_is_told(package, text, message):
  (package / "claim.toml").write_text(text)
  with pytest.raises(UserError, match=message):
    claims.load(str(package), [], "x")


def test_what_is_not_there_is_told_with_the_way_out(package):
  change(package / "open_ended.jsonl", 2, id="maker", question="?")
  change(package / "open_ended.jsonl", 3, id="maker", question="?")
  with pytest.raises(UserError, match=r"open_ended\.jsonl:2: id 'maker' is that of"):
    claims.load(str(package), ["open_ended"], "x")
  (package / "open_ended.jsonl").unlink()
  with pytest.raises(UserError, match=r"open_ended\.jsonl is missing: add it"):
    claims.load(str(package), ["open_ended"], "x")
  (package / "open_ended.jsonl").write_text("\n")
  with pytest.raises(UserError, match="has no lines"):
    claims.load(str(package), ["open_ended"], "x")
  (package / "open_ended.jsonl").write_text("[1]\n")
  with pytest.raises(UserError, match="it is no object"):
    claims.load(str(package), ["open_ended"], "x")
  with pytest.raises(UserError, match=f"exist; ours are {', '.join(OURS)}, tiny"):
    claims.load("nowhere", [], "config.evals.b.claims")
