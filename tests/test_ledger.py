"""The ledger keeps every attempt, whatever happens to the process."""

import asyncio
import json
import tracemalloc

import pytest

from data_gen.engine import entries, ledger
from msm_jax.errors import UserError


def entry(name, status=ledger.OK, **changes):
  fields = {
    "id": name,
    "stage": "document",
    "sample_index": 0,
    "prompt_hash": "h",
    "client": {"client": "offline", "model": "tiny"},
    "params": {"seed": 0},
    "attempt": 1,
    "status": status,
    "time": "2026-01-01T00:00:00",
    "text": f"text of {name}",
    "dollars": 0.25,
  }
  return ledger.Entry(**fields | changes)


def write(path, *entries):
  async def append_all(book):
    await asyncio.gather(*(book.append(one) for one in entries))

  with ledger.Ledger(path) as book:
    asyncio.run(append_all(book))


def test_what_was_appended_is_there_when_it_is_opened_again(tmp_path):
  path = tmp_path / "ledger.jsonl"
  entries = [entry(f"id{i}", text=f"n\u00e4{i}\n") for i in range(50)]
  write(path, *entries)
  with ledger.Ledger(path) as book:
    assert len(book) == 50
    assert [book.outcome(one.id) for one in entries] == entries
    assert book.spent == 12.5
    assert book.outcome("another") is None


def test_failed_attempts_are_entries_but_leave_the_request_open(tmp_path):
  path = tmp_path / "ledger.jsonl"
  write(path, entry("a", "retryable"), entry("b", ledger.BLOCKED), entry("c"))
  assert len(path.read_text().splitlines()) == 3
  with ledger.Ledger(path) as book:
    assert "a" not in book and "b" in book and "c" in book
    assert book.failure("a") is None
    asyncio.run(book.append(entry("a", "retryable", error="again")))
    assert book.failure("a").error == "again"
    assert book.spent == 1.0


@pytest.mark.parametrize("torn", [b'{"id": "b", "tex', b"\x00\x00\x00", b'{"id": "b"}'])
def test_a_torn_last_line_is_dropped_and_the_file_goes_on_whole(tmp_path, torn):
  path = tmp_path / "ledger.jsonl"
  write(path, entry("a"))
  whole = path.read_bytes()
  path.write_bytes(whole + torn)
  with ledger.Ledger(path) as book:
    assert len(book) == 1
  assert path.read_bytes() == whole
  write(path, entry("b"))
  with ledger.Ledger(path) as book:
    assert book.outcome("b").text == "text of b"


def test_every_place_to_cut_the_file_leaves_a_ledger_that_opens(tmp_path):
  path = tmp_path / "ledger.jsonl"
  write(path, entry("a"), entry("b"))
  whole = path.read_bytes()
  first = whole.index(b"\n") + 1
  for cut in range(0, len(whole), 7):
    path.write_bytes(whole[:cut])
    with ledger.Ledger(path) as book:
      assert len(book) == (cut >= first)


def test_damage_in_the_middle_is_named_with_its_line(tmp_path):
  path = tmp_path / "ledger.jsonl"
  write(path, entry("a"), entry("b"))
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(lines[0] + b"{broken\n" + lines[1])
  with pytest.raises(UserError, match=r"ledger\.jsonl line 2 is damaged"):
    ledger.Ledger(path)


def test_two_processes_cannot_write_one_ledger(tmp_path):
  path = tmp_path / "ledger.jsonl"
  in_use = pytest.raises(UserError, match="in use by another process")
  with ledger.Ledger(path), in_use:
    ledger.Ledger(path)
  ledger.Ledger(path).close()


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    ledger.Ledger(tmp_path / "file" / "ledger.jsonl")


def test_attempts_that_land_together_share_a_flush(tmp_path, monkeypatch):
  flushes = []
  fsync = ledger.os.fsync

  def counted(file):
    flushes.append(file)
    fsync(file)

  monkeypatch.setattr(ledger.os, "fsync", counted)
  write(tmp_path / "ledger.jsonl", *(entry(f"id{i}") for i in range(500)))
  assert len(flushes) < 20


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path, monkeypatch):
  path = tmp_path / "ledger.jsonl"
  write(path, entry("a"))
  whole = path.read_bytes()

  def full(file, data, offset):
    raise OSError(28, "No space left on device")

  with ledger.Ledger(path) as book:
    monkeypatch.setattr(ledger.os, "pwrite", full)
    with pytest.raises(UserError, match="No space left on device"):
      asyncio.run(book.append(entry("b")))
    assert "b" not in book
  assert path.read_bytes() == whole


