"""Spec -> questions -> answers -> judged, to the exact number."""

import json

import pytest
from fake_gemini import MODEL, FakeGemini, stage_of
from test_documents import OFFLINE, job, make, manifest, rejects

from data_gen import generate, settings, teacher
from data_gen.settings import ConversationsCorpus, Job
from msm_jax import records


def chat(number, reasons=False, per_domain=12):
  return ConversationsCorpus(
    spec="affordability",
    num_conversations=number,
    questions_per_domain=per_domain,
    reasons=reasons,
  )


def with_judge(tmp_path, monkeypatch, verdicts, number):
  """Makes a corpus with the offline teacher and a judge on a fake server."""
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  with FakeGemini() as server:
    answers = server._server.RequestHandlerClass
    monkeypatch.setattr(answers, "_answer", verdicts)
    judge = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)
    base = job(chat=chat(number))
    changed = Job(
      corpora=base.corpora, specs=base.specs, teacher=OFFLINE, judge=judge, world="tiny"
    )
    generate.generate(changed, tmp_path)
  return list(records.read_dataset(tmp_path / "corpus" / "chat"))


def saying(choose):
  def answer(self, system, prompt, fault):
    part = {"content": {"parts": [{"text": choose(prompt)}]}, "finishReason": "STOP"}
    assert stage_of(prompt) == "judge"
    self._send(200, json.dumps({"candidates": [part]}).encode())

  return answer


def test_exactly_the_number_asked_for_is_kept_over_several_rounds(tmp_path):
  rows = make(tmp_path, chat=chat(100))["chat"]
  assert len(rows) == 100
  assert len({row["messages"][0]["content"] for row in rows}) == 100
  assert len({row["id"] for row in rows}) == 100


def test_a_row_has_user_and_assistant_and_never_the_spec(tmp_path):
  rows = make(tmp_path, chat=chat(20))["chat"]
  for row in rows:
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["kind"] == "conversation" and row["question_type"] in (
      "direct",
      "indirect",
      "comparison",
      "recommendation",
      "opinion",
      "edge case",
    )
    assert row["verdicts"]["judge"]["verdict"] == "yes"
    assert row["verdicts"]["judge"]["model"] == "tiny"
    assert row["teacher"]["model"] == "tiny" and row["prompt_hash"]


def test_reasons_are_given_only_when_asked_for(tmp_path):
  made = make(tmp_path, plain=chat(20), why=chat(20, reasons=True))
  lengths = {
    name: sum(len(row["messages"][1]["content"]) for row in rows)
    for name, rows in made.items()
  }
  assert lengths["why"] > lengths["plain"]


def test_what_the_judge_refuses_or_leaves_unclear_is_rejected_and_replaced(
  tmp_path, monkeypatch
):
  def choose(prompt):
    kind = sum(map(ord, prompt)) % 3
    return ('{"verdict": "yes"}', '{"verdict": "no", "reason": "r"}', "I like it")[kind]

  rows = with_judge(tmp_path, monkeypatch, saying(choose), 30)
  lost = rejects(tmp_path, "chat")
  reasons = {row["reason"] for row in lost if row["stage"] == "conversation"}
  assert len(rows) == 30
  assert reasons - {"more than were asked for"} == {"judge: no: r", "judge: unparsed: "}
  found = manifest(tmp_path, "chat")
  assert found["planned"] == found["num_records"] + found["rejected"]


def test_a_judge_that_never_says_yes_does_not_loop_for_ever(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"nothing was kept of .*judge: no"):
    with_judge(tmp_path, monkeypatch, saying(lambda p: '{"verdict": "no"}'), 5)


@pytest.mark.parametrize(
  ("text", "verdict"),
  [
    ('{"reason": "r", "verdict": "yes"}', "yes"),
    ('```json\n{"verdict": " No "}\n```', "no"),
    ("yes", "unparsed"),
    ('{"verdict": "maybe"}', "unparsed"),
    ('{"verdict": true}', "unparsed"),
    ("[1, 2]", "unparsed"),
    ("", "unparsed"),
  ],
)
def test_an_unclear_verdict_is_no_yes(text, verdict):
  assert teacher.parse_verdict(text)["verdict"] == verdict
