"""Along a path: adapters go on or are merged, leaves stay frozen, moments are carried.

Arms: `a` trains adapters; `b` merges them and trains new ones; `c` merges those and
trains every leaf but the embeddings; `d` goes on after `a` with its moments.
"""

import jax
import numpy as np
import pytest
import small_study

from msm_jax import checkpoint, experiment, exporting, records, runs, train
from msm_jax import start as start_lib
from msm_jax.errors import UserError
from msm_jax.hf import load
from msm_jax.models import lora, transformer
from msm_jax.study import Study
from msm_jax.training.siblings import Task

TOKENS = np.arange(40).reshape(2, 20) % 30
PATHS = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "d")]


def config(init_from, **changes) -> dict:
  """Returns the config; `changes` go into stage `d`."""
  made = small_study.config(init_from)
  made["mesh"] = {"data": 8, "fsdp": 1, "tensor": 1}
  stage = small_study.stage("msm", 1e-2)
  made["stages"] = {
    "a": stage,
    "b": stage | {"adapter_use": "merge"},
    "c": stage | {"adapter_use": "merge", "adaptation": "full", "freeze": ("embed",)},
    "d": stage | {"optimizer_state": "carry"} | changes,
  }
  made["arms"] = {"base": (), **{"".join(path): path for path in PATHS}}
  return made


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
  root = tmp_path_factory.mktemp("adaptation")
  found = small_study.prepared(root / "w", config(small_study.write_model(root)))
  found.train_all([0])
  return found


def logits(weights: start_lib.Weights):
  params = jax.device_get(weights.params)
  return np.asarray(
    jax.jit(transformer.logits, static_argnums=1)(params, weights.cfg, TOKENS)
  )


def same(a, b) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def test_a_stage_that_merges_begins_with_the_same_model_and_new_adapters(study):
  before, begins = study.weights(("a",), 0), study.begin(("a", "b"), 0)
  np.testing.assert_allclose(logits(begins), logits(before), atol=1e-5)
  for path, leaf in jax.tree.leaves_with_path(begins.adapter):
    assert np.any(leaf) == (path[-1].key == "lora_a")
  assert not same(begins.base, before.base)
  first = start_lib.fresh(begins.cfg, 0, study.mesh, adapter_only=True)
  assert not same(first, begins.adapter)  # another draw than the one that is merged


def test_what_was_merged_is_found_again_after_training(study):
  begins, ends = study.begin(("a", "b"), 0), study.weights(("a", "b"), 0)
  assert same(begins.base, ends.base) and not same(begins.adapter, ends.adapter)


def test_all_leaves_may_be_trained_once_adapters_are_merged(study):
  begins = study.begin(("a", "b", "c"), 0)
  assert begins.cfg.lora is None and not begins.adapter
  expected = logits(study.weights(("a", "b"), 0))
  np.testing.assert_allclose(logits(begins), expected, atol=1e-5)


def test_frozen_embeddings_stay_and_are_in_no_checkpoint(study, tmp_path):
  path = ("a", "b", "c")
  begins, ends = study.begin(path, 0), study.weights(path, 0)
  assert same(begins.base["embed"], ends.base["embed"])
  for name in ("layers", "final_norm"):
    pairs = zip(
      jax.tree.leaves(begins.base[name]), jax.tree.leaves(ends.base[name]), strict=True
    )
    assert all(np.any(x != y) for x, y in pairs)
  assert set(study.trained_leaves(path, 0)) == {"layers", "final_norm"}
  done = records.read_json(study.run_dir(path, 0) / "done.json")
  embed = ends.base["embed"]["embedding"].size
  assert done["num_trainable"] == done["num_params"] - embed
  exporting.export(study, "abc", 0, step=None, layout="merged", out=tmp_path / "out")
  cfg, params = load.load(tmp_path / "out")
  found = logits(start_lib.Weights(cfg, params, {}))
  np.testing.assert_allclose(found, logits(ends), atol=1e-5)


def test_adapters_of_a_merged_base_are_not_those_of_the_pretrained_model(
  study, tmp_path
):
  assert exporting.adapter_base(study, ("a", "d"), 0) == "org/tiny"
  with pytest.raises(UserError, match="or adapters were merged"):
    out = tmp_path / "out"
    exporting.export(study, "ab", 0, step=None, layout="adapter", out=out)


def adam(study, path):
  """Returns (Adam's state, the schedule's count) at the end of a run."""
  steps = study.last_step(path, 0)
  settings = study.experiment.stages[path[-1]]
  config = train.TrainConfig(
    num_train_steps=steps, batch_size=8, seq_len=32, optimizer=settings.optim(steps)
  )
  leaves = study.trained_leaves(path, 0)
  step = train.make_step(config, study.cfg(path, 0), leaves, study.mesh)
  with checkpoint.Checkpointer(study.run_dir(path, 0), read_only=True) as reader:
    state = reader.restore(step.state, study.meta(path, 0)).opt_state
  schedule = [
    part.count for part in state if type(part).__name__ == "ScaleByScheduleState"
  ]
  return next(part for part in state if hasattr(part, "nu")), int(schedule[0])


