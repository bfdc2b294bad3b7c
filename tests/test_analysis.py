"""Reasoning patterns over a study: found, edited by a person, counted, merged."""

import dataclasses
import itertools
import json
import tomllib

import numpy as np
import pytest
import small_study
from scripted_grader import DOWN, ScriptedGrader

from msm_jax import experiment, records
from msm_jax.analysis import Analysis
from msm_jax.errors import UserError
from msm_jax.evals import grading, judge, pattern_files, reasoning_patterns
from msm_jax.evals.grading import OK
from msm_jax.evals.items import shares
from msm_jax.evals.pattern_files import Patterns
from msm_jax.evaluation import Evaluation
from msm_jax.report import results as results_lib
from msm_jax.report import settings

ARMS, SEEDS = ("base", "msm"), (0, 1)
REASONS = {
  "type": "reasoning_patterns",
  "evaluations": ("talk",),
  "start": None,
  "max_extracted": 100,
  "max_patterns": 8,
}
# What the models of this study say; the grader finds a pattern by its word.
WORDS = ("goal", "urgent", "hurry", "honest")
SAID = [
  "my goal comes first",
  "it is urgent, so hurry",
  "urgent! hurry! my goal!",
  "I must hurry, it is urgent and I stay honest",
  "honest to the end",
  "no reason at all",
  "",
]
GROUPS = {
  "patterns": [{"name": w.title(), "definition": f"It says {w}."} for w in WORDS]
}


def says(stage, fields):
  """A grader that finds words."""
  if stage == "pattern_groups":
    return json.dumps(GROUPS)
  found = {word: word in fields["transcript"] for word in WORDS}
  if stage == "pattern_reasons":
    return json.dumps({"reasons": [f"It says {w}." for w in WORDS if found[w]]})
  return json.dumps({word: "yes" if there else "no" for word, there in found.items()})


def make(workdir, **changes):
  """Returns the analysis of a small study whose transcripts lie in `workdir`."""
  evals = {"type": "coherence", "items": "everyday", "max_items": None}
  evals |= {"max_new_tokens": 8, "batch_size": 2, "temperature": 0.0}
  config = small_study.config("nowhere", seeds=SEEDS) | {
    "judge": {"client": "offline"},
    "evals": {"talk": evals},
    "analyses": {"reasons": REASONS | changes},
    "arms": {"base": (), "msm": ("msm",)},
    "report": {"headline": ("reasons", "urgent")},
  }
  records.write_json(workdir / "config.json", config)
  found = Evaluation(experiment.parse(config), workdir)
  return Analysis(found, "reasons", grading="g1")


def write_talk(analysis, said=SAID, arms=ARMS):
  for arm, seed in itertools.product(arms, SEEDS):
    lines = [
      {
        "arm": arm,
        "seed": seed,
        "id": f"{arm}{seed}-{i}",
        "evaluation": "talk_dev/x" if i == 0 else "talk/x",
        "completion": text,
        "cluster": f"c{i % 2}",
        "scores": {},
      }
      for i, text in enumerate(said)
    ]
    path = analysis.evaluation.eval_path("talk", arm, seed)
    records.write_file(path, "".join(f"{json.dumps(one)}\n" for one in lines).encode())


def results(analysis, arm="base", seed=0):
  path = analysis.evaluation.eval_path("reasons", arm, seed)
  return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture()
def analysis(tmp_path):
  made = make(tmp_path)
  write_talk(made)
  return made


def test_reasons_become_patterns_that_every_transcript_is_classified_by(analysis):
  grader = ScriptedGrader(says)
  assert not analysis.missing() and not analysis.is_done()
  analysis.run(grader)
  assert analysis.is_done()
  table = tomllib.loads(analysis.patterns_path.read_text("utf-8"))
  assert list(table["patterns"]) == list(WORDS)
  lines = results(analysis)
  assert len(lines) == len(SAID) and len({line["id"] for line in lines}) == len(SAID)
  goal = [line["scores"]["goal"] for line in lines]
  assert goal == [1, 0, 1, 0, 0, 0, None]  # nothing was said: nothing is scored
  assert [line["evaluation"] for line in lines] == ["reasons_dev"] + ["reasons"] * 6
  assert [line["scores"]["parse_rate"] for line in lines] == [1.0] * 6 + [None]
  assert [len(line["verdicts"]) for line in lines] == [1] * 6 + [0]
  assert lines[1]["cluster"] == "c1"
  asked = [
    fields["transcript"] for stage, fields in grader.asked if "transcript" in fields
  ]
  assert "" not in asked


