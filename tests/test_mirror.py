"""A workdir on a bucket and its mirror: equal after every push and every pull."""

import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import (
  bucket,
  lease,
  listing,
  mirror,
  pushing,
  service,
  threads,
  workfiles,
)

URL = "gs://bucket/s/study"


@pytest.fixture
def gcs(monkeypatch):
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "8")
  monkeypatch.setattr(service, "_FIRST_WAIT_S", 0.02)
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake


def files_of(root: pathlib.Path) -> dict[str, bytes]:
  return {path: (root / path).read_bytes() for path in workfiles.scan(root)}


def named(gcs) -> dict[str, bytes]:
  """Returns what the index in the bucket names, as it is there."""
  index = json.loads(gcs.get("bucket", "s/study/.mirror/index.json"))["files"]
  return {path: gcs.get("bucket", f"s/study/{path}") for path in index}


def pulled(root: pathlib.Path, **how) -> mirror.Mirror:
  found = mirror.Mirror(URL, root)
  found.pull(**{"keeps_ours": True} | how)
  return found


class Edits:
  """Draws what programs do to a workdir."""

  def __init__(self, root: pathlib.Path, rng: random.Random):
    self.root, self.rng = root, rng

  def draw(self) -> None:
    self.rng.choice(
      [self.create, self.create, self.append, self.replace, self.rename, self.delete]
    )()

  def create(self) -> None:
    """A dataset appears by the renaming of a directory."""
    name = f"d{self.rng.randrange(6)}"
    target = self.root / "corpus" / name
    if target.exists():
      return
    temporary = target.with_name(f".{name}.tmp-1")
    for i in range(self.rng.randrange(1, 4)):
      path = temporary / self.rng.choice(["", "inner"]) / f"{i} é.bin"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(self.rng.randbytes(self.rng.choice([0, 3, 5000])))
    (temporary / "manifest.json").write_bytes(self.rng.randbytes(4))
    os.replace(temporary, target)

  def append(self) -> None:
    path = self.root / "evals" / f"{self.rng.randrange(3)}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
      file.write(self.rng.randbytes(self.rng.choice([1, 100, 70_000])))

  def replace(self) -> None:
    path = self.root / self.rng.choice(["config.json", "runs/a/seed0/done.json"])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-1")
    temporary.write_bytes(self.rng.randbytes(10))
    os.replace(temporary, path)

  def rename(self) -> None:
    found = sorted(p for p in (self.root / "corpus").glob("[!.]*"))
    if found:
      one = self.rng.choice(found)
      if not one.with_name(f"{one.name}x").exists():
        os.replace(one, one.with_name(f"{one.name}x"))

  def delete(self) -> None:
    found = sorted((self.root / "corpus").glob("[!.]*")) + sorted(
      (self.root / "evals").glob("*")
    )
    if found:
      one = self.rng.choice(found)
      shutil.rmtree(one) if one.is_dir() else one.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_the_bucket_is_the_workdir_after_drawn_edits_and_faults(gcs, tmp_path, seed):
  rng = random.Random(seed)
  gcs.put("bucket", "s/study/runs/a/seed0/checkpoints/4/params/x", b"of Orbax")
  ours = pulled(tmp_path / "a")
  edits = Edits(ours.root, rng)
  (ours.root / "corpus").mkdir()
  if seed % 2:
    nuisances = ["503", "reset", "lost", "truncate", "429"]
    gcs.faults = lambda call, n: rng.choice(nuisances) if rng.random() < 0.05 else ""
  for _ in range(6):
    for _ in range(rng.randrange(1, 6)):
      edits.draw()
    assert ours.push() == []
    assert named(gcs) == files_of(ours.root)
    if rng.random() < 0.3:  # a host that was made anew
      shutil.rmtree(ours.root)
      ours = pulled(ours.root)
      (ours.root / "corpus").mkdir(exist_ok=True)
      assert files_of(ours.root) == named(gcs)
    other = mirror.Mirror(URL, tmp_path / "b")
    other.follow(lambda path: True)
    assert files_of(other.root) == named(gcs)
  objects = {n.removeprefix("s/study/") for n in gcs.store.names("bucket")}
  rest = {n for n in objects - set(named(gcs)) if not n.startswith(".mirror/")}
  assert rest == {"runs/a/seed0/checkpoints/4/params/x"}


