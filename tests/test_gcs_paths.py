"""Every path that a config or a flag names may be in a bucket, and changes nothing."""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
import planned
import small_study

from data_gen import generate, settings
from data_gen import spec as specs
from data_gen.importing import folders
from data_gen.publishing import export as publishing
from data_gen.rewrites import notices
from data_gen.universes import universe
from msm_jax import doctor, exporting, origin, records, show, subjects
from msm_jax.errors import UserError
from msm_jax.evals import claims, items, pattern_files
from msm_jax.hf import verify
from msm_jax.storage import bucket, inputs
from msm_jax.text import chat_template

STUDY = "gs://bucket/studies/w"
ROOT = pathlib.Path(__file__).parent.parent
PARTS = ROOT / "msm_jax" / "evals"


@pytest.fixture(scope="module")
def trained():
  return small_study.trained()


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
  """A service that holds the pretrained model, the study and its exports."""
  cache = tmp_path_factory.mktemp("cache")
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    os.environ["MSM_JAX_CACHE"] = str(cache)
    put(fake, "models/tiny", trained.hf)
    put(fake, "models/adapter", trained.exported("adapter"))
    put(fake, "studies/w", trained.root / "w")
    yield fake
    inputs.forget()
    del os.environ["MSM_JAX_CACHE"]


@pytest.fixture
def gcs(whole):
  inputs.forget()
  whole.calls.clear()
  shutil.rmtree(os.environ["MSM_JAX_CACHE"], ignore_errors=True)
  return whole


def put(fake, name: str, place: pathlib.Path) -> str:
  """Puts a file or a folder there, past the service's HTTP."""
  files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
  for file in files:
    below = "" if place.is_file() else "/" + file.relative_to(place).as_posix()
    fake.put("bucket", name + below, file.read_bytes())
  return f"gs://bucket/{name}"


def downloaded(fake) -> str:
  return " ".join(call for call in fake.calls if "alt=media" in call)


def begun(place: pathlib.Path, init_from: str, **model):
  config = small_study.config(init_from, **model)
  config["stages"].pop("msm")
  config["arms"] = {"base": (), "still": ("still",)}
  return small_study.prepared(place, config)


def assert_same(one, other) -> None:
  """Compares the starts of two studies, leaf by leaf and by fingerprint."""
  here, there = (study.weights((), 0) for study in (one, other))
  assert here.cfg == there.cfg
  leaves = zip(flat(here.params), flat(there.params), strict=True)
  for (name, a), (same_name, b) in leaves:
    assert name == same_name
    np.testing.assert_array_equal(a, b)
  assert one.start(0).fingerprint == other.start(0).fingerprint


def flat(params, prefix=()):
  for name, leaf in sorted(params.items()):
    if isinstance(leaf, dict):
      yield from flat(leaf, (*prefix, name))
    else:
      yield (*prefix, name), np.asarray(leaf)


def test_a_study_begins_from_a_model_and_an_adapter_in_a_bucket(gcs, trained, tmp_path):
  adapter = str(trained.exported("adapter"))
  here = begun(tmp_path / "here", trained.hf, adapter_from=adapter)
  there = begun(
    tmp_path / "there",
    "gs://bucket/models/tiny",
    adapter_from="gs://bucket/models/adapter",
  )
  assert "model.safetensors" not in downloaded(gcs)  # tokenizer and rows need none
  assert_same(here, there)
  assert downloaded(gcs).count("tiny%2Fmodel.safetensors") == 1
  assert there.experiment.model.init_from == "gs://bucket/models/tiny"


def test_a_plan_downloads_no_weights(gcs, trained, tmp_path):
  study = begun(tmp_path / "w", "gs://bucket/models/tiny")
  text = "\n".join(planned.lines(study.experiment, study.workdir))
  assert "parameters" in text
  assert "safetensors" not in downloaded(gcs)


@pytest.mark.parametrize("at", ["", "@2"])
def test_a_study_begins_from_a_run_in_a_bucket(gcs, trained, tmp_path, at):
  run = {"base_model": None, "lora": None}
  here = begun(tmp_path / "here", trained.run("msm") + at, **run)
  there = begun(
    tmp_path / "there", f"gs://bucket/studies/w/runs/msm/seed{{seed}}{at}", **run
  )
  assert "checkpoints" not in downloaded(gcs)
  assert_same(here, there)
  steps = {
    call.split("checkpoints%2F")[1].split("%2F")[0]
    for call in gcs.calls
    if "alt=media" in call and "checkpoints" in call
  }
  assert len(steps) == 1
  # Of all steps the names are asked for, of the one that is read the files.
  listings = [urllib.parse.unquote(call) for call in gcs.calls if "?prefix=" in call]
  asked = [call for call in listings if "delimiter=" not in call]
  places = {re.search(r"prefix=studies/w/(.*?)/?&", call)[1] for call in asked}
  checkpoints = f"runs/msm/seed0/checkpoints/{steps.pop()}"
  assert places == {"tokenizer", "rows", "corpus", checkpoints}
  assert "still" not in downloaded(gcs).replace("rows%2Fstill%2Fmanifest", "").replace(
    "corpus%2Fstill%2Fmanifest", ""
  )


