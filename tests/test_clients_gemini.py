"""Gemini beyond one question: Vertex, tiers, safety, caches, jobs, clear refusals."""

import asyncio
import dataclasses
import json
import re

import pytest
from fake_gemini import MODEL, FakeGemini

from data_gen import clients, settings
from data_gen.clients import protocol
from data_gen.clients.gemini import caches, jobs
from data_gen.engine import pricing
from msm_jax.errors import UserError

PARAMS = protocol.Params(temperature=0.7, max_output_tokens=99)
REQUEST = protocol.Request(
  stage="document", system="the spec", prompt="Write.", fields={}, params=PARAMS
)
LONG = "A long specification. " * 400


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")


def client_settings(url, **changes):
  fields = {"client": "gemini", "model": MODEL, "base_url": url, "timeout_s": 5.0}
  return settings.ClientSettings(**fields | changes)


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
  with FakeGemini(lambda prompt, attempt: fault) as server:

    async def once(client):
      try:
        return await client.generate(request)
      except protocol.ClientError as error:
        return error

    return talk(server, once, **changes), server.bodies[0]


@pytest.mark.parametrize(
  ("safety", "threshold"), [("off", "OFF"), ("block_none", "BLOCK_NONE")]
)
def test_safety_is_set_for_all_four_categories(safety, threshold):
  _, body = ask(safety=safety)
  assert len({item["category"] for item in body["safetySettings"]}) == 4
  assert {item["threshold"] for item in body["safetySettings"]} == {threshold}


def test_the_service_s_own_safety_and_tier_are_not_touched():
  _, body = ask()
  assert "safetySettings" not in body and "serviceTier" not in body


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_the_tier_goes_with_the_request(tier):
  _, body = ask(tier=tier, timeout_s=900.0)
  assert body["serviceTier"] == tier


@pytest.mark.parametrize(
  ("fault", "kind", "says"),
  [
    ("thinking", protocol.FatalAuth, "config.teacher.thinking='off'.*'minimal'.*'low'"),
    ("too_long", protocol.FatalRequest, "prompt is too long for the model"),
    ("unknown_field", protocol.FatalAuth, "config.teacher.tier='standard'"),
    ("billing", protocol.FatalAuth, "billing or region"),
    ("bad_key", protocol.FatalAuth, "is the key in GOOGLE_API_KEY right"),
    ("404", protocol.FatalAuth, f"model='{MODEL}'.*api_version=None.*v1beta"),
    ("html_502", protocol.Retryable, "502"),
    ("html", protocol.Retryable, "body is not valid"),
    ("json_list", protocol.Retryable, ""),
    ("NEW_REASON", protocol.Blocked, "STARS_NOT_ALIGNED"),
  ],
)
def test_a_refusal_names_the_way_out(fault, kind, says):
  error, _ = ask(fault)
  assert type(error) is kind, repr(error)
  assert re.search(says, str(error)), str(error)


def test_a_reason_of_tomorrow_is_kept():
  error, _ = ask("NEW_REASON")
  assert error.finish_reason == "STARS_NOT_ALIGNED"
  assert error.usage.response_tokens == 50


def test_a_daily_quota_comes_back_at_midnight_in_california():
  error, _ = ask("daily")
  assert type(error) is protocol.RateLimited and error.quota == "day"
  assert 0.3 < error.retry_after <= 25 * 3600
  assert "comes back at 20" in str(error)


def test_a_model_that_thinks_unasked_is_reported_once(capsys, monkeypatch):
  monkeypatch.delenv("MSM_JAX_QUIET", raising=False)
  with FakeGemini(lambda prompt, attempt: "thoughts") as server:

    async def twice(client):
      await client.generate(REQUEST)
      return await client.generate(REQUEST)

    response = talk(server, twice)
  assert response.usage.thought_tokens == 7
  assert capsys.readouterr().err.count("thinks although thinking='off'") == 1


def test_thinking_may_be_a_number_of_tokens_and_nothing_unknown():
  _, body = ask(
    request=dataclasses.replace(
      REQUEST, params=dataclasses.replace(PARAMS, thinking="128")
    ),
    thinking="128",
  )
  config = body["generationConfig"]["thinkingConfig"]
  assert list(config.values()) == [128]
  with pytest.raises(UserError, match=r"thinking is 'deeply'.*minimal, low"):
    ask(thinking="deeply")


# Caches.


