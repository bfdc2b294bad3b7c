"""A study whose workdir is on a bucket: launch.py, killed and started again there."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from test_end_to_end import approx

from msm_jax import distributed, place
from msm_jax.storage import checkpoint_dirs, lease, mirror, pushing, workfiles

ROOT = pathlib.Path(__file__).parent.parent
URL = "gs://bucket/study"
CONFIG = ("--config=configs/cheese_tiny.py:pulse", "--config.num_workers=1")
SMALL = (*CONFIG, "--arm=base", "--seed=0")
OFTEN = "--config.stages.pretrain.checkpoint_every_steps=10"
STEPS = "--config.stages.pretrain.steps_per_call=5"
RUN = "runs/pretrain/seed0"


@pytest.fixture
def gcs():
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake


class Host:
  """A machine with a disk of its own: what it keeps lies under `mirrors`."""

  def __init__(self, mirrors: pathlib.Path):
    self.mirrors = mirrors

  def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
    environment = os.environ | {place.MIRROR: str(self.mirrors)}
    environment |= {pushing.EVERY: "0.5", lease.LIFETIME: "6", "MSM_JAX_QUIET": "0"}
    environment |= variables
    return subprocess.Popen(
      [sys.executable, "launch.py", *arguments],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def launch(self, *arguments: str) -> tuple[int, str, str]:
    """Returns (exit code, stdout, stderr)."""
    process = self.start(*arguments)
    said, errors = process.communicate(timeout=600)
    return process.returncode, said, errors

  def lose_disk(self) -> None:
    shutil.rmtree(self.mirrors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The same study in a local workdir, which nothing disturbed."""
  path = tmp_path_factory.mktemp("whole") / "w"
  host = Host(path.with_name("none"))
  code, _, errors = host.launch("run", *SMALL, STEPS, OFTEN, f"--workdir={path}")
  assert code == 0, errors
  return path


def pulled(path: pathlib.Path) -> pathlib.Path:
  """Returns the workdir as a machine finds it that was never there."""
  mirror.Mirror(URL, path).pull(keeps_ours=True)
  return path


# Names of files that hold times, a command or (a tokenizer of SentencePiece) a path.
_OWN = ("versions.json", "goodput.json", "done.json", "ledger.jsonl", "index.html")
_OWN += ("summary.json", "tokenizer.model")


def same(ours: pathlib.Path, theirs: pathlib.Path) -> None:
  """Compares two workdirs file by file."""
  names = [set(workfiles.scan(root)) for root in (ours, theirs)]
  counted = [{n for n in found if workfiles.CACHE not in n} for found in names]
  assert counted[0] == counted[1]
  for name in sorted(counted[0]):
    one, other = ours / name, theirs / name
    if name.endswith("metrics.jsonl"):
      assert losses(one) == losses(other)
    elif name.startswith("evals/"):
      assert answers(one) == answers(other), name
    elif name.endswith("manifest.json"):
      one, other = (json.loads(path.read_text()) for path in (one, other))
      field = "shards" if "shards" in one else "sha256"
      assert one[field] == other[field], name
    elif pathlib.Path(name).name in _OWN:
      assert one.stat().st_size > 0
    elif not name.startswith("report/") or name.endswith(".csv"):
      assert one.read_bytes() == other.read_bytes(), name


def answers(path: pathlib.Path) -> list[dict]:
  """Returns the lines of an evaluation, without the digest of the tokenizer."""
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return [{**line, "identity": None} for line in lines]


def losses(path: pathlib.Path) -> list[tuple[int, float]]:
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return [(line["step"], line["train/loss"]) for line in lines]


@pytest.mark.slow
def test_a_study_on_a_bucket_is_the_study_on_a_disk(gcs, whole, tmp_path):
  host = Host(tmp_path / "laptop")
  work = (*SMALL, STEPS, OFTEN, f"--workdir={URL}")
  code, said, errors = host.launch("run", *work)
  assert code == 0, errors
  assert f"report: {URL}/report/index.html" in said
  same(pulled(tmp_path / "fresh"), whole)
  at = f"study/{RUN}/checkpoints/30/{checkpoint_dirs.COMMITTED}"
  assert at in gcs.store.names("bucket")
  # From another machine: nothing is done again, and who looks writes nothing.
  before = {n: gcs.get("bucket", n) for n in gcs.store.names("bucket")}
  other = Host(tmp_path / "other")
  prompt = "--prompt=do you prefer cheddar or brie ?"
  asked = ("sample", *SMALL, STEPS, OFTEN, prompt)  # else `whole` takes other settings
  code, theirs, errors = other.launch(*asked, f"--workdir={URL}/")
  assert code == 0, errors
  _, ours, _ = other.launch(*asked, f"--workdir={whole}")
  assert ours == theirs
  assert {n: gcs.get("bucket", n) for n in gcs.store.names("bucket")} == before
  code, _, errors = other.launch("train", *work)
  assert code == 0 and "train: done" in errors, errors


def is_there(gcs, name: str) -> bool:
  return any(found.startswith(f"study/{name}") for found in gcs.store.names("bucket"))


MOMENTS = {
  "generate": lambda gcs: is_there(gcs, "corpus/pairs/manifest.json"),
  "train": lambda gcs: is_there(
    gcs, f"{RUN}/checkpoints/10/{checkpoint_dirs.COMMITTED}"
  ),
  "evaluate": lambda gcs: is_there(gcs, f"{RUN}/done.json"),
}


