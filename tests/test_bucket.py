"""Objects in a bucket: whole or not at all, whatever befalls the requests."""

import functools
import pathlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from msm_jax.errors import UserError
from msm_jax.storage import bucket, service, threads, transfers

KIB = 1024


@pytest.fixture
def gcs(monkeypatch):
  monkeypatch.setattr(transfers, "PART", 256 * KIB)
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "8")
  monkeypatch.setattr(service, "_FIRST_WAIT_S", 0.02)
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake


def drawn_tree(rng: random.Random, directory: pathlib.Path) -> dict[str, bytes]:
  """Writes files of all sizes, some larger than a part, at names that need quoting."""
  sizes = [0, 1, 1000, 128 * KIB, 128 * KIB + 1, 256 * KIB, 600 * KIB + 7]
  tree = {}
  for i in range(12):
    folder = rng.choice(["", "a/", "a/b c/", "%2F+/", "#?&=/"])
    tree[f"{folder}{i}~{rng.choice('é@:;,')}.x"] = rng.randbytes(rng.choice(sizes))
  for name, data in tree.items():
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)
  return tree


def files_of(directory: pathlib.Path) -> dict[str, bytes]:
  files = (path for path in directory.rglob("*") if path.is_file())
  return {f.relative_to(directory).as_posix(): f.read_bytes() for f in files}


def up(directory: pathlib.Path, tree, url: str) -> None:
  transfers.upload_all({bucket.join(url, name): directory / name for name in tree})


def down(url: str, directory: pathlib.Path) -> None:
  entries = {bucket.join(url, name): each for name, each in bucket.ls(url).items()}
  names = {at: directory / at.removeprefix(f"{url}/") for at in entries}
  transfers.download_all(entries, names, directory.parent)


NUISANCES = ["", "503", "429", "reset", "lost", "truncate", "corrupt", "short"]


@pytest.mark.parametrize("nuisance", NUISANCES)
def test_a_tree_of_files_comes_back_as_it_went(gcs, tmp_path, nuisance):
  rng = random.Random(nuisance)
  tree = drawn_tree(rng, tmp_path / "there")
  # Also those that are tried again; what is damaged is sent five times at most.
  often = 0.03 if nuisance == "corrupt" else 0.15
  gcs.faults = lambda call, n: nuisance if rng.random() < often else ""
  up(tmp_path / "there", tree, "gs://bucket/deep/down")
  down("gs://bucket/deep/down", tmp_path / "back")
  gcs.faults = lambda call, n: ""
  names = {name.removeprefix("deep/down/") for name in gcs.store.names("bucket")}
  assert names == set(tree)
  assert files_of(tmp_path / "back") == tree
  for name in tree:
    assert bucket.delete(bucket.join("gs://bucket/deep/down", name))
  assert gcs.store.names("bucket") == []


def test_an_outage_is_waited_out_and_a_long_one_ends_the_work(
  gcs, tmp_path, monkeypatch
):
  gcs.put("bucket", "k", b"1")
  gcs.outage(1.0)
  assert bucket.read_bytes("gs://bucket/k") == b"1"
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.5")
  gcs.outage(30)
  with pytest.raises(bucket.Unreachable, match="k: the bucket did not answer"):
    bucket.read_bytes("gs://bucket/k")
  (tmp_path / "f").write_bytes(bytes(700 * KIB))
  with pytest.raises(bucket.Unreachable):
    transfers.upload(tmp_path / "f", "gs://bucket/f")


def interrupted_after(delay_s: float, work: Callable[[], None]) -> float:
  """Does `work`, with a Ctrl-C a moment later; returns how long that took."""
  main = threading.main_thread().ident
  # What runs in the background of a shell was begun deaf to it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  started = time.monotonic()
  try:
    with pytest.raises(KeyboardInterrupt):
      threading.Timer(delay_s, signal.pthread_kill, [main, signal.SIGINT]).start()
      work()
      time.sleep(100)
  finally:
    signal.signal(signal.SIGINT, before)
  return time.monotonic() - started


