"""A workdir on a bucket and its mirror: equal after every push and every pull."""

import json
import os
import pathlib
import random
import shutil
import threading
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import bucket, lease, listing, mirror, pushing, threads, workfiles

URL = "gs://bucket/s/study"


@pytest.fixture
def gcs(monkeypatch):
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "8")
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
  while ours.unsent() and time.monotonic() < until:
    time.sleep(0.05)
  assert named(gcs) == files_of(ours.root)
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


def test_a_lease_that_is_given_back_is_free_at_once(gcs):
  at = f"{URL}/.mirror/lease.json"
  first = lease.Lease(at, URL)
  assert first.take()
  heart = lease.Heart(first, lambda: None)
  heart.end()
  assert not bucket.exists(at) and lease.Lease(at, URL).take()
