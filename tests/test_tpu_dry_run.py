"""python -m tpu: what a dry run prints, what is refused: offline, without tools."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tpu_cases

from msm_jax.errors import UserError
from tpu import study

CONFIGS = sorted(
  path.name
  for path in (tpu_cases.ROOT / "configs").glob("*.py")
  if path.name != "__init__.py"
)

# Target -> how machines are asked for, of a slice that is one host.
MADE = {
  "compute": r"instance-groups managed create \S+-0 .* --size=1 ",
  "queued": r"queued-resources create .* --accelerator-type=v(6e|5p)-8 ",
  "gke": r"kubectl .* create --filename=-",
}


@pytest.fixture(autouse=True)
def _no_tools(monkeypatch):
  """There is no gcloud, no git, nothing."""
  monkeypatch.setenv("PATH", "")
  monkeypatch.chdir(tpu_cases.ROOT)


@pytest.mark.parametrize("name", tpu_cases.CASES)
def test_a_dry_run_prints_what_it_always_printed(name, tmp_path):
  printed = tpu_cases.render(tmp_path, *tpu_cases.CASES[name])
  path = tpu_cases.GOLDEN / f"{name}.txt"
  if tpu_cases.is_to_be_rewritten():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(printed)
  assert printed == path.read_text(), (
    f"{path.name} differs: if that is meant, MSM_JAX_REWRITE_GOLDEN=1 pytest {__file__}"
  )


def test_no_render_is_kept_that_nothing_makes():
  kept = {path.stem for path in tpu_cases.GOLDEN.glob("*.txt")}
  ours = {name for name in kept if name.startswith(("compute-", "queued-"))}
  assert ours == set(tpu_cases.CASES)


@pytest.mark.parametrize("name", tpu_cases.CASES)
def test_no_value_of_a_secret_is_asked_for_here(name):
  text = (tpu_cases.GOLDEN / f"{name}.txt").read_text()
  assert "versions access" not in text  # hosts do that, see on_host.sh
  if " start " in text:
    assert "--secret=GEMINI_API_KEY=gemini" in text


def test_a_pasted_dry_run_is_a_sound_script(tmp_path):
  shellcheck = shutil.which("shellcheck", path="/usr/bin:/usr/local/bin:/opt/bin")
  if shellcheck is None:
    pytest.skip("shellcheck is not installed")
  for name in tpu_cases.CASES:
    script = "#!/usr/bin/env bash\n" + (tpu_cases.GOLDEN / f"{name}.txt").read_text()
    (tmp_path / f"{name}.sh").write_text(script)
  subprocess.run([shellcheck, *tmp_path.glob("*.sh")], check=True)
  subprocess.run([shellcheck, tpu_cases.ROOT / "tpu" / "on_host.sh"], check=True)


@pytest.mark.parametrize("argument", ["", ":tiny"])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_study_can_be_tried_offline(config, argument, tmp_path):
  flag = f"configs/{config}{argument}"
  try:
    plain = study.load(flag, [])
  except UserError as error:
    assert argument and "tiny" in str(error), error  # this one is tiny as it is
    return
  words = ["run", f"--config={flag}", "--dry_run"]
  if not str((plain.get("hardware") or {}).get("slice")).startswith("v5p"):
    words += ["--slice=v6e-8", "--spot"]
  settings = tpu_cases.SETTINGS + '[gke]\ncluster = "pods"\n'
  settings = 'image = "lab/msm:1"\n' + settings
  for target, made in MADE.items():
    if target != "compute" and not argument:
      continue  # what differs is the target, not the study
    printed = tpu_cases.render(tmp_path, settings, [*words, f"--target={target}"])
    assert f"--config={flag} " in printed
    assert re.search(made, printed)


GOOD = tpu_cases.SETTINGS
ALL_TARGETS = (  # of which each takes what it needs
  'image = "lab/msm:1"\n'
  + GOOD
  + '[gke]\ncluster = "pods"\n[slurm]\ndirectory = "/shared"\n'
)
SLICES = {"compute": "v6e-8", "queued": "v6e-8", "gke": "v6e-8", "slurm": "h100:8"}


@pytest.mark.parametrize("target", SLICES)
def test_a_part_of_a_study_is_asked_for_as_on_a_laptop(target, tmp_path):
  words = ["--arm=msm_aff+aft", "--seed=0,1", "--config.seeds=(0, 1, 2)"]
  run = ["run", "--dry_run", "--config=configs/cheese_tiny.py", *words]
  where = [f"--target={target}", f"--slice={SLICES[target]}", "--cpu_steps=generate"]
  printed = tpu_cases.render(tmp_path, ALL_TARGETS, [*run, *where])
  for mode in ("generate", "run"):  # each is told, in whatever quotes its place needs
    said = re.search(rf"launch\.py {mode} --config=configs/cheese_tiny.py .*", printed)
    assert "--arm=msm_aff+aft --seed=0,1 " in said[0]
    assert "--config.seeds=(0, 1, 2)" in said[0].replace("'", "").replace('"', "")


RUN = ["run", "--dry_run", "--config=configs/cheese_tiny.py"]
COMPUTE = [*RUN, "--target=compute", "--slice=v6e-16"]
# What is wrong -> (tpu.toml, words, what the one line says).
BAD = {
  "verb": (GOOD, ["rum"], "did you mean run?"),
  "no verb": (GOOD, [], "it is one of create, push, run"),
  "flag": (GOOD, [*COMPUTE, "--spott"], "Did you mean: spot"),
  "word": (GOOD, [*COMPUTE, "now"], "flags begin with --"),
  "no config": (GOOD, ["run", "--dry_run"], "--config=... is needed"),
  "config": (
    GOOD,
    ["run", "--config=configs/cheese_tin.py"],
    "configs/cheese_tiny.py?",
  ),
  "argument": (
    GOOD,
    [*COMPUTE, "--config=configs/cheese_tiny.py:x"],
    "'pulse' or none",
  ),
  "override": (GOOD, [*COMPUTE, "--config.model.embed_dmi=8"], "mean 'embed_dim'?"),
  "no value": (GOOD, [*COMPUTE, "--config.seeds"], "write --config.seeds=VALUE"),
  "value": (GOOD, [*COMPUTE, "--config.model.embed_dim=x"], "embed_dim=x: invalid"),
  "no near config": (GOOD, ["run", "--config=configs/none.py"], "there: see configs/"),
  "price of nothing": (
    GOOD + "[prices.v6]\nspot = 1\n",
    COMPUTE,
    "did you mean 'v6e'?",
  ),
  "no name": (GOOD, ["status"], "--name=... is needed"),
  "dry and no config": (GOOD, ["stop", "--dry_run", "--name=x"], "give --config, --t"),
  "s3": (GOOD, [*COMPUTE, "--workdir=s3://b/w"], "only local paths and gs://BUCKET"),
  "arm": (GOOD, [*COMPUTE, "--arm=msm"], "--arm=msm is not one of aft, base, msm_aff"),
  "seed": (GOOD, [*COMPUTE, "--seed=99"], "--seed=99: '99' is not one of"),
  "no failures": (GOOD, [*COMPUTE, "--max_same_failures=0"], "max_same_failures=0"),
  "no target": (GOOD, RUN, "--target=... is needed (compute, gke, queued, slurm)"),
  "target": (GOOD, [*RUN, "--target=gcp"], "--target=gcp"),
  "no slice": (GOOD, [*RUN, "--target=compute"], "--slice=v6e-16 (or v5p:2x2x2"),
  "slice": (GOOD, [*RUN, "--target=compute", "--slice=v7e-8"], "did you mean v6e?"),
  "size": (GOOD, [*RUN, "--target=compute", "--slice=v6e-12"], "the number counts"),
  "family": (GOOD, [*RUN, "--target=compute", "--slice=v6e"], "name a slice of it"),
  "chip not of Compute Engine": (
    GOOD,
    [*RUN, "--target=compute", "--slice=v5e-16"],
    "take --target=queued or --target=gke",
  ),
  "chip not of the Cloud TPU API": (
    GOOD,
    [*RUN, "--target=queued", "--slice=tpu7x:2x2x2"],
    "take --target=compute",
  ),
  "GPUs": (GOOD, [*RUN, "--target=queued", "--slice=h100:8"], "--target=slurm"),
  "half a host of GPUs": (GOOD, [*RUN, "--target=gke", "--slice=h100:12"], "multiple"),
  "slices of GPUs": (
    GOOD,
    [*RUN, "--target=gke", "--slice=h100:8", "--num_slices=2"],
    "GPUs have no slices",
  ),
  "no slices": (GOOD, [*COMPUTE, "--num_slices=0"], "num_slices=0"),
  "zone without that chip": (
    GOOD.replace("us-east5-a", "us-west4-a"),
    COMPUTE,
    "'us-west4-a' is not known to have v6e",
  ),
  "region": (GOOD.replace("us-east5-a", "us-east5"), COMPUTE, "a zone (us-east5-b)"),
  "dry status": (GOOD, ["status", *COMPUTE[1:]], "changes nothing"),
  "two ways to pay": (GOOD, [*COMPUTE, "--spot", "--flex"], "exclude one another"),
  "reserved without": (
    GOOD.replace('reservation = "booked"', ""),
    [*COMPUTE, "--reserved"],
    "needs reservation",
  ),
  "flex for too long": (
    GOOD + "[compute]\nflex_hours = 200.0\n",
    [*COMPUTE, "--flex"],
    "at most 168",
  ),
  "name": (GOOD, [*COMPUTE, "--name=My_Job"], "a letter first, at most 40"),
  "directory as bucket": (
    GOOD.replace("gs://lab/msm", "/shared/msm"),
    COMPUTE,
    "needs gs://BUCKET/PREFIX",
  ),
  "no project": (GOOD.replace("project", "# p"), COMPUTE, "needs project: see tpu/se"),
  "cpu step": (GOOD, [*COMPUTE, "--cpu_steps=generat"], "did you mean generate?"),
  "cpu step that trains": (GOOD, [*COMPUTE, "--cpu_steps=train"], "it takes generate"),
  "settings": (GOOD.replace("zone", "zome"), COMPUTE, "did you mean 'zone'?"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_one_line_with_the_way_out(what, tmp_path):
  settings, words, way_out = BAD[what]
  code, out, err = tpu_cases.told(tmp_path, settings, words)
  assert code == 2 and out == ""
  assert err.startswith("error: ") and err.count("\n") == 1
  assert way_out in err


def test_a_workdir_that_goes_with_its_machine_is_told(tmp_path):
  told = "/scratch/w is a directory of each machine of --target="
  for target, slice_ in SLICES.items():
    words = [*RUN, f"--target={target}", f"--slice={slice_}", "--workdir=/scratch/w"]
    assert (told in tpu_cases.render(tmp_path, ALL_TARGETS, words)) == (
      target != "slurm"
    )


def test_without_tpu_toml_the_template_is_named(tmp_path, capsys):
  from tpu import __main__ as tpu

  assert tpu.main([*COMPUTE, f"--settings={tmp_path / 'absent.toml'}"]) == 2
  assert "copy tpu/settings.example.toml to tpu.toml" in capsys.readouterr().err


def test_without_gcloud_a_run_says_how_to_install_it(tmp_path, monkeypatch):
  git = shutil.which("git", path="/usr/bin:/usr/local/bin:/bin")
  if git is None:
    pytest.skip("git is not installed")
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin" / "git").symlink_to(git)
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  words = [word for word in COMPUTE if word != "--dry_run"]
  code, _, err = tpu_cases.told(tmp_path, GOOD, words)
  assert code == 2 and "gcloud is not on PATH: install the Google Cloud CLI" in err


def test_a_dry_run_does_without_jax():
  code = """
import sys
from tpu import __main__ as tpu
assert tpu.main(sys.argv[1:]) == 0
assert "jax" not in sys.modules
"""
  template = pathlib.Path("tpu/settings.example.toml")
  words = [*COMPUTE, f"--settings={template}"]
  subprocess.run(
    [sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL
  )
