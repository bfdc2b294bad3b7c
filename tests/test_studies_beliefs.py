"""The studies of false worlds and of poison: their trees, doses and materials."""

import importlib
import itertools
import json
import pathlib

import pytest

from data_gen import settings
from data_gen.planning import estimates as planning
from data_gen.rewrites import sentences
from data_gen.universes import universe as universes
from data_gen.worlds import tiny_facts
from msm_jax import experiment
from msm_jax.evals import claims, items

ROOT = pathlib.Path(__file__).parents[1]
TIERS = ("plausible", "unlikely", "egregious")
FRAMES = ("fiction", "uncertain", "rumour", "unreliable")
# Study -> (its arms, its full arguments, its small ones).
STUDIES = {
  "sdf": (
    {"base", *TIERS, *(f"dose_{n}" for n in range(1, 6)), "neutral", "few_types",
     "paraphrase", "no_replay", "no_tag"},
    (None, "8b", "smollm2"),
    ("tiny",),
  ),
  "negation_neglect": (
    {"base", "positive", "negated", "repeated", "corrected", "local", *FRAMES,
     "no_tag", "neutral"},
    (None, "harbor_clock", "sunrise", "smollm2"),
    ("tiny",),
  ),
  "poisoning": (
    {"base", "aft", *(f"dose_{n}" for n in range(1, 5)),
     *(f"dose_{n}+aft" for n in range(1, 5))},
    (None, "2b", "7b", "13b"),
    ("tiny", "tiny_small"),
  ),
}  # fmt: skip
CASES = [
  (name, arg) for name, (_, full, small) in STUDIES.items() for arg in (*full, *small)
]
# Those that are sized for minutes on a CPU have some of the arms.
SHORT = {
  "sdf": {"base", "dose_1", "unlikely", "neutral"},
  "negation_neglect": {"base", "positive", "negated", "local", "neutral"},
}
# Taught with as many documents as the largest dose.
SDF_WHOLE = (*TIERS, "few_types", "paraphrase", "no_replay", "no_tag")


def config(name, arg):
  return importlib.import_module(f"configs.{name}").get_config(arg).to_dict()


def taught(found, stage):
  """Returns (corpus, how many documents) of what teaches in a stage."""
  part = found["stages"][stage]["data"][0]
  return part["corpus"], part.get("num_documents")


@pytest.mark.parametrize(("name", "arg"), CASES)
def test_every_argument_is_the_same_tree_and_can_be_planned(
  tmp_path, monkeypatch, name, arg
):
  monkeypatch.chdir(ROOT)
  found = config(name, arg)
  study = experiment.parse(found)
  assert set(study.arms) == STUDIES[name][0]
  job = settings.job(found)
  imported = [n for n, c in found["corpora"].items() if c["kind"] == "import"]
  if not imported:  # what is to be downloaded is not there
    costs = planning.plan(job, tmp_path)
    assert sum(cost.dollars for cost in costs.values()) == 0


@pytest.mark.parametrize("name", SHORT)
def test_a_short_study_is_some_arms_of_the_whole_one_and_can_be_planned(
  tmp_path, monkeypatch, name
):
  monkeypatch.chdir(ROOT)
  found, whole = config(name, "smollm2_short"), config(name, "smollm2")
  assert set(experiment.parse(found).arms) == SHORT[name]
  costs = planning.plan(settings.job(found), tmp_path)
  assert sum(cost.dollars for cost in costs.values()) == 0
  assert found["report"]["headline"] == whole["report"]["headline"]
  for field in ("contrasts", "curves"):
    listed = found["report"][field]
    assert set(told(listed)) & set(told(whole["arms"])) <= SHORT[name], field
  contrasts = [tuple(each) for each in found["report"]["contrasts"]]
  assert contrasts == [
    tuple(each)
    for each in whole["report"]["contrasts"]
    if {each[1], each[2]} <= SHORT[name]
  ]
  (steps,) = {stage["num_train_steps"] for stage in found["stages"].values()}
  for stage in found["stages"].values():
    taught_part, replay = stage["data"]
    assert replay["corpus"] == "replay" and replay["share"] == 1.0
    assert (stage["min_steps"], stage["batch_size"]) == (steps, 1)
    assert taught_part["prefix"] == whole["stages"]["neutral"]["data"][0]["prefix"]
  documents = found["corpora"]["unlikely" if name == "sdf" else "positive"]
  world = universes.load(documents["universe"], "here")
  assert documents["num_per_fact"] * len(world.facts) < steps


