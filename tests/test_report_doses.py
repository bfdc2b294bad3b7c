"""The page of a graded study of doses: graders, clusters, one seed, all answers."""

import csv
import json
import pathlib

import pytest
import report_doses

from msm_jax import report
from msm_jax.errors import UserError
from msm_jax.report import (
  agreement,
  graders,
  results,
  settings,
  transcripts,
  wording,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  directory = report_doses.make(tmp_path_factory.mktemp("doses"))
  report.build(directory)
  return directory


def _page(directory: pathlib.Path) -> str:
  return (directory / "report" / "index.html").read_text("utf-8")


def _summary(directory: pathlib.Path) -> dict:
  return json.loads((directory / "report" / "summary.json").read_text())


def _rows(directory: pathlib.Path) -> list[dict]:
  with (directory / "report" / "results.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def _loaded(directory: pathlib.Path, num_seeds: int) -> results.Results:
  config = settings.from_config(report_doses.config(num_seeds))
  return results.load(directory, config)


def test_who_graded_stands_beside_each_number(study: pathlib.Path):
  found = [row for row in _rows(study) if row["evaluation"] == "harm"]
  lines = (study / "evals" / "harm.base.seed1.jsonl").read_text().splitlines()
  verdicts = [json.loads(line)["verdicts"][0] for line in lines]
  (row,) = [
    r for r in found if (r["arm"], r["seed"], r["metric"]) == ("base", "1", "decided")
  ]
  for status in ("unparsed", "failed"):
    expected = sum(verdict["status"] == status for verdict in verdicts)
    assert int(row[status]) == expected
  assert int(row["n"]) + int(row["num_unscored"]) == int(row["verdicts"]) == 72
  assert row["grader"] == "anthropic/judge-1 (judge-1-0101)"
  assert row["prompt_hash"] and row["rehearsal"] == "0"
  assert (row["interval"], row["num_units"]) == ("bootstrap", "9")
  page = _page(study)
  assert "grader: anthropic/judge-1 (judge-1-0101)" in page
  assert "of 216 verdicts" in page and "00aa11bb22cc33dd" in page
  assert "harm decided" in page and "<b>0.810</b> <small>[0.600, 0.900]" in page
  assert "90 in 9 clusters" in page and "93.0%" in page
  assert _summary(study)["graders"]["harm"]["verdicts"] == 8 * 3 * 72


def test_curves_fronts_and_the_papers_numbers_are_in_the_summary(study: pathlib.Path):
  summary, found = _summary(study), _loaded(study, 3)
  (curve,) = summary["curves"]
  assert [p["dose"] for p in curve["lines"]["AFT alone"]] == [0, 2000, 8000, 32000]
  assert [ratio["arm"] for ratio in curve["ratios"]] == [
    f"msm+aft_{dose}" for dose in report_doses.DOSES
  ]
  assert summary["pareto"][0]["arms"]["msm"]["on_front"]
  base = found.estimate("base", "harm", "decided").mean
  assert summary["paper"][0]["difference"] == pytest.approx(base - 0.68)
  names = {path.name for path in (study / "report").glob("*.png")}
  assert {"curve_0_misalignment.png", "paper_0_harm_decided.png"} <= names


def test_every_arm_is_compared_with_the_reference_on_every_metric(study: pathlib.Path):
  found, summary = _loaded(study, 3), _summary(study)
  assert len(summary["reference"]) == 7 * 4
  one = next(r for r in summary["reference"] if r["metric"] == "score")
  a, b = (found.by_seed(arm, "qa", "score") for arm in (one["arm"], "base"))
  expected = sum(a[seed] - b[seed] for seed in range(3)) / 3
  assert one["mean"] == pytest.approx(expected)
  assert one["unit"] == "seeds"


def test_a_line_counts_for_a_whole_beside_its_category(study: pathlib.Path):
  found = _loaded(study, 3)
  assert found.by_seed("msm", "qa", "score") == found.by_seed("msm", "qa/why", "score")
  block = report_doses.block(_page(study), "qa")
  assert len(block["answers"]) == 8 * 3 * 20  # each once


def test_a_study_of_one_seed_has_intervals_within_it_and_says_so(tmp_path):
  directory = report_doses.make(tmp_path, num_seeds=1)
  report.build(directory)
  page, summary = _page(directory), _summary(directory)
  assert "<b>One seed.</b>" in page and "in one seed" in page
  sentence = summary["headline"]["sentences"][0]
  assert "within the only seed" in sentence and "nothing about another seed" in sentence
  found = summary["results"]["base"]["harm"]["decided"]
  bounds = found["seeds"]["0"]["interval"]
  assert found["unit"] == "answers"
  assert found["interval"] == [bounds["low"], bounds["high"]]
  assert {ratio["interval"] for ratio in summary["curves"][0]["ratios"]} == {None}


def test_a_rehearsal_is_marked_wherever_its_numbers_stand(tmp_path: pathlib.Path):
  directory = report_doses.make(tmp_path, num_seeds=2, client="offline")
  report.build(directory)
  page = _page(directory)
  assert "<b>Rehearsal.</b>" in page and "rehearsal: measures nothing" in page
  marks = {row["evaluation"]: row["rehearsal"] for row in _rows(directory)}
  assert marks == {"rehearsal_of_harm": "1", "qa": "0", "qa/why": "0"}
  assert _summary(directory)["headline"]["sentences"] == [
    "There is no result for decided on harm yet: its grading was a rehearsal, which "
    "measures nothing."
  ]


def test_a_stub_is_a_rehearsal_whatever_its_evaluation_is_called():
  found = graders.Graded()
  verdict = {"status": "ok", "grader": {"client": "stub"}, "prompt_hash": "ab"}
  found.add({"verdicts": [verdict]}, "here")
  assert graders.is_rehearsed("harm", found) and found.prompt_hash == "ab"
  with pytest.raises(UserError, match="here has the verdict"):
    found.add({"verdicts": [{"status": "maybe"}]}, "here")


def test_agreement_is_found_wherever_it_stands():
  listed = {"metrics": [{"evaluation": "qa", "metric": "score", "kappa": None}]}
  (row,) = agreement.rows(listed)
  assert (row.what, row.kappa, row.interval) == ("metrics qa score", wording.DASH, "")
  assert agreement.lines({"first": {"model": "m"}, "n": 3}) == [
    ("first model", "m"),
    ("n", "3"),
  ]


# All answers


def test_the_page_holds_every_answer_and_none_of_it_as_markup(study: pathlib.Path):
  page = _page(study)
  assert report_doses.HOSTILE not in page and "alert(1)</script>" not in page
  block = report_doses.block(page, "harm")
  assert len(block["answers"]) == 8 * 3 * 72
  assert len(block["questions"]) == 72
  said = {answer[3] for answer in block["answers"]}
  assert report_doses.HOSTILE in said
  without = [answer for answer in block["answers"] if answer[8]]
  assert all(answer[6][0] is None for answer in without)
  scored = [answer for answer in block["answers"] if answer[6][0] is not None]
  assert len(without) + len(scored) == len(block["answers"])


def test_a_page_that_would_grow_too_large_keeps_the_same_questions_of_all_arms(
  study: pathlib.Path,
):
  paths = sorted((study / "evals").glob("*.jsonl"))
  size = sum(path.stat().st_size for path in paths)
  found = transcripts.Collector(paths, max_bytes=size // 4)
  config = settings.from_config(report_doses.config(3))
  results.load(study, config, take=found.add)
  assert found.share == pytest.approx(0.25, abs=0.01)
  (harm, qa) = found.blocks()
  kept = report_doses.block(f'id="t-data-harm">{harm.data}</script>', "harm")
  ids = {}
  for answer in kept["answers"]:
    ids.setdefault(answer[1], set()).add(kept["questions"][answer[0]][0])
  assert len({frozenset(names) for names in ids.values()}) == 1 and len(ids) == 8
  assert 0.1 < len(kept["questions"]) / 72 < 0.4
  assert (harm.name, qa.name) == ("harm", "qa")


def test_long_texts_are_cut_with_a_note_and_odd_scores_are_none():
  found = transcripts.Collector([])
  scores = {"a": float("nan"), "b": 0.123456}
  line = {"arm": "x", "seed": 0, "evaluation": "e", "id": 1, "scores": scores}
  found.add("e", line | {"completion": "y" * (transcripts.MAX_CHARS + 7)})
  ended = {"finish": "length", "problem": "none heard"}
  found.add("e", line | ended | {"completion": "z", "scores": {"b": None, "c": 1}})
  found.add("e", line)  # nothing was said: nothing to show
  (block,) = found.blocks()
  shown = report_doses.block(f'id="t-data-e">{block.data}</script>', "e")
  first, second = shown["answers"]
  assert first[3].endswith("... (7 more characters)")
  assert shown["metrics"] == ["a", "b", "c"]
  assert (first[6], second[6]) == ([None, 0.1235], ["", None, 1.0])
  assert second[8] == 1 and second[9] == "finish: length; problem: none heard"


def test_a_metric_that_many_lack_is_one_line(tmp_path: pathlib.Path):
  directory = report_doses.make(tmp_path)
  found = _loaded(directory, 3)
  (line,) = [text for text in found.missing if "without a score" in text]
  assert "answers without a score, in" in line and line.startswith("harm decided: ")
