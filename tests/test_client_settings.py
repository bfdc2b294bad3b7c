"""What can be known to be wrong before a request is sent, and bodies of odd shapes."""

import pytest

from data_gen import clients, settings
from data_gen.clients import protocol, waits
from data_gen.clients.gemini import answers as gemini_answers
from data_gen.clients.openai import answers as openai_answers
from data_gen.teacher import parse_json
from msm_jax.errors import UserError

SERVICES = ("gemini", "openai", "anthropic")


@pytest.fixture(autouse=True)
def keys(monkeypatch):
  for name in ("GOOGLE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
    monkeypatch.setenv(name, "a-key")


def make(client, **fields):
  made = {"client": client, "model": "a-model"} | fields
  return clients.make(settings.ClientSettings(**made), "config.teacher")


@pytest.mark.parametrize("client", SERVICES)
@pytest.mark.parametrize(
  ("fields", "says"),
  [
    ({"model": ""}, "model is ''"),
    ({"model": "a\nmodel"}, "model is 'a.nmodel'"),
    ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'.*http://"),
    ({"base_url": "http://[::1"}, "base_url"),
    ({"base_url": "http://"}, "base_url"),
    ({"base_url": "http://host:port"}, "base_url"),
  ],
)
def test_a_model_or_server_that_cannot_be_named_is_refused(client, fields, says):
  with pytest.raises(UserError, match=f"config.teacher.{says}"):
    make(client, **fields)


@pytest.mark.parametrize(
  ("client", "variable"),
  [
    ("gemini", "GOOGLE_API_KEY"),
    ("openai", "OPENAI_API_KEY"),
    ("anthropic", "ANTHROPIC_API_KEY"),
  ],
)
def test_a_key_that_was_copied_with_its_quotes_is_named_and_not_shown(
  client, variable, monkeypatch
):
  if client == "anthropic":
    pytest.importorskip("anthropic")
  monkeypatch.setenv(variable, "\u201csecret\u201d")
  with pytest.raises(UserError, match=variable) as caught:
    make(client)
  assert "secret" not in str(caught.value)


@pytest.mark.parametrize("client", ["gemini", "openai"])
def test_flex_wants_patience(client):
  with pytest.raises(UserError, match=r"timeout_s is 60 .*flex.*900"):
    make(client, tier="flex", timeout_s=60.0)


def test_flex_on_vertex_is_global():
  with pytest.raises(UserError, match=r"location is 'us-east1'.*'global'"):
    make("gemini", tier="flex", timeout_s=900.0, project="p", location="us-east1")


@pytest.mark.parametrize("field", ["n", "max_tokens", "max_completion_tokens"])
def test_what_decides_the_bill_is_no_further_field(field):
  with pytest.raises(UserError, match=f"extra_body has '{field}'"):
    make("openai", extra_body={field: 4})


def test_an_explicit_cache_wants_the_price_of_keeping_it():
  with pytest.raises(UserError, match="all five numbers"):
    make("gemini", cache="explicit", prices=(1.0, 0.1, 2.0))


ODD_GEMINI = [
  {"candidates": "x"},
  {"candidates": [None]},
  {"candidates": [{"content": "x", "finishReason": "STOP"}]},
  {"candidates": [{"content": {"parts": ["x"]}, "finishReason": "STOP"}]},
  {"candidates": [{"content": {"parts": [{"text": 5}]}, "finishReason": "STOP"}]},
  {"candidates": [{"finishReason": []}], "usageMetadata": "x"},
  {"usageMetadata": {"promptTokenCount": "many"}},
]
ODD_OPENAI = [
  {"choices": []},
  {"choices": [{"message": None}]},
  {"choices": [{"message": {"content": "x"}, "finish_reason": ["stop"]}]},
  {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
  {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}},
  {"choices": [{"message": {"content": "x"}}], "usage": "x"},
]


@pytest.mark.parametrize("body", ODD_GEMINI)
def test_a_body_of_another_shape_is_a_lost_answer_of_gemini(body):
  with pytest.raises(protocol.Retryable, match="not an answer") as caught:
    gemini_answers.response_of(body, "m")
  assert caught.value.lost


@pytest.mark.parametrize("body", ODD_OPENAI)
def test_a_body_of_another_shape_is_a_lost_answer_of_a_chat_server(body):
  with pytest.raises(protocol.Retryable, match="not an answer") as caught:
    openai_answers.response_of(body, "m")
  assert caught.value.lost


def test_a_body_of_another_shape_is_a_lost_answer_of_claude():
  types = pytest.importorskip("anthropic").types
  from data_gen.clients.anthropic import answers

  body = types.Message.model_construct(content=[None], usage=None, stop_reason="x")
  with pytest.raises(protocol.Retryable, match="not an answer") as caught:
    answers.response_of(body, "m")
  assert caught.value.lost


def test_counts_that_come_as_text_are_counted():
  usage = {"prompt_tokens": "12", "completion_tokens": "3"}
  choice = {"message": {"content": "x"}, "finish_reason": "stop"}
  response = openai_answers.response_of({"choices": [choice], "usage": usage}, "m")
  assert response.usage.prompt_tokens == 12 and response.usage.response_tokens == 3


@pytest.mark.parametrize("reason", ["SAFETY", "STARS_NOT_ALIGNED", "OTHER", None])
def test_what_was_paid_for_an_answer_that_does_not_count_is_kept_with_its_text(reason):
  content = {"parts": [{"text": "half of "}]}
  body = {
    "candidates": [{"content": content, "finishReason": reason}],
    "usageMetadata": {"promptTokenCount": 7},
  }
  with pytest.raises(protocol.ClientError) as caught:
    gemini_answers.response_of(body, "m")
  passing = reason in ("OTHER", None)
  assert type(caught.value) is (protocol.Retryable if passing else protocol.Blocked)
  assert caught.value.text == "half of " and caught.value.usage.prompt_tokens == 7


@pytest.mark.parametrize("text", ["²", "1.", ".", "1e3", "-1", "nan", "", "٣"])
def test_what_is_no_number_asks_for_no_wait(text):
  assert waits.of_duration(text + "s") is None
  assert waits.of_headers({"retry-after": text}) is None


def test_half_a_character_in_parsed_json_is_replaced_wherever_it_stands():
  found = parse_json('[{"a\\ud83d": "b\\udc00", "c": ["\\ud83d", 1, null]}]')
  assert found == [{"a?": "b?", "c": ["?", 1, None]}]
  assert parse_json('["\\ud83d\\ude00"]') == ["\U0001f600"]
