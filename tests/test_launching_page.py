"""docs/launching.md: every command of it exists, and every job of it can be tried."""

import pathlib
import re
import shlex

import manifests
import pytest
import yaml

import launch
from tpu import __main__ as tpu_main
from tpu import given, slices

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "launching.md").read_text("utf-8")
# The text of a tpu.toml, or lines of commands.
_BLOCK = re.compile(r"^```toml\n((?:(?!```).*\n)+)```|((?:^    .*\n)+)", re.MULTILINE)


def commands(start):
  """Returns [(words after `start`, the tpu.toml above it)] of the page."""
  blocks = list(_BLOCK.finditer(PAGE))
  found, settings = [], next(block[1] for block in blocks if block[1])
  for block in blocks:
    settings = block[1] or settings
    for line in re.sub(r"\\\n\s*", " ", block[2] or "").splitlines():
      if line.strip().startswith(start):
        found.append((shlex.split(line.strip().removeprefix(start)), settings))
  return found


JOBS = commands("python -m tpu ")
SUBMITTED = [job for job in JOBS if any(w.startswith("--config=") for w in job[0])]


@pytest.fixture
def _offline(monkeypatch):
  monkeypatch.setenv("PATH", "")  # no gcloud, no git, nothing
  monkeypatch.chdir(ROOT)


def test_the_page_has_a_job_for_every_target_and_each_verb_that_needs_no_config():
  targets = {word for words, _ in SUBMITTED for word in words if "--target=" in word}
  assert targets == {f"--target={name}" for name in given.TARGETS}
  verbs = {words[0] for words, _ in JOBS}
  assert verbs >= {"run", "status", "logs", "stop", "delete"}


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
  ("words", "settings"), SUBMITTED, ids=[shlex.join(words) for words, _ in SUBMITTED]
)
def test_a_job_of_the_page_can_be_tried_offline(words, settings, tmp_path, capsys):
  file = tmp_path / "tpu.toml"
  file.write_text(settings, "utf-8")
  dry = [word for word in words if word != "--dry_run"] + ["--dry_run"]
  code = tpu_main.main([*dry, f"--settings={file}"])
  printed = capsys.readouterr()
  assert code == 0, printed.err
  assert re.search(r"^(gcloud|kubectl|ssh|sbatch) ", printed.out, re.MULTILINE)
  for manifest in re.findall(r"^apiVersion:.*?(?=^EOF$)", printed.out, re.M | re.S):
    assert manifests.faults(yaml.safe_load(manifest)) == []


@pytest.mark.parametrize("words", [words for words, _ in JOBS], ids=shlex.join)
def test_flags_of_the_launcher_exist(words, capsys):
  assert tpu_main.main([*words, "--help"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
  "words", [words for words, _ in commands("python launch.py ")], ids=shlex.join
)
def test_flags_of_a_mode_exist(words):
  assert words[0] in launch.MODES
  names = {word[2:].partition("=")[0] for word in words[1:]}
  assert {name for name in names if "." not in name} <= set(launch.FLAGS)


def test_files_that_the_page_names_are_there():
  for path in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
    assert (ROOT / "docs" / path).exists(), path


def test_prices_of_the_page_are_those_of_the_launcher():
  rows = re.findall(r"^\| (v\w+) \| ([\d.]+)[^|]*\| ([\d. -]+) \|", PAGE, re.MULTILINE)
  assert [row[0] for row in rows] == ["v4", "v5e", "v6e", "v5p"]
  for chip, on_demand, spot in rows:
    dollars = slices.GENERATIONS[chip].dollars
    in_us = [price for place, price in dollars.items() if place[:3] in ("", "us-")]
    spots = sorted({price.spot for price in in_us if price.spot is not None})
    assert dollars[""].on_demand == float(on_demand)
    assert spot == " - ".join(
      f"{each:.2f}" for each in dict.fromkeys((spots[0], spots[-1]))
    )
  assert f"read on\n{slices.AS_OF}" in PAGE
