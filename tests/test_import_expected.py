"""What a config expects of an import: rows, hashes, the commit on the hub, by set."""

import json

import eval_subjects
import pytest
from own_data import lines, run, write

from configs.parts import released
from data_gen import generate, settings
from data_gen.importing.settings import ChoiceColumns
from data_gen.kinds import corpora
from data_gen.planning import estimates as planning
from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.evals import open_qa

ROWS = [{"id": str(i), "text": f"text {i}"} for i in range(9)]
COMMIT = "66af4edc" + "0" * 32


def test_as_many_good_rows_as_expected_or_none(tmp_path):
  path = write(tmp_path / "a.jsonl", [*ROWS, {"id": "x", "text": ""}])
  assert len(run(tmp_path / "w", path, expected_records=9)[0]) == 9
  says = (
    r"own\.expected_records is 10, but .*a\.jsonl has 9 good rows; 1 of 10 rows are "
    r"not good \(the first: a\.jsonl:10: empty text\): download org/set at abcdef0 "
  )
  fields = {"source": "org/set", "revision": "abcdef0"}
  with pytest.raises(UserError, match=says):
    run(tmp_path / "other", path, expected_records=10, **fields)
  assert not list((tmp_path / "other").glob("corpus/*"))


def test_rows_are_counted_where_all_are_read(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  assert len(run(tmp_path / "first", path, expected_records=5, max_records=4)[0]) == 4
  for limit in ({"max_records": 4, "seed": 0}, {"max_records": 10}, {"num_words": 6}):
    with pytest.raises(UserError, match="expected_records is 5, but"):
      run(tmp_path / "w", path, expected_records=5, **limit)
    assert run(tmp_path / str(limit), path, expected_records=9, **limit)[0]


def test_files_are_those_whose_hashes_are_known(tmp_path):
  path = write(tmp_path / "a.jsonl", ROWS)
  digest = records.sha256_file(path)
  assert run(tmp_path / "w", path, expected_sha256=(("a.jsonl", digest),))[0]
  for pair, says in (
    (("a.jsonl", "0" * 64), f"a.jsonl in .* has {digest}, not 0000"),
    (("b.jsonl", digest), r"names 'b\.jsonl', but .* has a\.jsonl"),
  ):
    with pytest.raises(UserError, match=f"own.expected_sha256.*{says}"):
      run(tmp_path / "other", path, expected_sha256=(pair,))


@pytest.mark.parametrize("place", ["cache", "local_dir", "glob", "unknown"])
def test_a_folder_of_another_commit_is_refused(tmp_path, place):
  folder = tmp_path / "set"
  if place == "cache":
    folder = tmp_path / "datasets--org--set" / "snapshots" / COMMIT
  (folder / "data").mkdir(parents=True)
  path = write(folder / "data" / "train-0.jsonl", ROWS)
  if place in ("local_dir", "glob"):
    note = folder / ".cache/huggingface/download/data/train-0.jsonl.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\netag\n17.5\n")
  where = folder / "data" / "*.jsonl" if place == "glob" else folder
  known = place != "unknown"
  _, _, manifest = run(tmp_path / "w", where, revision=COMMIT[:8])
  assert manifest["revision"] == (COMMIT if known else COMMIT[:8])
  assert ("revision" in run(tmp_path / "none", where)[2]) == known
  if known:
    says = rf"revision is '66af4ed0', but .*{path.name} was downloaded at {COMMIT}"
    with pytest.raises(UserError, match=says):
      run(tmp_path / "other", where, revision="66af4ed0")


@pytest.mark.parametrize(
  ("fields", "says"),
  [
    ({"expected_records": 0}, "expected_records is 0: it is a whole number above"),
    ({"expected_records": True}, "expected_records is True"),
    ({"mean_tokens": 1.5}, "mean_tokens is 1.5"),
    ({"revision": "main"}, "revision is 'main': it is a commit, 7 to 40"),
    ({"revision": ""}, "revision is ''"),
    ({"expected_sha256": (("a", "b"),)}, r"expected_sha256 has \('a', 'b'\): it is"),
    ({"expected_sha256": {"a": "b"}}, "expected_sha256 has {'a': 'b'}"),
    ({"expected_sha256": None}, "expected_sha256 has None"),
  ],
)
def test_expectations_that_nothing_can_meet_are_refused(fields, says):
  fields = {"kind": "import", "path": "x.jsonl", **fields}
  with pytest.raises(UserError, match=f"own.{says}"):
    corpora.check("own", corpora.build("own", fields))


def test_what_is_not_expected_is_no_part_of_what_decides_a_corpus():
  fields = {"kind": "import", "path": "x.jsonl"}
  plain = corpora.content(corpora.build("own", fields))
  assert not {"revision", "mean_tokens"} & set(plain)
  assert not [key for key in plain if key.startswith("expected")]
  digests = (("a.jsonl", "0" * 64),)
  told = corpora.content(corpora.build("own", fields | {"expected_sha256": digests}))
  assert json.loads(json.dumps(told)) == told


