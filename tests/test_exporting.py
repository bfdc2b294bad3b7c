"""Exports of a study: the weights, and the story that goes with them."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_study

from msm_jax import exporting, prepare, records, study
from msm_jax.errors import UserError
from msm_jax.hf import adapter, load, tensor_files
from msm_jax.hf import directory as hf_directory
from msm_jax.models import lora

TOKENS = jnp.arange(40).reshape(2, 20) % 30


@pytest.fixture(scope="module")
def trained():
  return small_study.trained()


@pytest.fixture(scope="module")
def later(trained, tmp_path_factory):
  """A study that goes on from the first one's run with one more stage."""
  config = small_study.config(trained.run("msm"), base_model=None, lora=None)
  config["name"] = "later"
  config["stages"].pop("msm")
  config["arms"] = {"base": (), "still": ("still",)}
  found = small_study.prepared(tmp_path_factory.mktemp("later") / "w", config)
  found.train(("still",), 0)
  return found


def logits(params, cfg) -> np.ndarray:
  return np.asarray(small_study.logits(jax.device_get(params), cfg, TOKENS))


def export(study, arm, out, layout="merged", step=None):
  exporting.export(study, arm, 0, step=step, layout=layout, out=out)
  return (out / "README.md").read_text()


def test_merged_and_adapter_exports_are_the_trained_model(trained):
  weights = trained.study.weights(("msm",), 0)
  ours = logits(weights.params, weights.cfg)
  cfg, base = load.load(trained.hf)
  assert np.abs(ours - logits(base, cfg)).max() > 1e-2
  merged_cfg, merged = load.load(trained.exported("merged"))
  np.testing.assert_allclose(logits(merged, merged_cfg), ours, atol=1e-4)
  found, leaves = adapter.load(trained.exported("adapter"), cfg)
  cfg = dataclasses.replace(cfg, lora=found)
  np.testing.assert_allclose(logits(lora.join(base, leaves), cfg), ours, atol=1e-5)


def test_the_card_tells_how_the_weights_came_about(trained):
  card = (trained.exported("merged") / "README.md").read_text()
  front = card.split("---")[1]
  assert 'base_model: "org/tiny"' in front and 'license: "apache-2.0"' in front
  found = exporting.lineage(trained.study, ("msm",), 0, None)
  manifest = prepare.read_rows_manifest(trained.study.workdir, "msm")
  (part,) = manifest["components"]
  (stage,) = found["stages"]
  corpus = records.read_manifest(trained.study.workdir / "corpus" / "msm")
  digest = records.sha256_json([shard["sha256"] for shard in corpus["shards"]])
  assert stage["corpora"]["msm"]["sha256"] == digest
  assert stage["optimizer_steps"] == manifest["num_train_steps"]
  assert stage["tokens"] == round(part["num_tokens"] * part["epochs"])
  assert found["specs"] == {"kind": "5" * 64}
  assert found["base_fingerprint"] == hf_directory.fingerprint(trained.hf)
  modules = ["q_proj", "v_proj", "down_proj"]
  assert found["adapter"] == {"rank": 4, "alpha": 8.0, "modules": modules}
  assert found["license"] == "apache-2.0"  # as the base model's card says
  for value in (digest, found["base_fingerprint"], "5" * 64, '"optimizer_steps"'):
    assert value in card


def test_versions_and_revision_go_into_the_card(trained, tmp_path):
  records.write_json(
    tmp_path / "versions.json",
    {
      "git_revision": "abc",
      "packages": {"jax": "1"},
      "later": [{"git_revision": "def", "packages": {"jax": "2"}}],
    },
  )
  found = exporting.code(tmp_path)
  assert found["msm-jax"] == ["abc", "def"] and found["jax"] == ["1", "2"]
  assert exporting.code(tmp_path / "none") == {}


def test_a_study_that_goes_on_from_a_run_carries_its_story(trained, later, tmp_path):
  found = exporting.lineage(later, ("still",), 0, None)
  assert [(s["study"], s["stage"]) for s in found["stages"]] == [
    ("test", "msm"),
    ("later", "still"),
  ]
  before = exporting.lineage(trained.study, ("msm",), 0, None)
  for name in ("base_model", "base_fingerprint", "license", "specs", "adapter"):
    assert found[name] == before[name]
  card = export(later, "still", tmp_path / "a", layout="adapter")
  assert 'base_model: "org/tiny"' in card and "later" in card
  config = json.loads((tmp_path / "a" / adapter.CONFIG_FILE).read_text())
  assert config["base_model_name_or_path"] == "org/tiny"
  weights = later.weights(("still",), 0)
  cfg, base = load.load(trained.hf)
  read, leaves = adapter.load(tmp_path / "a", cfg)
  again = logits(lora.join(base, leaves), dataclasses.replace(cfg, lora=read))
  np.testing.assert_allclose(again, logits(weights.params, weights.cfg), atol=1e-5)
  export(later, "base", tmp_path / "b", layout="adapter")
  _, leaves = adapter.load(tmp_path / "b", cfg)
  expected = trained.study.weights(("msm",), 0).adapter
  jax.tree.map(np.testing.assert_array_equal, leaves, expected)


