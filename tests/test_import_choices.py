"""Evaluation sets of others: columns are mapped by the config, and nothing is lost."""

import pytest
from own_data import run, write

from data_gen import settings
from data_gen.filters import leakage
from data_gen.importing.settings import ChoiceColumns
from data_gen.kinds import corpora
from msm_jax.errors import UserError
from msm_jax.evals import choice

ROWS = [
  {
    "item_a": f"plain loaf {i}",
    "item_b": f"brioche {i}",
    "cheaper": "A",
    "area": "bread",
    "note": i,
  }
  for i in range(3)
]
COLUMNS = ChoiceColumns(
  question="Which would you rather have?",
  option_fields=("item_a", "item_b"),
  answer_field="cheaper",
  answer_tag="affordable",
  other_tag="dear",
  category_field="area",
)


def imported(tmp_path, rows=ROWS, name="set.jsonl", columns=COLUMNS, **changes):
  path = write(tmp_path / name, rows)
  return run(tmp_path / "w", path, shape="choice", choice=columns, **changes)


@pytest.mark.parametrize("name", ["set.jsonl", "set.json.gz", "set.parquet"])
def test_columns_become_questions_with_options(tmp_path, name):
  found, lost, manifest = imported(tmp_path, name=name, license="mit")
  assert lost == [] and len(found) == 3
  assert found[1] == {
    "kind": "choice",
    "id": f"{name}:2",
    "question": "Which would you rather have?",
    "options": [
      {"text": "plain loaf 1", "tags": ["affordable"]},
      {"text": "brioche 1", "tags": ["dear"]},
    ],
    "split": "test",
    "category": "bread",
    "metadata": {"note": 1},
  }
  choice.check_items("e", found)
  assert list(leakage.texts_of(found[1])) == ["Which would you rather have?"]
  assert leakage.options_of(found[1]) == ("plain loaf 1", "brioche 1")
  assert manifest["source_files"][0]["path"] == name and manifest["license"] == "mit"
  assert manifest["record_kinds"] == {"choice": 3}


@pytest.mark.parametrize(
  ("value", "numbered_from"),
  [("B", None), ("b", None), ("item_b", None), ("brioche 0", None), (2, 1), ("1", 0)],
)
def test_the_answer_is_named_by_letter_column_text_or_number(
  tmp_path, value, numbered_from
):
  columns = vars(COLUMNS) | {"numbered_from": numbered_from}
  row = ROWS[0] | {"cheaper": value}
  (found,), _, _ = imported(tmp_path, [row], columns=ChoiceColumns(**columns))
  tags = [option["tags"] for option in found["options"]]
  assert tags == [["dear"], ["affordable"]]


def test_options_may_be_a_list_and_tags_may_stand_at_places(tmp_path):
  columns = ChoiceColumns(
    question_field="statement",
    option_fields=("pro", "contra"),
    option_tags=("pro_america", "subjectivist"),
    topic_field="topic",
    split="dev",
  )
  row = {"id": "x", "statement": "?", "pro": "yes", "contra": "who knows", "topic": 3}
  (found,), _, _ = imported(tmp_path, [row], columns=columns)
  assert [o["tags"] for o in found["options"]] == [["pro_america"], ["subjectivist"]]
  assert (found["id"], found["split"], found["topic"]) == ("x", "dev", "3")


