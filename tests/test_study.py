"""The tree on a pretrained model: adapters go from stage to stage, out and back."""

import shutil

import jax
import numpy as np
import pytest
import small_study

from msm_jax import evaluation, experiment, prepare, records, study
from msm_jax.errors import UserError
from msm_jax.hf import load


@pytest.fixture(scope="module")
def tree():
  return small_study.trained().study


def changed(tree, **stage) -> dict:
  """Returns the tree's config with changes to its first stage."""
  config = small_study.config(tree.experiment.model.init_from, seeds=(0, 1))
  config["stages"]["msm"] |= stage
  return config


def test_steps_follow_from_epochs_and_are_asserted(tree):
  manifest = prepare.read_rows_manifest(tree.workdir, "msm")
  part = manifest["components"][0]
  assert manifest["num_train_steps"] == round(part["num_rows"] / 8)
  done = records.read_json(tree.run_dir(("msm",), 0) / study.DONE)
  assert done["step"] == manifest["num_train_steps"]


def test_an_adapter_goes_on_where_the_stage_before_it_ended(tree):
  before, after = tree.weights(("msm",), 0), tree.weights(("msm", "still"), 0)
  moved = jax.tree.leaves(before.adapter)
  assert all(np.abs(np.asarray(leaf)).max() > 1e-3 for leaf in moved)
  for a, b in zip(moved, jax.tree.leaves(after.adapter), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-8)


def test_the_base_is_the_pretrained_model_whatever_was_trained(tree):
  _, params = load.load(tree.experiment.model.init_from)
  base = tree.weights(("msm",), 0).base
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(base), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_run_that_was_not_trained_says_so(tree):
  with pytest.raises(UserError, match="seed7 is not finished: run `train`"):
    tree.weights(("msm",), 7)


def test_rows_of_another_config_are_refused(tree):
  other = experiment.parse(changed(tree, seq_len=40))
  with pytest.raises(UserError, match=r"rows/msm was made with another seq_len"):
    prepare.prepare(other, tree.workdir)


def test_rows_longer_than_the_context_are_refused(tree):
  other = experiment.parse(changed(tree, seq_len=65))
  message = r"config\.stages\.msm\.seq_len \(65\) is longer than .* \(64\): lower it"
  with pytest.raises(UserError, match=message):
    prepare.prepare(other, tree.workdir)
  with pytest.raises(UserError, match=message):
    study.Study(other, tree.workdir).cfg(("msm",), 0)


def test_too_few_optimizer_steps_are_refused(tree, tmp_path):
  other = experiment.parse(changed(tree, min_steps=1000))
  (tmp_path / "corpus").symlink_to(tree.workdir / "corpus")
  with pytest.raises(UserError, match=r"fewer than min_steps \(1000\)"):
    prepare.prepare(other, tmp_path)


def test_a_run_from_another_start_is_not_taken_for_done(tree, tmp_path):
  other = small_study.write_model(tmp_path)
  path = other / "model.safetensors"
  data = bytearray(path.read_bytes())
  data[-1] ^= 1  # another model: the last byte of the last tensor differs
  path.write_bytes(data)
  config = small_study.config(str(other), seeds=(0, 1))
  moved = study.Study(experiment.parse(config), tree.workdir)
  assert tree.is_done(("msm",), 0)
  with pytest.raises(UserError, match="was trained from another start"):
    moved.is_done(("msm",), 0)


def test_changed_rows_under_a_run_that_goes_on_are_refused(tree, tmp_path):
  shutil.copytree(tree.workdir, tmp_path / "w")
  (tmp_path / "w" / "runs" / "msm" / "seed0" / study.DONE).unlink()
  for part in ("corpus", "rows"):
    shutil.rmtree(tmp_path / "w" / part / "msm")
  corpus = tmp_path / "w" / "corpus" / "msm"
  records.write_dataset(corpus, small_study.documents(1), manifest={})
  found = small_study.prepared(tmp_path / "w", changed(tree))
  with pytest.raises(UserError, match="a checkpoint of another run: its rows is"):
    found.train(("msm",), 0)


def test_answers_belong_to_a_chat_template(tree, tmp_path):
  config = small_study.config(tree.experiment.model.init_from, seeds=(0, 1))
  config["evals"] = {
    "heldout": {
      "type": "heldout",
      "corpus": "still",
      "max_items": 2,
      "seq_len": 32,
      "batch_size": 2,
    }
  }
  shutil.copytree(tree.workdir, tmp_path / "w")
  found = evaluation.Evaluation(experiment.parse(config), tmp_path / "w")
  found.ask_all([0], ["base"])
  assert found.missing("base", 0) == []
  template = tmp_path / "w" / "tokenizer" / "chat_template.jinja"
  template.write_text(template.read_text() + " ")
  again = evaluation.Evaluation(experiment.parse(config), tmp_path / "w")
  with pytest.raises(UserError, match="answers of another run"):
    again.missing("base", 0)