def write(root: pathlib.Path, files: dict[str, bytes]) -> None:
  for path, data in files.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


def test_what_is_equal_is_neither_sent_nor_fetched_again(gcs, tmp_path):
  ours = pulled(tmp_path / "a")
  write(ours.root, {f"rows/x/{i}": b"x" * i for i in range(5)})
  ours.push()
  del gcs.calls[:]
  assert ours.push() == [] and gcs.calls == []
  again = pulled(tmp_path / "a")
  again.push()
  assert not [call for call in gcs.calls if call.startswith("POST")]
  assert not [call for call in gcs.calls if "rows%2Fx" in call]


@pytest.mark.parametrize("sent", range(6))
def test_a_push_that_was_killed_leaves_a_dataset_whole_or_unnamed(
  gcs, tmp_path, sent, monkeypatch
):
  ours = pulled(tmp_path / "a")
  write(ours.root, {"config.json": b"1", "evals/x.jsonl": b"1\n"})
  ours.push()
  write(ours.root, {"evals/x.jsonl": b"1\n2\n"})
  write(ours.root, {f"corpus/c/{i}": bytes([i]) for i in range(3)})
  write(ours.root, {"corpus/c/manifest.json": b"{}"})
  monkeypatch.setattr(threads, "NUM", 1)
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.1")
  refused = [["POST ", list(range(sent + 1, 1000)), "reset"]]
  gcs.faults = fake_gcs.plan(refused)
  if sent < 6:
    with pytest.raises(Stopped, match="the bucket did not answer"):
      ours.push()
  gcs.faults = fake_gcs.plan([])
  fresh = files_of(pulled(tmp_path / "b").root)
  assert {path for path in fresh if path.startswith("corpus")} in (
    set(),
    {"corpus/c/0", "corpus/c/1", "corpus/c/2", "corpus/c/manifest.json"},
  )
  assert fresh["evals/x.jsonl"] in (b"1\n", b"1\n2\n")
  assert ours.push() == [] and named(gcs) == files_of(ours.root)


_PUSH = """
import pathlib, sys
from msm_jax.storage import mirror, threads
threads.NUM = 1
ours = mirror.Mirror(sys.argv[1], pathlib.Path(sys.argv[2]), lambda: True)
ours.pull(keeps_ours=True)
(ours.root / "evals" / "old").unlink()
ours.push()
"""


@pytest.mark.slow  # a process for each
def test_a_push_that_is_killed_between_any_two_requests_loses_nothing(gcs, tmp_path):
  """And the next run on that machine pushes what had been written since."""
  drawn = {f"corpus/c/{i}": bytes([i]) for i in range(3)}
  drawn |= {"corpus/c/manifest.json": b"{}", "evals/x.jsonl": b"1\n2\n"}
  for at in range(100):
    root = tmp_path / f"{at}" / "a"
    for name in gcs.store.names("bucket"):
      gcs.store.delete("bucket", name, {})
    gcs.faults = fake_gcs.plan([])
    ours = pulled(root)
    write(root, {"config.json": b"1", "evals/x.jsonl": b"1\n", "evals/old": b"x"})
    ours.push()
    write(root, drawn)
    writes = "^(POST|PUT|DELETE) "
    gcs.faults = fake_gcs.plan([[writes, [at + 1], "slow 1000"]])
    del gcs.calls[:]
    process = subprocess.Popen([sys.executable, "-c", _PUSH, URL, root])
    while process.poll() is None and at >= sum(
      re.match(writes, call) is not None for call in list(gcs.calls)
    ):
      time.sleep(0.01)
    process.kill()
    gcs.faults = fake_gcs.plan([])
    fresh = files_of(pulled(tmp_path / f"{at}" / "b").root)
    corpus = {path for path in fresh if path.startswith("corpus")}
    assert corpus in (set(), set(drawn) - {"evals/x.jsonl"})
    with (root / "evals" / "x.jsonl").open("ab") as file:
      file.write(b"3\n")
    back = mirror.Mirror(URL, root, lambda: True)
    back.pull(keeps_ours=True)
    assert back.push() == []
    found = named(gcs)
    assert found == files_of(root)
    found.pop("evals/old", None)  # a deletion that was not pushed is forgotten
    assert found == {**drawn, "config.json": b"1", "evals/x.jsonl": b"1\n2\n3\n"}
    assert not (root / ".mirror" / "aside").exists()
    if process.wait() == 0:  # it was not killed any more
      break
  assert at > 6


