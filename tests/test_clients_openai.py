"""The chat protocol that many servers speak, over real HTTP."""

import asyncio
import dataclasses
import json
import re

import pytest
from fake_openai import MODEL, FakeOpenAI

from data_gen import clients, settings
from data_gen.clients import protocol
from msm_jax.errors import UserError

PARAMS = protocol.Params(temperature=0.7, max_output_tokens=99)
REQUEST = protocol.Request(
  stage="document", system="the spec", prompt="Write.", fields={}, params=PARAMS
)
LISTED = dataclasses.replace(
  REQUEST,
  prompt="Write exactly 2 further messages of this kind",
  schema={"type": "array", "items": {"type": "string"}},
)


def client_settings(url, **changes):
  fields = {"client": "openai", "model": MODEL, "base_url": url, "timeout_s": 5.0}
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
  with FakeOpenAI(lambda prompt, attempt: fault) as server:

    async def once(client):
      try:
        return await client.generate(request)
      except protocol.ClientError as error:
        return error

    return talk(server, once, **changes), server.bodies[0]


def test_an_answer_comes_with_text_usage_and_version():
  response, body = ask()
  assert response.text.startswith("answer ")
  assert response.finish_reason == protocol.STOP
  assert response.usage == protocol.Usage(
    prompt_tokens=100, cached_tokens=60, response_tokens=43, thought_tokens=7
  )
  assert response.model_version == f"{MODEL}-v1"
  roles = [message["role"] for message in body["messages"]]
  assert roles == ["system", "user"]
  assert body["max_tokens"] == 99 and body["temperature"] == 0.7


def test_nothing_is_sent_that_was_not_asked_for():
  _, body = ask()
  wanted = {"model", "messages", "temperature", "max_tokens", "seed"}
  assert set(body) == wanted


def test_samples_of_one_prompt_have_different_seeds():
  again = dataclasses.replace(REQUEST, sample_index=1)
  assert ask()[1]["seed"] != ask(request=again)[1]["seed"]


def test_a_list_is_asked_for_inside_an_object_and_comes_back_as_a_list():
  response, body = ask(request=LISTED)
  schema = body["response_format"]["json_schema"]["schema"]
  assert schema["type"] == "object" and schema["additionalProperties"] is False
  assert len(json.loads(response.text)) == 2


def test_how_json_is_asked_for_is_a_setting():
  _, body = ask(request=LISTED, structured="json_object")
  assert body["response_format"] == {"type": "json_object"}
  _, body = ask(request=LISTED, structured="none")
  assert "response_format" not in body


@pytest.mark.parametrize(
  ("field", "thinking", "sent"),
  [
    ("enable_thinking", "off", {"chat_template_kwargs": {"enable_thinking": False}}),
    ("enable_thinking", "low", {"chat_template_kwargs": {"enable_thinking": True}}),
    ("reasoning_effort", "off", {"reasoning_effort": "none"}),
    ("reasoning_effort", "low", {"reasoning_effort": "low"}),
    ("reasoning", "off", {"reasoning": {"enabled": False}}),
    ("reasoning", "512", {"reasoning": {"max_tokens": 512}}),
  ],
)
def test_how_the_server_is_told_of_thinking_is_a_setting(field, thinking, sent):
  params = dataclasses.replace(PARAMS, thinking=thinking)
  request = dataclasses.replace(REQUEST, params=params)
  _, body = ask(request=request, thinking_field=field, thinking=thinking)
  assert sent.items() <= body.items()


def test_further_fields_are_merged_into_the_request():
  extra = {"top_k": 20, "chat_template_kwargs": {"style": "plain"}}
  _, body = ask(
    extra_body=extra, thinking_field="enable_thinking", token_limit_field="max_tokens"
  )
  assert body["top_k"] == 20
  kwargs = {"enable_thinking": False, "style": "plain"}
  assert body["chat_template_kwargs"] == kwargs
  _, body = ask(token_limit_field="max_completion_tokens", tier="flex", timeout_s=900.0)
  assert body["max_completion_tokens"] == 99 and "max_tokens" not in body
  assert body["service_tier"] == "flex"


@pytest.mark.parametrize(
  ("fault", "kind", "says"),
  [
    ("500", protocol.Retryable, "scripted"),
    ("503", protocol.Retryable, "scripted"),
    ("409", protocol.Retryable, "scripted"),
    ("drop", protocol.Retryable, "RemoteProtocolError"),
    ("half", protocol.Retryable, "RemoteProtocolError"),
    ("not_json", protocol.Retryable, "not a JSON object"),
    ("html", protocol.Retryable, r"text/html.*config\.teacher\.base_url.*right"),
    ("html_502", protocol.Retryable, "502 <html>bad gateway"),
    ("json_list", protocol.Retryable, "not a JSON object"),
    ("no_choices", protocol.Retryable, "not an answer"),
    ("error_in_body", protocol.Retryable, "502 the server behind is gone"),
    ("error", protocol.Retryable, "answer: error"),
    ("empty", protocol.Retryable, "an empty answer"),
    ("401", protocol.FatalAuth, r"config\.teacher\.api_key_env"),
    ("403", protocol.FatalAuth, "scripted"),
    ("404", protocol.FatalAuth, f"model='{MODEL}'.*ends in /v1"),
    ("301", protocol.FatalAuth, "ends in /v1"),
    ("no_model", protocol.FatalAuth, "does not exist"),
    ("no_credit", protocol.FatalAuth, "no credit left"),
    ("402", protocol.FatalAuth, "no credit left"),
    ("no_schema", protocol.FatalAuth, "structured='schema'.*'json_object' or 'none'"),
    ("max_tokens", protocol.FatalAuth, "token_limit_field='max_tokens'"),
    ("extra", protocol.FatalAuth, "extra_body"),
    ("too_long", protocol.FatalRequest, "too long for the model"),
    ("400", protocol.FatalRequest, "scripted"),
    ("detail", protocol.FatalRequest, "the server's own words"),
    ("policy", protocol.Blocked, "refused"),
    ("refusal", protocol.Blocked, "I would rather not"),
    ("content_filter", protocol.Blocked, "content_filter"),
    ("a_new_reason", protocol.Blocked, "a_new_reason"),
    ("per_day", protocol.RateLimited, "daily quota is used up.*comes back at 20"),
    ("per_minute", protocol.RateLimited, "per min"),
    ("429", protocol.RateLimited, "scripted"),
  ],
)
def test_every_fault_has_its_place_in_the_taxonomy(fault, kind, says):
  error, _ = ask(fault)
  assert type(error) is kind, repr(error)
  assert re.search(says, str(error)), str(error)


