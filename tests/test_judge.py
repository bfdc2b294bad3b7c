"""Graders over real HTTP: every kind of answer, faults, kills, budgets."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import graders
import pytest
from fake_openai import MODEL, FakeOpenAI
from graders import ANSWER, RATINGS, RIGHT, WRONG

from msm_jax.errors import Stopped, UserError
from msm_jax.evals import grading, judge, open_qa

ROOT = pathlib.Path(judge.__file__).parents[2]


@pytest.fixture(autouse=True)
def rule(monkeypatch):
  monkeypatch.setattr("fake_openai.answer", graders.by_rule)


def grade(config, tmp_path, answers, how=graders.CONFIG):
  with judge.open_grader(config, tmp_path) as grader:
    return list(open_qa.grade("qa", how, answers, grader))


def scores(lines, metric="rating"):
  return [line["scores"][metric] for line in lines]


def rows(tmp_path):
  path = tmp_path / "evals" / "grader" / "ledger.jsonl"
  return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_each_answer_has_the_rating_that_the_grader_gave_and_its_origin(tmp_path):
  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url)
    lines = grade(config, tmp_path, graders.answers(*RATINGS))
  assert scores(lines) == list(RATINGS.values())
  assert scores(lines, "graded_rate") == [1.0] * len(RATINGS)
  assert {line["evaluation"] for line in lines} == {"qa/corrigibility"}
  (verdict,) = lines[0]["verdicts"]
  assert verdict["status"] == grading.OK and verdict["value"]["rating"] == 9
  who = {"client": "openai", "model": MODEL, "model_version": f"{MODEL}-v1"}
  assert verdict["grader"] == who
  assert verdict["prompt_hash"] in {row["prompt_hash"] for row in rows(tmp_path)}
  body = server.bodies[0]
  assert "Mira of Lumen lets people correct it." in body["messages"][0]["content"]


def test_the_neutral_rubric_shows_no_spec(tmp_path):
  how = open_qa.OpenQaConfig(
    **vars(graders.CONFIG) | {"rubric": "neutral", "spec": None}
  )
  with FakeOpenAI() as server:
    grade(graders.config(tmp_path, server.url), tmp_path, graders.answers(RIGHT), how)
  assert "Mira" not in json.dumps(server.bodies)


def test_nothing_is_asked_about_an_empty_answer_and_nothing_scored(tmp_path):
  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url)
    lines = grade(config, tmp_path, graders.answers(RIGHT, "", " \n"))
  assert scores(lines) == [9, None, None]
  assert scores(lines, "graded_rate") == [1.0, None, None]
  assert scores(lines, "answered_rate") == [1.0, 0.0, 0.0]
  assert len(server.bodies) == 1


def test_the_grader_is_told_that_an_answer_was_cut_off(tmp_path):
  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url)
    lines = grade(config, tmp_path, graders.answers(RIGHT, finish="length"))
  assert "was cut off here" in server.bodies[0]["messages"][-1]["content"]
  assert scores(lines, "cut_rate") == [1.0]


@pytest.mark.parametrize(
  "text",
  [
    "I like it",
    '{"rating": 0}',
    '{"rating": true}',
    "[7]",
    graders.rated(11),
    graders.rated(3) + " On reflection: " + graders.rated(9),
  ],
)
def test_what_is_no_rating_is_asked_for_thrice_and_never_scored(
  tmp_path, monkeypatch, text
):
  monkeypatch.setattr("fake_openai.answer", lambda system, prompt: text)
  with FakeOpenAI() as server:
    (line,) = grade(
      graders.config(tmp_path, server.url), tmp_path, graders.answers(RIGHT)
    )
  assert line["scores"]["rating"] is None and line["scores"]["graded_rate"] == 0.0
  assert line["verdicts"][0]["status"] == grading.UNPARSED
  assert len(server.bodies) == 3


def test_the_service_is_told_what_a_verdict_looks_like(tmp_path, monkeypatch):
  fenced = f"```json\n{graders.rated(1)}\n```"
  monkeypatch.setattr("fake_openai.answer", lambda system, prompt: fenced)
  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url, structured="schema")
    lines = grade(config, tmp_path, graders.answers(WRONG))
  assert scores(lines) == [1]
  told = server.bodies[0]["response_format"]["json_schema"]["schema"]
  assert told["properties"]["rating"] == {"type": "integer", "enum": [*range(1, 11)]}
  assert told["required"] == [*open_qa.CRITERIA, "rating"]


@pytest.mark.slow  # a batch job is looked at every few seconds
def test_in_batch_jobs_several_works_need_one_job_and_half_the_price(tmp_path):
  found = {}

  def work(number):
    def do(grader):
      answers = graders.answers(*(f"{number} {i}" for i in range(10)))
      found[number] = list(open_qa.grade("qa", graders.CONFIG, answers, grader))

    return do

  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url, tier="batch")
    over = threading.Event()

    def finish():
      while not over.wait(0.1):
        server.finish_batches()

    thread = threading.Thread(target=finish)
    thread.start()
    try:
      with judge.open_grader(config, tmp_path) as grader:
        grader.together(map(work, range(3)))
    finally:
      over.set()
      thread.join()
  assert len(server.batches) == 1 and not server.bodies
  assert [len(lines) for lines in found.values()] == [10, 10, 10]
  assert all(scores(lines) == [5] * 10 for lines in found.values())
  billed = sum(row["dollars"] or 0 for row in rows(tmp_path))
  assert billed == pytest.approx(30 * ANSWER / 2)


def test_a_second_attempt_counts_when_it_can_be_read(tmp_path):
  def first_cut(prompt, attempt):
    return "length" if attempt == 1 else ""

  with FakeOpenAI(first_cut) as server:
    lines = grade(
      graders.config(tmp_path, server.url), tmp_path, graders.answers(RIGHT)
    )
  assert scores(lines) == [9]
  assert len(server.bodies) == 2


@pytest.mark.parametrize("fault", ["length", "content_filter", "400"])
def test_an_answer_without_a_verdict_has_no_score_and_the_others_do(tmp_path, fault):
  def faults(prompt, attempt):
    return fault if WRONG in prompt else ""

  with FakeOpenAI(faults) as server:
    config = graders.config(tmp_path, server.url)
    lines = grade(config, tmp_path, graders.answers(RIGHT, WRONG, RIGHT))
  assert scores(lines) == [9, None, 9]
  verdict = lines[1]["verdicts"][0]
  assert verdict["status"] == grading.FAILED and verdict["reason"]
  assert grading.num_lost(lines) == 1


def test_when_the_judge_is_down_nothing_is_scored_and_a_rerun_pays_the_rest(tmp_path):
  texts = [f"Answer {i}." for i in range(12)]
  down = False

  def faults(prompt, attempt):
    return "401" if down else ""

  with FakeOpenAI(faults) as server:
    config = graders.config(tmp_path, server.url)
    grade(config, tmp_path, graders.answers(*texts[:5]))
    down = True
    with pytest.raises(UserError, match="refuses"):
      grade(config, tmp_path, graders.answers(*texts))
    down = False
    lines = grade(config, tmp_path, graders.answers(*texts))
    again = grade(config, tmp_path, graders.answers(*texts))
  assert scores(lines) == [5] * 12 and again == lines
  assert set(server.answered.values()) == {1}


def test_the_budget_is_of_the_whole_workdir(tmp_path):
  with FakeOpenAI() as server:
    config = graders.config(tmp_path, server.url)
    grade(config, tmp_path, graders.answers(RIGHT))
    assert sum(row["dollars"] for row in rows(tmp_path)) == pytest.approx(ANSWER)
    # Corpora have cost nearly all of it.
    book = tmp_path / "corpus" / "docs" / "ledger.jsonl"
    book.parent.mkdir(parents=True)
    row = rows(tmp_path)[0] | {"id": "x", "dollars": 0.99}
    book.write_text(json.dumps(row) + "\n")
    config["budget"]["max_dollars"] = 0.99 + ANSWER
    with pytest.raises(Stopped, match="max_dollars"):
      grade(config, tmp_path, graders.answers(RIGHT, WRONG))
    config["budget"]["max_dollars"] = 2.0
    lines = grade(config, tmp_path, graders.answers(RIGHT, WRONG))
  assert scores(lines) == [9, 1]
  assert len(server.bodies) == 2


def test_what_cannot_be_asked_is_refused_at_the_entrance(tmp_path, monkeypatch):
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  config = graders.config(tmp_path, None, max_dollars=1.0)
  with pytest.raises(UserError, match="OPENAI_API_KEY"):
    judge.check(config, ("judge",), ["care"])
  monkeypatch.setenv("OPENAI_API_KEY", "no real key")
  judge.check(config, ("judge",), ["care"])
  with pytest.raises(UserError, match=r"price of config.judge.model='a-model'"):
    judge.check(config | {"judge": config["judge"] | {"prices": None}}, ("judge",), [])
  with pytest.raises(UserError, match=r"config.second_judge is missing"):
    judge.check(config, ("judge", "second_judge"), [])
  with pytest.raises(UserError, match=r"config.specs has no 'other': it has care"):
    judge.check(config, ("judge",), ["other"])
  short = config | {"judge": config["judge"] | {"context_tokens": 4000}}
  with pytest.raises(UserError, match="context_tokens"):
    judge.check(short, ("judge",), ["care"])
  with pytest.raises(UserError, match=r"config.judge.modle .* did you mean 'model'"):
    judge.check({"judge": {"client": "openai", "modle": "m"}}, ("judge",), [])


def test_works_that_are_done_together_send_their_questions_together(tmp_path):
  found = {}

  def work(number):
    def do(grader):
      first = list(
        open_qa.grade("qa", graders.CONFIG, graders.answers(f"{number}"), grader)
      )
      more = [f"{number} {i} {first[0]['scores']['rating']}" for i in range(3)]
      asked = graders.answers(*more)
      found[number] = list(open_qa.grade("qa", graders.CONFIG, asked, grader))

    return do

  with (
    FakeOpenAI() as server,
    judge.open_grader(graders.config(tmp_path, server.url), tmp_path) as grader,
  ):
    grader.together(map(work, range(10)))
  assert sorted(found) == list(range(10))
  asked = [graders.said(body["messages"][-1]["content"]) for body in server.bodies]
  assert sorted(asked[:10]) == [str(number) for number in range(10)]
  assert len(asked) == 40


def test_a_rehearsal_draws_its_verdicts_and_says_so(tmp_path, capsys, monkeypatch):
  monkeypatch.delenv("MSM_JAX_QUIET", raising=False)
  offline = {"client": "offline", "model": "tiny"}
  config = graders.config(tmp_path, None) | {"judge": offline}
  judge.check(config, ("judge",), ["care"])
  assert "a rehearsal" in capsys.readouterr().err
  answers = graders.answers(*(f"Answer {i}" for i in range(40)))
  lines, again = (grade(config, tmp_path / d, answers) for d in ("a", "b"))
  assert lines == again and len(set(scores(lines))) > 5
  for line in lines:
    (verdict,) = line["verdicts"]
    assert verdict["grader"]["model"] == "rehearsal"
    assert verdict["text"].count("rehearsal: drawn at random") == 4
  with judge.open_grader(config, tmp_path) as grader:
    assert grader.is_rehearsal
  line = grading.rehearsed({"evaluation": "qa/x", "also": ["qa"]})
  assert line == {"evaluation": "rehearsal_of_qa/x", "also": ["rehearsal_of_qa"]}


def test_the_identity_of_a_grading_is_grader_prompts_and_spec(tmp_path):
  config = graders.config(tmp_path, "http://localhost:1/v1")

  def identity(stage="open_qa_spec", spec="care", **changes):
    changed = config | {"judge": config["judge"] | changes}
    return judge.identity(changed, "judge", [stage], spec)

  same = {identity(), identity(base_url=None, max_concurrency=9, tier="batch")}
  others = {identity(model="b"), identity(temperature=1.0), identity("open_qa_neutral")}
  assert len(same) == 1 and len(same | others) == 4
  (tmp_path / "care.md").write_text(graders.SPEC + "And more.\n")
  assert identity() not in same | others


RUN = """
import json, pathlib, sys
sys.path.insert(0, "tests")
import graders
from msm_jax.evals import judge, open_qa
config, texts = json.loads(sys.argv[1])
with judge.open_grader(config, pathlib.Path(sys.argv[2])) as grader:
  list(open_qa.grade("qa", graders.CONFIG, graders.answers(*texts), grader))
"""


def start(config, texts, workdir):
  command = [sys.executable, "-c", RUN, json.dumps([config, texts]), str(workdir)]
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  return subprocess.Popen(
    command, env=environment, stderr=subprocess.PIPE, cwd=ROOT, text=True
  )


@pytest.mark.parametrize(
  "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_killed_run_repays_at_most_what_was_in_flight(tmp_path, number):
  texts = [f"Answer {i}." for i in range(60)]
  with FakeOpenAI(delay_s=0.02) as server:
    config = graders.config(tmp_path, server.url)
    process = start(config, texts, tmp_path)
    deadline = time.monotonic() + 60
    while sum(server.answered.values()) < 20:
      assert process.poll() is None, process.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.005)
    process.send_signal(number)
    error = process.communicate()[1]
    before = sum(server.answered.values())
    assert before < 60
    lines = grade(config, tmp_path, graders.answers(*texts))
  assert scores(lines) == [5] * 60
  repaid = sum(count - 1 for count in server.answered.values())
  if number == signal.SIGINT:
    assert "Stopped: interrupted" in error and repaid == 0
  assert repaid <= config["judge"]["max_concurrency"]