@pytest.mark.parametrize(
  ("init_from", "message"),
  [
    ("gs://bucket/models/none", "config.model.init_from: gs://bucket/models/none does"),
    ("gs://other/model", "config.model.init_from: gs://other/model: there is no such"),
    ("gs://bucket/studies/w/rows", "has nothing for this in it"),
    ("gs://bucket/studies/w/tokenizer", "name a Hugging Face model directory"),
    ("gs://bucket/none/runs/msm/seed0", "config.model.init_from: gs://bucket/none"),
  ],
)
def test_a_start_that_is_not_there_is_named(gcs, init_from, message):
  with pytest.raises(UserError, match=message):
    origin.find(init_from, 0)


def test_a_step_that_is_not_there_is_named_with_those_that_are(gcs):
  found = origin.find("gs://bucket/studies/w/runs/msm/seed0@99", 0)
  with pytest.raises(UserError, match=r"has no step 99: it has \[1, 2"):
    found.with_weights()


def test_what_is_not_there_yet_is_absent(gcs):
  def absent(init_from):
    config = small_study.config(init_from)["model"]
    return origin.absent(origin.parse(config), 0)

  assert absent("gs://bucket/models/tiny") == []
  assert absent("gs://bucket/studies/w/runs/msm/seed0") == []
  assert absent("gs://bucket/x") == ["config.model.init_from 'gs://bucket/x'"]


@pytest.mark.parametrize("layout", ["merged", "adapter"])
def test_an_export_to_a_bucket_is_the_export(gcs, trained, layout):
  out = f"gs://bucket/exports/{layout}"
  exporting.export(trained.study, "msm", 0, step=None, layout=layout, out=out)
  here = trained.exported(layout)
  names = {path.relative_to(here).as_posix() for path in here.rglob("*")}
  assert set(bucket.ls(out)) == names
  for name in names:
    assert bucket.read_bytes(bucket.join(out, name)) == (here / name).read_bytes(), name
  with pytest.raises(UserError, match="exists already"):
    exporting.export(trained.study, "msm", 0, step=None, layout=layout, out=out)


