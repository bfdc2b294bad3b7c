"""`python -m tpu run` from create to delete, against fake command-line tools."""

import functools
import pathlib
import time

import pytest
import study_end
from counted import Counted
from fake_cloud import FakeCloud

from msm_jax.storage import bucket, transfers, urls
from tpu import __main__ as tpu

pytest.importorskip("gcsfs")

TIMING = {
  "poll_s": 0.3,
  "beat_s": 0.6,
  "gather_s": 1.0,
  "lost_s": 8.0,
  "settle_s": 2.0,
  "grace_s": 4.0,
  "backoff_s": 0.2,
  "max_backoff_s": 1.0,
  "look_s": 1.0,
  "first_beat_s": 30.0,
}
HERE = pathlib.Path(__file__).parent


def counting(tmp_path, target):
  """Returns a cloud whose hosts count to 30 in place of launch.py, and the count."""
  out = tmp_path / "out"
  out.mkdir()
  command = [str(HERE / "counting_process.py"), str(out), "30", "0.05"]
  config = "tests/pod_study.py:2"
  cloud = FakeCloud(tmp_path / "c", target, 2, TIMING, config, out, command)
  return cloud, Counted.at(out)


def wait_for(what, cloud, seconds=120):
  deadline = time.monotonic() + seconds
  while not what():
    assert time.monotonic() < deadline, cloud.said()
    time.sleep(0.05)


@pytest.mark.parametrize(
  "target", ["compute", pytest.param("queued", marks=pytest.mark.slow)]
)
def test_a_run_is_created_pushed_taken_away_recreated_finished_and_deleted(
  tmp_path, target, monkeypatch, capsys
):
  cloud, counted = counting(tmp_path, target)
  counted.hold_at(6)
  with cloud:
    supervisor = cloud.start()
    wait_for(lambda: counted.has_counted(6), cloud)
    cloud.preempt(grace_s=20.0)  # less if it saved before
    counted.go_on()
    assert supervisor.wait(120) == 0, cloud.said()
    assert not cloud.left()
    began = counted.starts()
    assert began[0] == 0 and began[1] >= 6 and len(began) == 2
    calls = "\n".join(cloud.calls())
    made = {"compute": "managed create", "queued": "queued-resources create"}[target]
    assert calls.count(made) == 2
    # Another laptop, later, with no more than the name.
    for name in ("FAKE_CLOUD", "PATH"):
      monkeypatch.setenv(name, cloud.environment[name])
    assert tpu.main(["status", "--name=drive", f"--settings={cloud.settings}"]) == 0
    said = capsys.readouterr().out
    assert "study: finished, attempt" in said and "came 2 times" in said
    assert "so far" in said and "in the cloud: absent" in said
    assert cloud.board.log("study", 1).count(b"counting from") == 2


@pytest.mark.slow
@pytest.mark.parametrize("target", ["compute", "queued"])
def test_a_cloud_that_fails_now_and_then_and_half_does_things_gets_there(
  tmp_path, target
):
  cloud, counted = counting(tmp_path, target)
  busy = "HTTPError 503: Service Unavailable"
  with cloud:
    for pattern in (" create ", " delete ", "ssh", "describe|list-instances"):
      cloud.order(pattern, busy, when="after")
      cloud.order(pattern, busy)
    supervisor = cloud.start()
    assert supervisor.wait(200) == 0, cloud.said()
    assert not cloud.left() and counted.starts() == [0]


@pytest.mark.slow
def test_a_refused_quota_ends_with_the_way_out_and_nothing_half_made(tmp_path):
  cloud, _ = counting(tmp_path, "compute")
  with cloud:
    said = "Quota 'TPUS_PER_TPU_FAMILY' exceeded. Limit: 0.0 in region us-east5."
    cloud.order("managed create", said)
    assert cloud.start().wait(100) == 2
    assert "error: drive: " in cloud.said() and "quota refused" in cloud.said()
    assert not cloud.left()


@pytest.mark.slow
def test_a_supervisor_that_is_killed_is_replaced_and_nothing_is_made_twice(tmp_path):
  cloud, counted = counting(tmp_path, "compute")
  counted.hold_at(3)
  with cloud:
    # Killed while it asks for machines, while it sets them up, and while they work.
    for sign in ("templates create", "compute ssh"):
      supervisor = cloud.start()
      wait_for(lambda sign=sign: sign in "\n".join(cloud.calls()), cloud)
      supervisor.kill()
      supervisor.wait()
    supervisor = cloud.start()
    wait_for(lambda: counted.has_counted(3), cloud)
    supervisor.kill()
    supervisor.wait()
    counted.go_on()
    assert cloud.start().wait(120) == 0, cloud.said()
    assert counted.starts() == [0] and not cloud.left()
    assert "\n".join(cloud.calls()).count("managed create") <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("num_hosts", "place"), [(4, "directory"), (2, "bucket")])
def test_a_study_that_is_torn_ends_as_the_one_that_nothing_disturbed(
  tmp_path, num_hosts, place
):
  ends = {}
  for name in ("straight", "torn"):
    workdir = str(tmp_path / name / "w")
    if (place, name) == ("bucket", "torn"):
      workdir = "gs://lab/msm/studies/drive"
    config = f"tests/pod_study.py:{num_hosts}"
    timing = TIMING | {"lost_s": 60.0, "grace_s": 60.0, "settle_s": 60.0}
    where = tmp_path / name
    with FakeCloud(where, "compute", num_hosts, timing, config, workdir) as cloud:
      supervisor = cloud.start()
      if name == "torn":
        for sign in (
          "pretrain/seed0/checkpoints/8",
          "pretrain+aft/seed0/checkpoints/4",
        ):
          url = f"{workdir}/runs/{sign}"
          wait_for(functools.partial(is_there, url), cloud, 600)
          cloud.preempt(grace_s=10.0 if "aft" in sign else 0.0)
          supervisor.kill()
          supervisor.wait()
          supervisor = cloud.start()
      assert supervisor.wait(1200) == 0, cloud.said()
      assert not cloud.left()
      ends[name] = study_end.of(brought(workdir, tmp_path / "brought"))
  assert ends["torn"] == ends["straight"]


def is_there(path: str) -> bool:
  return bucket.exists(path) if urls.is_remote(path) else pathlib.Path(path).exists()


def brought(workdir: str, into: pathlib.Path) -> pathlib.Path:
  """Returns a directory with what is in a workdir."""
  if not urls.is_remote(workdir):
    return pathlib.Path(workdir)
  found = bucket.ls(workdir)
  entries = {bucket.join(workdir, name): entry for name, entry in found.items()}
  transfers.download_all(
    entries, {bucket.join(workdir, name): into / name for name in found}, into.parent
  )
  return into
