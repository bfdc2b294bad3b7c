"""Every gcloud command of every render, as the real Google Cloud CLI reads it."""

import functools
import json
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess

import pytest
import tpu_cases

from tpu.targets import compute

_WIDE = ("--project", "--format", "--quiet", "--filter", "--zone", "--region")


@functools.cache
def root_of_gcloud() -> pathlib.Path:
  """Returns the folder of the Google Cloud CLI."""
  found = shutil.which("gcloud")
  if found is None:
    pytest.skip("gcloud is not installed")
  for folder in pathlib.Path(found).resolve().parents:
    for root in (folder, folder / "lib" / "google-cloud-sdk"):
      if (root / "lib" / "googlecloudsdk").is_dir():
        return root
  pytest.skip("this gcloud does not say where it is")


@functools.cache
def commands() -> list[tuple[str, ...]]:
  """Returns all gcloud commands, those typed on hosts included, alike ones once."""
  found = {}
  for name in tpu_cases.CASES:
    for line in (tpu_cases.GOLDEN / f"{name}.txt").read_text().splitlines():
      if line.startswith("gcloud "):
        words = tuple(shlex.split(line)[1:])
        found |= {_kind(words): words}
        on_host = " ".join(word for word in words if word.startswith("--command="))
        for copy in re.findall(r"gcloud (storage cp \S+ \S+)", on_host):
          found |= {_kind(tuple(copy.split())): tuple(copy.split())}
  for page in ("launching", "storage"):
    text = (tpu_cases.ROOT / "docs" / f"{page}.md").read_text().replace("\\\n", "")
    for line in re.findall(r"^    gcloud (.*)", text, re.MULTILINE):
      found |= {tuple(shlex.split(line, comments=True)): tuple(shlex.split(line, True))}
  script = (tpu_cases.ROOT / "tpu" / "on_host.sh").read_text()
  assert "gcloud secrets versions access latest --secret=" in script
  secret = ("secrets", "versions", "access", "latest", "--secret=x", "--project=p-123")
  return sorted({*found.values(), secret, *_asked()})


def _kind(words: tuple[str, ...]) -> tuple[str, ...]:
  """Returns a command without its values, but for those that are one of a few."""
  few = ("--provisioning-model", "--instance-term", "--reservation-aff", "--node=")
  return tuple(
    word if not word.startswith("-") or word.startswith(few) else word.split("=")[0]
    for word in words
    if not re.search(r"-HOST\d+$", word)
  )


def _asked() -> set[tuple[str, ...]]:
  """Returns the questions that targets put, which a dry run does not print."""
  place = ("--project=my-lab-1", "--zone=us-east5-a", "--format=json")
  region = ("--project=my-lab-1", "--region=us-east5", "--format=json")
  return {
    ("compute", "instance-groups", "managed", "list-instances", "x", *place),
    ("compute", "instance-groups", "managed", "describe", "x", *place),
    ("compute", "instance-templates", "describe", "x", place[0], place[2]),
    ("compute", "resource-policies", "describe", "x", *region),
    ("compute", "instances", "describe", "x", *place),
    ("compute", "tpus", "queued-resources", "describe", "x", *place),
    ("compute", "tpus", "tpu-vm", "list", "--filter=labels.msm-job=x", *place),
    ("config", "get-value", "account", "--quiet"),
  }


def is_newer(words: tuple[str, ...]) -> bool:
  """Returns whether a command has a flag that is known to be newer than 528."""
  return any(word.startswith(flag) for word in words for flag in compute.NEWER)


def test_the_commands_of_all_renders_are_many():
  assert len(commands()) > 25
  assert any(is_newer(words) for words in commands())


def test_every_flag_is_one_that_gcloud_completes():
  tree = runpy.run_path(root_of_gcloud() / "data" / "cli" / "gcloud_completions.py")
  wrong = []
  for words in commands():
    node, rest = tree["STATIC_COMPLETION_CLI_TREE"], list(words)
    while rest and rest[0] in node["commands"]:
      node = node["commands"][rest.pop(0)]
    for word in rest:
      flag, _, value = word.partition("=")
      if not flag.startswith("--") or flag in _WIDE:
        continue
      known = node["flags"].get(flag, node["flags"].get(f"--{flag[5:]}"))
      choice = isinstance(known, list) and value and value not in known
      if (known is None or choice) and not is_newer((word,)):
        wrong.append(f"gcloud {shlex.join(words)}: {word}")
  assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_gcloud_itself_understands_every_command():
  # What is newer than 528 is parsed as its beta and its alpha take it, flag by flag.
  plain = [words for words in commands() if not is_newer(words)]
  newer = [words for words in commands() if is_newer(words)]
  said = parsed([*plain, *(("alpha", *words) for words in newer)])
  wrong = [
    f"gcloud {shlex.join(words)}: {says}"
    for words, says in zip([*plain, *newer], said, strict=True)
    if says
  ]
  assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_parser_is_asked_and_not_just_called():
  (says,) = parsed([("compute", "instances", "delete", "x", "--zoen=us-east5-a")])
  assert "did you mean '--zone'" in says


def parsed(asked: list[tuple[str, ...]]) -> list[str]:
  """Returns what gcloud's parser says of each command, '' where it is sound."""
  root = root_of_gcloud()
  own = root / "platform" / "bundledpythonunix" / "bin" / "python3"
  python = own if own.exists() else pathlib.Path("python3")
  done = subprocess.run(
    [python, "-S", "-P", tpu_cases.ROOT / "tests" / "gcloud_parser.py", root],
    input="\n".join(json.dumps(words) for words in asked),
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split("\n")[: len(asked)]