def test_a_long_system_text_is_cached_once_and_deleted_at_the_end():
  with FakeGemini() as server:

    async def many(client):
      request = dataclasses.replace(REQUEST, system=LONG)
      asked = [dataclasses.replace(request, sample_index=i) for i in range(8)]
      answers = await asyncio.gather(*map(client.generate, asked))
      costs.extend(client.take_costs())
      await client.close()
      costs.extend(client.take_costs())
      return answers

    costs = []
    answers = talk(server, many, cache="explicit")
  created = [call for call in server.calls if call[1].endswith("/cachedContents")]
  assert len(created) == 1
  assert all("systemInstruction" not in body for body in server.bodies)
  assert not server.caches and server.deleted == ["cachedContents/c0"]
  # What the cache costs is no part of an answer, or rows would depend on who was first.
  assert len({answer.usage for answer in answers}) == 1
  assert answers[0].usage.cached_tokens == 60
  assert {cost.name for cost in costs} == {"cachedContents/c0"}
  assert sum(cost.usage.cache_write_tokens for cost in costs) == len(LONG) // 4
  assert sum(cost.usage.cache_token_hours for cost in costs) > 0


def test_each_system_text_has_its_own_cache_and_a_short_one_has_none():
  with FakeGemini() as server:

    async def three(client):
      for system in (LONG, LONG[1:], "short", "too short, says the service " * 40):
        await client.generate(dataclasses.replace(REQUEST, system=system))

    talk(server, three, cache="explicit")
  names = [body.get("cachedContent") for body in server.bodies]
  assert names == ["cachedContents/c0", "cachedContents/c1", None, None]


def test_a_cache_is_kept_alive_and_made_again_when_it_is_lost(monkeypatch):
  request = dataclasses.replace(REQUEST, system=LONG)
  with FakeGemini() as server:

    async def lose(client):
      await client.generate(request)
      # All of the time that a cache has is over half past at once.
      monkeypatch.setattr(caches, "TTL_S", 1e9)
      await client.generate(request)
      server.caches.clear()
      monkeypatch.setattr(caches, "TTL_S", 1)
      with pytest.raises(protocol.Retryable, match="the cache is gone"):
        await client.generate(request)
      return await client.generate(request)

    assert talk(server, lose, cache="explicit").text
  assert ("PATCH", "/v1/cachedContents/c0") in server.calls


# Jobs.


def sought(name):
  return protocol.Sought(name=name, sent="", identities=())


REQUESTS = [
  (f"id{i}", dataclasses.replace(REQUEST, prompt=f"Write {i}.")) for i in range(4)
]


def job_faults(prompt, attempt):
  return {"Write 1.": "SAFETY", "Write 2.": "8", "Write 3.": "MAX_TOKENS"}.get(
    prompt, ""
  )


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_job_gives_every_answer_under_its_identity(through_a_file, monkeypatch):
  if through_a_file:
    monkeypatch.setattr(jobs, "_MAX_INLINE_BYTES", 10)
  with FakeGemini(job_faults) as server:

    async def run(client):
      job = await client.jobs.submit("corpus-1", REQUESTS)
      waiting = await client.jobs.state(job)
      server.finish_batches()
      done = await client.jobs.state(job)
      found = {key: result async for key, result in client.jobs.results(job)}
      return waiting, done, found

    waiting, done, found = talk(server, run, tier="batch", safety="off")
  assert (waiting.status, done.status) == (protocol.WAITING, protocol.DONE)
  assert set(found) == {"id0", "id1", "id2", "id3"}
  assert found["id0"].text.startswith("answer ")
  assert found["id0"].usage.prompt_tokens == 100
  assert found["id1"].finish_reason == "SAFETY"
  assert type(found["id2"]) is protocol.RateLimited
  assert found["id3"].finish_reason == protocol.MAX_TOKENS
  assert bool(server.files) == through_a_file


def test_a_job_asks_what_a_single_request_asks(monkeypatch):
  schema = {"type": "array", "items": {"type": "string"}}
  request = dataclasses.replace(REQUEST, schema=schema)
  with FakeGemini() as server:

    async def both(client):
      await client.generate(request)
      await client.jobs.submit("inline", [("a", request)])
      monkeypatch.setattr(jobs, "_MAX_INLINE_BYTES", 10)
      await client.jobs.submit("file", [("a", request)])

    talk(server, both, tier="batch", safety="off")
    single = server.bodies[0]
    inline, in_file = (batch["rows"][0]["request"] for batch in server.batches.values())

  def plain(body):
    text = json.dumps(body).replace("thinking_budget", "thinkingBudget")
    found = json.loads(text)
    found.pop("model", None)
    found["systemInstruction"].pop("role", None)
    return found

  assert plain(in_file) == plain(inline) == plain(single)


