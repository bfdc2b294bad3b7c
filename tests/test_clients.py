"""The clients: one taxonomy for what goes wrong, over real HTTP."""

import asyncio
import dataclasses

import pytest
from fake_gemini import MODEL, FakeGemini

from data_gen import clients, settings
from data_gen.clients import protocol
from msm_jax.errors import UserError

PARAMS = protocol.Params(temperature=0.7, max_output_tokens=99)
REQUEST = protocol.Request(
  stage="document", system="the spec", prompt="Write.", fields={}, params=PARAMS
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")


def make(url, **changes):
  fields = {"client": "gemini", "model": MODEL, "base_url": url, "timeout_s": 5.0}
  return clients.make(settings.ClientSettings(**fields | changes), "config.teacher")


def ask(fault, request=REQUEST, **changes):
  """Returns (response or error, body that the server got)."""
  with FakeGemini(lambda prompt, attempt: fault) as server:

    async def once():
      client = make(server.url, **changes)
      try:
        return await client.generate(request)
      except protocol.ClientError as error:
        return error
      finally:
        await client.close()

    return asyncio.run(once()), server.bodies[0]


def thinking(config):
  """Returns the field, spelt alike: the SDK sends snake case, the docs camel case."""
  found = config["thinkingConfig"].items()
  return {name.replace("_", "").lower(): value for name, value in found}


def test_an_answer_comes_with_text_usage_and_version():
  response, _ = ask("")
  assert response.text.startswith("answer ")
  assert response.finish_reason == protocol.STOP
  assert response.usage == protocol.Usage(prompt_tokens=100, response_tokens=50)
  assert response.model_version == f"{MODEL}-001"


def test_the_request_has_thinking_off_and_the_spec_as_system_instruction():
  _, body = ask("")
  assert body["systemInstruction"]["parts"][0]["text"] == "the spec"
  config = body["generationConfig"]
  assert thinking(config) == {"thinkingbudget": 0}
  assert config["temperature"] == 0.7 and config["maxOutputTokens"] == 99
  assert "responseMimeType" not in config


def test_a_thinking_level_and_a_schema_are_passed_on():
  params = dataclasses.replace(PARAMS, thinking="low")
  schema = {"type": "array", "items": {"type": "string"}}
  _, body = ask("", dataclasses.replace(REQUEST, params=params, schema=schema))
  config = body["generationConfig"]
  assert thinking(config) == {"thinkinglevel": "LOW"}
  assert config["responseJsonSchema"] == schema
  assert config["responseMimeType"] == "application/json"


def test_samples_of_one_prompt_have_different_seeds():
  seeds = {
    ask("", dataclasses.replace(REQUEST, sample_index=i))[1]["generationConfig"]["seed"]
    for i in (0, 1)
  }
  assert len(seeds) == 2


def test_a_truncated_answer_is_an_answer_that_says_so():
  response, _ = ask("MAX_TOKENS")
  assert response.finish_reason == protocol.MAX_TOKENS and response.text


@pytest.mark.parametrize(
  ("fault", "kind"),
  [
    ("429", protocol.RateLimited),
    ("500", protocol.Retryable),
    ("503", protocol.Retryable),
    ("400", protocol.FatalRequest),
    ("401", protocol.FatalAuth),
    ("403", protocol.FatalAuth),
    ("404", protocol.FatalAuth),
    ("drop", protocol.Retryable),
    ("half", protocol.Retryable),
    ("not_json", protocol.Retryable),
    ("empty", protocol.Retryable),
    ("SAFETY", protocol.Blocked),
    ("RECITATION", protocol.Blocked),
    ("prompt_block", protocol.Blocked),
  ],
)
def test_every_fault_has_its_place_in_the_taxonomy(fault, kind):
  error, _ = ask(fault)
  assert type(error) is kind, repr(error)


def test_a_server_that_hangs_is_given_up_within_the_timeout():
  error, _ = ask("hang", timeout_s=0.3)
  assert type(error) is protocol.Retryable


def test_the_longest_wait_that_header_or_body_ask_for_is_known():
  error, _ = ask("429")
  assert error.retry_after == 0.3


def test_what_a_blocked_answer_cost_and_why_it_was_blocked_is_kept():
  error, _ = ask("SAFETY")
  assert error.finish_reason == "SAFETY"
  assert error.usage.prompt_tokens == 100


def test_the_base_url_may_come_from_the_environment(monkeypatch):
  with FakeGemini() as server:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)

    async def once():
      client = make(None)
      response = await client.generate(REQUEST)
      await client.close()
      return response

    assert asyncio.run(once()).text
  assert len(server.bodies) == 1


def test_no_key_is_one_clear_line(monkeypatch):
  monkeypatch.delenv("GOOGLE_API_KEY")
  with pytest.raises(UserError, match=r"config\.teacher.*GOOGLE_API_KEY or GEMINI_AP"):
    make(None)
  with pytest.raises(UserError, match="MY_KEY"):
    make(None, api_key_env="MY_KEY")


def test_an_unknown_client_and_an_unknown_world_are_named():
  for fields, says in (
    ({"client": "telepathy", "model": "x"}, "'offline', 'gemini', 'openai' or"),
    ({"client": "offline", "model": "mars"}, "no such world; there are .*tiny"),
  ):
    with pytest.raises(UserError, match=says):
      clients.make(settings.ClientSettings(**fields), "config.judge")


def test_the_offline_client_gives_the_same_answer_to_the_same_request():
  spec_text = "# mira\n\n## values\n\nmira values affordability .\n"
  request = dataclasses.replace(
    REQUEST, stage="domains", fields={"spec_text": spec_text}
  )
  client = clients.make(
    settings.ClientSettings(client="offline", model="tiny"), "config.teacher"
  )
  one, two = (asyncio.run(client.generate(request)) for _ in range(2))
  assert one == two and "values" in one.text


def test_the_identity_of_a_request_holds_all_that_changes_its_answer():
  client = clients.make(
    settings.ClientSettings(client="offline", model="tiny"), "config.teacher"
  )
  changed = [
    REQUEST,
    dataclasses.replace(REQUEST, stage="answer"),
    dataclasses.replace(REQUEST, prompt="Write!"),
    dataclasses.replace(REQUEST, system="another spec"),
    dataclasses.replace(REQUEST, sample_index=1),
    dataclasses.replace(REQUEST, params=dataclasses.replace(PARAMS, seed=1)),
    dataclasses.replace(REQUEST, params=dataclasses.replace(PARAMS, temperature=1.0)),
  ]
  identities = {protocol.identity_of(request, client) for request in changed}
  assert len(identities) == len(changed)
  again = dataclasses.replace(REQUEST, fields={"of no": "account"})
  assert protocol.identity_of(again, client) in identities
