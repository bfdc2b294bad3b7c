"""Files that a config names: told before machines that do not get them are paid for."""

import re

import pytest

from msm_jax.errors import UserError
from tpu import inputs, settings, study

BUCKET = settings.parse({"bucket": "gs://lab/msm/"})
NAMES = {"launch.py", "sets/choices.jsonl", "small/base/runs/a/seed0/done"}


def said(model, names=NAMES, own=BUCKET, shares_disk=False, **more):
  lines = []
  inputs.check({"model": model} | more, names, own, shares_disk, lines.append)
  return lines


@pytest.mark.parametrize(
  ("path", "copied", "there"),
  [
    ("models/llama", "models/llama", "llama"),
    ("./models/llama/", "./models/llama/", "llama"),
    ("small/bas", "small/bas", "bas"),  # the beginning of a name is another name
    ("m/tiny/runs/a/seed{seed}@4", "m/tiny", "'?.*tiny/runs/a/seed{seed}@4'?"),
  ],
)
@pytest.mark.parametrize("field", ["init_from", "adapter_from"])
def test_a_model_that_git_ignores_is_refused_with_the_way_to_the_bucket(
  field, path, copied, there
):
  with pytest.raises(UserError) as caught:
    said({field: path})
  way_out = str(caught.value)
  assert f"gcloud storage cp -r {copied} gs://lab/msm/models/, and add" in way_out
  assert re.search(
    rf"--config\.model\.{field}=\S*gs://lab/msm/models/{there}$", way_out
  )


def test_models_that_machines_get_are_taken(tmp_path):
  for path in (None, "small/base", "small/base/runs/a/seed{seed}@3"):
    assert said({"init_from": path}) == []
  assert said({"init_from": "/not/here"}) == []  # of an image, or a disk of theirs
  with pytest.raises(UserError, match="machines do not get"):
    said({"init_from": str(tmp_path)})
  assert said({"init_from": str(tmp_path)}, shares_disk=True) == []
  local = settings.parse({"bucket": "/shared/msm"})
  with pytest.raises(UserError, match=r"all nodes see it, and add --config"):
    said({"init_from": "models/x"}, own=local, shares_disk=True)


def test_a_model_that_is_not_in_its_bucket_is_told_now():
  pytest.importorskip("gcsfs")
  import fake_gcs

  runs = "gs://lab/w/runs/a/seed{seed}"
  with fake_gcs.FakeGcs("lab") as gcs, gcs.environment():
    gcs.put("lab", "w/runs/a/seed7/done", b"")
    assert said({"init_from": f"{runs}@3"}, seeds=(7, 8)) == []
    with pytest.raises(UserError, match=r"nothing at gs://lab/w/runs/a/seed9: gcloud"):
      said({"init_from": runs}, seeds=(9,))


def test_materials_that_machines_do_not_get_are_named_and_no_more():
  corpora = {
    "a": {"path": "downloads/x-*.parquet", "wording": "tiny"},
    "b": {"path": "sets/choices.jsonl", "leakage_paths": ["sets/*.jsonl", "d/none"]},
  }
  lines = said({"init_from": None}, corpora=corpora)
  assert [line.split(" is not")[0] for line in lines] == [
    "note: config.corpora.a.path = 'downloads/x-*.parquet'",
    "note: config.corpora.b.leakage_paths = 'd/none'",
  ]


def test_a_study_from_scratch_brings_all_it_needs():
  names = {path.relative_to(study.ROOT).as_posix() for path in study.ROOT.rglob("*.*")}
  config = study.load("configs/cheese_tiny.py", [])
  assert said(config["model"], names, corpora=config["corpora"]) == []
  assert inputs.model_to_be_copied(config, BUCKET) == []
