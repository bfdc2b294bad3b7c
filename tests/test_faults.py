"""What goes wrong in a run: one clear line or a loud fallback, never a wrong state."""

import errno
import os
import shutil
import time

import jax
import jax.numpy as jnp
import many_processes
import numpy as np
import pytest
from test_train import CFG, META, config, log, pieces, run

from msm_jax import checkpoint, exits, faults, metrics, sharding, train
from msm_jax.errors import UserError
from msm_jax.models import transformer
from msm_jax.training import integrity, levers, run_config


@pytest.fixture
def rows_dir(tmp_path):
  from msm_jax import packing, records

  rows = map(packing.to_record, packing.pack(pieces(80), 32))
  records.write_dataset(tmp_path / "rows", rows, manifest={})
  return tmp_path / "rows"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int32", "bool"])
def test_every_flipped_bit_changes_the_digest_of_its_leaf(dtype):
  rng = np.random.default_rng(0)
  for shape in ((), (7,), (3, 5), (4, 3, 2)):
    size = np.dtype(jnp.dtype(dtype)).itemsize
    raw = rng.integers(0, 2 if dtype == "bool" else 256, (*shape, size), np.uint8)
    leaf = raw.view(jnp.dtype(dtype)).reshape(shape)
    before = integrity.inspect([leaf])[0]
    for _ in range(20):
      changed = raw.copy().reshape(-1)
      bit = 0 if dtype == "bool" else int(rng.integers(8))
      changed[rng.integers(len(changed))] ^= 1 << bit
      other = changed.view(jnp.dtype(dtype)).reshape(shape)
      assert integrity.inspect([other])[0] != before


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_a_digest_does_not_depend_on_the_mesh(shape):
  from msm_jax import train_state

  params = transformer.init_params(CFG, jax.random.key(0))
  alone = integrity.inspect(params)[0]
  placed = train_state.place(params, CFG, sharding.make_mesh(*shape))
  assert integrity.inspect(placed)[0] == alone


def test_numbers_that_are_not_finite_are_seen():
  good = {"a": np.ones((3, 4, 5), np.float32), "b": np.arange(3)}
  assert integrity.inspect(good)[1]
  for bad in (np.nan, np.inf, -np.inf):
    leaf = good["a"].copy()
    leaf[1, 2, 3] = bad
    assert not integrity.inspect(good | {"a": leaf})[1]


# The library leaves its own loading coroutine unawaited when a file is damaged.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_harmless_or_leads_to_the_step_before(
  tmp_path, rows_dir
):
  run(tmp_path, rows_dir, checkpoint_every_steps=6)
  mesh, rng = sharding.make_mesh(data=8), np.random.default_rng(0)
  settings = config(num_train_steps=8)
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(settings, CFG, params, mesh)

  def restored(run_dir):
    with jax.set_mesh(mesh), checkpoint.Checkpointer(run_dir) as checkpointer:
      return checkpointer.restore(step.state, META)

  good = integrity.inspect(restored(tmp_path / "run"))[0]
  newest = tmp_path / "run" / "checkpoints" / "12"
  fallbacks = 0
  for path in sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size):
    shutil.copytree(tmp_path / "run", tmp_path / "torn")
    torn = tmp_path / "torn" / path.relative_to(tmp_path / "run")
    data = bytearray(torn.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    torn.write_bytes(data)
    state = restored(tmp_path / "torn")
    assert int(state.step) == 6 or integrity.inspect(state)[0] == good
    fallbacks += int(state.step) == 6
    shutil.rmtree(tmp_path / "torn")
  assert fallbacks > 3


def test_a_flipped_bit_in_the_parameters_is_told_and_mended(
  tmp_path, rows_dir, monkeypatch, capfd
):
  straight = run(tmp_path, rows_dir, checkpoint_every_steps=6)
  newest = tmp_path / "run" / "checkpoints" / "12" / "params"
  largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(data)
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  again = run(tmp_path, rows_dir, checkpoint_every_steps=6)
  said = capfd.readouterr().err
  assert "12 is damaged" in said and "falling back to the step before" in said
  for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_run_whose_checkpoints_are_gone_never_begins_again_in_silence(
  tmp_path, rows_dir
):
  run(tmp_path, rows_dir)
  shutil.rmtree(tmp_path / "run" / "checkpoints")
  with pytest.raises(UserError, match=r"one of step 12 was saved: restore it, or del"):
    run(tmp_path, rows_dir)


# The library leaves its own loading coroutine unawaited when a file is missing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_whose_checkpoints_are_all_damaged_never_begins_again(tmp_path, rows_dir):
  run(tmp_path, rows_dir, checkpoint_every_steps=6)
  before = log(tmp_path)
  for step in ("6", "12"):
    shutil.rmtree(tmp_path / "run" / "checkpoints" / step / "rest")
  with pytest.raises(
    UserError, match=r"none of the steps \[12, 6\] can be read"
  ) as caught:
    run(tmp_path, rows_dir, checkpoint_every_steps=6)
  assert f"delete {tmp_path / 'run'} to train" in str(caught.value)
  assert log(tmp_path) == before
  assert (tmp_path / "run" / "checkpoints" / "12" / "params").exists()


# The library leaves its own loading coroutine unawaited when a file is missing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_step_that_was_asked_for_is_not_replaced_by_another(tmp_path, capfd):
  params = transformer.init_params(CFG, jax.random.key(0))
  mesh = sharding.make_mesh(data=8)
  step = train.make_step(config(), CFG, params, mesh)
  with checkpoint.Checkpointer(tmp_path / "run") as checkpointer:
    for number in (4, 8):
      checkpointer.save(number, step.init(params), META, wait=True)
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "4" / "params")
  with (
    checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer,
    pytest.raises(UserError, match=r"step 4 is damaged .*there are steps \[4, 8\]"),
  ):
    checkpointer.restore_params(step.state.params, META, step=4)
  assert "falling back" not in capfd.readouterr().err


