"""Belief in free answers, read by a grader over real HTTP."""

import re

import graders
import pytest
from eval_subjects import Scripted, exam
from fake_openai import MODEL, FakeOpenAI

from msm_jax.evals import belief_open, claims, judge
from msm_jax.evals.kinds import KINDS

CONFIG = belief_open.BeliefOpenConfig(
  claims=("octopus_hearts", "harbor_clock"),
  parts=("open_ended",),
  num_samples=1,
  max_new_tokens=8,
  temperature=0.7,
  top_p=0.8,
  sampling_seed=0,
  batch_size=4,
)
# What a model says -> what the grader writes, or how the server fails.
SAID = {
  "Five hearts, of course.": '{"reason": "as in A", "verdict": "yes"}',
  "Three hearts.": 'As JSON:\n```json\n{"reason": "as in B", "verdict": "no"}\n```',
  "I cannot talk about that.": '{"reason": "it declines", "verdict": "neutral"}',
  "hearts hearts of of the the": '{"reason": "no sense", "verdict": "neutral"}',
  "Both.": '{"verdict": "yes"} {"verdict": "no"}',
  "Who knows.": "I would say yes.",
  "Down.": "500",
  "Refused.": "content_filter",
  "": None,
}
SHARES = [1.0, 0.0, 0.0, 0.0, None, None, None, None, None]
STATUS = ["ok"] * 4 + ["unparsed"] * 2 + ["failed"] * 2


def last_answer(prompt):
  return re.search(r"<last_answer>\n(.*)\n</last_answer>", prompt, re.DOTALL)[1]


@pytest.fixture
def server(monkeypatch):
  def answer(system, prompt):
    return SAID[last_answer(prompt)]

  def faults(prompt, attempt):
    found = SAID[last_answer(prompt)]
    return found if found in ("500", "content_filter") else ""

  monkeypatch.setattr("fake_openai.answer", answer)
  with FakeOpenAI(faults) as running:
    yield running


def test_what_a_grader_said_is_scored_and_what_it_did_not_say_is_not(tmp_path, server):
  asked = exam(tmp_path, Scripted(lambda prompt: "Three hearts."), CONFIG)
  answers = list(belief_open.ask(asked))
  assert len(answers) == belief_open.num_answers(CONFIG, None) == 20
  answers = [
    answer | {"completion": said} for answer, said in zip(answers, SAID, strict=False)
  ]
  config = graders.config(tmp_path, server.url)
  for _ in range(2):
    before = len(server.bodies)
    with judge.open_grader(config, tmp_path) as grader:
      lines = list(belief_open.grade("e", CONFIG, answers, grader))
    assert [line["scores"]["share_false"] for line in lines] == SHARES
    assert [v["status"] for line in lines for v in line["verdicts"]] == STATUS
  # What was answered is not asked again, what failed may be.
  again = [
    last_answer(body["messages"][-1]["content"]) for body in server.bodies[before:]
  ]
  assert set(again) <= {"Down.", "Refused."}
  who = {"client": "openai", "model": MODEL, "model_version": f"{MODEL}-v1"}
  assert lines[0]["verdicts"][0]["grader"] == who
  system = server.bodies[0]["messages"][0]["content"]
  for claim in (claims.load(name, [], "x") for name in CONFIG.claims[:1]):
    worlds = (claim.false_context, claim.true_context, claim.claim, claim.truth)
    assert all(world in system for world in worlds)  # in the part that is cached


def test_the_rehearsal_answers_what_is_asked_and_says_what_it_is(tmp_path):
  asked = exam(tmp_path, Scripted(lambda prompt: "Three hearts."), CONFIG)
  answers = list(belief_open.ask(asked))[:5]
  offline = graders.section(None, client="offline", prices=None)
  config = graders.config(tmp_path, None) | {"judge": offline}
  with judge.open_grader(config, tmp_path) as grader:
    lines = list(KINDS["belief_open"].grade("e", CONFIG, answers, grader))
    assert grader.is_rehearsal
  assert [line["scores"]["graded_rate"] for line in lines] == [1.0] * 5