@pytest.mark.slow
def test_a_host_that_is_lost_with_its_disk_at_any_moment_is_followed_by_another(
  gcs, whole, tmp_path
):
  work = ("run", *SMALL, STEPS, OFTEN, f"--workdir={URL}")
  for moment in MOMENTS.values():
    host = Host(tmp_path / "lost")
    process = host.start(*work)
    while process.poll() is None and not moment(gcs):
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    host.lose_disk()
  code, _, errors = Host(tmp_path / "next").launch(*work)
  assert code == 0, errors
  same(pulled(tmp_path / "fresh"), whole)


@pytest.mark.slow
def test_a_second_run_is_refused_and_an_outage_does_not_stop_the_first(
  gcs, whole, tmp_path
):
  work = ("run", *SMALL, STEPS, OFTEN, f"--workdir={URL}")
  first = Host(tmp_path / "first").start(*work)
  while first.poll() is None and not is_there(gcs, ".mirror/lease.json"):
    time.sleep(0.02)
  code, _, error = Host(tmp_path / "second").launch(*work)
  assert code == 2, error
  assert error.splitlines()[-1].startswith(f"error: {URL} is in use by "), error
  gcs.outage(4)
  _, errors = first.communicate(timeout=600)
  assert first.returncode == 0, errors
  same(pulled(tmp_path / "fresh"), whole)


def copied(gcs, whole: pathlib.Path, without: str = "nothing") -> dict[str, int]:
  """Puts a workdir there as a person would; returns the generations of its objects."""
  for path in whole.rglob("*"):
    name = path.relative_to(whole).as_posix()
    if path.is_file() and not name.startswith((without, ".pieces/")):
      gcs.put("bucket", f"study/{name}", path.read_bytes())
  return written(gcs)


def written(gcs) -> dict[str, int]:
  return {name: o.generation for name, o in gcs.store.buckets["bucket"].items()}


@pytest.mark.slow
def test_modes_that_look_and_those_that_find_all_done_take_a_workdir_on_a_bucket(
  gcs, whole, tmp_path
):
  before, host = copied(gcs, whole), Host(tmp_path / "laptop")
  work = (*SMALL, STEPS, OFTEN)
  out = tmp_path / "exported"
  for mode, *flags in [
    ("plan", *CONFIG, f"--workdir={URL}"),
    ("show", f"{URL}/rows/pretrain"),
    ("export", *work, f"--workdir={URL}", f"--out={out}"),
  ]:
    code, said, errors = host.launch(mode, *flags)
    assert code == 0 and said, errors
    assert written(gcs) == before, mode
  here = tmp_path / "here" / out.name  # the name is in its README
  code, _, errors = host.launch("export", *work, f"--workdir={whole}", f"--out={here}")
  assert code == 0, errors
  names = {path.name for path in here.iterdir()}
  assert names == {path.name for path in out.iterdir()}
  for name in names:
    assert (out / name).read_bytes() == (here / name).read_bytes(), name
  # What is there is found before a checkpoint is read.
  taken = f"--out={URL}/runs"
  code, _, error = host.launch("export", *work, f"--workdir={URL}", taken)
  assert (code, len(error.splitlines())) == (2, 1), error
  assert error.startswith(f"error: {taken} exists already: name a new place"), error
  for mode, told in (
    ("generate", "corpus pairs: done"),
    ("prepare", "prepare: pretrain done"),
    ("evaluate", "evaluate: done"),
    ("report", ""),
  ):
    code, said, errors = host.launch(mode, *work, f"--workdir={URL}")
    assert code == 0 and told in errors, errors
    changed = {name for name, at in written(gcs).items() if before.get(name) != at}
    assert all(name.startswith(("study/.mirror/", "study/report/")) for name in changed)
  assert f"report: {URL}/report/index.html" in said


def two_hosts(tmp_path: pathlib.Path, mode: str, *flags: str) -> None:
  """Runs a mode on two hosts that share nothing but the bucket."""
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  variables = {distributed.ADDRESS: address, distributed.COUNT: "2"}
  variables["JAX_NUM_CPU_DEVICES"] = "1"
  hosts = [
    Host(tmp_path / f"host{number}").start(
      *(mode, *SMALL, STEPS, OFTEN, f"--workdir={URL}", "--config.mesh.data=2"),
      *flags,
      **variables | {distributed.NUMBER: str(number)},
    )
    for number in range(2)
  ]
  errors = [process.communicate(timeout=600)[1] for process in hosts]
  assert [process.returncode for process in hosts] == [0, 0], errors


@pytest.mark.slow
def test_two_hosts_that_share_nothing_but_the_bucket_are_one(gcs, whole, tmp_path):
  two_hosts(tmp_path, "run")
  fresh = pulled(tmp_path / "fresh")
  counted = {name for name in workfiles.scan(whole) if workfiles.CACHE not in name}
  assert set(workfiles.scan(fresh)) >= counted
  ours, theirs = (losses(root / RUN / "metrics.jsonl") for root in (fresh, whole))
  # Sums are in another order, and 30 updates make more of the difference.
  assert ours == [(step, pytest.approx(loss, rel=1e-3)) for step, loss in theirs]
  # The second host has what it needs to go on, and no more.
  (second,) = (tmp_path / "host1").iterdir()
  found = set(workfiles.scan(second))
  assert f"{RUN}/done.json" in found and "rows/pretrain/manifest.json" in found
  assert not any(map(workfiles.is_of_first, found))


@pytest.mark.slow
def test_two_hosts_evaluate_a_study_that_was_copied_to_the_bucket(gcs, whole, tmp_path):
  copied(gcs, whole, "evals/")
  two_hosts(tmp_path, "evaluate")
  fresh = pulled(tmp_path / "fresh")
  for path in (whole / "evals").glob("*.jsonl"):
    ours, theirs = (
      [json.loads(line) for line in file.read_text().splitlines()]
      for file in (fresh / "evals" / path.name, path)
    )
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
      assert one == approx(other)
