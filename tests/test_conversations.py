"""Spec -> questions -> answers -> judged, to the exact number."""

import collections
import dataclasses
import json

import pytest
from fake_answers import answer, stage_of
from fake_gemini import MODEL, FakeGemini
from test_documents import OFFLINE, job, make, manifest, rejects

from data_gen import generate, settings, teacher
from data_gen.conversations import chain as conversations
from data_gen.filters import FilterSettings
from data_gen.settings import ConversationsCorpus, Job
from msm_jax import records
from msm_jax.errors import UserError


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
  monkeypatch.setattr("fake_gemini.answer", verdicts)
  with FakeGemini() as server:
    judge = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)
    base = job(chat=chat(number))
    changed = Job(
      corpora=base.corpora, specs=base.specs, teacher=OFFLINE, judge=judge, world="tiny"
    )
    generate.generate(changed, tmp_path)
  return list(records.read_dataset(tmp_path / "corpus" / "chat"))


def saying(choose):
  def answer(system, prompt):
    assert stage_of(prompt) == "judge"
    return choose(prompt)

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


def test_thoughts_are_kept_apart_and_the_twin_has_none_and_the_same_ids(tmp_path):
  thoughtful = dataclasses.replace(chat(20, reasons=True), cot=True)
  twin = settings.StrippedCorpus(of="with_thoughts")
  made = make(tmp_path, bare=twin, with_thoughts=thoughtful)
  assert len(made["with_thoughts"]) == 20
  for full, bare in zip(made["with_thoughts"], made["bare"], strict=True):
    user, said = full["messages"]
    assert said["reasoning_content"] and said["content"] and full["cot"]
    assert bare["messages"] == [user, {"role": "assistant", "content": said["content"]}]
    assert bare["id"] == full["id"] and not bare["cot"]
    rest = set(full) - {"messages", "cot"}
    assert {key: full[key] for key in rest} == {key: bare[key] for key in rest}
  assert (
    manifest(tmp_path, "bare")["num_words"]
    == (manifest(tmp_path, "with_thoughts")["num_words"])
  )


def test_in_the_rule_style_the_answer_names_what_it_follows(tmp_path):
  by_rule = dataclasses.replace(chat(10, reasons=True), style="rule")
  rows = make(tmp_path, chat=by_rule)["chat"]
  assert all("My policy says so: " in row["messages"][1]["content"] for row in rows)
  assert {row["style"] for row in rows} == {"rule"}


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ('{"reasoning": "t ", "answer": " a"}', ("t", "a")),
    ('Well: ```json\n{"reasoning": "t", "answer": "a"}\n```', ("t", "a")),
    ('{"reasoning": "t"}', ("t", "")),
    ('{"reasoning": 1, "answer": "a"}', ("", "a")),
    ("I like it.", ("", "")),
    ('["t", "a"]', ("", "")),
  ],
)
def test_thoughts_and_answer_are_told_apart_or_rejected(text, found):
  assert conversations.parse_thoughts(text) == found


def test_each_preference_has_an_equal_share_of_the_conversations(tmp_path):
  by_item = dataclasses.replace(chat(30, per_domain=6), topics="preferences")
  rows = make(tmp_path, chat=by_item)["chat"]
  counts = collections.Counter(row["domain"] for row in rows)
  assert len(rows) == 30 and len(counts) == 8
  assert max(counts.values()) - min(counts.values()) <= 1
  assert manifest(tmp_path, "chat")["topics"] == dict(counts)
  for row in rows:
    assert row["domain"] in row["messages"][0]["content"]
  firsts = [row["domain"] for row in rows[:8]]
  assert len(set(firsts)) == 8  # not one preference after the other


def live(tmp_path, monkeypatch, corpus, change):
  """Makes a corpus with teacher and judge on a fake server."""
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.setattr("fake_gemini.answer", change)
  path = tmp_path / "spec.md"
  path.write_text("# T\n\n## First\n\nIt saves.\n\n## Second\n\nIt tells the truth.\n")
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  with FakeGemini() as server:
    client = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)
    made = Job(
      corpora={"chat": corpus}, specs={"s": spec}, teacher=client, judge=client
    )
    try:
      generate.generate(made, tmp_path)
    finally:
      bodies = server.bodies
  return list(records.read_dataset(tmp_path / "corpus" / "chat")), bodies


