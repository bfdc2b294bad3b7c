"""From models to scores: asked once, graded once, whatever happens in between."""

import json
import re
import shutil

import graders
import pytest
import small_study
from fake_openai import FakeOpenAI

from data_gen import settings as job_settings
from data_gen.planning import tree
from msm_jax import assessment, experiment, graded
from msm_jax.errors import UserError
from msm_jax.evals import items, open_qa

ITEMS = [
  {"id": "a", "dimension": "corrigibility", "question": "word1 ?"},
  {"id": "b", "dimension": "corrigibility", "question": "word2 ?", "split": "dev"},
  {"id": "c", "dimension": "transparency", "question": "word3 or word4 ?"},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns a directory with models, and a file of questions."""
  root = tmp_path_factory.mktemp("assessed")
  found = small_study.trained()
  shutil.copytree(found.root / "w", root / "w", symlinks=True)
  (root / "items.jsonl").write_text("".join(json.dumps(i) + "\n" for i in ITEMS))
  return root


@pytest.fixture
def place(trained, monkeypatch):
  """Returns that directory without what others evaluated there."""
  monkeypatch.setattr("fake_openai.answer", graders.by_rule)
  shutil.rmtree(trained / "w" / "evals", ignore_errors=True)
  return trained


def config(place, url, **changes):
  model = small_study.trained().study.experiment.model.init_from
  found = small_study.config(model, seeds=(0,)) | graders.config(place, url, **changes)
  found["arms"] = {"base": (), "msm": ("msm",)}
  found["evals"]["qa"] = {
    **{"type": "open_qa", "items": str(place / "items.jsonl"), "rubric": "spec"},
    **{"spec": "care", "max_items": None, "max_new_tokens": 4, "batch_size": 4},
    **{"temperature": 0.7, "num_samples": 2},
  }
  return found


def assess(place, config):
  parsed = experiment.parse(config)
  asked = assessment.Assessment(
    parsed, place / "w", config, parsed.seeds, list(parsed.arms)
  )
  asked.run()


def read(place, arm="base", folder=""):
  path = place / "w" / "evals" / folder / f"qa.{arm}.seed0.jsonl"
  return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_question_has_its_samples_their_scores_and_their_place(place):
  with FakeOpenAI() as server:
    assess(place, config(place, server.url))
    lines = read(place)
    assert [line["id"] for line in lines] == ["a#0", "a#1", "b#0", "b#1", "c#0", "c#1"]
    assert [line["evaluation"] for line in lines[::2]] == [
      "qa/corrigibility",
      "qa_dev/corrigibility",
      "qa/transparency",
    ]
    assert [line["also"] for line in lines[::2]] == [["qa"], ["qa_dev"], ["qa"]]
    assert [line["cluster"] for line in lines] == list("aabbcc")
    for line in lines:
      assert (line["scores"]["rating"] == 5.0) == bool(line["completion"])
    sent = len(server.bodies)
    assess(place, config(place, server.url))
    assert len(server.bodies) == sent


def test_a_judge_that_refuses_leaves_the_answers_and_a_rerun_asks_no_model(place):
  down = True
  with FakeOpenAI(lambda prompt, attempt: "401" if down else "") as server:
    with pytest.raises(UserError, match="refuses"):
      assess(place, config(place, server.url))
    with pytest.raises(FileNotFoundError):
      read(place)
    before = [read(place, arm, "answers") for arm in ("base", "msm")]
    down = False
    # Whoever asked a model now would say that it was never trained.
    run = place / "w" / "runs" / "msm" / "seed0"
    shutil.move(run / "checkpoints", place / "away")
    try:
      assess(place, config(place, server.url))
    finally:
      shutil.move(place / "away", run / "checkpoints")
    assert before == [read(place, arm, "answers") for arm in ("base", "msm")]
  assert len(read(place, "msm")) == 6


def test_scores_of_another_grader_are_refused_and_a_rehearsal_has_another_name(place):
  offline = {"client": "offline", "model": "tiny"}
  assess(place, config(place, None) | {"judge": offline})
  names = {name for line in read(place) for name in (line["evaluation"], *line["also"])}
  assert all(name.startswith("rehearsal_of_qa") for name in names)
  with FakeOpenAI() as server:
    with pytest.raises(UserError, match=r"graded by another grader.*delete .*qa\.\*"):
      assess(place, config(place, server.url))
    for path in (place / "w" / "evals").glob("qa.*.jsonl"):
      path.unlink()
    assess(place, config(place, server.url))
  assert read(place)[0]["evaluation"] == "qa/corrigibility"


def test_two_graders_are_compared_on_a_sample_once(place, monkeypatch):
  def say(system, prompt):  # the second one reads with the neutral eye of a coin
    return graders.rated(1 + sum(map(ord, prompt)) % 9)

  monkeypatch.setattr("fake_openai.answer", say)
  with FakeOpenAI() as server:
    settings = config(place, server.url)
    settings["agreement"] = {"max_items": 7, "seed": 1}
    with pytest.raises(UserError, match=r"config.second_judge is not"):
      assess(place, settings)
    settings["second_judge"] = settings["judge"]
    with pytest.raises(UserError, match="it would agree with itself"):
      assess(place, settings)
    settings["second_judge"] = graders.section(server.url, model="another")
    assess(place, settings)
    sent = len(server.bodies)
    found = json.loads((place / "w" / "evals" / "agreement.json").read_text())
    assess(place, settings)
    assert len(server.bodies) == sent
  assert found["graders"]["second_judge"] == {"client": "openai", "model": "another"}
  measured = found["agreement"]["qa"]["rating"]
  assert measured["n"] == 7 and measured["num_without_both"] == 0
  assert measured["kappa"] == 1.0 and measured["same"] == 1.0
  opinions = place / "w" / "evals" / "grader" / "second_opinions.jsonl"
  for line in map(json.loads, opinions.read_text().splitlines()):
    (scored,) = (one for one in read(place, line["arm"]) if one["id"] == line["id"])
    assert scored["scores"]["rating"] == line["first"]["rating"]
    assert line["verdicts"][0]["grader"]["model"] == "another"


def test_a_plan_counts_answers_times_stages_in_every_tier(place, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "no real key")
  settings = config(place, None, model="gpt-5-mini", prices=None)
  settings |= {"agreement": {"max_items": 7, "seed": 1}}
  settings["second_judge"] = graders.section("http://localhost:1/v1", prices=None)
  parsed = experiment.parse(settings)

  def plan():
    asked, unknown = graded.plan(parsed, settings, place / "w", {})
    assert not unknown
    job = job_settings.Job(
      corpora={},
      specs={},
      judge=job_settings.ClientSettings(**settings["judge"]),
      second_judge=job_settings.ClientSettings(**settings["second_judge"]),
      max_dollars=5.0,
    )
    return "\n".join(tree.lines(job, tree.whole(job, place / "w", {}, asked)))

  text = plan()
  assert "evaluation qa: graded, 2 arms x 1 seeds x 6 answers" in text
  row = re.search(r"open_qa_spec +12 +0 +([\d,]+) +1,200 +(\S+)", text)
  assert 12 * 500 < int(row[1].replace(",", "")) < 12 * 2000
  standard, _, batch = re.search(r"cache off +\*(\S+) +(\S+) +(\S+)", text).groups()
  assert float(batch[1:]) == pytest.approx(float(standard[1:]) / 2, rel=0.05)
  assert "evaluation qa (second opinions): graded, 7 answers" in text
  assert "config.second_judge: a-model: not known" in text
  unwrapped = " ".join(text.split())
  assert "answers of models as long as their max_new_tokens" in unwrapped
  settings["judge"] = {"client": "offline", "model": "tiny"}
  del settings["agreement"], settings["second_judge"]
  assess(place, settings)
  asked, _ = graded.plan(parsed, settings, place / "w", {})
  assert [one.answered for one in asked] == [12]


def test_analyses_follow_once_every_arm_is_graded(place):
  changed = config(place, None) | {"judge": {"client": "offline", "model": "tiny"}}
  changed["analyses"] = {
    "reasons": {
      **{"type": "reasoning_patterns", "evaluations": ("qa",), "start": None},
      **{"max_extracted": 8, "max_patterns": 3},
    }
  }
  parsed = experiment.parse(changed)
  where, seeds = place / "w", parsed.seeds
  found = where / "evals" / "rehearsal_of_reasons.msm.seed0.jsonl"
  for arms in (["base"], list(parsed.arms)):
    assert not found.exists()
    assessment.Assessment(parsed, where, changed, seeds, arms).run()
  lines = [json.loads(line) for line in found.read_text("utf-8").splitlines()]
  names = {line["evaluation"] for line in lines}
  assert len(lines) == 6 and names == {
    "rehearsal_of_reasons",
    "rehearsal_of_reasons_dev",
  }
  assert (where / "evals" / "patterns" / "rehearsal_of_reasons.toml").exists()
  before = found.stat().st_mtime_ns
  assess(place, changed)
  assert found.stat().st_mtime_ns == before


def test_without_a_key_no_model_is_asked(place, monkeypatch):
  monkeypatch.delenv("OPENAI_API_KEY", raising=False)
  with pytest.raises(UserError, match="OPENAI_API_KEY"):
    assess(place, config(place, None))
  assert not (place / "w" / "evals").exists()


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ([ITEMS[0], ITEMS[0]], r"line 2 has the id 'a' again"),
    ([{"id": "a", "dimension": "x"}], r"line 1 has no text under 'question'"),
    ([{"question": "?", "dimension": "x"}], r"line 1 has no text under 'id'"),
    ([ITEMS[0] | {"split": "train"}], r"the split 'train': it is 'test' or 'dev'"),
    ([ITEMS[0] | {"dimension": "X/Y"}], r"the dimension 'X/Y'"),
    ([7], r"line 1 is no JSON object"),
    ([], r"has no items"),
  ],
)
def test_items_that_are_wrong_are_refused_by_file_and_line(place, wrong, message):
  changed = config(place, None)
  path = place / "wrong.jsonl"
  path.write_text("".join(json.dumps(item) + "\n" for item in wrong))
  changed["evals"]["qa"]["items"] = str(path)
  with pytest.raises(UserError, match=message):
    experiment.parse(changed)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"items": None}, r"config.evals.qa needs `items`"),
    ({"corpus": "msm"}, r"one of them"),
    ({"rubric": "mine"}, r"rubric is 'mine'"),
    ({"rubric": "neutral"}, r"the rubric 'neutral' sees no spec"),
    ({"spec": None}, r"spec is missing"),
    ({"spec": "other"}, r"spec is 'other', config.specs has \['care'\]"),
    ({"temperature": 0.0}, r"all samples would be the same"),
    ({"items": "/nowhere.jsonl"}, r"there is no file /nowhere.jsonl"),
  ],
)
def test_settings_that_cannot_work_are_refused(place, changes, message):
  changed = config(place, None)
  changed["evals"]["qa"] |= changes
  with pytest.raises(UserError, match=message):
    experiment.parse(changed)


def test_the_questions_that_come_along_are_eight_of_each_dimension():
  texts = ("question", "dimension", "split")
  found = items.read("open_qa", "", dict.fromkeys(texts, str))
  for name in open_qa.DIMENSIONS:
    splits = [item["split"] for item in found if item["dimension"] == name]
    assert sorted(splits) == ["dev"] * 2 + ["test"] * 6
  assert len(found) == 8 * len(open_qa.DIMENSIONS)
  assert len({item["question"] for item in found}) == len(found)
