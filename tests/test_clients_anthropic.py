"""Claude over real HTTP, where the optional package is installed."""

import asyncio
import dataclasses
import json
import re
import subprocess
import sys

import pytest
from fake_anthropic import MODEL, FakeAnthropic

from data_gen import clients, settings
from data_gen.clients import protocol
from data_gen.engine import pricing
from msm_jax.errors import UserError

PARAMS = protocol.Params(temperature=1.0, max_output_tokens=2000)
REQUEST = protocol.Request(
  stage="document", system="the spec", prompt="Write.", fields={}, params=PARAMS
)


def client_settings(url, **changes):
  fields = {"client": "anthropic", "model": MODEL, "base_url": url, "timeout_s": 5.0}
  return settings.ClientSettings(**fields | {"max_output_tokens": 2000} | changes)


def test_without_the_package_the_way_to_it_is_said():
  code = (
    "import sys; sys.modules['anthropic'] = None\n"
    "from data_gen import clients, settings\n"
    "from msm_jax.errors import UserError\n"
    "try:\n"
    "  clients.make(settings.ClientSettings(client='anthropic', model='m'), 'here')\n"
    "except UserError as error:\n"
    "  print(error)\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert "here.client is 'anthropic'" in done.stdout, done.stderr
  assert "pip install 'msm-jax[anthropic]'" in done.stdout


@pytest.fixture
def anthropic(monkeypatch):
  monkeypatch.setenv("ANTHROPIC_API_KEY", "not a real key")
  return pytest.importorskip("anthropic")


def talk(server, conversation, **changes):
  """Runs `conversation(client)` with a client of `server`; returns what it returns."""

  async def run():
    client = clients.make(client_settings(server.url, **changes), "config.teacher")
    try:
      return await conversation(client)
    finally:
      await client.close()

  return asyncio.run(run())


def ask(fault="", request=REQUEST, **changes):
  """Returns (response or error, body that the server got)."""
  with FakeAnthropic(lambda prompt, attempt: fault) as server:

    async def once(client):
      try:
        return await client.generate(request)
      except protocol.ClientError as error:
        return error

    return talk(server, once, **changes), server.bodies[0]


def test_an_answer_comes_without_its_thoughts(anthropic):
  response, body = ask()
  assert response.text.startswith("answer ")
  assert response.finish_reason == protocol.STOP
  assert response.usage == protocol.Usage(
    prompt_tokens=40, response_tokens=43, thought_tokens=7
  )
  assert body["system"] == [{"type": "text", "text": "the spec"}]
  assert set(body) == {"model", "max_tokens", "messages", "system"}


def test_the_system_prompt_is_cached_where_that_is_asked_for(anthropic):
  response, body = ask(cache="explicit")
  assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
  assert response.usage == protocol.Usage(
    prompt_tokens=120,
    cached_tokens=60,
    cache_write_tokens=20,
    response_tokens=43,
    thought_tokens=7,
  )
  price = pricing.price_of(client_settings(None))
  dollars = (40 * 1.0 + 60 * 0.1 + 20 * 1.25 + 50 * 5.0) / 1e6
  assert abs(price.dollars(response.usage) - dollars) < 1e-15


def test_schema_temperature_thinking_and_further_fields_are_passed_on(anthropic):
  params = dataclasses.replace(PARAMS, temperature=0.5, thinking="low")
  schema = {"type": "array", "items": {"type": "string"}}
  request = dataclasses.replace(REQUEST, params=params, schema=schema)
  _, body = ask(request=request, thinking="low", extra_body={"top_k": 3})
  assert body["temperature"] == 0.5 and body["top_k"] == 3
  assert body["thinking"] == {"type": "adaptive"}
  assert body["output_config"]["effort"] == "low"
  assert body["output_config"]["format"]["schema"]["additionalProperties"] is False
  params = dataclasses.replace(PARAMS, thinking="1024")
  _, body = ask(request=dataclasses.replace(REQUEST, params=params), thinking="1024")
  assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
  ("fault", "kind", "says"),
  [
    ("500", protocol.Retryable, "scripted"),
    ("529", protocol.Retryable, "overloaded"),
    ("409", protocol.Retryable, "scripted"),
    ("drop", protocol.Retryable, ""),
    ("half", protocol.Retryable, ""),
    ("not_json", protocol.Retryable, "not valid"),
    ("html", protocol.Retryable, "not a message"),
    ("html_502", protocol.Retryable, "502"),
    ("json_list", protocol.Retryable, "not a message"),
    ("empty", protocol.Retryable, "an empty answer"),
    ("401", protocol.FatalAuth, "key in ANTHROPIC_API_KEY"),
    ("403", protocol.FatalAuth, "scripted"),
    ("no_model", protocol.FatalAuth, f"model='{MODEL}' right"),
    ("no_credit", protocol.FatalAuth, "no credit left"),
    ("thinking", protocol.FatalAuth, r"config\.teacher\.thinking='off'"),
    ("too_long", protocol.FatalRequest, "too long for the model"),
    ("400", protocol.FatalRequest, "scripted"),
    ("refusal", protocol.Blocked, "refusal"),
    ("pause_turn", protocol.Blocked, "pause_turn"),
    ("a_new_reason", protocol.Blocked, "a_new_reason"),
    ("429", protocol.RateLimited, "rate_limit_error"),
    ("spent", protocol.RateLimited, "regain access"),
  ],
)
def test_every_fault_has_its_place_in_the_taxonomy(fault, kind, says, anthropic):
  error, _ = ask(fault)
  assert type(error) is kind, repr(error)
  assert re.search(says, str(error)), str(error)


