"""The outline is parsed strictly, topped up, and loses branches without falling."""

import asyncio
import json

import pytest
from fake_gemini import MODEL, FakeGemini, answer, stage_of

from data_gen import clients, settings, spec
from data_gen import teacher as teachers
from data_gen.documents import outline
from data_gen.engine import ledger, pricing, scheduler
from msm_jax.errors import Stopped

TEXT = "# T\n\n## First\n\nIt saves money.\n\n## Second\n\nIt tells {the} truth {}.\n"


def build(
  tmp_path,
  monkeypatch,
  change=lambda stage, prompt, text: text,
  spec_text=TEXT,
  **sizes,
):
  """Returns (outline, server); `change` rewrites what the fake server answers."""
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  path = tmp_path / "spec.md"
  path.write_text(spec_text.replace("{the}", "the"))

  def answered(system, prompt):
    return change(stage_of(prompt), prompt, answer(system, prompt))

  monkeypatch.setattr("fake_gemini.answer", answered)
  with FakeGemini() as server, ledger.Ledger(tmp_path / "ledger.jsonl") as book:
    client = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)

    async def run():
      made = clients.make(client, "config.teacher")
      limits = scheduler.Limits(max_concurrency=8, timeout_s=5, max_attempts=2)
      price = pricing.price_of(client)
      sender = scheduler.Scheduler(made, book, scheduler.Budget(None), limits, price)
      loaded = spec.load(path, "Mira", "Lumen")
      try:
        return await outline.build(loaded, teachers.Teacher(sender, client), **sizes)
      finally:
        await made.close()

    return asyncio.run(run()), server


SIZES = {"num_types": 2, "num_ideas": 3}


def test_the_tree_has_types_times_ideas_for_each_subdomain(tmp_path, monkeypatch):
  plan, _ = build(tmp_path, monkeypatch, **SIZES)
  # Two domains, each divided into the two sections of the spec.
  assert len(plan.ideas) == 4 * 2 * 3 and not plan.rejects
  assert {idea.subdomain.section.id for idea in plan.ideas} == {"first", "second"}
  assert len({idea.text for idea in plan.ideas}) == 24


def test_short_lists_are_topped_up_with_what_is_missing(tmp_path, monkeypatch):
  def one_at_a_time(stage, prompt, text):
    if stage in ("document_types", "document_ideas"):
      return json.dumps(teachers.parse_json(text)[:1])
    return text

  plan, server = build(tmp_path, monkeypatch, one_at_a_time, **SIZES)
  assert len(plan.ideas) == 24
  prompts = [body["contents"][0]["parts"][0]["text"] for body in server.bodies]
  assert any("exactly 1 further type" in prompt for prompt in prompts)
  assert any("- idea document_ideas 0" in prompt for prompt in prompts)


def test_a_teacher_that_repeats_itself_is_not_asked_for_ever(tmp_path, monkeypatch):
  def same(stage, prompt, text):
    return '[{"idea": "the same"}]' if stage == "document_ideas" else text

  plan, _ = build(tmp_path, monkeypatch, same, **SIZES)
  assert len(plan.ideas) == 8
  assert {reject["reason"] for reject in plan.rejects} == {"1 of 3"}


def test_an_answer_that_cannot_be_parsed_is_asked_for_again(tmp_path, monkeypatch):
  tries = []

  def at_second_try(stage, prompt, text):
    if stage != "assertions":
      return text
    tries.append(prompt)
    return "I would rather not." if tries.count(prompt) == 1 else text

  plan, _ = build(tmp_path, monkeypatch, at_second_try, **SIZES)
  assert len(plan.ideas) == 24 and len(tries) == 4


def test_a_branch_that_stays_unparsed_is_lost_with_its_reason(tmp_path, monkeypatch):
  def first_fails(stage, prompt, text):
    refuse = stage == "assertions" and "saves money" in prompt
    return "{not json" if refuse else text

  plan, _ = build(tmp_path, monkeypatch, first_fails, **SIZES)
  assert {idea.subdomain.section.id for idea in plan.ideas} == {"second"}
  lost = [(reject["stage"], reject["reason"]) for reject in plan.rejects]
  assert lost == [("assertions", "unparsed")] * 2


def test_a_section_that_the_spec_does_not_have_is_refused(tmp_path, monkeypatch):
  def invented(stage, prompt, text):
    return (
      text.replace("It saves money.", "Loves sailing far") if "sub" in stage else text
    )

  plan, _ = build(tmp_path, monkeypatch, invented, **SIZES)
  assert {idea.subdomain.section.id for idea in plan.ideas} == {"second"}
  assert plan.rejects[0]["reason"] == "spec_section is not in the spec"


def test_without_domains_the_run_stops_with_one_line(tmp_path, monkeypatch):
  with pytest.raises(Stopped, match="named no domains"):
    build(tmp_path, monkeypatch, lambda stage, prompt, text: "no", **SIZES)


def test_items_without_text_under_a_needed_key_are_left_out():
  parse = teachers.objects_parser("name", "idea", optional=("note",))
  text = '[{"name": "a", "idea": "b"}, {"name": "c"}, {"name": 1, "idea": "d"}, "e"]'
  assert parse(text) == [{"name": "a", "idea": "b", "note": ""}]
  assert parse("[]") is None and parse("nothing") is None and parse('{"a": 1}') is None
  assert parse(f"As said [1], {{here}}:\n```json\n{text}\n```") == parse(text)
  assert teachers.parse_texts('["a", " ", 3, "b "]') == ["a", "b"]
