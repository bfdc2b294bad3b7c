"""Where a command works: a local directory, or the mirror of one on a bucket."""

import errno
import os
import pathlib
import signal
import threading
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from msm_jax import distributed, place
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import addresses, bucket, lease, mirror, pushing, workfiles

URL = "gs://bucket/study"


@pytest.fixture
def gcs(monkeypatch, tmp_path):
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "5")
  monkeypatch.setenv(place.MIRROR, str(tmp_path / "mirrors"))
  monkeypatch.setenv(pushing.EVERY, "60")
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake


def names(gcs) -> list[str]:
  """Returns what a person finds there."""
  found = gcs.store.names("bucket")
  return [name.removeprefix("study/") for name in found if "/.mirror/" not in name]


def test_a_local_workdir_is_itself(tmp_path):
  for workdir in (None, str(tmp_path)):
    with place.opened(workdir, "run") as found:
      assert found == workdir
  with pytest.raises(UserError, match="only local paths and gs://"):
    place.local("s3://bucket/x")


def test_what_a_command_makes_is_in_the_bucket_when_it_ends(gcs):
  with place.opened(f"{URL}/", "generate") as found:
    workdir = pathlib.Path(found)
    assert addresses.url_of(workdir / "a") == f"{URL}/a"
    (workdir / "config.json").write_text("{}")
    with distributed.together():
      (workdir / "evals").mkdir()
      (workdir / "evals" / "x.jsonl").write_text("1")
  assert names(gcs) == ["config.json", "evals/x.jsonl"]
  assert not bucket.exists(f"{URL}/.mirror/lease.json")


@pytest.mark.parametrize("kind", [UserError, Stopped, KeyboardInterrupt, ValueError])
def test_however_it_ends_it_pushes_and_errors_name_what_lies_in_the_bucket(gcs, kind):
  def work():
    with place.opened(URL, "train") as found:
      pathlib.Path(found, "config.json").write_text("{}")
      raise kind(f"{found}/config.json is no good")

  with pytest.raises(kind) as caught:
    work()
  told = kind in (UserError, Stopped)
  assert (f"{URL}/config.json is no good" == str(caught.value)) is told
  assert names(gcs) == ["config.json"]
  assert not bucket.exists(f"{URL}/.mirror/lease.json")


@pytest.mark.parametrize("mode", ["plan", "show", "sample", "export", "fit"])
def test_who_looks_writes_nothing_and_is_never_refused(gcs, mode):
  with place.opened(URL, "run") as found:
    for name in ("config.json", "rows/a/b/x.array_record", ".xla_cache/p-cache"):
      path = pathlib.Path(found, name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text("{}")
    with place.opened(URL, mode) as same:  # on the machine of the run
      assert same == found
  before = gcs.store.names("bucket")
  del gcs.calls[:]
  os.environ[place.MIRROR] += "-other"
  with place.opened(URL, mode) as other:
    assert "config.json" in workfiles.scan(pathlib.Path(other))
    compiles = mode not in ("plan", "show")
    assert len(workfiles.scan(pathlib.Path(other))) == (3 if compiles else 1)
    pathlib.Path(other, "report").mkdir()
    pathlib.Path(other, "report", "x").write_text("1")
  assert gcs.store.names("bucket") == before
  assert {call.split()[0] for call in gcs.calls} == {"GET"}


def test_who_looks_waits_for_another_that_pulls_and_a_run_does_so_too(gcs):
  with place.opened(URL, "run") as found:
    pathlib.Path(found, "config.json").write_text("{}")
  os.environ[place.MIRROR] += "-other"
  gcs.faults = fake_gcs.plan([["config.json.*alt=media", [1], "slow 0.3"]])
  seen: list[set[str]] = []

  def look():
    with place.opened(URL, "sample") as found:
      seen.append(set(workfiles.scan(pathlib.Path(found))))

  others = [threading.Thread(target=look) for _ in range(2)]
  for thread in others:
    thread.start()
  while not any("config.json" in call and "alt=media" in call for call in gcs.calls):
    time.sleep(0.01)
  with place.opened(URL, "run") as found:
    assert set(workfiles.scan(pathlib.Path(found))) == {"config.json"}
  for thread in others:
    thread.join()
  assert seen == [{"config.json"}] * 2


def test_a_full_disk_is_that_of_the_mirror(gcs):
  told = "mirrors/bucket-study-.*, where gs://bucket/study is worked on: No space left"
  with (
    pytest.raises(UserError, match=f"{told}.*MSM_JAX_MIRROR"),
    place.opened(URL, "train") as found,
  ):
    raise OSError(errno.ENOSPC, "No space left on device", f"{found}/rows/a")


def test_report_puts_its_page_there_unless_a_run_is_under_way(gcs, capsys):
  def report():
    with place.opened(URL, "report") as found:
      page = pathlib.Path(found, "report", "index.html")
      page.parent.mkdir(exist_ok=True)
      page.write_text("page")

  with place.opened(URL, "run"):
    with pytest.raises(UserError, match="in use by another process of this machine"):
      place.opened(URL, "train").__enter__()
    report()
  assert f"report: {URL}/report/index.html" in capsys.readouterr().out
  (page,) = names(gcs)  # the run pushed it
  assert page == "report/index.html"
  bucket.delete(f"{URL}/{page}")
  held = lease.Lease(f"{URL}/.mirror/lease.json", URL)
  assert held.take()
  elsewhere = pytest.MonkeyPatch()
  elsewhere.setattr(lease, "_machine", lambda: ["another machine"])
  with elsewhere.context():
    report()
  elsewhere.undo()
  assert names(gcs) == []
  held.give_back()
  report()
  assert names(gcs) == [page]


def test_a_run_whose_place_was_taken_stops_and_writes_no_more(gcs, monkeypatch):
  monkeypatch.setenv(lease.LIFETIME, "0.3")
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)

  def work():
    with place.opened(URL, "train") as found:
      pathlib.Path(found, "config.json").write_text("{}")
      gcs.put("bucket", "study/.mirror/lease.json", b"{}")
      for _ in range(100):
        signal.sigtimedwait([], 0.1)

  try:
    with pytest.raises(Stopped, match="another run took the place of this one"):
      work()
  finally:
    signal.signal(signal.SIGTERM, before)
  assert names(gcs) == []


def test_a_worker_of_a_run_works_in_its_mirror(gcs, monkeypatch):
  with place.opened(URL, "train") as found:
    monkeypatch.setenv("MSM_JAX_WORKER", "0")
    with place.opened(URL, "train") as same:
      assert same == found


def test_a_push_that_cannot_be_is_told_with_where_the_files_are(gcs, monkeypatch):
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.1")

  def work(fault):
    with place.opened(URL, "train") as found:
      pathlib.Path(found, "config.json").write_text("{}")
      gcs.faults = fake_gcs.plan([["(POST|PUT|DELETE) ", [], fault]])

  for fault, kind in (("503", Stopped), ("403", UserError)):
    gcs.faults = fake_gcs.plan([])
    with pytest.raises(kind) as caught:
      work(fault)
    told = str(caught.value)
    assert "1 files did not reach the bucket, the first is config.json" in told
    assert f"they are in {place.local(URL)}: run again on this machine" in told
  gcs.faults = fake_gcs.plan([])
  with place.opened(URL, "run"):
    pass
  assert names(gcs) == ["config.json"]
  assert mirror.Mirror(URL, place.local(URL)).unsent() == []