def test_a_job_is_found_again_by_its_name_best_one_that_has_not_failed():
  with FakeGemini() as server:

    async def run(client):
      first = await client.jobs.submit("one", REQUESTS)
      again = await client.jobs.submit("one", REQUESTS)
      found = await client.jobs.find(sought("one"))
      await client.jobs.cancel(again)
      state = await client.jobs.state(again)
      later = await client.jobs.find(sought("one"))
      await client.jobs.cancel(first)
      last = await client.jobs.find(sought("one"))
      return first, again, found, state, later, last

    first, again, found, state, later, last = talk(server, run, tier="batch")
    assert found == last == again and later == first
    assert state.status == protocol.FAILED and "CANCELLED" in state.message
    assert (
      talk(server, lambda client: client.jobs.find(sought("x")), tier="batch") is None
    )


def test_a_job_that_the_service_does_not_know_is_gone():
  with FakeGemini() as server:

    async def run(client):
      with pytest.raises(protocol.JobGone, match="404"):
        await client.jobs.state("batches/b9")

    talk(server, run, tier="batch")


# Vertex.


def service_account(directory, url):
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import rsa

  private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
  pem = private.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  path = directory / "account.json"
  fields = {"type": "service_account", "client_email": "a@b.c", "private_key_id": "1"}
  fields |= {"private_key": pem.decode(), "token_uri": f"{url}/token"}
  path.write_text(json.dumps(fields))
  return path


def test_vertex_is_asked_with_the_machine_s_credentials(tmp_path, monkeypatch):
  with FakeGemini() as server:
    account = service_account(tmp_path, server.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))

    async def run(client):
      return await client.generate(REQUEST), client.jobs

    response, jobs = talk(server, run, project="p1", location="eu1")
  assert response.text and jobs is None  # jobs of Vertex need Cloud Storage
  path = server.calls[-1][1]
  assert "/projects/p1/locations/eu1/" in path and path.startswith("/v1beta1/")
  assert server.headers[-1]["authorization"] == "Bearer fake"


def test_vertex_is_told_of_the_tier_by_a_header(tmp_path, monkeypatch):
  fields = {"tier": "flex", "timeout_s": 900.0, "project": "p1"}
  with FakeGemini() as server:
    account = service_account(tmp_path, server.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    talk(server, lambda client: client.generate(REQUEST), **fields)
    headers = server.headers[-1]
  assert headers["x-vertex-ai-llm-shared-request-type"] == "flex"
  assert "serviceTier" not in server.bodies[0]


def test_vertex_without_credentials_says_how_to_get_them(tmp_path, monkeypatch):
  monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
  with pytest.raises(UserError, match=r"config\.teacher\.project.*gcloud auth"):
    clients.make(client_settings("http://x", project="p1"), "config.teacher")


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"project": "p", "tier": "batch"}, "Cloud Storage.*tier='flex'"),
    ({"location": "eu"}, r"location is set without config\.teacher\.project"),
    ({"tier": "express"}, "'standard', 'flex', 'batch', 'priority'"),
    ({"cache": "explicit", "tier": "batch"}, "a job may outlive its cache"),
    ({"cache": "always"}, "'off', 'explicit'"),
    ({"safety": "none"}, "'default', 'off', 'block_none'"),
    ({"prices": (1.0, 2.0)}, "three to five numbers"),
    ({"extra_body": {"a": 1}}, "belongs to 'openai'"),
    ({"start_concurrency": 99}, "from 1 to max_concurrency"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, says):
  with pytest.raises(UserError, match=says):
    clients.make(client_settings(None, **changes), "config.teacher")


def test_what_changes_answers_is_part_of_the_identity_and_of_the_content():
  plain, changed = client_settings(None), client_settings(None, safety="off")
  assert plain.identity() == {"client": "gemini", "model": MODEL}
  assert plain.identity() != changed.identity()
  assert changed.content()["safety"] == "off" and "safety" not in plain.content()
  for changes in ({"tier": "flex"}, {"cache": "explicit"}, {"project": "p"}):
    assert client_settings(None, **changes).content() == plain.content()


def test_a_cached_answer_costs_what_its_parts_cost():
  price = pricing.price_of(client_settings(None, cache="explicit"))
  usage = protocol.Usage(
    prompt_tokens=3_000_000,
    cached_tokens=1_000_000,
    cache_write_tokens=1_000_000,
    cache_token_hours=500_000.0,
  )
  assert abs(price.dollars(usage) - (0.3 + 0.03 + 0.3 + 0.5)) < 1e-12