def test_how_long_to_wait_is_read_from_header_or_text():
  assert ask("429")[0].retry_after == 0.2
  minute, day = ask("per_minute")[0], ask("per_day")[0]
  assert (round(minute.retry_after, 9), minute.quota) == (0.35, "minute")
  assert (day.retry_after, day.quota) == (6 * 3600 + 3 * 60 + 2.5, "day")


def test_a_truncated_answer_and_one_without_usage_are_answers(capsys, monkeypatch):
  monkeypatch.delenv("MSM_JAX_QUIET", raising=False)
  assert ask("length")[0].finish_reason == protocol.MAX_TOKENS
  assert ask("no_usage")[0].usage == protocol.Usage()
  assert "reports no usage" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("fault", "is_lost"),
  [("drop", True), ("half", True), ("not_json", True), ("500", False), ("429", False)],
)
def test_an_answer_is_lost_where_nobody_knows_what_was_billed(fault, is_lost):
  assert ask(fault)[0].lost == is_lost


def test_a_server_that_hangs_or_is_not_there_is_given_up():
  error, _ = ask("hang", timeout_s=0.3)
  assert type(error) is protocol.Retryable
  with FakeOpenAI() as server:
    pass

  async def once(client):
    with pytest.raises(protocol.Retryable, match=f"{server.url}.*Connect") as caught:
      await client.generate(REQUEST)
    assert not caught.value.lost

  talk(server, once)


def test_openai_s_key_is_not_sent_to_another_server(monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "openai's")
  monkeypatch.setenv("MY_KEY", "mine")
  with FakeOpenAI() as server:
    talk(server, lambda client: client.generate(REQUEST))
    talk(server, lambda client: client.generate(REQUEST), api_key_env="MY_KEY")
  sent = [headers.get("authorization") for headers in server.headers]
  assert sent == [None, "Bearer mine"]


def test_settings_that_cannot_work_are_refused(monkeypatch):
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  for changes, says in (
    ({"base_url": None}, "OPENAI_API_KEY, or config.teacher.base_url"),
    ({"api_key_env": "MY_KEY"}, "MY_KEY"),
    ({"base_url": "localhost:8000"}, "starts with http"),
    ({"thinking": "low"}, "thinking_field to one of enable_thinking"),
    ({"structured": "xml"}, "'schema', 'json_object' or 'none'"),
    ({"cache": "explicit"}, "'openai' has 'off'"),
    ({"tier": "priority"}, "'standard', 'flex', 'batch'"),
    ({"project": "p"}, "belongs to 'gemini' on Vertex"),
    ({"extra_body": {"a": {1}}}, "cannot be sent as JSON"),
  ):
    with pytest.raises(UserError, match=says):
      clients.make(client_settings("http://x/v1", **changes), "config.teacher")


# Jobs.


def sought(name):
  return protocol.Sought(name=name, sent="", identities=())


REQUESTS = [
  (f"id{i}", dataclasses.replace(REQUEST, prompt=f"Write {i}.")) for i in range(3)
]


def test_a_job_gives_every_answer_under_its_identity():
  faults = {"Write 1.": "400", "Write 2.": "a_new_reason"}
  requests = [*REQUESTS, ("listed", LISTED)]
  with FakeOpenAI(lambda prompt, attempt: faults.get(prompt, "")) as server:

    async def run(client):
      job = await client.jobs.submit("corpus-1", requests)
      waiting = await client.jobs.state(job)
      server.finish_batches()
      done = await client.jobs.state(job)
      found = {key: result async for key, result in client.jobs.results(job)}
      await client.jobs.cancel(job)  # it has ended: no error
      return waiting, done, found

    waiting, done, found = talk(server, run, tier="batch")
  assert (waiting.status, done.status) == (protocol.WAITING, protocol.DONE)
  assert found["id0"].text.startswith("answer ")
  assert type(found["id1"]) is protocol.FatalRequest
  assert found["id2"].finish_reason == "a_new_reason"
  assert len(json.loads(found["listed"].text)) == 2


def test_a_job_is_found_again_by_its_name_best_one_that_has_not_ended_early():
  with FakeOpenAI() as server:

    async def run(client):
      first = await client.jobs.submit("one", REQUESTS)
      await client.jobs.submit("two", REQUESTS)
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
    assert state.status == protocol.FAILED
    assert (
      talk(server, lambda client: client.jobs.find(sought("x")), tier="batch") is None
    )
