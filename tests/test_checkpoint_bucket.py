"""Checkpoints of a workdir on a bucket: written and read there, over real HTTP."""

import functools
import json

import jax
import many_processes
import numpy as np
import pytest

pytest.importorskip("google_crc32c")
import fake_gcs
from test_train import CFG, META, config, log, pieces, run

from msm_jax import checkpoint, packing, records, sharding, train
from msm_jax import workdir as workdir_lib
from msm_jax.errors import Stopped, UserError
from msm_jax.models import transformer
from msm_jax.storage import addresses, checkpoint_dirs

RUN = "w/runs/a/seed0"  # in the bucket


def forget_clients() -> None:
  """Has libraries connect anew: each keeps a client, and a server of a test ends."""
  core = pytest.importorskip("gcsfs.core")
  from etils.epath import backend
  from orbax.checkpoint._src.path import gcs_utils

  backend.fsspec_backend._get_filesystem.cache_clear()
  gcs_utils.get_bucket.cache_clear()
  core.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def gcs():
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    forget_clients()
    yield fake
    forget_clients()


@pytest.fixture(scope="module")
def rows_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp("rows") / "rows"
  rows = map(packing.to_record, packing.pack(pieces(80), 32))
  records.write_dataset(directory, rows, manifest={})
  return directory


def mirror(root):
  """Returns the place of the run in the mirror of gs://bucket/w."""
  addresses.write(root, "gs://bucket/w")
  return root / "runs" / "a" / "seed0"


def saved(gcs) -> set[int]:
  """Returns the steps in the bucket that count."""
  ends = f"/{checkpoint_dirs.COMMITTED}"
  parts = [
    name.removeprefix(f"{RUN}/checkpoints/").removesuffix(ends).split("/")
    for name in gcs.store.names("bucket")
    if name.endswith(ends)
  ]
  return {int(part[0]) for part in parts if len(part) == 1}


def equal(ours, theirs) -> None:
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(one, other)


def losses(run_dir) -> list[float]:
  return [line["train/loss"] for line in log(run_dir.parent, run_dir.name)]


