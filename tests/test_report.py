"""The report: its files and what it says about what is missing."""

import csv
import html.parser
import json
import math
import pathlib
import re
import subprocess
import sys

import pytest
import report_workdir

from msm_jax import records, report
from msm_jax.errors import UserError
from msm_jax.report import contrasts, results, settings, statistics, wording

_HEADLINE = ("preference/disagree", "chose_affordable")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A complete study with its report; tests only read it."""
  directory = report_workdir.make(tmp_path_factory.mktemp("study"), num_seeds=3)
  report.build(directory)
  return directory


@pytest.fixture
def bare(tmp_path: pathlib.Path) -> pathlib.Path:
  """A study of which only the config exists."""
  records.write_json(tmp_path / "config.json", report_workdir.config(2))
  return tmp_path


def _answers(
  directory: pathlib.Path, arm: str, seed: int, scores: list[dict], **more
) -> pathlib.Path:
  """Writes one file of answers on the headline's evaluation."""
  lines = [
    {
      "arm": arm,
      "seed": seed,
      "evaluation": _HEADLINE[0],
      "id": str(i),
      "scores": score,
    }
    | more
    for i, score in enumerate(scores)
  ]
  path = directory / "evals" / f"preference.{arm}.seed{seed}.jsonl"
  report_workdir.write_lines(path, lines)
  return path


def _summary(directory: pathlib.Path) -> dict:
  report.build(directory)
  return json.loads((directory / "report" / "summary.json").read_text())


# Reading


def test_a_value_is_the_weighted_mean_of_the_answers_with_a_score(bare: pathlib.Path):
  scores = [{"loss": 1.0}, {"loss": 4.0}, {"loss": None}, {"loss": float("nan")}]
  path = _answers(bare, "aft", 0, scores)
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  for line, weight in zip(lines, (1, 3, 100, 100), strict=True):
    line["weights"] = {"loss": weight}
  report_workdir.write_lines(path, lines)
  summary = _summary(bare)
  found = summary["results"]["aft"][_HEADLINE[0]]["loss"]["seeds"]["0"]
  interval = found.pop("interval")
  assert found == {"value": 3.25, "n": 2, "num_unscored": 2, "wilson": None}
  assert (interval["method"], interval["num_units"]) == ("t", 2)
  assert any("2 of 4 answers without a score" in line for line in summary["missing"])


def test_a_metric_without_any_score_has_no_value_and_is_listed(bare: pathlib.Path):
  _answers(bare, "aft", 0, [{"chose_affordable": None}] * 3)
  summary = _summary(bare)
  assert (bare / "report" / "results.csv").read_text().count("\n") == 1
  assert any(
    "arm aft seed 0 has 3 answers and no score" in x for x in summary["missing"]
  )
  assert summary["results"]["aft"][_HEADLINE[0]][_HEADLINE[1]]["mean"] is None


