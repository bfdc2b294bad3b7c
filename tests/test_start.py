"""Where a study begins: a Hugging Face directory, an adapter, a run of ours."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest
import small_study
import test_hf_processes

from msm_jax import experiment, planning, prepare, records, runs, sharding, start
from msm_jax.errors import UserError
from msm_jax.hf import adapter, load, names
from msm_jax.models import lora, transformer

TOKENS = jnp.arange(40).reshape(2, 20) % 30
SIZES = {
  name: getattr(small_study.CFG, name)
  for name in (
    "embed_dim",
    "mlp_dim",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "max_seq_len",
  )
}
LORA = {"rank": 4, "alpha": 8.0, "targets": ("q", "v", "down")}


@pytest.fixture(scope="module")
def trained():
  return small_study.trained()


@pytest.fixture
def begun(trained, tmp_path):
  """Returns a function from the `model` section to a study in a workdir of its own."""

  def begin(init_from=trained.hf, *, stages=None, name="w", **model):
    config = small_study.config(init_from, **model)
    config["stages"]["still"] |= stages or {}
    config["stages"].pop("msm")
    config["arms"] = {"base": (), "still": ("still",)}
    return small_study.prepared(tmp_path / name, config)

  return begin


def logits(weights) -> np.ndarray:
  params = jax.device_get(weights.params)
  return np.asarray(small_study.logits(params, weights.cfg, TOKENS))


def three_ways(trained) -> dict:
  """Returns the `model` sections that begin where arm `msm`, seed 0 ended."""
  return {
    "adapter": {"adapter_from": str(trained.exported("adapter")), "lora": None},
    "run": {"init_from": trained.run("msm"), "base_model": None},
    "merged": {"init_from": trained.exported("merged")},
  }


def test_three_ways_to_begin_from_a_run_have_the_same_loss_at_the_first_step(
  trained, begun
):
  first = {}
  for name, model in three_ways(trained).items():
    study = begun(name=name, **model)
    study.train(("still",), 0)
    path = study.run_dir(("still",), 0) / "metrics.jsonl"
    first[name] = json.loads(path.read_text().splitlines()[0])["train/loss"]
  assert first["adapter"] == first["run"]
  assert first["merged"] == pytest.approx(first["run"], rel=1e-5)
  plain = begun(name="plain")
  plain.train(("still",), 0)
  path = plain.run_dir(("still",), 0) / "metrics.jsonl"
  loss = json.loads(path.read_text().splitlines()[0])["train/loss"]
  assert abs(loss - first["run"]) > 1e-3


@pytest.mark.parametrize("use", ["continue", "merge"])
@pytest.mark.parametrize("way", ["adapter", "run", "merged"])
def test_the_start_is_the_model_that_was_trained(trained, begun, way, use):
  expected = trained.study.weights(("msm",), 0)
  study = begun(**three_ways(trained)[way] | {"adapter_use": use, "lora": LORA})
  found = study.weights((), 0)
  np.testing.assert_allclose(logits(found), logits(expected), atol=1e-4)
  goes_on = use == "continue" and way != "merged"
  assert bool(found.adapter) == goes_on == (found.cfg.lora is not None)
  if goes_on:
    jax.tree.map(np.testing.assert_array_equal, found.adapter, expected.adapter)
  begins = study.begin(("still",), 0)
  assert names_of(begins.adapter) == names_of(expected.adapter)
  np.testing.assert_array_equal(logits(begins), logits(found))


def names_of(tree) -> set:
  return set(dict(names.walk(tree)))


def test_every_seed_may_begin_from_its_own_run(trained, begun):
  study = begun(trained.run("msm", "{seed}"), base_model=None)
  for seed in (0, 1):
    expected = trained.study.weights(("msm",), seed)
    found = study.weights((), seed)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
  assert study.start(0).fingerprint != study.start(1).fingerprint


def test_a_run_may_be_named_at_one_of_its_steps(trained, begun):
  last = trained.study.last_step(("msm",), 0)
  end, at = (
    begun(trained.run("msm") + step, base_model=None) for step in ("", f"@{last}")
  )
  assert end.start(0).fingerprint == at.start(0).fingerprint
  jax.tree.map(
    np.testing.assert_array_equal, end.weights((), 0).params, at.weights((), 0).params
  )


def test_every_leaf_is_read_and_drawn_where_it_lies(trained, begun):
  study = begun(adapter_from=str(trained.exported("adapter")), lora=None)
  weights = study.weights((), 0)
  kernel = weights.base["layers"]["mlp"]["gate"]["kernel"]
  assert kernel.sharding.spec == jax.sharding.PartitionSpec(
    None, ("fsdp",), ("tensor",)
  )
  parts = {shard.data.shape for shard in kernel.addressable_shards}
  assert parts == {(2, 8, 12)}  # a quarter of [2, 16, 24]
  for leaf in jax.tree.leaves(weights.params):
    assert leaf.sharding.mesh == study.mesh


@pytest.mark.parametrize(
  "adapter_only", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_what_is_drawn_does_not_depend_on_the_mesh(trained, adapter_only):
  cfg, mesh = trained.study.cfg(("msm",), 0), trained.study.mesh
  drawn = start.fresh(cfg, 0, mesh, adapter_only=adapter_only)
  assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(drawn))
  alone = jax.jit(transformer.init_params, static_argnums=0)(cfg, jax.random.key(0))
  wanted = lora.split(alone)[0] if adapter_only else alone
  jax.tree.map(np.testing.assert_array_equal, drawn, wanted)


def test_the_frozen_base_is_held_as_asked_and_adapters_in_float32(trained, begun):
  study = begun(base_dtype="bfloat16", name="half")
  study.train(("still",), 0)
  found = study.weights(("still",), 0)
  assert {leaf.dtype for leaf in jax.tree.leaves(found.base)} == {
    jnp.dtype(jnp.bfloat16)
  }
  assert {leaf.dtype for leaf in jax.tree.leaves(found.adapter)} == {
    jnp.dtype(jnp.float32)
  }
  _, exact = load.load(trained.hf)
  for a, b in zip(jax.tree.leaves(found.base), jax.tree.leaves(exact), strict=True):
    np.testing.assert_array_equal(a, jnp.asarray(b).astype(jnp.bfloat16))
  (study.workdir / "runs").rename(study.workdir.parent / "kept")
  whole = begun(name="half2")
  shutil.copytree(study.workdir.parent / "kept", whole.workdir / "runs")
  with pytest.raises(UserError, match=r"its model is \{'base_dtype': 'bfloat16'\}"):
    whole.weights(("still",), 0)


def test_a_merged_start_is_rounded_once(trained, begun):
  study = begun(
    adapter_from=str(trained.exported("adapter")),
    adapter_use="merge",
    base_dtype="bfloat16",
  )
  exact = trained.study.weights(("msm",), 0)
  merged = lora.merge(jax.device_get(exact.params), 2.0)
  found = study.weights((), 0).base
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(merged), strict=True):
    worst = np.abs(np.asarray(a, np.float32) - b).max()
    assert a.dtype == jnp.bfloat16 and worst <= 2**-8 * np.abs(b).max()


def test_all_leaves_may_be_trained_after_a_merge(trained, begun):
  model = {"adapter_use": "merge", "base_model": None, "lora": None}
  study = begun(trained.run("msm"), stages={"adaptation": "full"}, **model)
  begins = study.begin(("still",), 0)
  assert not begins.adapter and begins.cfg.lora is None
  expected = logits(trained.study.weights(("msm",), 0))
  np.testing.assert_allclose(logits(begins), expected, atol=1e-4)


def test_starting_points_are_told_apart(trained, begun):
  away = str(trained.exported("adapter"))
  sections = [
    {},
    {"adapter_from": away},
    {"adapter_from": away, "adapter_use": "merge"},
    {"init_from": trained.run("msm"), "base_model": None},
    {"init_from": trained.run("msm+still"), "base_model": None},
    {"init_from": trained.exported("merged")},
  ]
  found = [begun(name=str(n), **s).start(0).fingerprint for n, s in enumerate(sections)]
  assert len(set(found)) == len(found) and None not in found


def test_runs_that_began_elsewhere_are_refused(trained, begun):
  study = begun(name="one")
  study.train(("still",), 0)
  model = {"adapter_from": str(trained.exported("adapter"))}
  other = runs.Runs(
    experiment.parse(small_study.config(trained.hf, **model)), study.workdir
  )
  with pytest.raises(UserError, match="a checkpoint of another run: its pretrained is"):
    other.weights(("still",), 0)


def refused(match, make, *arguments):
  with pytest.raises(UserError, match=match):
    make(*arguments)


def test_what_a_run_cannot_give_is_refused(trained, begun, tmp_path):
  def begin(init_from, **model):
    return begun(init_from, base_model=None, **model).weights((), 0)

  refused("seed7 is not finished", begin, trained.run("msm", 7))
  refused("has no step 99: it has", begin, trained.run("msm") + "@99")
  refused(r"names the stage 'mms'.*has \['msm', 'still'\]", begin, trained.run("mms"))
  refused("name a Hugging Face model directory", begin, str(tmp_path / "runs/a/seed0"))
  with pytest.raises(UserError, match=r"config.model.lora has rank 2.*has rank 4"):
    begin(trained.run("msm"), lora={**LORA, "rank": 2})
  away = str(trained.exported("adapter"))
  with pytest.raises(UserError, match="the run of init_from has adapters already"):
    begin(trained.run("msm"), adapter_from=away)


def test_a_study_cannot_begin_from_itself(trained, tmp_path):
  shutil.copytree(trained.root / "w", tmp_path / "w")
  run = str(tmp_path / "w" / "runs" / "msm" / "seed0")
  parsed = experiment.parse(small_study.config(run, base_model=None))
  refused("leads back to", runs.Runs(parsed, tmp_path / "w").start, 0)
  config = small_study.config(run, base_model=None)
  records.write_json(tmp_path / "w" / "config.json", config)
  with pytest.raises(UserError, match="leads back to"):
    runs.Runs(parsed, tmp_path / "other").start(0)


def test_a_config_of_an_old_workdir_is_named(trained, tmp_path):
  shutil.copytree(trained.root / "w", tmp_path / "w")
  path = tmp_path / "w" / "config.json"
  config = json.loads(path.read_text())
  config["model"]["init"] = "hf"
  path.write_text(json.dumps(config))
  run = str(tmp_path / "w" / "runs" / "msm" / "seed0")
  parsed = experiment.parse(small_study.config(run, base_model=None))
  with pytest.raises(UserError, match=r"w/config\.json: config\.model\.init is now"):
    runs.Runs(parsed, tmp_path / "new").start(0)


def test_all_leaves_cannot_be_trained_beside_adapters_of_a_run(trained, begun):
  study = begun(
    trained.run("msm"), stages={"adaptation": "full"}, base_model=None, lora=None
  )
  refused("brings adapters, but the stage 'still'", study.begin, ("still",), 0)
  study = begun(
    trained.exported("merged"), adapter_from=str(trained.exported("adapter")), lora=None
  )
  assert study.begin(("still",), 0).adapter


def test_stages_need_adapters_from_somewhere(begun, tmp_path):
  config = small_study.config(tmp_path / "hf", lora=None)
  config["model"] = {"init_from": None, **SIZES}
  config["stages"] = {"still": small_study.stage("still", 1e-3, "full")}
  config["arms"] = {"base": ("still",)}
  records.write_json(tmp_path / "whole" / "config.json", config)
  shutil.copytree(small_study.trained().hf, tmp_path / "whole" / "tokenizer")
  run = str(tmp_path / "whole" / "runs" / "still" / "seed0")
  study = begun(run, base_model=None, lora=None)
  assert study.cfg((), 0).lora is None
  refused("brings no adapters: set it", study.cfg, ("still",), 0)
  refused("seed0 is not finished", study.weights, (), 0)


def test_sizes_beside_a_start_must_be_those_of_the_model(trained, begun):
  assert begun(embed_dim=16, num_layers=2).start(0).cfg.embed_dim == 16
  study = begun(embed_dim=32, name="other")
  with pytest.raises(UserError, match=r"config.model.embed_dim is 32, but .* has 16"):
    study.weights((), 0)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(trained):
  cfg, _ = load.load(trained.hf)
  small = small_study.dataclasses.replace(cfg, vocab_size=20)
  with pytest.raises(UserError, match=r"tokens, the model's vocabulary is 20"):
    start.check_vocab(trained.study.tokenizer, small)


def test_seeds_cannot_begin_with_different_tokenizers(trained, tmp_path):
  for seed, added in ((0, ""), (1, " ")):
    shutil.copytree(trained.hf, tmp_path / f"hf{seed}")
    path = tmp_path / f"hf{seed}" / "chat_template.jinja"
    path.write_text(path.read_text() + added)
  config = small_study.config(tmp_path / "hf{seed}", seeds=(0, 1))
  with pytest.raises(UserError, match=r"hf0 and .*hf1 have different tokenizers"):
    prepare.tokenizer_source(experiment.parse(config))


def test_an_adapter_of_another_base_is_used_and_said(
  trained, begun, tmp_path, monkeypatch, capfd
):
  shutil.copytree(trained.exported("adapter"), tmp_path / "a")
  path = tmp_path / "a" / adapter.CONFIG_FILE
  config = json.loads(path.read_text())
  config |= {"base_model_name_or_path": "org/other-bnb-4bit", "lora_dropout": 0.1}
  path.write_text(json.dumps(config))
  monkeypatch.delenv("MSM_JAX_QUIET")
  study = begun(adapter_from=str(tmp_path / "a"), lora=None)
  study.weights((), 0)
  said = capfd.readouterr().err
  assert "WARNING" in said and "'org/other-bnb-4bit' (quantised" in said
  assert "'org/tiny'" in said and "lora_dropout 0.1" in said
  assert start.same_model("meta/Tiny", "/models/tiny/") and start.same_model(None, "a")


@pytest.mark.parametrize(
  ("model", "gib"),
  [
    ({}, lambda base, adapter: 4 * base + 16 * adapter),
    ({"base_dtype": "bfloat16"}, lambda base, adapter: 2 * base + 16 * adapter),
  ],
)
def test_the_plan_counts_what_is_held(trained, begun, model, gib):
  study = begun(**model)
  cfg = study.cfg(("still",), 0)
  shapes = transformer.abstract_params(cfg)
  sizes = [
    sum(leaf.size for leaf in jax.tree.leaves(t)) for t in lora.split(shapes)[::-1]
  ]
  need = gib(*sizes) / 2**30
  lines = list(planned.lines(study.experiment, study.workdir))
  assert any(f"{need:.2f} GiB over the mesh" in line for line in lines)
  counters = planning.num_bytes(study.experiment, study.workdir) - gib(*sizes)
  assert 0 <= counters < 64


def test_the_plan_needs_no_checkpoint_of_the_run_that_it_begins_from(trained, tmp_path):
  shutil.copytree(
    trained.root / "w", tmp_path / "w", ignore=shutil.ignore_patterns("runs")
  )
  run = str(tmp_path / "w" / "runs" / "msm" / "seed0")
  parsed = experiment.parse(small_study.config(run, base_model=None))
  text = "\n".join(planned.lines(parsed, pathlib.Path("nowhere")))
  assert "model: 0.00M parameters" in text


def test_the_mesh_of_a_run_is_the_one_of_the_study_that_goes_on(trained, begun):
  study = begun(trained.run("msm"), base_model=None)
  object.__setattr__(study.experiment, "mesh", {"data": 8, "fsdp": 1, "tensor": 1})
  weights = study.weights((), 0)
  assert study.mesh == sharding.make_mesh(8)
  assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(weights.params))


def test_several_processes_begin_with_the_same_bytes(trained, begun, tmp_path):
  study = begun(adapter_from=str(trained.exported("adapter")), lora=None)
  config = json.loads((study.workdir / "config.json").read_text())
  config["mesh"] = {"data": 1, "fsdp": 2, "tensor": 2}
  records.write_json(study.workdir / "config.json", config)
  (tmp_path / "many").mkdir()
  job = {"workdir": str(study.workdir), "out": str(tmp_path / "many")}
  seen = test_hf_processes.run_processes(job, 2, 2, "start_process.py")
  assert [each["share"] for each in seen] == [0.5, 0.5]
  weights = study.weights((), 0)
  drawn = start.fresh(weights.cfg, 0, study.mesh, adapter_only=True)
  for name, leaves in (("brought", weights.adapter), ("drawn", drawn)):
    adapter.save(tmp_path / "one" / name, weights.cfg, leaves, base_model="b")
    one, many = (tmp_path / n / name / adapter.WEIGHTS_FILE for n in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()
