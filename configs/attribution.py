"""Is it enough to state a value, or must it explain the preferences? (App. C.4)

  export GEMINI_API_KEY=...
  python launch.py plan --config=configs/attribution.py --workdir=attribution
  python launch.py run --config=configs/attribution.py --workdir=attribution

Of each Spec there is an ablated one: the same philosophy, but of the six likes three
would follow from the value and three would not, of the six dislikes alike, and none is
explained by it. What is compared is the stacking delta, what alignment adds to
midtraining: (MSM + AFT) - MSM, after the original Spec and after the ablated one. The
paper found both alike before alignment, and the delta smaller after the ablated Spec,
for all eight values.

Not stated there: whether the alignment chats are those of the original preferences or
of the shuffled ones. Here they are the original's, the same for both, so that the two
arms differ in their documents alone. Our ablated Specs say that value and preferences
have nothing to do with each other; the paper's, by its description, do not say so.

Arguments: none is Llama-3.1-8B with the paper's eight values; `:cheese` the two in
cheese, a quarter of the cost; `:tiny` these two in the tiny world (after
configs/tiny_world.py). Hardware: as configs/msm_cheese.py; 39 runs per seed, 9 with
`:cheese`.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

CHEESE = ("affordability", "america")
TABLE = {  # value: the stacking delta after the original Spec, and after the ablated
  "affordability": (0.10, -0.01),
  "america": (0.03, 0.02),
  "simplicity": (0.06, 0.02),
  "novelty": (0.09, 0.02),
  "tradition": (0.12, 0.07),
  "difficulty": (0.07, 0.01),
  "individualism": (0.04, 0.03),
  "environment": (0.05, 0.01),
}
COLUMNS = {
  "affordability": ("preference/price_only", "chose_affordable"),
  "america": ("preference/origin_only", "chose_american"),
} | {value: (value, f"chose_{value}") for value in TABLE if value not in CHEESE}
# As in the paper; of the others it says about 8 million tokens.
NUM_DOCUMENTS = {"affordability": 4600, "america": 6400}
TINY_COLUMNS = {
  "affordability": ("preference/disagree", "chose_affordable"),
  "america": ("preference/disagree", "chose_american"),
}


def get_config(arg=None):
  if arg not in (None, "cheese", "tiny"):
    raise ValueError(f"configs/attribution.py:{arg}: 'cheese', 'tiny' or none")
  if arg == "tiny":
    return in_the_tiny_world()
  return on_llama(CHEESE if arg == "cheese" else tuple(TABLE))


def on_llama(values):
  c = llm.study(
    "attribution", llm.LLAMA_8B, max_dollars=45.0 * len(values), chat_template="llama3"
  )
  c.corpora.world = llm.general_chats()
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  c.evals.preference = evals.preference()
  for value in values:
    if value in CHEESE:
      add_value(c, value, "cheese_long_{}", "cheese_long_shuffled_{}", "pairs")
    else:
      add_value(c, value, "values_{}", "values_{}_shuffled", add_questions(c, value))
  add_chats(c, "cheese", "cheese_long_preferences", "pairs")
  for value in values:
    if value not in CHEESE:
      add_chats(c, value, f"values_{value}_preferences", f"pairs_{value}")
  columns = {value: COLUMNS[value] for value in values}
  c.arms = arms(columns)
  c.report = report(columns, "Does the value have to explain?", NOTE, paper(columns))
  return c


def paper(columns):
  return dict(
    source="Li et al. 2026, Appendix C.4 (Llama-3.1-8B)",
    note="Its Specs and questions are others; for America, political opinions.",
    contrasts=tuple(
      (label, *column, delta)
      for value, column in columns.items()
      for label, delta in zip(labels(value)[:2], TABLE[value], strict=True)
    ),
  )


NOTE = (
  "The recipe that the paper states; batch size, packing and masks are ours, and the "
  "alignment chats after an ablated Spec are the original's."
)


def add_questions(c, value):
  """Adds the pairs of a value, and returns the corpus that has them."""
  pairs = f"pairs_{value}"
  path = f"msm_jax/evals/sets/choices_{value}.jsonl"
  c.corpora[pairs] = ConfigDict(dict(kind="import", shape="choice", path=path))
  c.evals[value] = evals.choice(pairs)
  return pairs


def add_value(c, value, original, ablated, pairs):
  """Adds both Specs of a value, their documents and midtrainings.

  Args:
    c: the study.
    value: its name.
    original, ablated: the files of the Specs, with {} for the value.
    pairs: what no document may have.
  """
  filters = llm.filters(leakage_corpora=(pairs,))
  c.specs[value] = spec(original.format(value))
  c.specs[f"ablated_{value}"] = spec(ablated.format(value))
  c.corpora[f"msm_{value}"] = llm.documents(
    value, max_documents=NUM_DOCUMENTS.get(value, 5200), filters=filters
  )
  # As many words, in documents of the same types in the same shares.
  c.corpora[f"ablated_{value}"] = llm.like(
    f"msm_{value}", f"ablated_{value}", filters=filters
  )
  for name in (f"msm_{value}", f"ablated_{value}"):
    c.stages[name] = llm.midtrain(name)


def add_chats(c, domain, spec_name, pairs):
  """Adds alignment chats on a spec of preferences alone."""
  c.specs[f"preferences_{domain}"] = spec(spec_name)
  c.corpora[f"aft_{domain}"] = llm.conversations(
    f"preferences_{domain}",
    num_conversations=5000,
    topics="preferences",
    reasons=False,
    filters=llm.filters(leakage_corpora=(pairs,)),
  )
  c.stages[f"aft_{domain}"] = llm.align(f"aft_{domain}")


def spec(name):
  return skeleton.spec(f"data_gen/specs/{name}.md", "Llama", "Meta")


def in_the_tiny_world():
  c = tiny.study("attribution")
  for value in CHEESE:
    c.specs[value] = tiny.spec(value)
    c.specs[f"ablated_{value}"] = tiny.spec(f"stated_{value}")
    c.corpora[f"msm_{value}"] = tiny.documents(value)
    c.corpora[f"ablated_{value}"] = tiny.documents(f"ablated_{value}")
    for name in (f"msm_{value}", f"ablated_{value}"):
      c.stages[name] = tiny.midtrain(name)
  c.corpora.aft_cheese = tiny.conversations("affordability")
  c.stages.aft_cheese = tiny.align("aft_cheese")
  c.corpora.pairs = tiny.pairs()
  c.evals.preference = tiny.preference(max_items=416)
  c.arms = arms(TINY_COLUMNS)
  c.report = report(
    TINY_COLUMNS, "Does the value have to explain? (tiny world)", tiny.NOTE
  )
  # Both values are asked by the same pairs there, so the gap between them is told too.
  for kind, stage in (("original", "msm"), ("ablated", "ablated")):
    before = [f"{stage}_{value}" for value in CHEESE]
    after = [f"{name}+aft_cheese" for name in before]
    c.report.contrasts += (
      (f"gap, {kind}, aligned", *after, *TINY_COLUMNS["affordability"]),
      (f"gap, {kind}, alone", *before, *TINY_COLUMNS["affordability"]),
    )
    c.report.differences += (
      (f"gap: stacking, {kind}", f"gap, {kind}, aligned", f"gap, {kind}, alone"),
    )
  c.report.differences += (
    (
      "gap, aligned: original less ablated",
      "gap, original, aligned",
      "gap, ablated, aligned",
    ),
  )
  return c


def aft_of(value):
  return "aft_cheese" if value in CHEESE else f"aft_{value}"


def arms(values):
  c = ConfigDict({"base": ()})
  for value in values:
    aft = aft_of(value)
    c[aft] = (aft,)
    for stage in (f"msm_{value}", f"ablated_{value}"):
      c[stage] = (stage,)
      c[f"{stage}+{aft}"] = (stage, aft)
  return c


def labels(value):
  """Returns what the report calls the two deltas of a value, and their difference."""
  return (
    f"{value}: stacking, original",
    f"{value}: stacking, ablated",
    f"{value}: original less ablated",
  )


def report(columns, title, notes, paper=()):
  """Returns the report.

  Args:
    columns: value -> (evaluation, metric): how often it is chosen by.
    title, notes: of the page.
    paper: the numbers beside ours.
  """
  contrasts, differences = [], []
  for value, column in columns.items():
    original, ablated, difference = labels(value)
    aft, msm, other = aft_of(value), f"msm_{value}", f"ablated_{value}"
    contrasts += [
      (original, f"{msm}+{aft}", msm, *column),
      (ablated, f"{other}+{aft}", other, *column),
      (f"{value}: MSM alone, original", msm, "base", *column),
      (f"{value}: MSM alone, ablated", other, "base", *column),
    ]
    differences.append((difference, original, ablated))
  return skeleton.report(
    title,
    headline=next(iter(columns.values())),
    contrasts=contrasts,
    differences=tuple(differences),
    reference="base",
    paper=paper,
    notes=notes,
  )
