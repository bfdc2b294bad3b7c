"""Jobs of which the renders are kept in tests/golden/tpu, and how they are made."""

import contextlib
import io
import os
import pathlib
from collections.abc import Sequence

from tpu import __main__ as tpu

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "tpu"

SETTINGS = """
bucket = "gs://lab/msm"
project = "my-lab-1"
zone = "us-east5-a"
service_account = "msm@my-lab-1.iam.gserviceaccount.com"
reservation = "booked"
[labels]
team = "interp"
[secrets]
GEMINI_API_KEY = "gemini"
[environment]
HF_HUB_OFFLINE = "1"
"""
# Nobody reaches these machines from outside, and they have a network of their own.
PRIVATE = SETTINGS.replace("us-east5-a", "us-west4-a") + (
  "[compute]\nexternal_ip = false\ntunnel_through_iap = true\n"
)
PRIVATE = 'network = "lab"\nsubnetwork = "lab-west"\n' + PRIVATE

_ONE = ["run", "--config=configs/msm_cheese.py:tiny", "--dry_run"]
_COMPUTE = [*_ONE, "--target=compute", "--slice=v5p-16"]
_QUEUED = [*_ONE, "--target=queued", "--slice=v5e-16"]

# Name of the render -> (tpu.toml, words).
CASES = {
  "compute-on-demand": (SETTINGS, _COMPUTE),
  "compute-spot": (SETTINGS, [*_COMPUTE, "--spot"]),
  "compute-reserved": (SETTINGS, [*_COMPUTE, "--reserved"]),
  "compute-flex": (SETTINGS, [*_COMPUTE, "--flex"]),
  "compute-two-slices": (SETTINGS, [*_COMPUTE, "--num_slices=2", "--spot"]),
  "compute-one-host": (
    SETTINGS,
    [*_COMPUTE[:-1], "--slice=v6e-8", "--config.seeds=(0,)", "--cpu_steps=generate"],
  ),
  "queued-on-demand": (PRIVATE, _QUEUED),
  "queued-spot": (PRIVATE, [*_QUEUED, "--spot"]),
  "queued-reserved": (PRIVATE, [*_QUEUED, "--reserved"]),
  "queued-flex": (PRIVATE, [*_QUEUED, "--flex"]),
  "queued-two-slices": (
    PRIVATE,
    [*_QUEUED, "--num_slices=2", "--spot", "--cpu_steps=generate,evaluate"],
  ),
  "queued-unusual-shape": (
    SETTINGS.replace("us-east5-a", "us-central2-b"),
    [*_ONE, "--target=queued", "--slice=v4:4x4x12"],
  ),
  "queued-stop": (PRIVATE, ["stop", *_QUEUED[1:]]),
  "compute-stop": (SETTINGS, ["stop", *_COMPUTE[1:]]),
}


def render(folder: pathlib.Path, settings: str, words: Sequence[str]) -> str:
  """Returns what a dry run prints.

  Args:
    folder: for tpu.toml.
    settings: its text.
    words: of the command line.
  """
  code, out, err = told(folder, settings, words)
  assert code == 0, err
  return out


def told(
  folder: pathlib.Path, settings: str, words: Sequence[str]
) -> tuple[int, str, str]:
  """Returns exit code, stdout and stderr of `python -m tpu`."""
  path = folder / "tpu.toml"
  path.write_text(settings)
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = tpu.main([*words, f"--settings={path}"])
  return code, out.getvalue(), err.getvalue()


def is_to_be_rewritten() -> bool:
  """Returns whether renders are made anew: MSM_JAX_REWRITE_GOLDEN=1 pytest ..."""
  return os.environ.get("MSM_JAX_REWRITE_GOLDEN") == "1"
