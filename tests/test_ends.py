"""How a run ends before its end: a stop in its last moments, a process that is lost."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax
import many_processes
import numpy as np
import pytest
from test_faults import rows_dir  # noqa: F401 (a fixture)
from test_train import log, pieces, run

from msm_jax import checkpoint, metrics
from msm_jax.errors import Stopped
from msm_jax.training import liveness, run_config

ROOT = pathlib.Path(__file__).parent.parent


def terminate_before(monkeypatch, owner, name: str, step: int) -> None:
  """Sends SIGTERM to this process when owner.name(self, step, ...) is called."""
  work = getattr(owner, name)

  def hurt(self, at, *args, **kwargs):
    if at == step:
      os.kill(os.getpid(), signal.SIGTERM)
    return work(self, at, *args, **kwargs)

  monkeypatch.setattr(owner, name, hurt)


@pytest.mark.parametrize(
  ("owner", "name"), [(metrics.Writer, "write"), (checkpoint.Checkpointer, "save")]
)
def test_a_stop_in_the_last_moments_of_a_run_is_heard_and_loses_nothing(
  tmp_path,
  rows_dir,  # noqa: F811
  monkeypatch,
  owner,
  name,
):
  straight = run(tmp_path, rows_dir, "straight")
  with monkeypatch.context() as patched:
    terminate_before(patched, owner, name, 12)
    with pytest.raises(Stopped, match="stopped at step 12; run again"):
      run(tmp_path, rows_dir)
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    assert checkpointer.steps() == [12]
  before = log(tmp_path)
  again = run(tmp_path, rows_dir)
  assert log(tmp_path) == before and len(before) == 12
  for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_signal_to_one_process_at_the_last_step_stops_both(tmp_path):
  rows = many_processes.write_rows(tmp_path / "rows", pieces(80))
  job = {"rows": rows, "run_dir": str(tmp_path / "run"), "mesh": {"data": 2}}
  job |= {"num_train_steps": 6, "victim": 1, "at_step": 6, "signal": "SIGTERM"}
  done = many_processes.run(tmp_path, job, count=2)
  assert [code for code, _ in done] == [75, 75], done
  assert all("stopped at step 6" in error for _, error in done)


def test_the_address_of_process_0_is_the_one_that_jax_found(monkeypatch):
  import socket

  assert not liveness._is_gone("")  # not known
  assert not liveness._is_gone("host:port")
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    probe.listen()
    address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert not liveness._is_gone(address)
  assert liveness._is_gone(address)


def ended(text: str, **environment: str) -> subprocess.CompletedProcess:
  """Runs Python code in a process of its own."""
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(text)],
    env=os.environ | {"JAX_PLATFORMS": "cpu", **environment},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )


WATCH = """
  import os, pathlib, sys, time
  from msm_jax.training import watchdog
  directory = pathlib.Path(sys.argv[1] if sys.argv[1:] else {directory!r})
  {before}
  with watchdog.Watchdog(directory, step_deadline_s=0.2, process_deadline_s=1.0):
    time.sleep(50)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_a_process_ends_in_time_though_its_stacks_cannot_be_written(tmp_path, hangs):
  (tmp_path / "file").write_text("")
  before = "pass"
  if hangs:  # as a network disk does
    before = "watchdog._LAST_WORDS_S = 1; os.mkdir = lambda *_: time.sleep(50)"
  done = ended(WATCH.format(directory=str(tmp_path / "file" / "run"), before=before))
  assert done.returncode == 75, done
  said = done.stderr.splitlines()[0]
  assert "no update was finished" in said and "run again to go on" in said
  assert hangs or "Thread" in done.stderr  # the stacks, where they can be


PROCESS = """
  import os, sys, time
  from msm_jax import distributed, errors
  from msm_jax.training import liveness, watchdog
  distributed.initialize()
  liveness.pulse()
  number, what = distributed.process_index(), {what!r}
  def watched():
    deadlines = dict(step_deadline_s=None, process_deadline_s=3.0)
    return watchdog.Watchdog({directory!r}, **deadlines)
  if number == 1 and what == "silent":
    os.kill(os.getpid(), 19)
  dog = watched()
  with dog, dog.guard():
    if number == 1 and what == "interrupted":
      raise KeyboardInterrupt
    if what in ("silent", "interrupted"):
      time.sleep(60)
  with watched():
    if number == 0:
      time.sleep(8)  # process 1 is between two runs meanwhile, and alive
  distributed.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["silent", "interrupted", "between"])
def test_one_that_says_nothing_is_lost_and_one_between_runs_is_not(tmp_path, what):
  import socket

  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  text = textwrap.dedent(PROCESS.format(what=what, directory=str(tmp_path)))
  shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
  started = [
    subprocess.Popen(
      [sys.executable, "-c", text],
      env=os.environ | {"JAX_PLATFORMS": "cpu", **shared, "JAX_PROCESS_ID": str(i)},
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  try:
    _, said = started[0].communicate(timeout=90)
  finally:
    started[1].kill()
  started[1].communicate()
  if what == "between":
    assert started[0].returncode == 0, said
    return
  assert started[0].returncode == 75, said
  lost = "was not heard of for 3 s" if what == "silent" else "ended with an error"
  assert f"process 1 {lost}" in said


def test_a_trace_is_not_made_again_by_a_process_that_goes_on_after_it(
  tmp_path,
  rows_dir,  # noqa: F811
  monkeypatch,
):
  profile = run_config.ProfileConfig(start_step=2, num_steps=2)
  how = run_config.RunConfig(profile=profile)
  with monkeypatch.context() as patched:
    terminate_before(patched, metrics.Writer, "write", 6)
    with pytest.raises(Stopped):
      run(tmp_path, rows_dir, how=how)
  run(tmp_path, rows_dir, how=how)
  assert len(list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))) == 1