@pytest.mark.parametrize("fault", ["reset", "slow 100"])
def test_an_interrupt_does_not_wait_for_an_outage(gcs, tmp_path, monkeypatch, fault):
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "100")
  for i in range(40):
    gcs.put("bucket", f"d/{i}", bytes(10))
  entries = {f"gs://bucket/d/{n}": e for n, e in bucket.ls("gs://bucket/d").items()}
  paths = {at: tmp_path / "d" / at.rpartition("/")[2] for at in entries}
  load = functools.partial(transfers.download_all, entries, paths, tmp_path)
  (tmp_path / "new").write_bytes(b"1")
  new = {f"gs://bucket/new/{i}": tmp_path / "new" for i in range(40)}
  gcs.faults = fake_gcs.plan([["alt=media|POST ", [], fault]])
  for delay_s in (0.0, 0.001, 0.003, 0.01, 0.1):  # also while work is handed out
    for work in (load, lambda: transfers.upload_all(new)):
      took_s = interrupted_after(delay_s, work)
      assert took_s < 20  # of the 100 that it would be tried again
  gcs.faults = lambda call, n: ""
  load()
  assert len(files_of(tmp_path / "d")) == 40


def test_no_more_requests_at_a_time_than_said(gcs, tmp_path):
  gcs.faults = lambda call, n: "slow 0.02"
  gcs.put("bucket", "d/big", bytes(100 * 256 * KIB))
  down("gs://bucket/d", tmp_path)
  assert 4 < gcs.most_in_flight <= threads.NUM


def test_what_always_arrives_damaged_never_becomes_a_file(gcs, tmp_path):
  gcs.put("bucket", "k", b"123")
  gcs.faults = lambda call, n: "corrupt"
  with pytest.raises(bucket.Unreachable, match="CRC32C"):
    bucket.read_bytes("gs://bucket/k")
  with pytest.raises(bucket.Unreachable, match="CRC32C"):
    down("gs://bucket", tmp_path / "k")
  for size in (3, 700 * KIB):
    (tmp_path / "f").write_bytes(bytes(size))
    with pytest.raises(bucket.Unreachable, match="CRC32C"):
      transfers.upload(tmp_path / "f", "gs://bucket/f")
  assert gcs.store.names("bucket") == ["k"]
  assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_that_is_half_there_is_never_seen(gcs, tmp_path):
  gcs.put("bucket", "d/big", random.Random(0).randbytes(8 * 256 * KIB))
  gcs.faults = fake_gcs.plan([["alt=media", [4], "404"]])
  with pytest.raises(bucket.NotFound):
    down("gs://bucket/d", tmp_path / "d")
  assert files_of(tmp_path) == {}


def test_a_disk_that_takes_a_part_of_a_write_is_full_and_not_the_line_damaged(
  gcs, tmp_path
):
  gcs.put("bucket", "d/big", random.Random(0).randbytes(256 * KIB))
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100 * KIB, before[1]))
  try:
    with pytest.raises(OSError, match="File too large"):
      down("gs://bucket/d", tmp_path / "d")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert files_of(tmp_path) == {}


def test_listings_have_pages_and_no_neighbours(gcs):
  for i in range(2500):
    gcs.put("bucket", f"d/{i:05d}", b"")
  gcs.put("bucket", "d/", b"")
  gcs.put("bucket", "dd/x", b"1")
  gcs.calls.clear()
  assert list(bucket.ls("gs://bucket/d/")) == [f"{i:05d}" for i in range(2500)]
  assert len(gcs.calls) == 3
  assert list(bucket.ls("gs://bucket/nothing")) == []
  assert len(bucket.ls("gs://bucket")) == 2501


def test_what_exists_is_an_object_or_has_some_below(gcs):
  gcs.put("bucket", "a/b/c", b"123")
  urls = ["gs://bucket", "gs://bucket/a/", "gs://bucket/a/b", "gs://bucket/a/b/c"]
  assert all(map(bucket.exists, urls))
  assert not any(map(bucket.exists, ["gs://bucket/a/b/cc", "gs://bucket/aa"]))
  assert bucket.stat("gs://bucket/a") is None
  assert bucket.stat("gs://bucket/a/b/c").size == 3
  assert bucket.delete("gs://bucket/a/b/c")
  assert not bucket.delete("gs://bucket/a/b/c")