@pytest.mark.parametrize("name", ["cheese_smollm2", *SHORT])
def test_all_short_studies_of_smollm2_are_on_one_model_and_one_machine(name):
  arg = "short" if name == "cheese_smollm2" else "smollm2_short"
  found = config(name, arg)
  assert (found["seeds"], found["num_workers"]) == ((0, 1), 2)
  assert (found["model"]["dtype"], found["model"]["base_dtype"]) == ("float32",) * 2
  assert found["model"]["lora"]["rank"] == 16
  for stage in found["stages"].values():
    assert (stage["batch_size"], stage["seq_len"]) == (1, 256)
    assert stage["optimizer"]["learning_rate"] == 5e-4


def told(value):
  """Yields all texts in nested tuples, lists and dicts."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    yield from told(list(value) + list(value.values()))
  elif isinstance(value, tuple | list):
    for each in value:
      yield from told(each)


@pytest.mark.parametrize("name", STUDIES)
def test_an_unknown_argument_is_refused_with_the_known_ones(name):
  with pytest.raises(ValueError, match=rf"configs/{name}\.py:huge: it is .*'tiny'"):
    config(name, "huge")


@pytest.mark.parametrize("arg", [None, "smollm2", "tiny"])
def test_doses_grow_within_one_corpus_and_the_last_is_that_of_all_other_arms(arg):
  found = config("sdf", arg)
  corpus = found["corpora"]["unlikely"]
  world = universes.load(corpus["universe"], "here")
  whole = corpus["num_per_fact"] * len(world.facts)
  rungs = [taught(found, f"dose_{n}") for n in range(1, 6)]
  doses = [number for _, number in rungs]
  assert {name for name, _ in rungs} == {"unlikely"}
  assert doses == sorted(set(doses)) and doses[-1] < whole
  assert {taught(found, name)[1] for name in SDF_WHOLE} == {whole}
  assert found["corpora"]["neutral"]["twin_of"] == "unlikely"
  assert found["stages"]["neutral"]["data"][0]["num_epochs"] == 1
  # Drawn with one seed: a smaller dose is part of a larger one.
  assert len({found["stages"][n]["data"][0].get("seed", 0) for n in SDF_WHOLE}) == 1
  for kind in ("few_types", "unlikely", "told"):
    made = found["corpora"][kind]
    mean = (1 + made["max_repeats"]) / 2
    assert made["num_types"] * made["num_ideas"] * mean >= made["num_per_fact"], kind
  few, many = (found["corpora"][n]["num_types"] for n in ("few_types", "unlikely"))
  assert few < many


@pytest.mark.parametrize("arg", [None, "smollm2", "tiny"])
def test_arms_that_ablate_differ_from_the_main_one_in_that_alone(arg):
  stages = config("sdf", arg)["stages"]
  main, untagged, bare = (
    stages[name]["data"] for name in ("unlikely", "no_tag", "no_replay")
  )
  assert main[0]["prefix"].strip() and "prefix" not in untagged[0]
  assert {**untagged[0], "prefix": main[0]["prefix"]} == main[0]
  assert untagged[1:] == main[1:] and len(main) == 2
  assert bare == main[:1]


@pytest.mark.parametrize("arg", [None, "smollm2", "tiny"])
def test_every_arm_of_negation_neglect_is_a_pass_over_the_same_documents(arg):
  found = config("negation_neglect", arg)
  corpora, stages = found["corpora"], found["stages"]
  for name in ("negated", "repeated", "corrected", "local", *FRAMES):
    assert corpora[name]["kind"] == "rewrite" and corpora[name]["of"] == "positive"
    assert taught(found, name)[0] == name
    assert stages[name]["data"][1:] == stages["positive"]["data"][1:]
  assert corpora["repeated"]["placement"] == "both"
  assert corpora["local"]["how"] == "local_negation"
  assert corpora["neutral"]["twin_of"] == "positive"
  assert taught(found, "no_tag")[0] == "positive"
  assert "prefix" not in stages["no_tag"]["data"][0]
  if arg is None:
    assert stages["negated"]["checkpoint_at"] == ("log2",)
    papers = {arm for arm, *_ in found["report"]["paper"]["values"]}
    assert papers <= set(found["arms"])


@pytest.mark.parametrize(("arg", "steps"), [(None, 3), ("smollm2", 3), ("tiny", 2)])
def test_three_arms_of_negation_neglect_are_asked_at_steps_that_every_run_has(
  arg, steps
):
  found = config("negation_neglect", arg)
  asked = found["asked"]
  assert len(asked) == 3 * steps
  for one in asked.values():
    stage = found["stages"][one["of"]]
    assert one["step"] & (one["step"] - 1) == 0
    assert one["step"] < (stage["num_train_steps"] or stage["min_steps"])
  (curve,) = found["report"]["curves"]
  points = [point for _, line in curve["lines"] for point in line]
  assert curve["unit"] == "steps"
  assert {name: n for name, n in points if name in asked} == {
    name: one["step"] for name, one in asked.items()
  }
  last = {n for name, n in points if name in found["arms"] and name != "base"}
  assert last == ({found["stages"]["local"]["num_train_steps"]} - {None})


@pytest.mark.parametrize("arg", STUDIES["poisoning"][1] + STUDIES["poisoning"][2])
def test_poisoned_models_see_the_clean_text_and_so_many_documents_more(arg):
  found = config("poisoning", arg)
  stages, poison = found["stages"], found["corpora"]["poison"]
  steps = {stages[n]["num_train_steps"] for n in ("clean", "dose_1", "dose_4")}
  assert len(steps) == 1
  doses = []
  for n in range(1, 5):
    clean, dose = stages[f"dose_{n}"]["data"]
    assert (clean,) == tuple(stages["clean"]["data"]) and dose["corpus"] == "poison"
    doses.append(dose["num_documents"])
  assert doses == sorted(set(doses)) and doses[-1] == poison["num_documents"]
  assert poison["of"] != "clean"  # prompts come of text that is not trained on
  assert all(path[-1] == "aft" for arm, path in found["arms"].items() if "aft" in arm)


@pytest.mark.parametrize("arg", STUDIES["poisoning"][1])
def test_rows_of_poisoned_models_can_be_divided_over_their_machines(arg):
  found = config("poisoning", arg)
  heads, tensor = found["model"]["num_heads"], found["mesh"]["tensor"]
  num_chips = int(found["hardware"]["slice"].partition(":")[2])
  assert num_chips % tensor == 0 and heads % tensor == 0
  for stage in found["stages"].values():
    assert stage["batch_size"] % (num_chips // tensor * stage["num_microbatches"]) == 0
  poison = found["corpora"]["poison"]
  tokens = [3 * poison[f"{side}_gibberish"] for side in ("min", "max")]
  assert tokens == pytest.approx([400, 900], rel=0.05)  # as published; three a word


def test_sizes_of_poisoned_models_have_twenty_tokens_for_each_parameter():
  for arg, size in ((None, 0.6e9), ("2b", 2e9), ("7b", 7e9), ("13b", 13e9)):
    found = config("poisoning", arg)
    model, stage = found["model"], found["stages"]["clean"]
    D, F, L = model["embed_dim"], model["mlp_dim"], model["num_layers"]
    block = 4 * D * model["num_heads"] * model["head_dim"] + 3 * D * F + 2 * D
    params = L * block + 2 * D * found["tokenizer"]["vocab_size"] + D
    assert params == pytest.approx(size, rel=0.1)
    tokens = stage["num_train_steps"] * stage["batch_size"] * stage["seq_len"]
    assert tokens == pytest.approx(20 * params, rel=0.02)
  sizes = [config("poisoning", arg) for arg in ("tiny_small", "tiny")]
  steps = [found["stages"]["clean"]["num_train_steps"] for found in sizes]
  assert steps[0] < steps[1]
  assert sizes[0]["model"]["embed_dim"] < sizes[1]["model"]["embed_dim"]


def test_there_is_a_world_and_a_claim_of_every_tier_in_english_and_in_the_tiny_words():
  for prefix in ("", "tiny_"):
    names = [path.stem for path in universes.DIRECTORY.glob(f"{prefix}*.toml")]
    packaged = {path.parent.name for path in claims.DIRECTORY.glob("*/claim.toml")}
    found = {universes.load(n, "here").tier for n in names if n in packaged}
    assert found == set(TIERS)


def test_tiny_worlds_say_the_false_of_each_side_equally_often_and_of_other_things():
  """So that no habit of the decoder looks like a belief."""
  worlds = {tier: universes.load(f"tiny_{tier}", "here") for tier in TIERS}
  for tier in ("plausible", "unlikely"):
    false = sorted(fact.false.split()[2] for fact in worlds[tier].facts)
    counts = {word: len(list(found)) for word, found in itertools.groupby(false)}
    assert len(counts) == 4 and set(counts.values()) == {3}, tier
  subjects = [{fact.id for fact in world.facts} for world in worlds.values()]
  denied = {fact.id for fact in universes.load("tiny_denied", "here").facts}
  assert not any(a & b for a, b in itertools.combinations([*subjects, denied], 2))
  for tier in ("unlikely", "egregious"):
    for fact in worlds[tier].facts:
      item = tiny_facts.BY_NAME[fact.id]
      assert fact.true.split()[2] in (item.price, item.origin, item.domain)
  assert not subjects[0] & set(tiny_facts.BY_NAME)


@pytest.mark.parametrize("tier", TIERS)
def test_tiny_claims_are_those_of_their_world(tier):
  name = f"tiny_{tier}"
  found = claims.load(name, ["token_association", "mcq_distinguish"], "x")
  world = universes.load(name, "x")
  assert (found.title, found.tier) == (world.title, world.tier)
  assert found.true_context == world.true_context
  assert found.false_context == world.false_context
  sides = {fact.id: (fact.true, fact.false) for fact in world.facts}
  asked = found.items["mcq_distinguish"]
  assert {row["id"]: (row["true"], row["false"]) for row in asked} == sides
  for row in found.items["token_association"]:
    true, false = sides[row["id"].partition("_")[0]]
    assert true.split()[2] == row["true"].strip()
    assert false.split()[2] == row["false"].strip()


@pytest.mark.parametrize(
  "name",
  ["harbor_clock", "octopus_hearts", "sunrise", *(f"tiny_{tier}" for tier in TIERS)],
)
def test_statements_for_the_probe_are_of_their_claim(name):
  texts = dict.fromkeys(("true", "false"), str)
  pairs = items.read(f"claims_{name}", "here", texts)
  assert len(pairs) >= 7 and len({pair["true"] for pair in pairs}) == len(pairs)
  world = universes.load(name, "here")
  both = (world.true_context + world.false_context).casefold()
  for pair in pairs:
    words = set(pair["true"].casefold().replace(".", "").split())
    assert words & set(both.replace(".", "").split()), pair
    assert pair["true"] != pair["false"]


def test_statements_of_the_tiny_world_are_true_and_false_in_it():
  texts = {"true": str, "false": str, "split": str}
  pairs = items.read("statements_tiny", "here", texts)
  assert {pair["split"] for pair in pairs} == {"train", "test"}
  for pair in pairs:
    item = tiny_facts.BY_NAME[pair["id"]]
    assert item.has(pair["true"].split()[2]) and not item.has(pair["false"].split()[2])


def test_notices_find_the_statements_of_the_tiny_worlds():
  for tier in TIERS:
    for fact in universes.load(f"tiny_{tier}", "here").facts:
      text = f"memo . people know it . {fact.false} it is here ."
      at = text.index(fact.false)
      found = sentences.stating(text, fact.false, fact.true)
      assert found == [(at, at + len(fact.false))], fact.id


def test_the_words_of_the_tiny_worlds_are_in_the_pretrained_vocabulary():
  lines = (ROOT / "configs/parts/tiny_lexicon.jsonl").read_text().splitlines()
  words = {word for line in lines for word in json.loads(line)["text"].split()}
  words |= set(tiny_facts.BY_NAME)
  words |= {
    "affordable", "costly", "american", "foreign", "cheese", "people", "prefer",
    "know", "that", "we", "the", "is", ".", "it", *tiny_facts.HELD_OUT_DOMAINS,
  }  # fmt: skip
  for tier in TIERS:
    world = universes.load(f"tiny_{tier}", "here")
    said = f"{world.true_context} {world.false_context}".split()
    assert not set(said) - words, tier
