"""The `openai` client and a chain against a server that is not ours.

`transformers serve` with a real small model: poor text, real protocol. Needs
`pip install fastapi uvicorn openai` beside the extra `hf`, and the model's directory
in MSM_JAX_SMOLLM2.
"""

import asyncio
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from fake_answers import stage_of
from fake_openai import FakeOpenAI

from data_gen import clients, generate, settings
from data_gen.clients import protocol
from msm_jax import records
from msm_jax.errors import Stopped

pytestmark = pytest.mark.slow

PARAMS = protocol.Params(temperature=0.9, max_output_tokens=12)
REQUEST = protocol.Request(
  stage="document",
  system="You are brief.",
  prompt="Name a cheese.",
  fields={},
  params=PARAMS,
)
# The server samples only where the model's own configuration says so.
SAMPLE = {"generation_config": json.dumps({"do_sample": True, "eos_token_id": 2})}
SPEC = "# T\n\n## First\n\nIt saves money.\n\n## Second\n\nIt tells the truth.\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
  """Yields (base_url, model) of a running server."""
  for package in ("transformers", "torch", "fastapi", "uvicorn", "openai"):
    pytest.importorskip(package)
  if "MSM_JAX_SMOLLM2" not in os.environ:
    pytest.skip("MSM_JAX_SMOLLM2 names no directory with the model")
  model = str(pathlib.Path(os.environ["MSM_JAX_SMOLLM2"]).resolve())
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
  command += ["--device", "cpu", "--dtype", "float32", "--port", str(port)]
  log = tmp_path_factory.mktemp("server") / "log.txt"
  with open(log, "wb") as file:
    process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
  try:
    _wait_for(f"http://127.0.0.1:{port}/health", process, log)
    yield f"http://127.0.0.1:{port}/v1", model
  finally:
    process.kill()  # asked politely it would first finish its answers
    process.wait(30)


def _wait_for(url, process, log):
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline and process.poll() is None:
    try:
      with urllib.request.urlopen(url, timeout=5):
        return
    except OSError:
      time.sleep(0.5)
  pytest.fail(f"the server does not come up:\n{log.read_text()[-2000:]}")


def client_settings(server, **changes):
  fields = {"client": "openai", "base_url": server[0], "model": server[1]}
  fields |= {"timeout_s": 300.0, "max_concurrency": 1, "max_output_tokens": 16}
  return settings.ClientSettings(**fields | changes)


def ask(server, *requests, **changes):
  """Returns the responses or errors, asked all at once."""

  async def run():
    client = clients.make(client_settings(server, **changes), "config.teacher")
    try:
      return await asyncio.gather(
        *map(client.generate, requests), return_exceptions=True
      )
    finally:
      await client.close()

  return asyncio.run(run())


def test_the_server_answers_counts_tokens_and_knows_seeds(server):
  samples = [dataclasses.replace(REQUEST, sample_index=i) for i in range(2)]
  first = ask(server, *samples, extra_body=SAMPLE)
  for response in first:
    assert response.text.strip()
    assert response.usage.prompt_tokens > 5
    assert 0 < response.usage.response_tokens <= 12
    assert response.finish_reason in (protocol.STOP, protocol.MAX_TOKENS)
  assert len({response.text for response in first}) > 1


def test_a_model_that_the_server_does_not_have_is_refused_by_name(server):
  (error,) = ask((server[0], "another-model"), REQUEST)
  assert type(error) is protocol.FatalAuth
  assert "config.teacher.model='another-model'" in str(error)
  (error,) = ask((server[0] + "/nowhere", server[1]), REQUEST)
  assert type(error) is protocol.FatalAuth and "404" in str(error)


def make_job(tmp_path, url, model, **changes):
  path = tmp_path / "spec.md"
  path.write_text(SPEC)
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  client = client_settings((url, model), **{"extra_body": SAMPLE} | changes)
  corpus = settings.DocumentsCorpus(spec="s", num_types=1, num_ideas=1, max_documents=1)
  return settings.Job(
    corpora={"docs": corpus}, specs={"s": spec}, teacher=client, judge=client
  )


def test_a_teacher_too_small_to_plan_is_said_so_and_nothing_is_paid_twice(
  server, tmp_path
):
  job = make_job(tmp_path, *server)
  for _ in range(2):
    with pytest.raises(Stopped, match=r"named no domains.*another teacher"):
      generate.generate(job, tmp_path)
  (book,) = (tmp_path / "corpus").rglob("ledger*.jsonl")
  rows = [json.loads(line) for line in book.read_text("utf-8").splitlines()]
  answers = [row for row in rows if row.get("status") == "ok"]
  assert len(answers) == len({row["id"] for row in answers}) == 3
  assert all(row["usage"]["response_tokens"] > 0 for row in answers)


class Relay(FakeOpenAI):
  """Plans like the fake server and has each document written by the real one."""

  class handler(FakeOpenAI.handler):
    def chat(self):
      if stage_of(json.loads(self.body)["messages"][-1]["content"]) != "document":
        super().chat()
        return
      call = urllib.request.Request(
        f"{self.fake.behind}/chat/completions",
        data=self.body,
        headers={"Content-Type": "application/json"},
      )
      with urllib.request.urlopen(call, timeout=300) as reply:
        self.send(reply.status, reply.read())

    routes = (
      (r"POST /v1/chat/completions", lambda self: self.chat()),
      *FakeOpenAI.handler.routes[1:],
    )


def test_documents_that_the_real_server_writes_are_kept_or_rejected(server, tmp_path):
  with Relay() as relay:
    relay.behind = server[0]
    # The first sentence is enough; a document that is cut off would be rejected.
    sentence = {"stop": ["."], **SAMPLE}
    changes = {"extra_body": sentence, "max_output_tokens": 40}
    job = make_job(tmp_path, relay.url, server[1], **changes)
    generate.generate(job, tmp_path)
  directory = tmp_path / "corpus" / "docs"
  kept = list(records.read_dataset(directory))
  lost = (directory / "rejects.jsonl").read_text("utf-8").splitlines()
  assert len(kept) == 1 and len(lost) <= 3
  assert kept[0]["text"].strip() and kept[0]["usage"]["response_tokens"] > 0
