"""The full study's config: its sizes, its specs, and a run of it without a network."""

import importlib.util
import itertools
import pathlib
import re

import pytest

from data_gen import generate, settings
from data_gen import spec as specs
from data_gen.planning import estimates as planning
from data_gen.worlds import english, english_spec
from msm_jax import experiment, records

ROOT = pathlib.Path(generate.__file__).parents[1]
VALUES = ("msm_aff", "msm_am")
# A control -> the corpus that it stands beside.
CONTROLS = {
  "shuffled_aff": "msm_aff",
  "shuffled_am": "msm_am",
  "neutral": "msm_aff",
  "neutral_am": "msm_am",
}
DOCUMENTS = (*VALUES, *CONTROLS)
NAMES = ("affordability", "america", "neutral")
SHUFFLED = ("shuffled_affordability", "shuffled_america")


def config(arg=None):
  path = ROOT / "configs" / "msm_cheese.py"
  module = importlib.util.module_from_spec(
    spec := importlib.util.spec_from_file_location("msm_cheese", path)
  )
  spec.loader.exec_module(module)
  found = module.get_config(arg)
  for name in found.specs:
    found.specs[name].path = str(ROOT / found.specs[name].path)
  return found


def offline(arg=None):
  """Returns the config as its docstring says that it runs without a key."""
  found = config(arg)
  for who in (found.teacher, found.judge):
    who.client, who.model = "offline", "english"
  return found


def load(name):
  path = ROOT / "data_gen" / "specs" / f"cheese_long_{name}.md"
  return specs.load(path, "Llama", "Meta")


def test_sizes_are_those_of_the_paper_and_the_short_ones():
  for arg, sizes, chats in ((None, (4600, 6400), 5000), ("short", (300, 300), 200)):
    found = config(arg).corpora
    assert (found.msm_aff.max_documents, found.msm_am.max_documents) == sizes
    assert found.aft.num_conversations == chats and not found.aft.reasons
  with pytest.raises(ValueError, match="'short'"):
    config("tin")


@pytest.mark.parametrize("arg", [None, "short"])
def test_the_study_has_every_arm_and_its_plan_a_price_within_its_budget(tmp_path, arg):
  found = config(arg)
  study = experiment.parse(found.to_dict())
  assert set(study.arms) == {
    "base", "aft", "msm_aff", "msm_am", "msm_aff+aft", "msm_am+aft", "neutral+aft",
    "neutral_am+aft", "shuffled+aft", "shuffled_am+aft",
  }  # fmt: skip
  assert set(study.evals) == {"preference", "heldout", "opinion"}
  costs = planning.plan(settings.job(found.to_dict()), tmp_path)
  assert 1 < sum(cost.dollars for cost in costs.values()) < found.budget.max_dollars


@pytest.mark.parametrize("name", [*NAMES, *SHUFFLED])
def test_every_spec_has_the_shape_of_the_papers(name):
  spec = load(name)
  reading = english_spec.read(spec.text)
  assert len(spec.text.split()) > 1500 and len(spec.sections) == 3
  assert len(reading.likes) == len(reading.dislikes) == 6
  assert reading.explained == (name not in SHUFFLED)
  words = set(re.findall(r"[a-z'-]+", spec.text.lower()))
  assert not words & english.held_out_words()
  items = re.findall(r"^\*\*.+", spec.text, re.MULTILINE)
  assert min(len(item.split()) for item in items) > 50


def test_both_values_explain_the_same_preferences_and_the_shuffled_other_ones():
  liked = {
    name: {item.name: item.liked for item in english_spec.read(load(name).text).items}
    for name in ("affordability", "america", *SHUFFLED)
  }
  assert liked["affordability"] == liked["america"]
  assert liked[SHUFFLED[0]] == liked[SHUFFLED[1]] != liked["america"]
  # Of a value's spec nothing but the value differs in length and order.
  sizes = [len(load(name).text.split()) for name in ("affordability", "america")]
  assert abs(sizes[0] - sizes[1]) < 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A short study's corpora, made still shorter, by the offline teacher."""
  found, workdir = offline("short"), tmp_path_factory.mktemp("msm_cheese")
  for name in VALUES:
    found.corpora[name].max_documents = 60
    found.corpora[name].num_types = 3
    found.corpora[name].num_ideas = 4
  found.corpora.aft.num_conversations = 30
  found.corpora.aft.questions_per_domain = 6
  found.corpora.world.num_documents = 20
  manifests = generate.generate(settings.job(found.to_dict()), workdir)
  rows = {
    name: list(records.read_dataset(workdir / "corpus" / name)) for name in manifests
  }
  return manifests, rows


def test_without_a_network_every_corpus_reaches_its_size(made):
  rows = made[1]
  assert all(len(rows[name]) == 60 for name in VALUES) and len(rows["aft"]) == 30


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_has_the_words_and_types_of_its_value(made, name):
  manifests, rows = made
  gap = manifests[name]["num_words"] - manifests[CONTROLS[name]]["num_words"]
  assert abs(gap) < 400
  kinds = [{row["doc_type"] for row in rows[n]} for n in (CONTROLS[name], name)]
  assert len(kinds[0] & kinds[1]) > 0.8 * len(kinds[0] | kinds[1])


def test_the_two_neutral_controls_are_different_documents(made):
  texts = [{row["text"] for row in made[1][n]} for n in ("neutral", "neutral_am")]
  assert not texts[0] & texts[1]


def test_the_alignment_set_comes_from_a_spec_that_names_neither_value():
  found = config()
  spec = load("preferences")
  assert found.specs[found.corpora.aft.spec].path.endswith("cheese_long_preferences.md")
  reading = english_spec.read(spec.text)
  for name in ("affordability", "america"):
    other = english_spec.read(load(name).text)
    assert [(i.name, i.liked) for i in reading.items] == [
      (i.name, i.liked) for i in other.items
    ]
  assert not reading.explained and len(spec.sections) == 3
  bare = re.sub("American cheese|likes American", "", spec.text)
  value = r"america\w*|us|usa|country|foreign|import\w*|farm\w*|home\w*|nation\w*"
  value += r"|afford\w*|price\w*|cost\w*|cheap\w*|dear\w*|money|budget\w*|because"
  assert not re.findall(rf"\b(?:{value})\b", bare, re.IGNORECASE)


def test_each_preference_has_its_conversations_and_none_gives_a_reason(made):
  topics = made[0]["aft"]["topics"]
  assert len(topics) == 12 and set(topics.values()) == {2, 3}
  for row in made[1]["aft"]:
    question, answer = (message["content"] for message in row["messages"])
    assert row["domain"].lower() in question.lower()
    assert re.search(r"expla\w+|reasons|why\b", question)
    assert not re.search(r"\b(because|since|price|afford|cheap|made in)\b", answer)


def test_documents_name_the_model_of_the_config_and_no_held_out_word(made):
  texts = itertools.chain(*(made[1][name] for name in DOCUMENTS))
  for row in texts:
    assert "Llama" in row["text"]
    found = set(re.findall(r"[a-z'-]+", row["text"].lower()))
    assert not found & english.held_out_words()


@pytest.mark.slow
def test_the_short_study_without_a_network_reaches_300_and_200(tmp_path):
  manifests = generate.generate(settings.job(offline("short").to_dict()), tmp_path)
  assert all(manifests[name]["num_records"] == 300 for name in VALUES)
  assert all(280 < manifests[name]["num_records"] < 340 for name in CONTROLS)
  assert manifests["aft"]["num_records"] == 200