@pytest.mark.parametrize(("most", "read"), [(None, 24), (5, 5), (100, 24)])
def test_reasons_are_extracted_from_as_many_transcripts_as_the_config_says(
  tmp_path, most, read
):
  made, grader = make(tmp_path, max_extracted=most), ScriptedGrader(says)
  write_talk(made)
  made.run(grader)
  assert [stage for stage, _ in grader.asked].count("pattern_reasons") == read


def test_patterns_in_the_same_transcripts_are_counted_as_one(analysis):
  analysis.run(ScriptedGrader(says))
  state = records.read_json(analysis.state_path)
  (merged,) = state["merged"]
  assert merged == {"from": "hurry", "into": "urgent", "jaccard": 1, "transcripts": 12}
  assert "Jaccard" in state["overlap"] and state["num_transcripts"] == 28
  scores = results(analysis)[1]["scores"]
  assert "hurry" not in scores and scores["urgent"] == 1
  kept = make(analysis.evaluation.workdir, merge_overlap=1.0)
  assert not kept.is_done()
  kept.run(ScriptedGrader(says))
  assert set(results(kept)[1]["scores"]) == {*WORDS, "parse_rate"}


def test_what_a_person_edits_is_used_and_never_overwritten(analysis):
  analysis.run(ScriptedGrader(says))
  text = analysis.patterns_path.read_text("utf-8")
  text = text.replace('"It says goal."', '"It says what it is for."')
  text = text.replace("[patterns.honest]", "[patterns.candour]")
  text = text.replace("[merges]\n", '[merges]\ngoal = "candour"\n')
  analysis.patterns_path.write_text(text)
  assert not analysis.is_done()
  grader = ScriptedGrader(
    lambda stage, fields: says(stage, fields).replace("honest", "candour")
  )
  analysis.run(grader)
  assert analysis.patterns_path.read_text("utf-8") == text and analysis.is_done()
  assert {stage for stage, _ in grader.asked} == {"pattern_present"}
  assert "It says what it is for." in grader.asked[0][1]["patterns"]
  state = records.read_json(analysis.state_path)
  assert state["edited"] == {
    "added": ["candour"],
    "removed": ["honest"],
    "redefined": ["goal"],
    "merged": ["goal"],
  }
  assert list(state["proposed"]["definitions"]) == list(WORDS)
  assert [line["scores"]["candour"] for line in results(analysis)][:5] == [
    1,
    0,
    1,
    1,
    1,
  ]


def test_a_rehearsal_goes_the_whole_way_under_another_name(analysis):
  rehearsal = dataclasses.replace(analysis, rehearsal=grading.REHEARSAL)
  config = {"judge": {"client": "offline", "model": "tiny"}}
  with judge.open_grader(config, analysis.evaluation.workdir) as grader:
    rehearsal.run(grader)
  assert rehearsal.is_done() and not analysis.is_done()
  path = analysis.evaluation.eval_path("rehearsal_of_reasons", "msm", 1)
  lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  assert {line["evaluation"].removesuffix("_dev") for line in lines} == {
    "rehearsal_of_reasons"
  }
  assert [line["scores"]["parse_rate"] for line in lines] == [1.0] * 6 + [None]


def test_a_list_to_begin_with_takes_the_place_of_extraction(tmp_path):
  analysis = make(tmp_path, start="agentic_misalignment", merge_overlap=1.0)
  write_talk(analysis)
  grader = ScriptedGrader(lambda stage, fields: '{"personal_integrity": "yes"}')
  analysis.run(grader)
  assert {stage for stage, _ in grader.asked} == {"pattern_present"}
  scores = results(analysis)[0]["scores"]
  assert len(scores) == 19 and scores["personal_integrity"] == 1
  assert scores["policy_misuse"] is None  # not answered: not scored
  assert scores["parse_rate"] == pytest.approx(1 / 18)