def test_an_adapter_that_was_begun_with_is_named(trained, tmp_path):
  place = trained.exported("adapter")
  config = small_study.config(trained.hf, adapter_from=str(place), lora=None)
  study = small_study.prepared(tmp_path / "w", config)
  found = exporting.lineage(study, (), 0, None)["adapter_from"]
  assert found["sha256"] == adapter.fingerprint(place)
  assert found["use"] == "continue" and found["trained_on"] == "org/tiny"
  assert "warning" not in found
  config["model"]["base_model"] = "org/large"
  study = small_study.prepared(tmp_path / "w", config)
  found = exporting.lineage(study, (), 0, None)["adapter_from"]
  assert found["warning"] == "trained on another model than base_model"


def test_a_step_in_between_is_said(trained, tmp_path):
  last = trained.study.last_step(("msm",), 0)
  found = exporting.lineage(trained.study, ("msm",), 0, 1)["stages"][-1]
  assert found["optimizer_steps"] == 1 and found["of_optimizer_steps"] == last
  whole = exporting.lineage(trained.study, ("msm",), 0, None)["stages"][-1]
  assert found["tokens"] == pytest.approx(whole["tokens"] / last, abs=1)
  with pytest.raises(UserError, match="has no step 99: it has"):
    export(trained.study, "msm", tmp_path / "x", step=99)


def test_a_checkpoint_that_was_kept_is_exported(trained, tmp_path):
  export(trained.study, "msm", tmp_path / "x", step=1)
  (cfg, early), (_, base) = load.load(tmp_path / "x"), load.load(trained.hf)
  weights = trained.study.weights(("msm",), 0, step=1)
  ours = logits(weights.params, weights.cfg)
  np.testing.assert_allclose(logits(early, cfg), ours, atol=1e-4)
  _, late = load.load(trained.exported("merged"))
  moved = [np.abs(logits(params, cfg) - ours).max() for params in (base, late)]
  assert min(moved) > 1e-3


def test_what_is_no_adapter_of_a_pretrained_model_is_not_exported_as_one(
  trained, tmp_path
):
  with pytest.raises(UserError, match="use --format=merged"):
    export(trained.study, "base", tmp_path / "x", layout="adapter")
  merged = {"adapter_use": "merge", "base_model": None}
  config = small_study.config(trained.run("msm"), **merged)
  study = small_study.prepared(tmp_path / "w", config)
  with pytest.raises(UserError, match="use --format=merged"):
    export(study, "msm", tmp_path / "x", layout="adapter")
  assert exporting.adapter_base(study, (), 0) is None


def test_an_own_licence_leaves_no_name_of_another(trained, tmp_path):
  model = dataclasses.replace(trained.study.experiment.model, license="mit")
  changed = dataclasses.replace(trained.study.experiment, model=model)
  found = exporting.lineage(
    study.Study(changed, trained.study.workdir), ("msm",), 0, None
  )
  assert found["license"] == "mit" and "license_name" not in found


def test_a_step_of_an_arm_without_stages_is_refused(trained, tmp_path):
  with pytest.raises(UserError, match="--step=3"):
    export(trained.study, "base", tmp_path / "out", step=3)


def test_weights_that_differ_in_one_tensor_have_another_fingerprint(trained, tmp_path):
  before = hf_directory.fingerprint(trained.hf)
  shutil.copytree(trained.hf, tmp_path / "hf")
  assert hf_directory.fingerprint(tmp_path / "hf") == before
  path = tmp_path / "hf" / "model.safetensors"
  name = "model.layers.1.self_attn.k_proj.weight"
  file = tensor_files.TensorFile(path)
  _, _, begin, _ = file.entries[name]
  data = bytearray(path.read_bytes())
  data[file.start + begin] ^= 1
  path.write_bytes(data)
  assert hf_directory.fingerprint(tmp_path / "hf") != before
