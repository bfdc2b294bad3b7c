"""Faults by the per cent, and runs of `generate` that can be killed at any moment."""

import collections
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import zlib

from fake_gemini import MODEL, stage_of

from data_gen import settings
from msm_jax import records

ROOT = pathlib.Path(__file__).parent.parent
SPEC = "# T\n\n## First\n\nIt saves money {}.\n\n## Second\n\nIt tells the truth.\n"
PRICE = (0.3, 0.03, 2.5)  # of MODEL
ANSWER_DOLLARS = (100 * PRICE[0] + 50 * PRICE[2]) / 1e6
LOST = ("hang", "drop", "half", "not_json")
# Out of a thousand attempts.
_PASSING = {"429": 20, "500": 10, "503": 10, "hang": 10, "drop": 10, "half": 10}
_PASSING |= {"not_json": 10}
# Out of a thousand documents: the answer itself, on every attempt.
_LASTING = {"MAX_TOKENS": 20, "SAFETY": 10}


class Chaos:
  """Decides what goes wrong, by prompt and attempt; counts what did.

  Without `hangs` connections are dropped instead; without `passing` all that goes
  wrong does so on every attempt.
  """

  def __init__(self, hangs: bool = True, passing: bool = True):
    self.counts: collections.Counter[str] = collections.Counter()
    self._hangs, self._passing = hangs, passing

  def __call__(self, prompt: str, attempt: int) -> str:
    fault = _pick(_PASSING, f"{attempt} {prompt}") if self._passing else ""
    if fault == "hang" and not self._hangs:
      fault = "drop"
    if not fault and stage_of(prompt) == "document":
      fault = _pick(_LASTING, prompt)
    self.counts[fault] += 1
    return fault

  @property
  def num_lost(self) -> int:
    """Requests whose answer did not arrive whole."""
    return sum(self.counts[fault] for fault in LOST)


def _pick(shares: dict[str, int], key: str) -> str:
  number = zlib.crc32(key.encode()) % 1000
  for fault, share in shares.items():
    number -= share
    if number < 0:
      return fault
  return ""


def make_job(tmp_path, url, num_documents, **changes) -> settings.Job:
  """Returns a job of one corpus `docs` with four parts, five types each."""
  path = tmp_path / "spec.md"
  path.write_text(SPEC)
  fields = {"client": "gemini", "model": MODEL, "base_url": url}
  fields |= {"timeout_s": 1.5, "max_attempts": 5, "max_output_tokens": 100}
  client = settings.ClientSettings(**fields | changes)
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  corpus = settings.DocumentsCorpus(
    spec="s", num_types=5, num_ideas=num_documents // 20
  )
  return settings.Job(corpora={"docs": corpus}, specs={"s": spec}, teacher=client)


def read(workdir):
  """Returns (records, rejects, manifest, ledger rows) of the corpus."""
  directory = workdir / "corpus" / "docs"
  lost = (directory / "rejects.jsonl").read_bytes().splitlines()
  entries = (directory / "ledger.jsonl").read_bytes().splitlines()
  return (
    list(records.read_dataset(directory)),
    [json.loads(line) for line in lost],
    records.read_manifest(directory),
    [json.loads(line) for line in entries],
  )


_ZYGOTE = """
import json, os, sys
from data_gen import generate, settings
from data_gen.clients import gemini
from data_gen.clients.gemini import client
from msm_jax import errors
print("ready", flush=True)
for line in sys.stdin:
  pid = os.fork()
  if pid:
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
    continue
  fields = json.loads(line)
  job = settings.Job(
    corpora={"docs": settings.corpus("docs", fields["corpus"])},
    specs={"s": settings.SpecSettings(**fields["spec"])},
    teacher=settings.ClientSettings(**fields["client"]),
  )
  code = 0
  try:
    generate.generate(job, fields["workdir"])
  except errors.Stopped as error:
    print(error, file=sys.stderr, flush=True)
    code = 75
  except BaseException:
    import traceback
    traceback.print_exc()
    code = 1
  os._exit(code)
"""


class Zygote:
  """Starts runs of `generate` in processes of their own, without their imports.

  One process imports everything and forks for each run; a context manager.
  """

  def __enter__(self) -> "Zygote":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MSM_JAX_QUIET": "1"}
    environment["GOOGLE_API_KEY"] = "not a real key"
    self._process = subprocess.Popen(
      [sys.executable, "-c", _ZYGOTE],
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    assert self._process.stdout.readline() == "ready\n"
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._process.stdin.close()
    self._process.wait(30)
    self._process.stdout.close()

  def start(self, job: settings.Job, workdir: pathlib.Path) -> int:
    """Starts a run; returns its process id."""
    [corpus] = job.corpora.values()
    fields = {
      "corpus": {"kind": corpus.kind, **dataclasses.asdict(corpus)},
      "spec": dataclasses.asdict(job.specs["s"]),
      "client": dataclasses.asdict(job.teacher),
      "workdir": str(workdir),
    }
    self._process.stdin.write(json.dumps(fields) + "\n")
    self._process.stdin.flush()
    return int(self._process.stdout.readline())

  def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
    """Signals a run (it may have ended)."""
    try:
      os.kill(pid, number)
    except ProcessLookupError:
      return

  def end(self) -> int:
    """Waits for the run to end; returns its wait status."""
    return int(self._process.stdout.readline())