def test_a_run_saves_goes_on_and_mends_itself_on_a_bucket_as_on_a_disk(
  gcs, tmp_path, rows_dir, monkeypatch, capfd
):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  settings = {"checkpoint_every_steps": 4, "checkpoint_at": (2,)}
  here = run(tmp_path / "here", rows_dir, **settings)
  run_dir = mirror(tmp_path / "there")
  there = functools.partial(run, run_dir.parent, rows_dir, run_dir.name, **settings)
  equal(here, there())
  assert losses(run_dir) == losses(tmp_path / "here" / "run")
  on_disk = {p.name for p in (tmp_path / "here" / "run" / "checkpoints").iterdir()}
  assert saved(gcs) == set(map(int, on_disk)) == {2, 8, 12}
  assert not (run_dir / "checkpoints").exists()
  # A save that was stopped in the middle, and the newest of whole ones damaged.
  gcs.put("bucket", f"{RUN}/checkpoints/10/params/_METADATA", b"{}")
  largest = max(
    (n for n in gcs.store.names("bucket") if f"{RUN}/checkpoints/12/params" in n),
    key=lambda name: len(gcs.get("bucket", name)),
  )
  data = bytearray(gcs.get("bucket", largest))
  data[len(data) // 2] ^= 1
  gcs.put("bucket", largest, bytes(data))
  capfd.readouterr()
  equal(here, there())
  said = capfd.readouterr().err
  assert "10 has no commit_success.txt: a save that was stopped" in said
  assert "gs://bucket/w/runs/a/seed0/checkpoints/12 is damaged" in said
  assert saved(gcs) == {2, 8, 12}
  names = gcs.store.names("bucket")
  aside = {n.split("/")[5].split("-")[0] for n in names if f"{RUN}/damaged/" in n}
  assert aside == {"12"}
  assert not any(f"{RUN}/checkpoints/10/" in name for name in names)


def test_a_reader_changes_nothing_and_needs_a_checkpoint(gcs, tmp_path):
  run_dir = mirror(tmp_path)
  with pytest.raises(UserError, match="seed0 has no checkpoint: run `train` for it"):
    checkpoint.Checkpointer(run_dir, read_only=True)
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(config(), CFG, params, sharding.make_mesh(data=8))
  with checkpoint.Checkpointer(run_dir) as checkpointer:
    checkpointer.save(4, step.init(params), META, wait=True)
  gcs.put("bucket", f"{RUN}/checkpoints/5/params/_METADATA", b"{}")
  before = gcs.store.names("bucket")
  del gcs.calls[:]
  with checkpoint.Checkpointer(run_dir, read_only=True) as checkpointer:
    assert checkpointer.steps() == [4]
    assert checkpointer.read_meta(4)["stage"] == "test"
    loaded = checkpointer.restore_params(step.state.params, META, 4)
  equal(loaded.tree, params)
  assert gcs.store.names("bucket") == before
  assert {call.split()[0] for call in gcs.calls} == {"GET"}


def test_what_was_made_is_seen_in_the_bucket(gcs, tmp_path):
  run_dir = mirror(tmp_path)
  run_dir.mkdir(parents=True)
  before = {"model": {"vocab_size": 8}}
  workdir_lib.claim(tmp_path, before)
  other = {"model": {"vocab_size": 9}}
  workdir_lib.claim(tmp_path, other)  # nothing was made yet
  gcs.put("bucket", f"{RUN}/checkpoints/1/{checkpoint_dirs.COMMITTED}", b"")
  with pytest.raises(UserError, match=r"config.model.vocab_size = 9, now it is 8"):
    workdir_lib.claim(tmp_path, before)


# The library's threads and coroutines are left with errors of their own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bucket_that_refuses_is_told_with_what_it_said(gcs, tmp_path):
  run_dir = mirror(tmp_path)
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(config(), CFG, params, sharding.make_mesh(data=8))
  told = r"step 8 could not be written \((Forb|PERM).* checkpoint is step 4 \(gs://buck"
  with (
    pytest.raises(UserError, match=told),
    checkpoint.Checkpointer(run_dir) as checkpointer,
  ):
    checkpointer.save(4, step.init(params), META, wait=True)
    gcs.faults = fake_gcs.plan([["(POST|PUT|DELETE) ", [], "403"]])
    checkpointer.save(8, step.init(params), META, wait=True)
  gcs.faults = fake_gcs.plan([])
  with checkpoint.Checkpointer(run_dir) as checkpointer:
    assert checkpointer.steps() == [4]


@pytest.mark.slow
def test_a_bucket_that_is_silent_says_nothing_about_a_checkpoint(gcs, tmp_path):
  run_dir = mirror(tmp_path)
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(config(), CFG, params, sharding.make_mesh(data=8))
  with checkpoint.Checkpointer(run_dir) as checkpointer:
    checkpointer.save(4, step.init(params), META, wait=True)
    gcs.outage(1e6)
    with pytest.raises(Stopped, match=r"no answer from the bucket .* run again"):
      checkpointer.restore(step.state, META)
    gcs.outage(0)
    assert checkpointer.restore(step.state, META) is not None


@pytest.mark.slow
@pytest.mark.parametrize("faults", [[], ["503", "reset", "lost", "truncate"]])
def test_processes_with_disks_of_their_own_save_and_go_on_together(
  gcs, tmp_path, rows_dir, faults
):
  """A pod: nothing but the bucket is shared, and one of the hosts dies."""
  straight = tmp_path / "straight"
  job = {"rows": str(rows_dir), "num_train_steps": 12, "checkpoint_every_steps": 3}
  done = many_processes.run(
    straight, {**job, "run_dir": str(straight / "run"), "mesh": {"data": 1}}
  )
  assert done[0][0] == 0, done
  some = [list(range(17 + i, 4000, 97)) for i in range(len(faults))]
  gcs.faults = fake_gcs.plan(
    [["(GET|POST|PUT) ", which, what] for which, what in zip(some, faults, strict=True)]
  )
  run_dirs = [str(mirror(tmp_path / f"host{i}")) for i in range(2)]
  pod = {**job, "run_dirs": run_dirs, "mesh": {"data": 1, "fsdp": 2}}
  hurt = {"victim": 1, "at_step": 8, "signal": "SIGKILL"}
  hurt["settings"] = {"process_deadline_s": 8.0}
  done = many_processes.run(tmp_path / "out", pod | hurt, count=2)
  assert [code for code, _ in done] == [75, many_processes.KILLED], done
  done = many_processes.run(tmp_path / "out", pod, count=2)
  assert [code for code, _ in done] == [0, 0], done
  for number in range(2):  # both went on from the same step
    assert min(many_processes.seen(tmp_path / "out", number)["read"]) // 8 in (3, 6)
  ours = many_processes.figures(tmp_path / "host0" / "runs" / "a" / "seed0")
  theirs = many_processes.figures(straight / "run")
  np.testing.assert_allclose(
    [line["train/loss"] for line in ours],
    [line["train/loss"] for line in theirs],
    rtol=1e-5,
  )
  assert saved(gcs) == {9, 12}
  assert (
    json.loads(
      (tmp_path / "host0" / "runs" / "a" / "seed0" / "goodput.json").read_text()
    )["saved_step"]
    == 12
  )