def test_who_may_write_replaces_what_another_left_and_who_may_not_is_refused(
  gcs, tmp_path
):
  asleep = pulled(tmp_path / "a")
  write(asleep.root, {"evals/x.jsonl": b"1\n", "evals/y.jsonl": b"1\n"})
  asleep.push()
  awake = mirror.Mirror(URL, tmp_path / "b", lambda: True)
  awake.pull(keeps_ours=True)
  write(awake.root, {"evals/x.jsonl": b"1\n2\n"})
  awake.push()
  write(asleep.root, {"evals/x.jsonl": b"old", "evals/y.jsonl": b"old", "z": b"old"})
  with pytest.raises(bucket.Changed):
    asleep.push()
  write(awake.root, {"evals/y.jsonl": b"1\n2\n", "z": b"new"})
  awake.push()
  assert named(gcs) == files_of(awake.root)
  # An answer that never came to the one who may write, and an index by another hand.
  gcs.put("bucket", "s/study/.mirror/index.json", b'{"files": {}}')
  write(awake.root, {"last": b"1"})
  awake.push()
  assert named(gcs) == files_of(awake.root)


def test_an_index_that_does_not_arrive_is_an_error_at_the_end(
  gcs, tmp_path, monkeypatch
):
  monkeypatch.setenv(pushing.EVERY, "60")
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.1")
  ours = pulled(tmp_path / "a")
  ours.push()
  pusher = pushing.Pusher(ours)
  write(ours.root, {"a": b"1"})
  gcs.faults = fake_gcs.plan([["POST ", list(range(2, 99)), "503"]])
  with pytest.raises(Stopped, match=r"the index of its files did not reach the bucket"):
    pusher.close()
  gcs.faults = fake_gcs.plan([])
  assert "a" not in named(gcs)
  back = mirror.Mirror(URL, tmp_path / "a", lambda: True)
  back.pull(keeps_ours=True)
  back.push()
  assert named(gcs) == {"a": b"1"}


def test_a_pull_that_ends_early_is_not_taken_for_what_was_written_here(
  gcs, tmp_path, monkeypatch
):
  ours = pulled(tmp_path / "a")
  write(ours.root, {f"evals/{i}": bytes([i]) for i in range(8)})
  ours.push()
  monkeypatch.setattr(threads, "NUM", 1)
  gcs.faults = fake_gcs.plan([["alt=media.*generation", [5], "403"]])
  with pytest.raises(UserError, match="access refused"):
    pulled(tmp_path / "b")
  gcs.faults = fake_gcs.plan([])
  assert 0 < len(files_of(tmp_path / "b")) < 8
  write(ours.root, {f"evals/{i}": b"new" for i in range(8)})
  ours.push()
  assert files_of(pulled(tmp_path / "b").root) == files_of(ours.root)
  assert not (tmp_path / "b" / ".mirror" / "aside").exists()


def test_who_looks_while_a_dataset_is_pushed_sees_all_of_it_or_nothing(
  gcs, tmp_path, monkeypatch
):
  ours = pulled(tmp_path / "a")
  write(ours.root, {"config.json": b"1", "rows/r/1": b"1"})
  ours.push()
  corpus = {f"corpus/c/{i}": b"x" for i in range(4)}
  ask = service.ask
  for moment in range(12):  # before which request of who looks it is pushed
    if moment % 2:
      shutil.rmtree(ours.root / "corpus")
    else:
      write(ours.root, corpus)
    count = itertools.count()

    def asked(*request, count=count, moment=moment):
      if next(count) == moment:
        monkeypatch.setattr(service, "ask", ask)
        ours.push()
      return ask(*request)

    monkeypatch.setattr(service, "ask", asked)
    found = set(files_of(pulled(tmp_path / f"{moment}").root))
    monkeypatch.setattr(service, "ask", ask)
    assert found - {"config.json", "rows/r/1"} in (set(), set(corpus)), moment
    ours.push()