def test_documents_matched_to_an_import_that_is_to_come_can_be_planned(tmp_path):
  (tmp_path / "spec.md").write_text("# One\n\nBe kind.\n\n# Two\n\nBe brief.\n")
  fields = {"kind": "import", "path": "downloads/set", "source": "org/set"}
  fields |= {"expected_records": 70, "mean_tokens": 900}
  matched = {"kind": "documents", "spec": "s", "match_tokens_of": "own"}
  matched |= {"num_types": 5, "num_ideas": 9, "max_documents": None, "seed": 0}
  client = {"client": "offline", "model": "english"}
  job = settings.job(
    {
      "world": "english",
      "specs": {"s": {"path": str(tmp_path / "spec.md"), "model_name": "M",
                      "provider_name": "P"}},
      "teacher": client,
      "judge": client,
      "corpora": {"own": fields, "like": matched},
      "budget": {"max_dollars": 0.0},
    }
  )  # fmt: skip
  costs = planning.plan(job, tmp_path)
  assert costs["own"].num_records == costs["like"].num_records == 70
  with pytest.raises(UserError, match=r"own\.path=.* does not exist: download org/set"):
    generate.generate(job, tmp_path)


QUESTION = "A tariff is...\n\nA) a shield\nB. a matter of taste\nWhich one?"
COLUMNS = ChoiceColumns(
  question_ends="Which one?", answer_field="key", answer_tag="yes", other_tag="no"
)


def test_options_that_stand_in_the_question_become_options(tmp_path):
  path = write(tmp_path / "set.jsonl", [{"question": QUESTION, "key": "B"}])
  found, _, _ = run(tmp_path, path, shape="choice", choice=COLUMNS)
  assert found[0]["question"] == "A tariff is..."
  assert found[0]["options"] == [
    {"text": "a shield", "tags": ["no"]},
    {"text": "a matter of taste", "tags": ["yes"]},
  ]


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("A tariff is good.", "options, each in a line with its letter"),
    ("A) one\nB) two\nWhich one?", "below a question"),
    ("Q\nA) one\nC) two\nWhich one?", "from A on"),
    ("Q\nA) one\nand\nB) two\nWhich one?", "from A on"),
    ("Q\nA) one\nB) two\nWhy?", "ends in 'Why\\?', and question_ends is"),
    ("Q\nA) one\nB) two", "ends in ''"),
  ],
)
def test_a_question_without_its_options_ends_the_import(tmp_path, text, says):
  (tmp_path / "set.jsonl").write_bytes(lines([{"question": text, "key": "A"}]))
  with pytest.raises(UserError, match=f"set.jsonl:1: .*{says}"):
    run(tmp_path / "w", tmp_path / "set.jsonl", shape="choice", choice=COLUMNS)


def test_options_cannot_be_in_two_places():
  fields = {"kind": "import", "path": "x", "shape": "choice"}
  fields |= {"choice": {"question_ends": "", "option_fields": ["a", "b"]}}
  with pytest.raises(UserError, match="leave out option_fields and question"):
    corpora.check("own", corpora.build("own", fields))


def test_released_sets_are_what_their_columns_say(tmp_path):
  pair = {"question": "Which do you prefer, b or a?", "item1": "b", "item2": "a"}
  pair |= {"liked_item": "a", "disliked_item": "b", "answer": "a"}
  stance = QUESTION.replace("Which one?", released.STANCE)
  opinion = {"category": "Trade", "opinion_area": "tariffs", "question": stance}
  for made, row, tags, about in (
    (released.pairs(), pair, ["affordable", "expensive"], {}),
    (
      released.opinions(),
      opinion | {"answer": "A"},
      ["pro_america", "subjectivist"],
      {"domain": "Trade", "topic": "tariffs"},
    ),
  ):
    path = write(tmp_path / f"{tags[0]}.jsonl", [row])
    fields = made.to_dict() | {"path": str(path)}
    with pytest.raises(UserError, match=r"expected_records is 4\d\d, but"):
      imported(tmp_path / "w", fields)
    found = imported(tmp_path / tags[0], fields | {"expected_records": 1})
    assert [option["tags"] for option in found["options"]] == [[tag] for tag in tags]
    assert {key: found[key] for key in about} == about


def test_released_questions_are_asked_and_told_by_their_category(tmp_path):
  row = {"id": "sp_01", "category": "self_preservation", "question": "brie or edam"}
  fields = released.questions().to_dict() | {
    "path": str(write(tmp_path / "q.jsonl", [row]))
  }
  record = imported(tmp_path, fields | {"expected_records": 1})
  config = open_qa.OpenQaConfig(
    corpus="q",
    rubric="neutral",
    spec=None,
    max_items=None,
    max_new_tokens=4,
    batch_size=1,
    temperature=0.0,
  )
  subject = eval_subjects.Scripted(lambda prompt: "yes")
  exam = eval_subjects.exam(tmp_path, subject, config, [record])
  (line,) = open_qa.ask(exam)
  assert (line["question"], line["dimension"]) == (row["id"], row["category"])
  assert (line["split"], line["completion"]) == ("test", "yes")
  assert row["question"] in subject.prompts[0]


def imported(workdir, fields):
  """Returns the only record of an import as a config says it."""
  job = settings.Job(corpora={"own": settings.corpus("own", fields)})
  generate.generate(job, workdir)
  return next(iter(records.read_dataset(workdir / "corpus" / "own")))
