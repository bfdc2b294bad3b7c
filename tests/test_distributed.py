import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import pytest

from msm_jax import distributed
from msm_jax.errors import Stopped, UserError

FULL = {
  "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
  "JAX_NUM_PROCESSES": "4",
  "JAX_PROCESS_ID": "3",
}
POD = {"TPU_WORKER_HOSTNAMES": "a,b,c,d"}


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, None),
    ({"JAX_PLATFORMS": "cpu"}, None),
    (
      FULL,
      {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 4,
        "process_id": 3,
      },
    ),
    ({"MSM_JAX_DISTRIBUTED": "1"}, {}),
    (POD, {}),
    ({"MEGASCALE_NUM_SLICES": "2"}, {}),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    (POD | {"MSM_JAX_DISTRIBUTED": "0"}, None),
    (POD | {"JAX_PLATFORMS": "cpu"}, None),
    (POD | {"JAX_PLATFORMS": "tpu,cpu"}, {}),
  ],
)
def test_the_environment_says_whether_there_are_others(environment, expected):
  assert distributed.arguments(environment) == expected


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"JAX_PROCESS_ID": ""}, "but not JAX_PROCESS_ID: set all three"),
    ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4: it must be from 0 to 3"),
    ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1: it must be from 0 to 3"),
    ({"JAX_NUM_PROCESSES": "four"}, "JAX_NUM_PROCESSES='four' is no whole number"),
    ({"JAX_COORDINATOR_ADDRESS": "host"}, "must be host:port"),
    ({"JAX_COORDINATOR_ADDRESS": "host:http"}, "must be host:port"),
  ],
)
def test_an_environment_that_is_incomplete_is_named(changes, message):
  with pytest.raises(UserError, match=message):
    distributed.arguments(FULL | changes)


def test_seeds_are_not_dealt_to_processes_of_a_run_of_many(monkeypatch):
  for name, value in (FULL | {"MSM_JAX_WORKER": "0"}).items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match=r"set config\.num_workers to 1"):
    distributed.initialize()


def test_one_process_agrees_with_itself():
  assert distributed.num_processes() == 1 and distributed.is_first()
  assert distributed.exchange("brie") == ["brie"]
  distributed.agree()
  for error in (UserError("a"), Stopped("b"), KeyError("c")):
    with pytest.raises(type(error)) as caught, distributed.together():
      raise error
    assert caught.value is error


def test_a_first_process_that_does_not_answer_is_named(monkeypatch):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"  # nobody listens there
    for name, value in (FULL | {"JAX_COORDINATOR_ADDRESS": address}).items():
      monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{address}: process 0 did not answer"):
      distributed.initialize(timeout_s=0.2)


def test_a_process_among_several_hears_sigterm_before_it_trains():
  text = """
    import os, signal, time
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    from msm_jax import distributed
    distributed.initialize()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
  """
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  one = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "1"}
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(text)],
    cwd=pathlib.Path(__file__).parent.parent,
    env=os.environ | one | {"JAX_PROCESS_ID": "0"},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 75, done.stderr


def test_a_command_that_failed_ends_though_a_thread_waits_and_says_goodbye():
  text = """
    import atexit, threading, time
    from msm_jax import distributed
    atexit.register(print, "goodbye")
    threading.Thread(target=time.sleep, args=(60,)).start()
    distributed.leave(75)
  """
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(text)],
    cwd=pathlib.Path(__file__).parent.parent,
    capture_output=True,
    text=True,
    timeout=30,
  )
  assert (done.returncode, done.stdout) == (75, "goodbye\n")
