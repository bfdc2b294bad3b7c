"""Answers that were paid for outlast the machine that asked for them."""

import collections
import json
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from chaos import ROOT, make_job, read
from fake_gemini import FakeGemini

from data_gen import generate
from data_gen.engine import entries
from msm_jax import place
from msm_jax.storage import mirror, pushing

URL = "gs://bucket/study"
_GENERATE = """
import pathlib, pickle, sys
from data_gen import generate
from msm_jax import place
job = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
with place.opened(sys.argv[2], "generate") as workdir:
  generate.generate(job, pathlib.Path(workdir))
"""


def start(job: pathlib.Path, mirrors: pathlib.Path) -> subprocess.Popen:
  environment = os.environ | {place.MIRROR: str(mirrors), pushing.EVERY: "0.1"}
  return subprocess.Popen(
    [sys.executable, "-c", _GENERATE, job, URL],
    env=environment | {"PYTHONPATH": str(ROOT), "MSM_JAX_QUIET": "1"},
    stderr=subprocess.PIPE,
    text=True,
  )


def pushed(gcs) -> collections.Counter[str]:
  """Returns the identities that the ledgers in the bucket have answers of."""
  found: collections.Counter[str] = collections.Counter()
  for name in gcs.store.names("bucket"):
    if name.endswith("ledger.jsonl"):
      rows = map(json.loads, gcs.get("bucket", name).split(b"\n")[:-1])
      found.update(row["id"] for row in rows if row["status"] == entries.OK)
  return found


@pytest.mark.slow
def test_a_killed_generation_whose_disk_is_gone_pays_again_for_what_was_not_pushed(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  rng, repeated_at_most = random.Random(0), 0
  with (
    FakeGemini(lambda prompt, attempt: "") as server,
    fake_gcs.FakeGcs("bucket") as gcs,
    gcs.environment(),
  ):
    job = make_job(tmp_path, server.url, 60, max_concurrency=4)
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    server.delay_s = 0.05
    for _ in range(2):
      process, before = start(tmp_path / "job", tmp_path / "lost"), len(server.bodies)
      until = before + rng.randrange(20, 40)
      while process.poll() is None and len(server.bodies) < until:
        time.sleep(0.01)
      process.send_signal(signal.SIGKILL)
      process.communicate()
      known = sum(pushed(gcs).values())
      repeated_at_most += max(len(server.bodies) - repeated_at_most - known, 0)
      shutil.rmtree(tmp_path / "lost")
    assert sum(pushed(gcs).values()) > 20  # most was there
    process = start(tmp_path / "job", tmp_path / "next")
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert max(pushed(gcs).values()) == 1
    repeated = sum(count - 1 for count in server.attempts.values())
    assert repeated <= repeated_at_most
    mirror.Mirror(URL, tmp_path / "fresh").pull(keeps_ours=True)
    server.delay_s = 0.0
    generate.generate(job, tmp_path / "undisturbed")
  ours, theirs = read(tmp_path / "fresh"), read(tmp_path / "undisturbed")
  assert [row["text"] for row in ours[0]] == [row["text"] for row in theirs[0]]
  assert [each["id"] for each in ours[1]] == [each["id"] for each in theirs[1]]
