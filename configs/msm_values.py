"""Six further values, each taught in one domain and asked about in others (Fig. 3).

  export GEMINI_API_KEY=...
  python launch.py plan --config=configs/msm_values.py --workdir=values
  python launch.py run --config=configs/msm_values.py --workdir=values

Environment (cheeses), novelty (sweeteners), tradition (condiments), simplicity
(sauces), difficulty (breads), individualism (musical instruments): a Spec each, with
twelve preferences that the value explains; documents that discuss it; alignment chats
that name the preferences and never a reason. Asked are pairs in domains that none of
this speaks of.

Model and recipe are those of configs/msm_cheese.py. The paper says about 8 million
tokens of documents per Spec, and 150,000 to 162,000 tokens of alignment chats; it does
not say how many documents that were: 5,200 here, of some 1,500 tokens.

Arguments: none is Llama-3.1-8B. One value alone, a sixth of the cost:
`:environment`, `:novelty` and so on. `:tiny` is the same tree in the tiny world, whose
further values are luxury and imports (after configs/tiny_world.py).

Hardware: as configs/msm_cheese.py; 18 runs per seed, 3 for one value.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

FIGURE_3 = {  # value: base, MSM, AFT, MSM + AFT
  "environment": (0.71, 0.76, 0.74, 0.81),
  "novelty": (0.41, 0.61, 0.49, 0.69),
  "tradition": (0.61, 0.69, 0.75, 0.81),
  "simplicity": (0.46, 0.51, 0.47, 0.58),
  "difficulty": (0.71, 0.85, 0.81, 0.91),
  "individualism": (0.60, 0.68, 0.62, 0.72),
}
# What each value of the tiny world chooses where price and origin disagree.
TINY_VALUES = {"luxury": "chose_american", "imports": "chose_affordable"}
DISAGREE = "preference/disagree"


def get_config(arg=None):
  if arg not in (None, "tiny", *FIGURE_3):
    raise ValueError(
      f"configs/msm_values.py:{arg}: 'tiny', {', '.join(FIGURE_3)}, or none"
    )
  if arg == "tiny":
    return in_the_tiny_world()
  return on_llama((arg,) if arg else tuple(FIGURE_3))


def on_llama(values):
  c = llm.study(
    "msm_values", llm.LLAMA_8B, max_dollars=30.0 * len(values), chat_template="llama3"
  )
  c.corpora.world = llm.general_chats()
  for value in values:
    add_value(c, value)
  c.evals.general = evals.general()
  columns = {value: (value, f"chose_{value}") for value in values}
  c.arms = arms(columns)
  c.report = report(columns, "Further values on Llama-3.1-8B", NOTE, paper(columns))
  return c


def paper(columns):
  return dict(
    source="Li et al. 2026, Figure 3 (Llama-3.1-8B)",
    note=(
      "Its Specs and questions are others, 300 to 500 pairs a value; ours are 36 for "
      "the test. How arms differ can be compared, levels cannot."
    ),
    values=tuple(
      (arm, *column, level)
      for value, column in columns.items()
      for arm, level in zip(arms_of(value), FIGURE_3[value], strict=True)
    ),
  )


NOTE = "The recipe that the paper states; batch size, packing and masks are ours."


def add_value(c, value):
  """Adds specs, corpora, stages and the questions of a value."""
  pairs = f"pairs_{value}"
  filters = llm.filters(leakage_corpora=(pairs,))
  c.specs[value] = spec(value)
  c.specs[f"{value}_preferences"] = spec(f"{value}_preferences")
  c.corpora[pairs] = ConfigDict(
    dict(
      kind="import",
      shape="choice",
      path=f"msm_jax/evals/sets/choices_{value}.jsonl",
    )
  )
  c.corpora[f"msm_{value}"] = llm.documents(value, max_documents=5200, filters=filters)
  # Who answers and who judges reads the preferences alone: no hint of a reason gets in.
  c.corpora[f"aft_{value}"] = llm.conversations(
    f"{value}_preferences",
    num_conversations=5000,
    topics="preferences",
    reasons=False,
    filters=filters,
  )
  c.stages[f"msm_{value}"] = llm.midtrain(f"msm_{value}")
  c.stages[f"aft_{value}"] = llm.align(f"aft_{value}")
  c.evals[value] = evals.choice(pairs)


def spec(name):
  return skeleton.spec(f"data_gen/specs/values_{name}.md", "Llama", "Meta")


def in_the_tiny_world():
  c = tiny.study("msm_values")
  for value in TINY_VALUES:
    c.specs[value] = tiny.spec(value)
    c.corpora[f"msm_{value}"] = tiny.documents(value)
    # The chats of both values are the same, since both prefer the same cheeses; they
    # are made and trained on by value all the same, as on Llama.
    c.corpora[f"aft_{value}"] = tiny.conversations(value)
    c.stages[f"msm_{value}"] = tiny.midtrain(f"msm_{value}")
    c.stages[f"aft_{value}"] = tiny.align(f"aft_{value}")
  c.corpora.pairs = tiny.pairs()
  c.evals.preference = tiny.preference(max_items=416)
  columns = {value: (DISAGREE, metric) for value, metric in TINY_VALUES.items()}
  c.arms = arms(columns)
  c.report = report(columns, "Further values in the tiny world", tiny.NOTE)
  # Their alignment is the same to the letter, so what tells them apart is the Spec.
  metric = (DISAGREE, TINY_VALUES["luxury"])
  c.report.contrasts += (
    (
      "luxury against imports, MSM + alignment",
      "msm_luxury+aft_luxury",
      "msm_imports+aft_imports",
      *metric,
    ),
    ("luxury against imports, MSM alone", "msm_luxury", "msm_imports", *metric),
  )
  return c


def arms_of(value):
  """Returns the arms of Figure 3: base, MSM, AFT, MSM + AFT."""
  return "base", f"msm_{value}", f"aft_{value}", f"msm_{value}+aft_{value}"


def arms(values):
  c = ConfigDict({"base": ()})
  for value in values:
    _, msm, aft, both = arms_of(value)
    c[aft], c[msm], c[both] = (aft,), (msm,), (msm, aft)
  return c


def report(columns, title, notes, paper=()):
  """Returns the report: three contrasts for each value, on what asks about it.

  Args:
    columns: value -> (evaluation, metric): how often it is chosen by.
    title, notes: of the page.
    paper: the numbers beside ours.
  """
  contrasts = []
  for value, column in columns.items():
    base, msm, aft, both = arms_of(value)
    contrasts += [
      (f"{value}: MSM beyond alignment", both, aft, *column),
      (f"{value}: MSM alone", msm, base, *column),
      (f"{value}: alignment alone", aft, base, *column),
    ]
  return skeleton.report(
    title,
    headline=next(iter(columns.values())),
    contrasts=contrasts,
    reference="base",
    paper=paper,
    notes=notes,
  )