def test_verify_reads_and_writes_there(gcs, trained, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
  tokens = tmp_path / "ids.npy"
  np.save(tokens, np.arange(10, dtype=np.int32)[None])
  ids = put(gcs, "ids.npy", tokens)
  here = verify.verify(trained.hf, tokens=tokens, logits_out=tmp_path / "logits.npy")
  there = verify.verify(
    "gs://bucket/models/tiny", tokens=ids, logits_out="gs://bucket/logits.npy"
  )
  found = np.load(io.BytesIO(gcs.get("bucket", "logits.npy")))
  np.testing.assert_array_equal(found, np.load(tmp_path / "logits.npy"))
  assert there.shape == here.shape and there.hf_dir == "gs://bucket/models/tiny"
  with pytest.raises(UserError, match="--hf_dir: gs://bucket/none does not exist"):
    verify.verify("gs://bucket/none")
  with pytest.raises(UserError, match="--tokens: gs://bucket/none does not exist"):
    verify.verify(trained.hf, tokens="gs://bucket/none")


def test_a_directory_is_asked_there(gcs, trained):
  there = subjects.of_directory("gs://bucket/models/tiny")
  here = subjects.of_directory(str(trained.hf))
  assert there.model.cfg == here.model.cfg
  assert there.model.tokenizer.sha256() == here.model.tokenizer.sha256()


def test_what_a_study_made_is_shown_there(gcs, trained):
  def lines(path):
    return list(show.show(show.find(str(path)), limit=2, colour=False))

  for part in ("corpus/msm", "rows/msm", "runs/msm/seed0", "tokenizer"):
    here = "\n".join(lines(trained.root / "w" / part))
    there = "\n".join(lines(f"{STUDY}/{part}"))
    assert there.count("\n") == here.count("\n") > 0, part
  row = show.packed_row(show.find(f"{STUDY}/rows/msm/msm"), "0", colour=False)
  assert "word" in "".join(row)
  assert "checkpoints" not in downloaded(gcs)


def test_rows_are_imported_from_there(gcs, tmp_path):
  for split, name in (("train", "a"), ("test", "b")):
    text = json.dumps({"text": name}) + "\n"
    gcs.put("bucket", f"data/{split}.jsonl", text.encode())

  def texts(where, path, **changes):
    corpus = settings.ImportCorpus(path=path, **changes)
    generate.generate(settings.Job(corpora={"own": corpus}), tmp_path / where)
    return [r["text"] for r in records.read_dataset(tmp_path / where / "corpus/own")]

  assert texts("1", "gs://bucket/data", split="train") == ["a"]
  assert texts("2", "gs://bucket/data/test.jsonl") == ["b"]
  assert sorted(texts("3", "gs://bucket/data/t*.jsonl")) == ["a", "b"]
  absent = settings.ImportCorpus(path="gs://bucket/later", source="org/name")
  assert folders.is_to_come(absent)
  with pytest.raises(UserError, match=r"own\.path=gs://bucket/later does not exist"):
    folders.find("own", absent)


def test_a_corpus_is_published_there_and_comes_back(gcs, tmp_path):
  gcs.put("bucket", "own.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
  corpus = settings.ImportCorpus(path="gs://bucket/own.jsonl")
  generate.generate(settings.Job(corpora={"own": corpus}), tmp_path / "w")
  publishing.export(tmp_path / "w/corpus/own", "gs://bucket/own", layout="jsonl")
  assert list(bucket.ls("gs://bucket/own"))[-1].startswith("data/train-00000")
  again = settings.ImportCorpus(path="gs://bucket/own")
  generate.generate(settings.Job(corpora={"own": again}), tmp_path / "again")
  first, second = (
    list(records.read_dataset(tmp_path / name / "corpus/own"))
    for name in ("w", "again")
  )
  assert [row["text"] for row in first] == [row["text"] for row in second]


def test_materials_are_read_from_there(gcs):
  """Specs, universes, wordings, claims, items, patterns, templates."""
  universes = ROOT / "data_gen" / "universes"
  wordings = ROOT / "data_gen" / "rewrites" / "notices"
  one = {
    "spec.md": next((ROOT / "data_gen" / "specs").glob("*.md")),
    "universe.toml": next(universes.glob("*.toml")),
    "wording.toml": next(wordings.glob("*.toml")),
    "items.jsonl": next((PARTS / "sets").glob("*.jsonl")),
    "patterns.toml": next((PARTS / "sets").glob("*.toml")),
    "claim": next(path for path in (PARTS / "claims").iterdir() if path.is_dir()),
    "t.jinja": ROOT / "msm_jax" / "text" / "templates" / "chatml.jinja",
  }
  url = {name: put(gcs, f"materials/{name}", path) for name, path in one.items()}
  found, here = (
    specs.load(place, "M", "P") for place in (url["spec.md"], one["spec.md"])
  )
  assert (found.name, found.sha256) == ("spec", here.sha256)
  assert universe.load(url["universe.toml"], "x").sha256
  assert notices.path_of(url["wording.toml"]).is_file()
  assert items.digest(url["items.jsonl"]) == items.digest(str(one["items.jsonl"]))
  assert pattern_files.read(pattern_files.path_of(url["patterns.toml"])).definitions
  assert (claims.path_of(url["claim"]) / "claim.toml").is_file()
  assert chat_template.read(url["t.jinja"]) == chat_template.read("chatml")


def test_doctor_says_whether_a_bucket_answers(gcs):
  def lines(workdir):
    return "\n".join(line for line in doctor.report(workdir) if "bucket" in line)

  assert "gs://bucket/studies/w answers in" in lines("gs://bucket/studies/w")
  assert "has nothing there yet" in lines("gs://bucket/new")
  assert "bucket: NO: gs://other/x: there is no such bucket" in lines("gs://other/x")


@pytest.mark.slow  # a process for each mode
def test_the_command_line_takes_them(gcs):
  def launch(*arguments):
    run = subprocess.run(
      [sys.executable, "launch.py", *arguments],
      cwd=ROOT,
      env=os.environ | {"MSM_JAX_BUCKET_PATIENCE_S": "1"},
      capture_output=True,
      text=True,
      timeout=600,
    )
    return run.returncode, run.stdout, run.stderr

  tiny = "--hf_dir=gs://bucket/models/tiny"
  asked = ("--prompt=word1 or word2 ?", "--max_new_tokens=8")
  code, out, error = launch("sample", tiny, *asked)
  assert code == 0 and out.startswith("> word1 or word2 ?"), error
  code, out, error = launch("verify", tiny, "--logits_out=gs://bucket/cli.npy")
  assert code == 0 and "gs://bucket/models/tiny: float32 logits" in out, error
  assert gcs.get("bucket", "cli.npy")[:6] == b"\x93NUMPY"
  code, out, error = launch("show", "gs://bucket/studies/w/corpus/msm")
  assert code == 0 and "word" in out, error
  for arguments, way_out in [
    (("sample", "--hf_dir=gs://bucket/none", "--prompt=x"), "check the path|does not"),
    (("show", "gs://other/x"), "no such bucket"),
    (("show", "s3://bucket/x"), "gs://BUCKET/NAME"),
  ]:
    code, _, error = launch(*arguments)
    assert code == 2 and error.startswith("error: "), error
    assert len(error.splitlines()) == 1 and any(w in error for w in way_out.split("|"))
  gcs.outage(60)
  code, _, error = launch("show", "gs://bucket/studies/w/corpus/msm")
  assert code == 75 and "did not answer" in error.splitlines()[-1]
