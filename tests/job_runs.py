"""Runs that send their requests in batch jobs, to any of the fake services."""

import asyncio
import contextlib
import json
import threading

import fake_anthropic
import fake_gemini
import fake_openai
import pytest

from data_gen import clients
from data_gen.clients import protocol
from data_gen.clients.settings import ClientSettings
from data_gen.engine import ledger, pricing, scheduler
from msm_jax.errors import Stopped

SERVICES = {
  "gemini": (fake_gemini.FakeGemini, fake_gemini.MODEL),
  "openai": (fake_openai.FakeOpenAI, fake_openai.MODEL),
  "anthropic": (fake_anthropic.FakeAnthropic, fake_anthropic.MODEL),
}
PARAMS = protocol.Params(temperature=1.0, max_output_tokens=100)
SINGLE = pricing.Price(prompt=1.0, cached=0.1, response=10.0)
PRICE = SINGLE.at(0.5, 0.5)
# What an answer of the fake Gemini costs in a job, and what any may cost.
ANSWER = (100 * 0.5 + 50 * 5.0) / 1e6
# Of "Write 10.": two bytes a token, a digit by itself; half the price in a job.
WORST = (4 + 2 + 1 + 100 * 10) * 0.5 / 1e6


def requests(count):
  return [
    protocol.Request(
      stage="document", system="", prompt=f"Write {i}.", fields={}, params=PARAMS
    )
    for i in range(10, 10 + count)
  ]


class Factory:
  """A server that outlives the runs against it; a context manager.

  Attributes:
    server: the fake service.
    path: the ledger.
    totals, budget: of the last run.
    mend: called with the client of a run before it begins.
  """

  def __init__(self, tmp_path, faults=lambda prompt, attempt: "", service="gemini"):
    self.path = tmp_path / "ledger.jsonl"
    self.service = service
    fake, self.model = SERVICES[service]
    self.server = fake(faults)
    self.stop_after_s = None
    self.mend = lambda client: None

  def __enter__(self):
    self.server.__enter__()
    return self

  def __exit__(self, *details):
    self.server.__exit__(*details)

  def run(
    self,
    wanted,
    max_dollars=None,
    per_job=15,
    state=None,
    tier="batch",
    url="",
    **changes,
  ):
    """Runs once.

    Args:
      wanted: requests.
      max_dollars: the budget.
      per_job: requests in a job, at most.
      state: how jobs end, as the service calls it; "": not at all.
      tier: of the client.
      url: where the service is thought to be, beneath where it is.
      **changes: of the limits.
    """
    with ledger.Ledger(self.path) as book, self._finishing(state):
      return asyncio.run(
        self._ask(wanted, book, max_dollars, per_job, tier, url, changes)
      )

  @contextlib.contextmanager
  def _finishing(self, state):
    over = threading.Event()
    states = () if state is None else (state,)

    def finish():
      while not over.wait(0.05):
        self.server.finish_batches(*states)

    thread = threading.Thread(target=over.wait if state == "" else finish)
    thread.start()
    try:
      yield
    finally:
      over.set()
      thread.join()

  async def _ask(self, wanted, book, max_dollars, per_job, tier, url, changes):
    fields = {"client": self.service, "model": self.model, "tier": tier}
    fields |= {"base_url": self.server.url + url, "timeout_s": 5.0}
    client = clients.make(ClientSettings(**fields), "config.x")
    client.jobs.max_requests_per_job = per_job
    self.mend(client)
    limits = {"max_concurrency": 4, "timeout_s": 5.0, "max_attempts": 3}
    limits |= {"backoff_s": 0.02, "poll_s": 0.03, "max_poll_s": 0.1, "min_job": 4}
    limits |= {"listing_s": 0.1}
    totals = book.totals
    self.budget = scheduler.Budget(max_dollars, totals.spent, totals.unknown_at_most)
    sender = scheduler.Scheduler(
      client,
      book,
      self.budget,
      scheduler.Limits(**limits | changes),
      SINGLE,
      in_jobs=tier == "batch",
      job_price=PRICE,
    )
    if self.stop_after_s is not None:
      asyncio.get_running_loop().call_later(
        self.stop_after_s, sender.stop, Stopped("enough")
      )
    try:
      await sender.ask_all(wanted)
    finally:
      await client.close()
      self.totals = book.totals
    return [sender.result(request) for request in wanted]

  def interrupted(self, wanted, **details):
    """Runs until the jobs are out, and stops before they are done."""
    self.stop_after_s = 0.6
    with pytest.raises(Stopped, match="enough"):
      self.run(wanted, state="", **details)
    self.stop_after_s = None

  def rows(self):
    """Returns the rows of the ledger."""
    return [json.loads(line) for line in self.path.read_bytes().splitlines()]

  def jobs(self):
    """Returns the prompts of every job that the service has."""
    return [
      [self._prompt(row) for row in self._rows_of(job)]
      for job in self.server.batches.values()
    ]

  def singles(self):
    """Returns the prompts that were sent by themselves."""
    return [self._prompt(body) for body in self.server.bodies]

  def sent(self):
    """Returns how often each prompt was sent, in jobs and by itself."""
    prompts = [prompt for job in self.jobs() for prompt in job] + self.singles()
    return {prompt: prompts.count(prompt) for prompt in prompts}

  def _rows_of(self, job):
    if self.service == "openai":
      lines = self.server.files[job["input_file_id"]].splitlines()
      return [json.loads(line)["body"] for line in lines]
    inner = {"gemini": "request", "anthropic": "params"}[self.service]
    return [row[inner] for row in job["rows"]]

  def _prompt(self, body):
    if self.service == "gemini":
      return body["contents"][0]["parts"][0]["text"]
    return body["messages"][-1]["content"]