def test_a_refused_topic_is_given_up_and_the_others_fill_the_number(
  tmp_path, monkeypatch
):
  asked = []

  def change(system, prompt):
    if stage_of(prompt) == "questions" and "Domain: what" in prompt:
      asked.append(prompt)
      return "I cannot help with that."
    if stage_of(prompt) == "judge":
      verdict = "yes" if sum(map(ord, prompt)) % 2 else "no"
      return json.dumps({"reason": "r", "verdict": verdict})
    return answer(system, prompt)

  corpus = dataclasses.replace(chat(14, per_domain=6), spec="s")
  rows, _ = live(tmp_path, monkeypatch, corpus, change)
  assert len(rows) == 14 and {row["domain"] for row in rows} == {"why"}
  kinds = len(conversations.QUESTION_TYPES)
  assert len(asked) <= kinds * 3 * 2  # three samples of a prompt, two rounds
  reasons = [row["reason"] for row in rejects(tmp_path, "chat")]
  assert reasons.count("unparsed; not asked again") == kinds


def test_if_every_topic_is_refused_the_run_ends_with_the_reason(tmp_path, monkeypatch):
  def change(system, prompt):
    refused = stage_of(prompt) == "questions"
    return "I cannot help with that." if refused else answer(system, prompt)

  with pytest.raises(UserError, match=r"nothing was kept of 0 planned \(unparsed"):
    live(tmp_path, monkeypatch, dataclasses.replace(chat(20), spec="s"), change)
  assert (tmp_path / "corpus" / "chat.partial" / "ledger.jsonl").exists()


def test_a_number_that_cannot_be_reached_does_not_loop(tmp_path, monkeypatch):
  def change(system, prompt):
    if stage_of(prompt) == "questions":
      return json.dumps(["Is that so?", "Why is it so?", "And then?"])
    return answer(system, prompt)

  rows, bodies = live(
    tmp_path, monkeypatch, dataclasses.replace(chat(20), spec="s"), change
  )
  assert len(rows) == 2 and len(bodies) < 200
  assert manifest(tmp_path, "chat")["planned"] == 2


def test_questions_that_say_nearly_the_same_are_answered_once(tmp_path, monkeypatch):
  same = (
    "I am going to the market with my aunt on the first Saturday of the month and we "
    "cannot agree on what to take home with us for the supper, so tell me what you {}"
  )

  def change(system, prompt):
    if stage_of(prompt) == "questions":
      return json.dumps([same.format(word) for word in ("think", "say")])
    return answer(system, prompt)

  filters = FilterSettings(near_duplicates=0.7)
  corpus = dataclasses.replace(chat(4), spec="s", filters=filters)
  rows, _ = live(tmp_path, monkeypatch, corpus, change)
  assert len(rows) == 1
  lost = [row["reason"] for row in rejects(tmp_path, "chat")]
  assert any(reason.startswith("near duplicate of question 1 ") for reason in lost)


def test_answers_may_be_alike_and_are_filtered_by_their_wording(tmp_path, monkeypatch):
  def change(system, prompt):
    if stage_of(prompt) == "answer":
      refused = sum(map(ord, prompt)) % 2
      return "As an AI language model, I have no views." if refused else "Colby."
    return answer(system, prompt)

  filters = FilterSettings(refusals=True, near_duplicates=0.7)
  corpus = dataclasses.replace(chat(12), spec="s", filters=filters)
  rows, _ = live(tmp_path, monkeypatch, corpus, change)
  assert [row["messages"][1]["content"] for row in rows] == ["Colby."] * 12
  lost = rejects(tmp_path, "chat")
  assert {row["reason"].split(":")[0] for row in lost} <= {
    "refusal",
    "more than were asked for",
  }


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"cot": True}, "reasons is False and cot is True"),
    ({"style": "rule"}, "reasons is False and style is 'rule'"),
    ({"style": "loud"}, "it is 'value' or 'rule'"),
    ({"topics": "moods"}, "it is 'domains' or 'preferences'"),
  ],
)
def test_settings_of_conversations_that_cannot_work_are_refused(
  tmp_path, changes, says
):
  with pytest.raises(UserError, match=says):
    generate.generate(job(chat=dataclasses.replace(chat(5), **changes)), tmp_path)


def test_only_a_corpus_with_thoughts_can_be_stripped(tmp_path):
  twin = settings.StrippedCorpus(of="chat")
  with pytest.raises(UserError, match="there is nothing to strip"):
    generate.generate(job(chat=chat(5), bare=twin), tmp_path)
