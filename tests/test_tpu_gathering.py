"""One log per host on the board, over all machines and agents that it ever had."""

import random

import pytest

from tpu import board as board_lib
from tpu import gathering
from tpu.board_files import Unreachable
from tpu.gathering import HostLog


@pytest.fixture
def board(tmp_path):
  (tmp_path / "shared").mkdir()
  found = board_lib.open_(str(tmp_path / "shared" / "jobs" / "j"))
  found.files.make()
  return found


def test_a_log_goes_on_where_that_of_the_last_machine_ended(board, tmp_path):
  board.put_log("s", 1, b"of a machine before\n")
  log = HostLog(tmp_path / "state" / "s-1.log", board, "s", 1)
  (tmp_path / "shared").rename(tmp_path / "away")
  log.note("no board")
  with pytest.raises(Unreachable):
    log.gather()
  (tmp_path / "away").rename(tmp_path / "shared")
  with log.path.open("ab") as command:  # that writes whenever it likes
    log.gather()
    command.write(b"a line\n")
    command.flush()
    log.gather()
  said = b"[host 1] no board\na line\n"
  assert log.path.read_bytes() == said
  assert board.log("s", 1) == b"of a machine before\n" + said

  again = HostLog(log.path, board, "s", 1)  # of another agent on this machine
  again.note("here again")
  again.gather()
  said += b"[host 1] here again\n"
  assert board.log("s", 1) == b"of a machine before\n" + said


def test_an_agent_that_died_before_it_said_anything_loses_no_log(board, tmp_path):
  board.put_log("s", 0, b"before\n")
  path = tmp_path / "s-0.log"
  HostLog(path, board, "s", 0)
  log = HostLog(path, board, "s", 0)
  log.note("hello")
  log.gather()
  assert board.log("s", 0) == b"before\n[host 0] hello\n"


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_whole_lines_are_kept(board, tmp_path, monkeypatch, seed):
  monkeypatch.setattr(gathering, "MOST_LOG", 40)
  draw = random.Random(seed)
  lines = [b"x" * draw.randrange(12) + b"\n" for _ in range(draw.randrange(4, 30))]
  split = draw.randrange(len(lines))
  board.put_log("s", 0, b"".join(lines[:split]))
  log = HostLog(tmp_path / "s-0.log", board, "s", 0)
  log.path.write_bytes(b"".join(lines[split:]))
  log.gather()
  kept = 0
  while kept < len(lines) and sum(map(len, lines[-kept - 1 :])) <= 40:
    kept += 1
  assert board.log("s", 0) == b"".join(lines[len(lines) - kept :])