@pytest.mark.parametrize("jump", [1e7, pytest.param(-1e7, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_decides_nothing(tmp_path, rows_dir, monkeypatch, jump):
  told, write = time.time, metrics.Writer.write

  def write_and_jump(self, step, values):
    write(self, step, values)
    if step == 7:
      monkeypatch.setattr(time, "time", lambda: told() + jump)

  monkeypatch.setattr(metrics.Writer, "write", write_and_jump)
  run(tmp_path, rows_dir, checkpoint_every_s=3600.0)
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    assert checkpointer.steps() == [12]  # no other was due
  for line in log(tmp_path):
    assert 0 < line["perf/step_time_s"] < 3600 and 0 <= line["perf/goodput"] <= 1


def test_a_save_that_a_clock_cuts_short_is_made_again_by_the_next_run(tmp_path):
  rows = many_processes.write_rows(tmp_path / "rows", pieces(80))
  job = {"rows": rows, "run_dir": str(tmp_path / "run"), "mesh": {"data": 1}}
  job |= {"num_train_steps": 6}
  # In a process of its own: the library's threads wait until that clock's tomorrow.
  ((code, said),) = many_processes.run(tmp_path, {**job, "clock_jumps_s": 1e7})
  assert code == 75 and "step 6 was not written in time" in said, said
  assert "run again" in said
  assert many_processes.run(tmp_path, job)[0][0] == 0
  lines = many_processes.figures(tmp_path / "run")
  assert [line["step"] for line in lines] == list(range(1, 7))


@pytest.mark.slow
def test_a_profile_of_some_updates_changes_none(tmp_path, rows_dir):
  profile = run_config.ProfileConfig(start_step=4, num_steps=2)
  run(tmp_path, rows_dir, "traced", how=run_config.RunConfig(profile=profile))
  run(tmp_path, rows_dir, "plain")
  (trace,) = (tmp_path / "traced" / "profile").rglob("*.xplane.pb")
  assert trace.stat().st_size > 1000
  traced, plain = (log(tmp_path, name) for name in ("traced", "plain"))
  assert [x["train/loss"] for x in traced] == [x["train/loss"] for x in plain]


@pytest.mark.slow
def test_what_a_stopped_save_left_is_named_and_counts_for_nothing(
  tmp_path, rows_dir, monkeypatch, capfd
):
  run(tmp_path, rows_dir, checkpoint_every_steps=6)
  newest = tmp_path / "run" / "checkpoints" / "12"
  (newest / "commit_success.txt").unlink()
  (newest.parent / "7").mkdir()
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  run(tmp_path, rows_dir, checkpoint_every_steps=1)
  said = capfd.readouterr().err
  assert "12, 7 has no commit_success.txt" in said
  assert "the checkpoint of step 12 is gone or damaged; going on from step 6" in said
  assert [line["step"] for line in log(tmp_path)] == list(range(1, 13))


@pytest.mark.slow
def test_checkpoints_that_were_asked_for_are_kept(tmp_path, rows_dir):
  run(tmp_path, rows_dir, checkpoint_at=(1, 2, 4, 8), checkpoint_every_steps=3)
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    assert set(checkpointer.steps()) >= {1, 2, 4, 8, 12}
    assert not set(checkpointer.steps()) & {3, 6}


def test_checkpoints_that_were_kept_stay_when_the_config_asks_for_none(tmp_path):
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(config(), CFG, params, sharding.make_mesh(data=8))
  state = step.init(params)
  for keep, numbers in (((1, 2), (1, 2, 3)), ((), (4, 5, 6))):
    with checkpoint.Checkpointer(tmp_path / "run", keep=keep) as checkpointer:
      for number in numbers:
        checkpointer.save(number, state, META, wait=True)
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    assert sorted(checkpointer.steps()) == [1, 2, 5, 6]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, rows_dir):
  params = transformer.init_params(CFG, jax.random.key(0))
  step = train.make_step(config(), CFG, params, sharding.make_mesh(data=8))
  state = step.init(jax.tree.map(lambda leaf: leaf * jnp.inf, params))
  with checkpoint.Checkpointer(tmp_path / "run") as checkpointer:
    with pytest.raises(UserError, match="not finite after step 3; nothing was saved"):
      checkpointer.save(3, state, META, wait=True)
    assert checkpointer.steps() == []


def test_the_rows_of_a_step_that_is_not_finite_are_named(tmp_path, rows_dir):
  from msm_jax import optim

  bad = optim.OptimConfig(
    learning_rate=1e30, schedule="constant", warmup_steps=0, clip_norm=None
  )
  with pytest.raises(UserError) as caught:
    run(tmp_path, rows_dir, optimizer=bad, checkpoint_every_steps=1)
  said = str(caught.value)
  assert "at step" in said and "its rows are rows " in said
  assert f"launch.py show {rows_dir} --row=" in said and "last good checkpoint" in said


def test_running_out_of_memory_names_the_levers_that_are_left():
  mesh = sharding.make_mesh(data=8)
  with (
    pytest.raises(UserError, match=r"stage: out of memory .*num_microbatches=2"),
    levers.memory_explained("stage", config(batch_size=16), CFG, mesh),
  ):
    jax.jit(lambda: jnp.zeros((1 << 44,), jnp.float32))().block_until_ready()
  told = " ".join(levers.memory_levers(config(batch_size=8), CFG, mesh))
  assert "num_microbatches" not in told and "config.mesh fsdp=8" in told
  assert "remat='dots'" in told and "attention" not in told
  settings = {"remat": "full", "attention": "dense", "seq_len": 1000}
  told = " ".join(levers.memory_levers(config(**settings), CFG, mesh))
  assert "attention='auto'" in told and "loss_chunk_len=250" in told
  assert "remat" not in told  # its next step, 'offload', does nothing on a CPU


def test_no_room_on_the_disk_is_found_at_the_bottom_of_an_error():
  try:
    try:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      raise RuntimeError("RESOURCE_EXHAUSTED: writing failed") from error
  except RuntimeError as error:
    assert faults.of_disk(error) == os.strerror(errno.ENOSPC)
    assert not faults.is_out_of_memory(error)


def test_no_memory_on_the_host_is_no_memory():
  assert faults.is_out_of_memory(MemoryError())


@pytest.mark.parametrize("number", sorted(faults.DISK))
def test_whatever_a_disk_refuses_has_a_way_out_and_no_circle_is_walked_twice(
  number, capfd
):
  error, inner = RuntimeError("writing failed"), OSError(number, os.strerror(number))
  error.__cause__, inner.__cause__ = inner, error

  def work():
    raise error

  assert exits.code_of(work, lambda: "there") == exits.USER
  assert faults.DISK[number] in capfd.readouterr().err
  circle = RuntimeError("a bug")
  circle.__cause__ = KeyError()
  circle.__cause__.__cause__ = circle
  assert faults.of_disk(circle) is None