@pytest.mark.parametrize(
  ("fault", "is_lost"),
  [("drop", True), ("half", True), ("html", True), ("500", False), ("429", False)],
)
def test_an_answer_is_lost_where_nobody_knows_what_was_billed(
  fault, is_lost, anthropic
):
  assert ask(fault)[0].lost == is_lost


def test_how_long_to_wait_is_known(anthropic):
  assert ask("429")[0].retry_after == 2.0
  spent = ask("spent")[0]
  assert spent.quota == "spend" and spent.retry_after > 365 * 24 * 3600
  assert type(ask("hang", timeout_s=0.3)[0]) is protocol.Retryable
  assert ask("max_tokens")[0].finish_reason == protocol.MAX_TOKENS


def test_settings_that_cannot_work_are_refused(anthropic, monkeypatch):
  for changes, says in (
    ({"thinking": "deeply"}, "'off', one of low, medium"),
    ({"thinking": "2000"}, "below max_output_tokens=2000"),
    ({"tier": "flex"}, "'standard', 'batch'"),
    ({"safety": "off"}, "'anthropic' has 'default'"),
  ):
    with pytest.raises(UserError, match=says):
      clients.make(client_settings("http://x", **changes), "config.teacher")
  monkeypatch.delenv("ANTHROPIC_API_KEY")
  with pytest.raises(UserError, match="ANTHROPIC_API_KEY"):
    clients.make(client_settings("http://x"), "config.teacher")


def test_a_job_gives_every_answer_under_its_identity(anthropic):
  requests = [
    (f"id{i}", dataclasses.replace(REQUEST, prompt=f"Write {i}.")) for i in range(4)
  ]
  faults = {"Write 1.": "529", "Write 2.": "refusal", "Write 3.": "expired"}
  with FakeAnthropic(lambda prompt, attempt: faults.get(prompt, "")) as server:

    async def run(client):
      job = await client.jobs.submit("corpus-1", requests)
      waiting = await client.jobs.state(job)
      server.finish_batches()
      done = await client.jobs.state(job)
      found = {key: result async for key, result in client.jobs.results(job)}
      await client.jobs.cancel(job)  # it has ended: no error
      return waiting, done, found

    waiting, done, found = talk(server, run, tier="batch", extra_body={"top_k": 3})
    params = [row["params"] for row in server.batches["msgbatch_0"]["rows"]]
  assert (waiting.status, done.status) == (protocol.WAITING, protocol.DONE)
  assert set(found) == {"id0", "id1", "id2", "id3"}
  assert found["id0"].text.startswith("answer ")
  assert type(found["id1"]) is protocol.Retryable
  assert found["id2"].finish_reason == "refusal"
  assert type(found["id3"]) is protocol.Retryable and not found["id3"].lost
  assert json.dumps(params).count('"top_k": 3') == 4
