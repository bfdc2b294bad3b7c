"""Rows to records: every shape, and every way in which a row can be bad."""

import pytest
from own_data import lines, run, write

from data_gen.importing import corpus as importing
from msm_jax.errors import UserError

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
  ("row", "messages"),
  [
    ({"messages": CHAT}, CHAT),
    ({"messages": [{"role": "system", "content": ""}, *CHAT]}, None),
    ({"prompt": "a", "completion": "b"}, CHAT),
    ({"prompt": CHAT[:1], "completion": CHAT[1:]}, CHAT),
    (
      {
        "conversations": [
          {"from": "human", "value": "a"},
          {"from": "gpt", "value": "b", "weight": None},
        ]
      },
      CHAT,
    ),
    ({"conversations": CHAT}, CHAT),
    (
      {
        "system": "s",
        "conversations": [
          {"from": "user", "value": "a"},
          {"from": "assistant", "value": "b"},
        ],
      },
      [{"role": "system", "content": "s"}, *CHAT],
    ),
  ],
)
def test_every_way_to_write_a_conversation_is_understood(tmp_path, row, messages):
  found, _, _ = run(tmp_path, write(tmp_path / "a.jsonl", [row]))
  assert found == [
    {
      "kind": "conversation",
      "id": "a.jsonl:1",
      "messages": messages or row["messages"],
    }
  ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_tool_calls_stay_and_what_a_table_fills_up_goes(tmp_path, name):
  call = {"name": "f", "arguments": {"city": "Rome"}}
  turns = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
    {"role": "tool", "content": "", "name": "f"},
    {"role": "assistant", "content": "b"},
  ]
  other = {"name": "g", "arguments": {"day": 1}}
  last = {"role": "assistant", "content": "c", "tool_calls": [{"function": other}]}
  rows = [{"messages": turns}, {"messages": [turns[0], last]}]
  found, lost, _ = run(tmp_path, write(tmp_path / name, rows))
  assert not lost
  turns[1]["content"] = ""  # no template writes it as None
  assert [record["messages"] for record in found] == [turns, [turns[0], last]]


BAD = [
  (b"nonsense", "not JSON"),
  (b'{"text": "a"', "not JSON"),
  (b'{"text": "\xff"}', "not UTF-8"),
  (b"[" * 100_000, "nested too deeply"),
  (b"[1]", "a list where a row"),
  (b'{"txt": "a"}', "missing field"),
  (b'{"text": null}', "missing field"),
  (b'{"text": 3}', "text is a number"),
  (b'{"text": " \\n "}', "empty text"),
  (b'{"text": "a\\u0000b"}', "NUL character"),
  (b'{"text": "\\ud83e"}', "lone surrogate"),
  (b'{"text": "a", "note": "\\ud83e"}', "lone surrogate"),
  (b'{"text": "a", "messages": []}', "has both text and messages"),
  (b'{"text": "%s"}' % (b"a" * (1 << 20)), "longer than 1 MB"),
  (b'{"id": "good 1", "text": "a"}', "duplicate id"),
  (b'{"messages": "a"}', "messages is text"),
  (b'{"messages": []}', "empty conversation"),
  (b'{"messages": [null]}', "turn 0: null where"),
  (b'{"messages": [{"role": "bot", "content": "a"}]}', "wrong role: 'bot'"),
  (b'{"messages": [{"role": ["user"], "content": "a"}]}', "wrong role"),
  (b'{"messages": [{"content": "a"}]}', "wrong role: None"),
  (b'{"messages": [{"role": "user"}]}', "content is null"),
  (b'{"messages": [{"role": "user", "content": [{"text": "a"}]}]}', "is a list"),
  (b'{"messages": [{"role": "user", "content": " "}]}', "turn 0: empty content"),
  (b'{"messages": [{"role": "user", "content": "a"}]}', "no assistant turn"),
  (b'{"messages": [{"role": "assistant", "content": "a"}]}', "do not alternate"),
  (b'{"prompt": "a", "completion": []}', "two texts or two lists"),
]


def test_each_bad_row_is_lost_alone_and_with_its_reason(tmp_path):
  good = [f'{{"id": "good {i}", "text": "t"}}'.encode() for i in range(len(BAD))]
  rows = [row for both in zip(good, dict(BAD), strict=True) for row in both]
  (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
  found, lost, _ = run(tmp_path, tmp_path / "a.jsonl", max_row_mb=1)
  assert [record["id"] for record in found] == [f"good {i}" for i in range(len(BAD))]
  # Good rows come first in each pair, so "good 1" is not the first of its id.
  for i, (row, (_, reason)) in enumerate(zip(lost, BAD, strict=True)):
    assert row["id"] == f"a.jsonl:{2 * i + 2}" and reason in row["reason"]


def test_turns_that_do_not_alternate_are_kept_if_asked_for(tmp_path):
  rows = [{"messages": [CHAT[0], CHAT[0], CHAT[1]]}]
  found, _, _ = run(tmp_path, write(tmp_path / "a.jsonl", rows), alternate=False)
  assert found[0]["messages"] == rows[0]["messages"]


def test_the_marks_that_editors_leave_are_no_content(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b"\xef\xbb\xbf" + lines([{"text": "a"}, {"text": "b"}], "\r\n\r\n"))
  found, lost, _ = run(tmp_path, path)
  assert [record["text"] for record in found] == ["a", "b"] and not lost
  assert [record["id"] for record in found] == ["a.jsonl:1", "a.jsonl:3"]


def test_a_wrong_field_name_shows_before_all_is_read(tmp_path, monkeypatch):
  monkeypatch.setattr(importing, "_HOPELESS", 10)
  path = write(tmp_path / "a.jsonl", [{"body": "a"}] * 1000)
  with pytest.raises(UserError, match="none of 10 rows"):
    run(tmp_path, path)
  assert run(tmp_path, path, text_field="body")[2]["num_records"] == 1000


def test_columns_that_are_not_json_are_kept_as_text_or_left_out(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  import datetime
  import decimal

  import pyarrow.parquet

  strange = arrow.table(
    {
      "text": ["a", "b", None],
      "day": [datetime.date(2026, 1, 2)] * 3,
      "price": [decimal.Decimal("1.50")] * 3,
      "share": [float("nan")] * 3,
      "image": [{"bytes": b"\xff", "path": "p"}] * 3,
      "deep": [[[1, None], []]] * 3,
    }
  )
  pyarrow.parquet.write_table(strange, tmp_path / "a.parquet")
  found, lost, manifest = run(tmp_path, tmp_path / "a.parquet")
  about = {"day": "2026-01-02", "price": "1.50", "share": None, "deep": [[1, None], []]}
  assert [record["metadata"] for record in found] == [about] * 2
  assert manifest["columns_left_out"] == ["image"] and len(lost) == 1


def test_text_of_another_type_names_the_column(tmp_path):
  arrow = pytest.importorskip("pyarrow")
  import pyarrow.parquet

  for column in ([1, 2], [["a"], ["b"]], [b"\xff", b"a"]):
    pyarrow.parquet.write_table(arrow.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="none of 2 rows"):
      run(tmp_path, tmp_path / "a.parquet")