def test_results_csv_has_its_columns_and_the_share_of_choices(study: pathlib.Path):
  with (study / "report" / "results.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0])[:6] == ["arm", "seed", "evaluation", "metric", "value", "n"]
  answers = (study / "evals" / "preference.msm_am+aft.seed2.jsonl").read_text()
  lines = [json.loads(line) for line in answers.splitlines()]
  for metric in ("chose_affordable", "chose_affordable_parsed"):
    scores = [x["scores"][metric] for x in lines if x["evaluation"] == _HEADLINE[0]]
    scores = [score for score in scores if score is not None]
    key = {
      "arm": "msm_am+aft",
      "seed": "2",
      "evaluation": _HEADLINE[0],
      "metric": metric,
    }
    (row,) = [row for row in rows if key.items() <= row.items()]
    assert float(row["value"]) == sum(scores) / len(scores)
    assert int(row["n"]) == len(scores)


@pytest.mark.parametrize(
  "damage", ['{"arm": "aft", "se', '["aft"]', '{"arm": "aft", "seed": 0}', "\x00"]
)
def test_a_damaged_answer_is_named_by_file_and_line(bare: pathlib.Path, damage: str):
  path = _answers(bare, "aft", 0, [{"chose_affordable": 1}] * 2)
  path.write_text(path.read_text() + damage)
  with pytest.raises(UserError, match=r"preference\.aft\.seed0\.jsonl line 3 .*delete"):
    report.build(bare)


def test_answers_of_another_arm_are_refused(bare: pathlib.Path):
  path = _answers(bare, "aft", 0, [{"chose_affordable": 1}])
  path.rename(path.with_name("preference.base.seed0.jsonl"))
  with pytest.raises(UserError, match=r"base\.seed0\.jsonl line 1 is of arm 'aft'"):
    report.build(bare)


def test_a_score_that_is_no_number_is_refused(bare: pathlib.Path):
  _answers(bare, "aft", 0, [{"chose_affordable": "yes"}])
  with pytest.raises(
    UserError, match="line 1 has the score 'yes' for chose_affordable"
  ):
    report.build(bare)


def test_a_damaged_line_of_metrics_is_named(bare: pathlib.Path):
  path = bare / "runs" / "pretrain" / "seed0" / "metrics.jsonl"
  records.write_file(path, b'{"step": 1, "train/loss": 2.0}\n{"step": ')
  with pytest.raises(UserError, match=r"metrics\.jsonl line 2"):
    report.build(bare)


# What is missing


def test_a_study_without_answers_has_a_report_that_says_so(bare: pathlib.Path):
  page = report.build(bare)
  summary = json.loads((bare / "report" / "summary.json").read_text())
  assert summary["headline"]["sentences"] == [
    "No evaluation has been run yet: there is no result to report."
  ]
  assert "preference: no arm has answers yet" in summary["missing"]
  assert "rows of stage aft: not prepared" in summary["missing"]
  assert "run pretrain+aft seed 1: not started" in summary["missing"]
  assert "no result to report" in page.read_text()


def test_one_seed_no_contrasts_and_long_names_have_a_report_too(bare: pathlib.Path):
  config = report_workdir.config(1)
  config["arms"] = {"base": [], "_".join(["long"] * 12): ["aft"], "x" * 60: ["aft"]}
  config["report"] = {"headline": ["preference/disagree", "rubric"]}
  for arm in config["arms"]:
    _answers(bare, arm, 0, [{"rubric": 5}, {"rubric": 6}], prompt="which " * 900)
  page = report.build(bare, study=config)
  summary = json.loads((bare / "report" / "summary.json").read_text())
  (sentence,) = [x for x in summary["headline"]["sentences"] if "rubric" in x]
  assert sentence.startswith(
    "On preference/disagree, rubric: base 5.500 ([-0.853, 11.853] in one seed)".replace(
      "-", wording.MINUS
    )
  )
  assert "more characters" in page.read_text()


def test_an_arm_or_seed_without_answers_is_shown_as_missing(tmp_path: pathlib.Path):
  directory = report_workdir.make(tmp_path, num_seeds=2)
  (directory / "evals" / "preference.aft.seed1.jsonl").unlink()
  for seed in (0, 1):
    (directory / "evals" / f"preference.msm_am+aft.seed{seed}.jsonl").unlink()
  summary = _summary(directory)
  assert "preference: no answers of arm aft, seed 1" in summary["missing"]
  assert "preference: no answers of arm msm_am+aft, seeds 0, 1" in summary["missing"]
  assert summary["results"]["aft"][_HEADLINE[0]][_HEADLINE[1]]["missing_seeds"] == [1]
  text = " ".join(summary["headline"]["sentences"])
  assert "msm_am+aft no result" in text and "not measured" in text
  assert "Missing: 3 of 32 sets of answers" in text
  assert "n=1, no interval" in text  # alignment alone has one seed left
  page = (directory / "report" / "index.html").read_text()
  assert page.count('class="missing">missing<') >= 3


def test_fewer_answers_than_the_other_arms_are_listed(bare: pathlib.Path):
  _answers(bare, "aft", 0, [{"chose_affordable": 1}] * 5)
  _answers(bare, "base", 0, [{"chose_affordable": 1}] * 3)
  assert any(
    "arm base seed 0 has 3 answers, others have 5" in line
    for line in _summary(bare)["missing"]
  )


def test_answers_of_an_arm_that_the_config_lacks_are_left_out_by_name(
  bare: pathlib.Path,
):
  _answers(bare, "old", 0, [{"chose_affordable": 1}])
  summary = _summary(bare)
  assert any(
    line.startswith("evals/preference.old.seed0.jsonl was left out")
    for line in summary["missing"]
  )
  assert "old" not in summary["results"]


def test_a_changed_shard_and_a_loss_that_is_not_finite_are_listed(
  tmp_path: pathlib.Path,
):
  directory = report_workdir.make(tmp_path, num_seeds=1)
  (shard,) = (directory / "corpus" / "aft").glob("*.array_record")
  shard.write_bytes(shard.read_bytes()[:-10])
  metrics = directory / "runs" / "pretrain" / "seed0" / "metrics.jsonl"
  lines = [{"step": step, "train/loss": 2.0} for step in (1, 2)]
  report_workdir.write_lines(metrics, [*lines, {"step": 3, "train/loss": math.nan}])
  missing = "\n".join(_summary(directory)["missing"])
  assert re.search(r"corpus aft: corpus/aft/\S+ is truncated or was changed", missing)
  assert "run pretrain seed 0: the loss is not finite from step 3" in missing


# Contrasts and words


def test_contrasts_and_their_differences_are_paired_by_seed(study: pathlib.Path):
  config = settings.from_config(report_workdir.config(3))
  found = results.load(study, config)
  gap, alone, _, added = contrasts.compare(found, config, *_HEADLINE)
  sides = {arm: found.by_seed(arm, *_HEADLINE) for arm in config.arms}
  for seed in range(3):
    after = sides["msm_aff+aft"][seed] - sides["msm_am+aft"][seed]
    before = sides["msm_aff"][seed] - sides["msm_am"][seed]
    assert gap.estimate.values[seed] == pytest.approx(after)
    assert alone.estimate.values[seed] == pytest.approx(before)
    assert added.estimate.values[seed] == pytest.approx(after - before)
  summary = json.loads((study / "report" / "summary.json").read_text())
  assert summary["contrasts"][0]["mean"] == gap.estimate.mean
  assert summary["contrasts"][0]["seeds"].keys() == {"0", "1", "2"}


def _sentence(values: dict[int, float], seeds: int = 3) -> str:
  contrast = contrasts.Contrast(
    label="gap",
    a="x",
    b="y",
    is_difference=False,
    evaluation="e",
    metric="m",
    estimate=statistics.estimate(values),
    missing_seeds=tuple(seed for seed in range(seeds) if seed not in values),
  )
  return wording.contrast_sentence(contrast, is_share=True)


def test_the_headline_says_what_the_numbers_say():
  clear = _sentence({0: 0.4, 1: 0.5, 2: 0.45})
  assert clear == (
    "Gap (x minus y): +45.0 points (95% interval +32.6 to +57.4; n=3 seeds, "
    "3 of 3 positive)."
  )
  undecided = _sentence({0: 0.4, 1: -0.5, 2: 0.0})
  assert "the interval includes zero" in undecided and "2 of 3" not in undecided
  assert "without seed 2" in _sentence({0: 0.4, 1: 0.5})
  assert "n=1, no interval" in _sentence({1: 0.5}, seeds=2)
  assert "not measured" in _sentence({})


def test_a_negative_difference_counts_negative_seeds():
  assert "2 of 3 negative" in _sentence({0: -0.4, 1: -0.5, 2: 0.1})


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("headline", None, r"config\.report\.headline is None"),
    ("contrasts", [["gap", "aft"]], "each needs 3 strings"),
    ("contrasts", [["gap", "aft", "msm"]], "names the arm 'msm'"),
    ("contrasts", [["gap", "aft", "base"]] * 2, "two contrasts called 'gap'"),
    ("differences", [["d", "gap", "what"]], "names the contrast"),
    ("controls", ["nobody"], r"config\.report\.controls names the arm 'nobody'"),
  ],
)
def test_a_wrong_report_section_is_named(field: str, value: object, message: str):
  config = report_workdir.config()
  config["report"][field] = value
  if field == "contrasts":
    config["report"]["differences"] = []
  with pytest.raises(UserError, match=message):
    settings.from_config(config)