def test_what_a_ledger_on_disk_cost_is_read_without_opening_it(tmp_path):
  path = tmp_path / "ledger.jsonl"
  assert ledger.totals_in(path).spent == 0.0
  write(path, entry("a"), entry("b", dollars=None))
  assert ledger.totals_in(path).spent == 0.25


def going_out(book, name, **changes):
  return book.going_out(entry(name, "", sent=f"at {name}", at_most=0.5, **changes))


def test_what_was_out_when_the_process_died_is_entered_as_lost(tmp_path):
  path = tmp_path / "ledger.jsonl"
  with ledger.Ledger(path) as book:
    tickets = [going_out(book, f"id{i}") for i in range(5)]
    for i in (0, 3):
      book.add(entry(f"id{i}", sent=f"at id{i}"))
      book.came_back(tickets[i])
    book.add(entry("id4", sent="at id4"))  # and died before it could say so
  assert (tmp_path / "ledger.in_flight").exists()
  assert ledger.totals_in(path).lost_answers == 3  # it cannot know of id4
  for _ in range(2):
    with ledger.Ledger(path) as book:
      assert len(book) == 3
      assert book.totals.lost_answers == 2
      assert book.totals.unknown_at_most == 1.0
      assert book.totals.spent == 0.75
    assert not (tmp_path / "ledger.in_flight").exists()
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert sorted(row["id"] for row in rows if row["status"] == "lost") == ["id1", "id2"]


def test_with_nothing_out_there_is_no_file_beside_the_ledger(tmp_path):
  with ledger.Ledger(tmp_path / "ledger.jsonl") as book:
    for _ in range(3):
      tickets = [going_out(book, f"id{i}") for i in range(3)]
      assert (tmp_path / "ledger.in_flight").exists()
      for ticket in tickets:
        book.came_back(ticket)
      assert not (tmp_path / "ledger.in_flight").exists()


def test_a_slot_that_was_being_written_names_nothing(tmp_path):
  path = tmp_path / "ledger.jsonl"
  with ledger.Ledger(path) as book:
    going_out(book, "a")
    going_out(book, "b")
  beside = tmp_path / "ledger.in_flight"
  beside.write_bytes(beside.read_bytes()[:560])
  with ledger.Ledger(path) as book:
    assert book.totals.lost_answers == 1


def test_a_job_in_the_ledger_is_open_until_it_has_ended(tmp_path):
  path = tmp_path / "ledger.jsonl"
  waiting = {
    name: entries.Waiting("document", 0, "h", 1, 0.5) for name in ("a", "b", "c")
  }
  job = entries.Job(name="msm-1", params={"seed": 0}, open=waiting)
  with ledger.Ledger(path) as book:
    asyncio.run(book.note(job.row(entries.PLANNED, "now")))
    book.add(entry("a", job="msm-1"))
    assert book.totals.unknown_at_most == 1.0
  with ledger.Ledger(path) as book:
    [again] = book.totals.jobs.values()
    assert again.id is None and again.open.keys() == {"b", "c"}
    again.id = "batches/7"
    asyncio.run(book.note(again.row(entries.SENT, "now")))
  with ledger.Ledger(path) as book:
    [again] = book.totals.jobs.values()
    assert again.id == "batches/7" and len(book) == 1
    asyncio.run(book.note(again.row(entries.ENDED, "now")))
    assert not book.totals.jobs and book.totals.unknown_at_most == 0.0


def test_many_entries_open_fast_and_small(tmp_path):
  path = tmp_path / "ledger.jsonl"
  line = json.dumps(entries.row_of(entry("%032x", text="x" * 2000)))
  with path.open("w") as file:
    file.writelines(line % i + "\n" for i in range(5000))
  tracemalloc.start()
  with ledger.Ledger(path) as book:
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(book) == 5000 and book.outcome(f"{4999:032x}").text == "x" * 2000
  assert taken < 5000 * 300
