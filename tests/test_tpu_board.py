"""The board, in a directory and in a bucket."""

import os
import pathlib

import fake_gcs
import pytest

from msm_jax import topology
from msm_jax.errors import UserError
from tpu import board as board_lib
from tpu import timing as timing_lib
from tpu.board import Attempt, Beat, Event, Failure, Submission
from tpu.board_files import Unreachable
from tpu.job import Cpu, Gpus, Job, Provisioning, Step

(TPUS,) = topology.parse("v6e-16", 2)


@pytest.fixture(params=["directory", "bucket"])
def place(request, tmp_path, monkeypatch):
  """Returns (board, what takes it away and brings it back)."""
  if request.param == "directory":
    board = board_lib.open_(str(tmp_path / "shared" / "jobs" / "j"))
    (tmp_path / "shared").mkdir()

    def away(is_away):
      paths = [tmp_path / "shared", tmp_path / "away"]
      pathlib.Path.rename(*(paths if is_away else reversed(paths)))

    yield board, away
    return
  pytest.importorskip("gcsfs")
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.2")
  with fake_gcs.FakeGcs("lab") as gcs, gcs.environment():
    yield (
      board_lib.open_("gs://lab/msm/jobs/j"),
      lambda is_away: gcs.outage(1e9 if is_away else 0),
    )


def job(machines=TPUS):
  return Job(
    name="j",
    config="configs/x.py:a",
    overrides=("--config.seeds=(1,)",),
    machines=machines,
    provisioning=Provisioning.SPOT,
    workdir="gs://lab/w",
    code="abc",
    steps=(Step(name="a", mode="generate", place="cpu"), Step(name="b", mode="run")),
  )


def test_what_is_written_is_read_again_by_anybody(place):
  board, _ = place
  board.files.make()
  assert board.submission() is board.attempt("b") is board.beat("b", 3) is None
  assert board.events() == board.names("b") == [] and board.progress("b") is None
  for machines in (TPUS, Gpus(kind="h100", num_hosts=2, per_host=8), Cpu()):
    said = Submission(
      job=job(machines),
      target="compute",
      settings={"zone": "z"},
      dollars_per_hour=1.5,
      timing=timing_lib.Timing(beat_s=1.0),
    )
    board.submit(said)
    assert board_lib.open_(board.url).submission() == said
  failures = (Failure(attempt=1, host=3, code=-9, at="train a", step=4, said="x"),)
  attempt = Attempt(attempt=2, phase="restarting", why="w", failures=failures, same=1)
  board.put_attempt("b", attempt)
  assert board.attempt("b") == attempt
  beat = Beat(agent="a", count=1, attempt=2, phase="ended", code=75, said="y")
  board.put_beat("b", 3, beat)
  assert board.beat("b", 3) == beat and board.beat("b", 2) is None
  for k in range(3):
    board.add_event(Event(what="came", place="pod", time=float(k)))
  assert [event.time for event in board.events()] == [0, 1, 2]
  board.put_names("b", ["vm-0", "vm-1"])
  assert board.names("b") == ["vm-0", "vm-1"]
  assert not board.is_to_stop()
  board.ask_to_stop()
  assert board.is_to_stop()
  board.forget_stop()
  board.forget_stop()
  assert not board.is_to_stop()


def test_a_board_that_is_away_says_so_and_is_as_it_was_when_it_is_back(place):
  board, away = place
  board.files.make()
  board.put_attempt("b", Attempt(attempt=7))
  away(True)
  for ask in (
    lambda: board.attempt("b"),
    lambda: board.beat("b", 0),
    board.is_to_stop,
    board.forget_stop,
    lambda: board.put_attempt("b", Attempt(attempt=8)),
  ):
    with pytest.raises(Unreachable):
      ask()
  away(False)
  assert board.attempt("b").attempt == 7


def test_a_directory_is_not_made_where_nothing_is_mounted(tmp_path):
  board = board_lib.open_(str(tmp_path / "shared" / "jobs" / "j"))
  with pytest.raises(Unreachable):
    board.files.make()
  assert not (tmp_path / "shared").exists()


def test_what_somebody_else_wrote_there_is_named(place):
  board, _ = place
  board.files.make()
  board.files.write("b/attempt.json", b"{")
  with pytest.raises(UserError, match=r"b/attempt\.json is no JSON: delete it"):
    board.attempt("b")


@pytest.mark.parametrize("text", ["[1]", "{", '{"look": 1}', '{"look_s": "x"}'])
def test_intervals_that_are_none_are_refused(text):
  with pytest.raises(UserError, match=r"MSM_TPU_TIMING=.*first_beat_s"):
    timing_lib.of_environment({timing_lib.VARIABLE: text})
  quick = timing_lib.of_environment({timing_lib.VARIABLE: '{"look_s": 1}'})
  assert quick.look_s == 1.0 and timing_lib.of_environment({}).look_s == 15.0
  assert timing_lib.VARIABLE not in os.environ
