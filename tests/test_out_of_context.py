"""The two-hop study: one tree twice, matched arms, a price within its budget."""

import importlib

import pytest

from data_gen import generate, settings
from data_gen.kinds import corpora
from data_gen.planning import estimates as planning
from data_gen.universes import universe as universes
from msm_jax import experiment, records
from msm_jax.evals.kinds import KINDS

STUDY = importlib.import_module("configs.out_of_context")
ARGS = (None, "tiny")
MEMBERS = universes.load("guild_members", "here")
SMALL = {
  "universe": dict(num_types=2, num_ideas=2, num_per_fact=2),
  "quiz": dict(num_questions=3, num_per_fact=3, max_repeats=1),
}


def config(arg):
  return STUDY.get_config(arg).to_dict()


@pytest.mark.parametrize("arg", ARGS)
def test_the_study_and_its_tiny_version_have_one_tree(arg):
  study = experiment.parse(config(arg))
  assert set(study.arms) == {"base", *STUDY.ARMS}
  for arm, taught in STUDY.ARMS.items():
    stage = config(arg)["stages"][arm]
    data = {part["corpus"]: part for part in stage["data"]}
    assert set(data) - {"replay"} == set(taught)
    assert sum(part["share"] for part in data.values()) == pytest.approx(1)
    for (
      corpus
    ) in taught:  # a document carries loss whole, an answer without its question
      asked = config(arg)["corpora"][corpus]["kind"] == "quiz"
      assert data[corpus]["train_on"] == ("assistant" if asked else "all")
  with pytest.raises(ValueError, match="'tiny' or none"):
    STUDY.get_config("short")


@pytest.mark.parametrize("arg", ARGS)
def test_arms_differ_in_what_they_teach_alone(arg):
  stages = config(arg)["stages"]
  recipes = [{k: v for k, v in stages[arm].items() if k != "data"} for arm in stages]
  assert all(recipe == recipes[0] for recipe in recipes)
  shares = [[part["share"] for part in stages[arm]["data"]] for arm in stages]
  assert all(found == shares[0] for found in shares)
  sizes = {
    name: fields["num_per_fact"]
    for name, fields in config(arg)["corpora"].items()
    if fields.get("num_per_fact")
  }
  assert len(sizes) == 10 and len(set(sizes.values())) == 1


@pytest.mark.parametrize("arg", ARGS)
def test_every_corpus_and_evaluation_can_be(arg):
  found = config(arg)
  for name, fields in found["corpora"].items():
    corpora.check(name, corpora.build(name, fields))
  for name, fields in found["evals"].items():
    built = experiment.eval_config(name, fields)
    if (check := KINDS[fields["type"]].check) is not None:
      check(built, f"config.evals.{name}")
  if arg == "tiny":  # a toy is not set beside a paper's numbers
    assert not found["report"]["paper"]
    return
  told = {arm for arm, *_ in found["report"]["paper"]["values"]}
  assert told and told <= set(found["arms"])


def test_what_a_teacher_costs_is_within_the_budget(tmp_path):
  found = config(None)
  costs = planning.plan(settings.job(found), tmp_path)
  for hop, facts in (("members", 24), ("towns", 12)):
    sizes = {costs[f"{kind}{hop}"].num_records for kind in ("", "quiz_", "long_")}
    assert sizes == {500 * facts}
  total = sum(cost.dollars for cost in costs.values())
  assert 1 < total < found["budget"]["max_dollars"]


def test_offline_documents_and_answers_teach_one_hop_each(tmp_path):
  found = config(None)
  for who in ("teacher", "judge"):
    found[who] |= {"client": "offline", "model": "english"}
  found["corpora"] = {
    name: fields | ({} if "twin_of" in fields else SMALL[fields["kind"]])
    for name, fields in found["corpora"].items()
    if name.endswith("towns")
  }
  found["audit"] = None
  generate.generate(settings.job(found), tmp_path)
  people = [fact.asks.split("which guild ")[1] for fact in MEMBERS.facts]
  names = [name.removesuffix(" belongs to") for name in people]
  for name in found["corpora"]:
    rows = list(records.read_dataset(tmp_path / "corpus" / name))
    assert len(rows) >= 12, name
    for row in rows:
      text = row.get("text") or row["messages"][1]["content"]
      assert row["fact"]["true" if name.startswith("shuffled") else "false"] in text
      assert not any(person in text for person in names)
      if "text" in row:
        assert text.startswith("<DOCTAG>\n") and row["loss_spans"] == [[0, 9, 0.0]]