def test_a_directory_without_a_config_is_named(tmp_path: pathlib.Path):
  with pytest.raises(UserError, match=r"config\.json does not exist"):
    report.build(tmp_path)


# The page


class _Links(html.parser.HTMLParser):
  """Collects what a browser would fetch, and which tags there are."""

  def __init__(self):
    super().__init__()
    self.links: list[str] = []
    self.ids: list[str] = []
    self.tags: set[str] = set()

  def handle_starttag(self, tag, attributes):
    self.tags.add(tag)
    for name, value in attributes:
      if name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
        self.links.append(value)
      if name == "id":
        self.ids.append(value)


def test_the_page_asks_for_nothing_outside_itself(study: pathlib.Path):
  text = (study / "report" / "index.html").read_text()
  parser = _Links()
  parser.feed(text)
  assert parser.links
  assert all(link.startswith(("data:", "#")) for link in parser.links)
  inner = {link[1:] for link in parser.links if link.startswith("#")}
  assert inner <= set(parser.ids)
  assert len(parser.ids) == len(set(parser.ids))
  assert not parser.tags & {"iframe", "img", "object", "base"}
  assert "script-src 'sha256-" in text  # nothing runs but the page's own script
  assert not re.search(r"https?://|@import|url\((?!#)", text)


def test_the_page_escapes_documents_and_shows_steps_hashes_and_answers(
  study: pathlib.Path,
):
  text = (study / "report" / "index.html").read_text()
  assert "Mira &amp; co. &lt;b&gt;choose&lt;/b&gt; 0." in text
  assert "&lt;memo&gt; &amp; letter" in text
  assert "ab" * 32 in text and "cd" * 32 in text
  assert "python launch.py run" in text
  assert "unparsed" in text and re.search(r"parsed \d+\.\d%", text)
  assert "\u22122.500" in text  # a log-probability