def test_files_that_did_not_reach_the_bucket_are_kept_and_pushed(gcs, tmp_path):
  ours = pulled(tmp_path / "a")
  write(ours.root, {"a": b"1", "b": b"1", "c": b"1"})
  ours.push()
  other = pulled(tmp_path / "b")
  write(other.root, {"b": b"theirs"})
  (other.root / "c").unlink()
  other.push()
  write(ours.root, {"a": b"ours", "b": b"ours", "d": b"ours"})
  back = pulled(tmp_path / "a")
  assert files_of(back.root) == {"a": b"ours", "b": b"theirs", "d": b"ours"}
  aside = [p for p in (back.root / ".mirror" / "aside").rglob("*") if p.is_file()]
  assert [p.read_bytes() for p in aside] == [b"ours"]
  assert back.unsent() == ["a", "d"]
  back.push()
  assert named(gcs) == files_of(back.root)
  # A mirror may be deleted in part: the bucket is what counts.
  (back.root / "a").unlink()
  assert files_of(pulled(tmp_path / "a").root) == named(gcs)
  # What is deleted in the bucket, though named, is deleted.
  bucket.delete(f"{URL}/d")
  assert sorted(files_of(pulled(tmp_path / "a").root)) == ["a", "b"]


def test_a_workdir_that_was_copied_there_is_taken_as_it_is(gcs, tmp_path):
  gcs.put("bucket", "s/study/config.json", b"{}")
  gcs.put("bucket", "s/study/runs/a/seed0/done.json", b"{}")
  gcs.put("bucket", "s/study/runs/a/seed0/checkpoints/1/params", b"{}")
  gcs.put("bucket", "s/study/rows/x/.padding/manifest.json", b"{}")
  gcs.put("bucket", "s/study/.pieces/y/z", b"{}")
  found = pulled(tmp_path / "a")
  assert sorted(files_of(found.root)) == [
    "config.json",
    "rows/x/.padding/manifest.json",
    "runs/a/seed0/done.json",
  ]


def test_a_listing_of_many_pages_leaves_checkpoints_out(gcs):
  names = [f"{top}/{i:04d}" for top in ("rows/a", "runs/p/s", "") for i in range(1100)]
  for name in names:
    gcs.put("bucket", f"s/study/{name.strip('/')}", b"")
  for i in range(2000):
    gcs.put("bucket", f"s/study/runs/p/s/checkpoints/1/{i}", b"")
  del gcs.calls[:]
  found = listing.without(URL, workfiles.CHECKPOINTS)
  assert sorted(found) == sorted(name.strip("/") for name in names)
  assert len(gcs.calls) < 15


def test_a_file_that_grows_while_it_is_sent_arrives_as_it_was_at_some_moment(
  gcs, tmp_path, monkeypatch
):
  monkeypatch.setattr(mirror, "_WHOLE_BYTES", 1000)
  ours = pulled(tmp_path / "a")
  path, over = ours.root / "ledger.jsonl", threading.Event()

  def grow():
    with path.open("ab", buffering=0) as file:
      for i in range(20_000):
        if over.is_set():
          return
        file.write(b"%08d\n" % i)

  path.parent.mkdir(exist_ok=True)
  path.touch()
  thread = threading.Thread(target=grow)
  thread.start()
  try:
    for _ in range(10):
      ours.push()
      data = gcs.get("bucket", "s/study/ledger.jsonl")
      lines = data.splitlines()
      assert lines == [b"%08d" % i for i in range(len(lines))] or data[-1:] != b"\n"
  finally:
    over.set()
    thread.join()
  ours.push()
  assert named(gcs)["ledger.jsonl"] == path.read_bytes()