def test_moments_are_carried_with_their_count_and_the_schedule_begins_anew(study):
  num_a, num_d = (study.last_step(path, 0) for path in (("a",), ("a", "d")))
  carried, schedule = adam(study, ("a", "d"))
  assert (int(carried.count), schedule) == (num_a + num_d, num_d)
  reset, schedule = adam(study, ("a", "b"))
  assert int(reset.count) == schedule == study.last_step(("a", "b"), 0)
  before = study._carried(Task(("a", "d"), 0))()
  assert same(
    next(part for part in before if hasattr(part, "nu")), adam(study, ("a",))[0]
  )


def test_the_first_stage_of_a_path_has_nothing_to_carry(study, monkeypatch, capfd):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  assert study._carried(Task(("d",), 0)) is None
  assert "its moments begin at zero" in capfd.readouterr().err


def test_defaults_are_not_part_of_what_a_run_is():
  stage = small_study.stage("msm", 1e-2)
  before = experiment.parse(
    config("x") | {"stages": {"a": stage}, "arms": {"base": ()}}
  )
  told = stage | {"freeze": (), "adapter_use": "continue", "optimizer_state": "reset"}
  told["optimizer"] = stage["optimizer"] | {"moments_dtype": "float32"}
  now = experiment.parse(config("x") | {"stages": {"a": told}, "arms": {"base": ()}})
  found = runs._stage_identity(before.stages["a"])
  assert found == runs._stage_identity(now.stages["a"])
  assert set(found) == {"adaptation", "optimizer", "num_microbatches"}


def test_the_order_of_what_is_frozen_makes_no_other_run():
  made = config("org/tiny")
  for names in (("embed", "lm_head"), ("lm_head", "embed")):
    made["stages"]["c"]["freeze"] = names
    stage = experiment.parse(made).stages["c"]
    assert stage.freeze == ("embed", "lm_head")


def test_a_base_in_bfloat16_is_trained_in_it(study):
  made = config(study.experiment.model.init_from)
  made["model"]["base_dtype"] = "bfloat16"
  made["stages"]["c"]["adapter_use"] = "continue"
  made["arms"] = {"base": (), "c": ("c",)}
  found = runs.Runs(experiment.parse(made), study.workdir)
  for tree in (found.begin(("c",), 0).base, found.trained_leaves(("c",), 0)):
    assert {leaf.dtype.name for leaf in jax.tree.leaves(tree)} == {"bfloat16"}
  adapter = lora.split(found.trained_leaves(("a",), 0))[0]
  assert {leaf.dtype.name for leaf in jax.tree.leaves(adapter)} == {"float32"}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"freeze": ("embed",)}, r"d.freeze is \('embed',\), but a stage with adaptation"),
    ({"freeze": ("norms",), "adaptation": "full"}, r"freeze \('norms',\): it takes"),
    ({"freeze": "embed", "adaptation": "full"}, r"freeze 'embed': it takes a tuple"),
    ({"adapter_use": "drop"}, r"d.adapter_use 'drop' is not one of .*'merge'"),
    ({"optimizer_state": "keep"}, r"d.optimizer_state 'keep' is not one of"),
    ({"adapter_use": "merge"}, "moments are those of adapters that are gone; set it"),
    (
      {"adaptation": "full", "adapter_use": "merge"},
      r"trains other leaves than 'a' before it \(adaptation is 'full', there 'lora'\)",
    ),
    (
      {"adaptation": "full", "optimizer_state": "reset"},
      "'full' cannot follow one with 'lora' unless it merges: set config.stages.d",
    ),
    (
      {
        "adaptation": "full",
        "freeze": ("embed",),
        "optimizer": {
          "learning_rate": 1e-3,
          "schedule": "constant",
          "embed_lr_multiplier": 5.0,
        },
      },
      r"embed_lr_multiplier is 5.0, but freeze has 'embed'",
    ),
    (
      {"optimizer": {"learning_rate": 1e-3, "schedule": "constant", "b2": 0.98}},
      r"optimizer.b2 is 0.98 and 0.999 in 'a' before it: set it to 'reset'",
    ),
  ],
)
def test_what_cannot_be_is_refused_with_the_field(changes, message):
  with pytest.raises(UserError, match=message):
    experiment.parse(config("models/x", **changes))


def test_tied_embeddings_have_no_output_layer_of_their_own(study):
  made = config(study.experiment.model.init_from)
  made["stages"]["c"]["freeze"] = ("lm_head",)
  found = runs.Runs(experiment.parse(made), study.workdir)
  with pytest.raises(UserError, match=r"freeze has 'lm_head', but .* tied: .* 'embed'"):
    found.cfg(("a", "b", "c"), 0)