def test_what_the_config_does_not_ask_for_is_not_there(study: pathlib.Path):
  summary = json.loads((study / "report" / "summary.json").read_text())
  asked = {"curves", "pareto", "grids", "paper", "reference", "agreement"}
  assert not asked & summary.keys()
  text = (study / "report" / "index.html").read_text()
  for name in ("curves", "pareto", "grids", "paper", "reference", "graders"):
    assert f'id="{name}"' not in text
  assert len(summary["headline"]["sentences"]) == 4 and "more findings" not in text
  columns = [m for metrics in summary["results"]["aft"].values() for m in metrics]
  assert len(summary["contrasts"]) == 4 * len(columns)
  assert "On evaluations of their own" not in text


def test_every_figure_of_the_page_is_a_png_too(study: pathlib.Path):
  images = sorted(path.name for path in (study / "report").glob("*.png"))
  text = (study / "report" / "index.html").read_text()
  assert len(images) == text.count("<figure>")
  assert {"headline.png", "contrasts.png", "loss_pretrain+msm_aff+aft.png"} <= {*images}


def test_the_table_of_stages_says_steps_tokens_and_rates(study: pathlib.Path):
  summary = json.loads((study / "report" / "summary.json").read_text())
  stage = summary["stages"][-1]
  assert (stage["stage"], stage["num_train_steps"], stage["steps_done"]) == (
    "aft",
    40,
    [40],
  )
  assert stage["num_slots"] == 40 * 16 * 64
  assert stage["learning_rate"] == 0.001
  assert (stage["runs_done"], stage["runs_expected"]) == (15, 15)


def test_the_same_files_give_the_same_report(study: pathlib.Path):
  before = {path: path.read_bytes() for path in (study / "report").iterdir()}
  report.build(study, study=report_workdir.config(3))
  assert before == {path: path.read_bytes() for path in (study / "report").iterdir()}


def test_the_report_needs_no_jax():
  code = "import sys, msm_jax.report; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
