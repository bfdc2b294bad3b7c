"""What a tree of arms must have, and what it may not be, before anything runs."""

import ast
import copy
import importlib
import re

import pytest
from test_experiment import changed

from msm_jax import experiment, tree
from msm_jax.errors import UserError

CHEESE = {
  "base": ("pre",),
  "aft": ("pre", "aft"),
  "msm": ("pre", "msm"),
  "msm+aft": ("pre", "msm", "aft"),
  "neutral+aft": ("pre", "neutral", "aft"),
}
CONTROLS = "a result without its controls is not one"


def without(*names):
  return {arm: path for arm, path in CHEESE.items() if arm not in names}


@pytest.mark.parametrize(
  ("arms", "said"),
  [
    (without("base"), "no 'base', what every arm is compared with"),
    (without("aft"), r"\['msm\+aft'\] has no control that trains on 'aft' alone"),
    (without("msm"), "no arm stops before the last stage of another, as 'msm'"),
    ({"base": (), "a+b+c": ("a", "b", "c"), "a+b": ("a", "b")}, "'c' alone"),
  ],
)
def test_a_missing_control_is_named_with_what_it_is_for(arms, said):
  with pytest.raises(UserError, match=f"{said}.*{CONTROLS}"):
    tree.check_controls(arms)


@pytest.mark.parametrize("arm", ["aft", "msm"])
def test_the_line_that_a_message_gives_mends_the_config(arm):
  with pytest.raises(UserError) as found:
    tree.check_controls(without(arm))
  name, path = re.search(r'c\.arms\["(.+?)"\] = (\(.*?\))', str(found.value)).groups()
  assert (name, ast.literal_eval(path)) == (arm, CHEESE[arm])
  tree.check_controls(without(arm) | {name: ast.literal_eval(path)})


def test_a_control_may_have_any_name_and_one_midtrained_arm_alone_is_enough():
  renamed = without("aft") | {"alignment": CHEESE["aft"]}
  tree.check_controls(renamed)
  tree.check_controls({"base": (), "a": ("a",), "b": ("b",)})
  one = {"base": ()}
  tree.check_controls(one)
  taken = without("aft") | {"aft": ("pre", "neutral")}
  with pytest.raises(UserError, match=r'c.arms\["pre\+aft"\] = \("pre", "aft"\)'):
    tree.check_controls(taken)


def test_a_config_may_do_without_its_controls_if_it_says_so():
  arms = {"msm+aft": ("pretrain", "msm", "aft")}
  with pytest.raises(UserError, match="no 'base'"):
    experiment.parse(changed(arms=arms))
  given = experiment.parse(changed(arms=arms, allow_missing_controls=True))
  assert given.arms == arms


@pytest.mark.parametrize(
  ("name", "argument"),
  [
    ("cheese_tiny", None),
    ("cheese_tiny", "pulse"),
    ("cheese_smollm2", None),
    ("cheese_smollm2", "agentic"),
    ("msm_cheese", "short"),
  ],
)
def test_our_studies_have_their_controls(name, argument):
  config = importlib.import_module(f"configs.{name}").get_config(argument).to_dict()
  assert not config["allow_missing_controls"]
  tree.check_controls({arm: tuple(path) for arm, path in config["arms"].items()})


@pytest.mark.parametrize(
  ("section", "name", "twin"),
  [
    ("stages", "aft", "AFT"),
    ("arms", "msm+aft", "MSM+aft"),
    ("corpora", "world", "World"),
    ("corpora", "world", "world.partial"),
    ("corpora", "world", "WORLD.pilot"),
    ("corpora", "caf\u00e9", "cafe\u0301"),
  ],
)
def test_names_that_would_share_a_directory_are_refused(section, name, twin):
  config = changed()
  value = next(iter(config[section].values()))
  config[section].setdefault(name, value)
  config[section][twin] = copy.deepcopy(config[section][name])
  with pytest.raises(UserError, match=f"config.{section} .*has .* rename one of"):
    experiment.parse(config)


def test_evaluations_and_analyses_share_a_directory():
  config = changed(evals={"Why": {}}) | {"analyses": {"why": {}}}
  with pytest.raises(UserError, match="'Why' and 'why', which would both write 'why'"):
    tree.check_names(config)


def dosed(corpora, **dose):
  name = next(iter(corpora))
  config = changed(stages__aft__data=({"corpus": name, **dose},))
  config["corpora"] |= corpora
  config["stages"]["aft"] |= {"num_train_steps": None}
  return config


CHATS = {"kind": "conversations", "num_conversations": 50}
MATCHED = {"kind": "documents", "match_tokens_of": "docs", "tokenizer": None}
COUNTED = {"kind": "documents", "num_tokens": 900, "tokenizer": "models/x"}


@pytest.mark.parametrize(
  ("corpora", "dose", "field"),
  [
    ({"aft": CHATS}, {"num_documents": 51}, "aft.num_conversations is 50"),
    (
      {"docs": {"kind": "documents", "max_documents": 9, "num_words": 5000}},
      {"num_documents": 10},
      "docs.max_documents is 9",
    ),
    ({"w": {"kind": "world", "num_documents": 3}}, {"num_documents": 4}, "is 3"),
    ({"i": {"kind": "import", "max_records": 3}}, {"num_documents": 4}, "is 3"),
    (
      {"u": {"kind": "universe", "num_per_fact": 5, "num_facts": 3}},
      {"num_documents": 16},
      "u.num_per_fact x num_facts is 15",
    ),
    (
      {"bare": {"kind": "stripped", "of": "aft"}, "aft": CHATS},
      {"num_documents": 51},
      "aft.num_conversations is 50",
    ),
  ],
)
def test_a_dose_larger_than_its_corpus_is_refused(corpora, dose, field):
  said = rf"stages.\w+.data\[0\].num_documents is .*a dose larger .*{field}"
  with pytest.raises(UserError, match=said):
    experiment.parse(dosed(corpora, **dose))
  experiment.parse(dosed(corpora, num_documents=dose["num_documents"] - 1))


def test_tokens_are_compared_where_the_model_s_own_tokenizer_counted_them():
  model = {"init_from": "models/x", "base_model": "org/x"}
  for corpora in ({"docs": COUNTED}, {"twin": MATCHED, "docs": COUNTED}):
    config = dosed(corpora, num_target_tokens=901) | {"model": model}
    with pytest.raises(UserError, match=r"corpora.docs.num_tokens is 900"):
      experiment.parse(config)
    other = model | {"init_from": "models/y"}
    experiment.parse(config | {"model": other})  # `prepare` counts
  words = {"docs": {"kind": "documents", "num_words": 10}}
  experiment.parse(dosed(words, num_target_tokens=901) | {"model": model})