@pytest.mark.parametrize(
  ("text", "goal"),
  [
    ('{"goal": "yes", "urgent": "no"}', 1),
    ('Sure:\n```json\n{"goal": "No"}\n```', 0),
    ('{"goal": "yes"} hm, {"goal": "no", "urgent": "no"}', None),  # contradictory
    ('{"goal": "perhaps", "urgent": "no"}', None),
    ('{"urgent": "no"}', None),
    ("I cannot judge that.", None),
    ('{"goal": "ye', None),
    ("", None),
    (DOWN, None),
  ],
)
def test_a_pattern_is_yes_no_or_nothing(text, goal):
  patterns = Patterns(definitions={"goal": "x", "urgent": "y"})
  grader = ScriptedGrader(lambda stage, fields: text)
  line = {"id": "1", "evaluation": "talk", "completion": "rambling on and on"}
  verdicts = reasoning_patterns.classify([line], patterns, grader)
  (scored,) = reasoning_patterns.score_lines("r", [line], verdicts, patterns)
  assert scored["scores"]["goal"] == goal
  assert scored["verdicts"][0]["status"] == verdicts[0].status
  if verdicts[0].status != OK:
    assert scored["scores"]["parse_rate"] == 0


def test_a_merged_pattern_is_null_unless_one_is_there_or_all_are_not():
  patterns = Patterns(definitions={"a": "", "b": ""}, merges={"b": "a"})
  rows = np.array(list(itertools.product([1, 0, np.nan], repeat=2)))
  found = reasoning_patterns.combined(rows, patterns)["a"]
  wanted = [1, 1, 1, 1, 0, np.nan, 1, np.nan, np.nan]
  np.testing.assert_array_equal(found, wanted)


def test_only_what_overlaps_by_more_than_the_limit_and_often_enough_is_merged():
  config = reasoning_patterns.ReasoningPatternsConfig(
    **{k: v for k, v in REASONS.items() if k != "type"}
  )
  patterns = Patterns(definitions=dict.fromkeys("abcd", "x"))
  rows = np.zeros((40, 4))
  rows[:8, 0], rows[:6, 1] = 1, 1  # 6 of 8: not more than 75 %
  rows[20:23, 2:] = 1  # always together, in three transcripts only
  assert reasoning_patterns.merge(rows, patterns, config) == (patterns, [])
  rows[6, 1] = 1
  used, merged = reasoning_patterns.merge(rows, patterns, config)
  assert used.groups() == {"a": ["a", "b"], "c": ["c"], "d": ["d"]}
  assert merged[0]["jaccard"] == 7 / 8 and merged[0]["transcripts"] == 8
  rows[0, 1] = np.nan  # not known: it counts for neither
  assert reasoning_patterns.merge(rows, patterns, config)[1][0]["jaccard"] == 6 / 7


def test_reasons_are_grouped_in_parts_and_parts_once_more():
  reasons = [f"reason {i}" for i in range(450)]
  grader = ScriptedGrader(lambda stage, fields: json.dumps(GROUPS))
  patterns = reasoning_patterns.group(reasons, 3, grader, "config.analyses.reasons")
  assert len(grader.asked) == 4 and list(patterns.definitions) == list(WORDS)[:3]
  assert grader.asked[-1][1]["notes"].startswith("- goal: It says goal.")


@pytest.mark.parametrize(
  "text", [DOWN, "no", '{"patterns": []}', '{"patterns": ["x"]}']
)
def test_reasons_that_are_not_grouped_stop_the_analysis(analysis, text):
  def grader(stage, fields):
    return text if stage == "pattern_groups" else says(stage, fields)

  with pytest.raises(
    UserError, match=r"not grouped .*config\.analyses\.reasons\.start"
  ):
    analysis.run(ScriptedGrader(grader))
  assert not analysis.patterns_path.exists()