def test_a_large_file_takes_a_tenth_of_the_time(gcs, tmp_path, monkeypatch):
  monkeypatch.setattr(mirror, "_WHOLE_BYTES", 1000)
  gcs.faults = fake_gcs.plan([["POST .*uploadType", [], "slow 0.1"]])
  ours = pulled(tmp_path / "a")
  write(ours.root, {"evals/large.jsonl": b"x" * 2000, "evals/small.jsonl": b"x"})
  ours.push(spares_large=True)
  write(ours.root, {"evals/large.jsonl": b"x" * 2001, "evals/small.jsonl": b"xy"})
  assert ours.push(spares_large=True) == {"evals/large.jsonl"}
  assert named(gcs)["evals/small.jsonl"] == b"xy"
  assert len(named(gcs)["evals/large.jsonl"]) == 2000
  assert not ours.push()  # at the end of a step, all of it


def test_while_the_bucket_is_silent_the_run_goes_on_and_catches_up(
  gcs, tmp_path, monkeypatch
):
  monkeypatch.setenv(pushing.EVERY, "0.05")
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.1")
  ours = pulled(tmp_path / "a")
  pusher = pushing.Pusher(ours)
  gcs.outage(1.0)
  for i in range(5):
    write(ours.root, {f"evals/{i}.jsonl": b"x"})
    time.sleep(0.05)
  until = time.monotonic() + 20
  index = "s/study/.mirror/index.json"  # comes after all files
  while ours.unsent() or index not in gcs.store.names("bucket"):
    assert time.monotonic() < until
    time.sleep(0.05)
  while named(gcs) != files_of(ours.root):
    assert time.monotonic() < until
    time.sleep(0.05)
  gcs.outage(1e6)
  write(ours.root, {"evals/last.jsonl": b"x"})
  with pytest.raises(Stopped, match=r"1 files did not reach the bucket, the first is"):
    pusher.close()
  gcs.outage(0)
  back = pulled(tmp_path / "a")
  back.push()
  assert named(gcs)["evals/last.jsonl"] == b"x"


def test_a_living_run_keeps_its_workdir_and_a_dead_one_is_followed(gcs, monkeypatch):
  monkeypatch.setenv(lease.LIFETIME, "0.6")
  first, at = lease.Lease(f"{URL}/.mirror/lease.json", URL), f"{URL}/.mirror/lease.json"
  assert first.take()
  lost = threading.Event()
  heart = lease.Heart(first, lost.set)
  # As seen from another machine.
  monkeypatch.setattr(lease, "_machine", lambda: ["another"])
  for waits in (True, False):
    second = lease.Lease(at, URL)
    if waits:
      with pytest.raises(UserError, match=r"study is in use by .* on .* since 20"):
        second.take()
    else:
      assert not second.take(waits=False)
  gcs.faults = fake_gcs.plan([["POST ", list(range(1, 5)), "lost"]])
  time.sleep(0.5)
  assert not lost.is_set()
  gcs.faults = fake_gcs.plan([])
  heart._ended.set()  # it dies
  heart.join()
  started = time.monotonic()
  assert lease.Lease(at, URL).take()
  assert time.monotonic() - started >= 0.6
  # The first, should it come back, finds out.
  heart = lease.Heart(first, lost.set)
  assert lost.wait(5) and heart.lost
  heart.end()
  assert bucket.exists(at)  # the second's


def test_a_beat_that_arrived_unanswered_is_ours_and_a_lease_that_was_deleted_comes_back(
  gcs, monkeypatch
):
  at = f"{URL}/.mirror/lease.json"
  first = lease.Lease(at, URL)
  assert first.take()
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.2")
  gcs.faults = fake_gcs.plan([["POST ", [1], "lost"], ["", [], "reset"]])
  with pytest.raises(Stopped):
    first.beat()
  gcs.faults = fake_gcs.plan([])
  first.beat()
  bucket.delete(at)
  first.beat()
  assert first.is_ours()
  gcs.put("bucket", "s/study/.mirror/lease.json", b"{}")
  assert not first.is_ours()
  with pytest.raises(bucket.Changed):
    first.beat()


def test_a_lease_that_is_given_back_is_free_at_once(gcs):
  at = f"{URL}/.mirror/lease.json"
  first = lease.Lease(at, URL)
  assert first.take()
  heart = lease.Heart(first, lambda: None)
  heart.end()
  assert not bucket.exists(at) and lease.Lease(at, URL).take()