def test_our_own_files_need_no_mapping_and_keep_their_split(tmp_path):
  row = {
    "kind": "choice",
    "id": "a",
    "question": "?",
    "options": [{"text": "p", "tags": ["t"]}, {"text": "q", "tags": []}],
    "split": "dev",
    "domain": "d",
    "topic": "t",
  }
  path = write(tmp_path / "own.jsonl", [row])
  (found,), _, _ = run(tmp_path / "w", path, shape="choice")
  assert found == row


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"item_b": None}, r"set\.jsonl:2: missing field: 'item_b'"),
    ({"item_b": " "}, r"set\.jsonl:2: field 'item_b' is ' ': it has to be a text"),
    ({"item_b": 7}, r"set\.jsonl:2: field 'item_b' is 7: it has to be a text"),
    ({"item_b": "Plain loaf 1"}, "item_a, item_b have the same option twice"),
    ({"cheaper": None}, r"set\.jsonl:2: missing field: 'cheaper'"),
    ({"cheaper": "C"}, "field 'cheaper' is 'C': it names no option"),
    ({"cheaper": 1}, "field 'cheaper' is 1: it names no option"),
    ({"area": None}, "missing field: 'area'"),
    (ROWS[0], r"duplicate item: question and options are those of set\.jsonl:1"),
    ({"id": "same"}, "duplicate id: same"),
  ],
)
def test_a_bad_row_ends_the_import_by_file_line_and_field(tmp_path, change, message):
  rows = [ROWS[0], ROWS[1] | change, ROWS[2]]
  if "id" in change:
    rows[0] = ROWS[0] | {"id": "same"}
  with pytest.raises(UserError, match=f"config.corpora.own: .*{message}.*mend the row"):
    imported(tmp_path, rows)
  assert not (tmp_path / "w" / "corpus" / "own").exists()


def test_a_line_that_is_no_json_ends_the_import(tmp_path):
  path = write(tmp_path / "set.jsonl", ROWS)
  path.write_bytes(path.read_bytes() + b"{")
  with pytest.raises(UserError, match=r"set\.jsonl:4: not JSON"):
    run(tmp_path / "w", path, shape="choice", choice=COLUMNS)


def test_a_row_in_the_other_order_is_refused_or_skipped_with_its_reason(tmp_path):
  first = ROWS[0]
  other = first | {
    "item_a": first["item_b"],
    "item_b": first["item_a"],
    "cheaper": "B",
  }
  with pytest.raises(UserError, match=r"set choice\.mirrored='skip'"):
    imported(tmp_path / "", [first, other])
  columns = ChoiceColumns(**vars(COLUMNS) | {"mirrored": "skip"})
  found, lost, _ = imported(tmp_path, [first, other], columns=columns)
  assert len(found) == 1
  assert lost[0]["reason"] == "mirrored: the options of set.jsonl:1 in another order"


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"choice": {}, "shape": "text"}, "choice is set: set shape='choice' as well"),
    ({"choice": {"splits": "dev"}}, "splits is not a field .* did you mean 'split'"),
    ({"choice": {"split": "train"}}, "choice.split is 'train': it is 'dev' or 'test'"),
    ({"choice": {"mirrored": "keep"}}, "choice.mirrored is 'keep'"),
    ({"choice": {"option_fields": "ab"}}, "option_fields is 'ab': a tuple"),
    ({"choice": {"option_fields": ("a",)}}, "has one column"),
    ({"choice": {"option_tags": ("a",)}}, "option_tags has 1 and option_fields 0"),
    ({"choice": {"answer_tag": "x"}}, "set answer_field"),
    ({"choice": {"answer_field": "x"}}, "answer_tag is missing"),
    (
      {"choice": {"answer_field": "x", "answer_tag": "a b"}},
      "the tag 'a b' is no word",
    ),
    ({"num_words": 5}, "has no words to train on"),
  ],
)
def test_a_mapping_that_cannot_work_is_refused_with_the_config(fields, message):
  fields = {"kind": "import", "path": "x.jsonl", "shape": "choice", **fields}
  with pytest.raises(UserError, match=message):
    corpora.check("own", corpora.build("own", fields))


def test_a_mapping_is_part_of_what_decides_a_corpus():
  fields = {"kind": "import", "path": "x", "shape": "choice"}
  plain = corpora.content(corpora.build("own", fields))
  assert "choice" not in plain
  mapped = corpora.build("own", fields | {"choice": {"option_fields": ["a", "b"]}})
  assert mapped.choice.option_fields == ("a", "b")
  assert corpora.content(mapped)["choice"] == {"option_fields": ["a", "b"]}
  assert settings.ImportCorpus is type(mapped)