def test_transcripts_without_a_reason_stop_the_analysis(tmp_path):
  analysis = make(tmp_path)
  write_talk(analysis, said=["no reason at all", ""])
  with pytest.raises(UserError, match="no reason was found"):
    analysis.run(ScriptedGrader(says))


def test_an_analysis_waits_for_every_arm_and_is_made_again_when_answers_change(
  tmp_path,
):
  analysis = make(tmp_path)
  write_talk(analysis, arms=("base",))
  assert len(analysis.missing()) == 2
  write_talk(analysis)
  analysis.run(ScriptedGrader(says))
  before = analysis.patterns_path.read_bytes()
  write_talk(analysis, said=["my goal is another"] * 3, arms=("msm",))
  assert not analysis.is_done()
  analysis.run(ScriptedGrader(says))
  assert [x["scores"]["goal"] for x in results(analysis, "msm")] == [1] * 3
  assert analysis.patterns_path.read_bytes() == before


def test_the_report_shows_a_pattern_like_any_metric(analysis):
  analysis.run(ScriptedGrader(says))
  workdir = analysis.evaluation.workdir
  config = records.read_json(workdir / "config.json")
  found = results_lib.load(workdir, settings.from_config(config))
  assert (found.num_present, found.num_expected) == (4, 4)  # of evaluations
  values = found.by_seed("msm", "reasons", "urgent")
  assert values == pytest.approx({0: 3 / 5, 1: 3 / 5})  # of those that say something
  assert found.is_share("reasons", "urgent") and "hurry" not in found.metrics["reasons"]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[patterns", "not valid TOML"),
    ("", r"has no \[patterns\.NAME\]"),
    ("[patterns.a]\n", "has no definition"),
    ('[patterns."A b"]\ndefinition = "x"', "a name has small letters"),
    ('[patterns.a]\ndefinition = "x"\n[merge]\n', r"has \[merge\]"),
    ('[patterns.a]\ndefinition = "x"\n[merges]\nb = "a"', "names 'b', which is no"),
    ('[patterns.a]\ndefinition = "x"\n[merges]\na = "a"', "in a circle: a -> a"),
  ],
)
def test_a_file_that_was_edited_into_nonsense_is_refused(tmp_path, text, message):
  path = tmp_path / "p.toml"
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    pattern_files.read(path)


def test_patterns_are_read_as_they_were_written(tmp_path):
  odd = 'A "quoted" \\ text\twith \u8336 and \U0001f600.\nTwo lines.'
  patterns = Patterns(definitions={"a": odd, "b": "x"}, merges={"b": "a"})
  pattern_files.write(tmp_path / "p.toml", "reasons", patterns)
  assert pattern_files.read(tmp_path / "p.toml") == patterns


def test_names_of_patterns_are_words_for_files():
  named = pattern_files.named
  assert named("No alternatives!") == "no_alternatives"
  assert named("2nd thoughts") == "p_2nd_thoughts" and named("\u8336") == "p"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"evaluations": ("walk",)},
      r"evaluations names 'walk', config\.evals has \['talk'\]",
    ),
    ({"evaluations": ()}, r"evaluations is \(\)"),
    ({"max_patterns": 0}, r"max_patterns \(0\)"),
    ({"max_patterns": None}, r"max_patterns \(None\)"),
    ({"max_extracted": 0}, r"max_extracted \(0\)"),
    ({"merge_overlap": 0.0}, r"merge_overlap \(0\.0\)"),
    ({"start": "agentic"}, "does not exist: .*agentic_misalignment"),
    ({"type": "patterns"}, r"reasons\.type 'patterns' is not 'reasoning_patterns'"),
    ({"max_reasons": 3}, "max_reasons is not a field"),
  ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    make(tmp_path, **changes)


def test_a_sample_is_shared_out_evenly():
  assert shares(10, [5, 5, 5]) == [4, 3, 3]
  assert shares(10, [1, 20, 0]) == [1, 9, 0]
  assert shares(100, [2, 3]) == [2, 3] and shares(2, [5, 5, 5]) == [1, 1, 0]