@pytest.mark.parametrize("size", [10, 700 * KIB])
def test_a_write_says_what_it_replaces(gcs, tmp_path, size):
  path = tmp_path / "f"
  path.write_bytes(bytes(size))
  first = transfers.upload(path, "gs://bucket/k", if_generation=0)
  with pytest.raises(bucket.Changed, match="somebody else wrote it"):
    transfers.upload(path, "gs://bucket/k", if_generation=0)
  second = transfers.upload(path, "gs://bucket/k", if_generation=first.generation)
  with pytest.raises(bucket.Changed):
    bucket.delete("gs://bucket/k", if_generation=first.generation)
  assert bucket.delete("gs://bucket/k", if_generation=second.generation)


@pytest.mark.parametrize("size", [10, 700 * KIB])
def test_a_write_whose_answer_is_lost_was_ours_all_the_same(gcs, tmp_path, size):
  path = tmp_path / "f"
  path.write_bytes(bytes(size))
  gcs.faults = fake_gcs.plan([["(POST|PUT) /upload.*(multipart|id=)", [1, 3], "lost"]])
  entry = transfers.upload(path, "gs://bucket/k", if_generation=0)
  assert entry == bucket.stat("gs://bucket/k")
  # One of many that write the same is told that it was first, and no other.
  told = []

  def write():
    try:
      told.append(bucket.write_bytes("gs://bucket/lock", b"mine", if_generation=0))
    except bucket.Changed:
      told.append(None)

  rng = random.Random(0)
  gcs.faults = lambda call, n: "lost" if rng.random() < 0.3 else ""
  threads = [threading.Thread(target=write) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [entry for entry in told if entry] == [bucket.stat("gs://bucket/lock")]


def one_line(error: pytest.ExceptionInfo) -> str:
  text = str(error.value)
  assert "\n" not in text
  return text


def test_refusals_are_one_line_with_the_way_out(gcs):
  with pytest.raises(bucket.NotFound) as error:
    bucket.read_bytes("gs://bucket/nothing")
  assert one_line(error) == "gs://bucket/nothing does not exist: check the path"
  for look in (bucket.ls, bucket.read_bytes, bucket.stat, bucket.exists, bucket.delete):
    with pytest.raises(bucket.NotFound) as error:
      look("gs://other/x")
    assert "no such bucket" in one_line(error)
  gcs.denied = {"bucket"}
  with pytest.raises(UserError, match="access refused") as error:
    bucket.ls("gs://bucket/x")
  assert "roles/storage" in one_line(error)
  gcs.token = "secret"
  with pytest.raises(UserError, match="no credentials") as error:
    bucket.write_bytes("gs://bucket/x", b"")
  assert "gcloud auth application-default login" in one_line(error)


@pytest.mark.parametrize(
  ("path", "reason"),
  [
    ("gs://", "no bucket"),
    ("gs:///x", "no bucket"),
    ("gs://B/x", "no bucket"),
    ("gs://bucket/a//b", "no object has that name"),
    ("gs://bucket/a/../b", "no object has that name"),
    ("gs://bucket/a\nb", "no object has that name"),
  ],
)
def test_urls_with_a_slip_are_refused(path, reason):
  assert bucket.is_remote(path)
  with pytest.raises(UserError, match=reason) as error:
    bucket.split(path)
  one_line(error)


def test_paths_are_local_or_of_a_bucket():
  for path in ("a/b", "/a", "./gs", "C:/x", "a:b", "@x", "gs", pathlib.Path("gs")):
    assert not bucket.is_remote(path)
  for path in ("s3://b/x", "https://x/y", "file:///x", "GS://b/x", "gs:/b/x"):
    with pytest.raises(UserError, match="gs://BUCKET/NAME"):
      bucket.is_remote(path)
  with pytest.raises(UserError, match="gs://BUCKET/NAME"):
    bucket.is_remote(pathlib.Path("gs://b/x"))


def test_without_gcsfs_a_bucket_is_refused_by_name_of_the_extra(tmp_path):
  (tmp_path / "gcsfs.py").write_text("raise ImportError('No module named gcsfs')\n")
  code = """if True:
    from msm_jax.errors import UserError
    from msm_jax.storage import bucket
    try:
      bucket.ls("gs://bucket/x")
    except UserError as error:
      print(error)
  """
  root = pathlib.Path(__file__).parent.parent
  run = subprocess.run(
    [sys.executable, "-c", code],
    env={"PYTHONPATH": f"{tmp_path}:{root}"},
    capture_output=True,
    text=True,
  )
  assert "pip install 'msm-jax[gcs]'" in run.stdout, run.stderr
