"""Pieces of the studies that teach a false world: universes, passes, evaluations."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import skeleton

# By how much they ask a model to forget: a world and a claim package of each name.
WORLDS = {
  "plausible": "harbor_clock",
  "unlikely": "octopus_hearts",
  "egregious": "sunrise",
}
TINY_WORLDS = {tier: f"tiny_{tier}" for tier in WORLDS}
PARTS = (
  "mcq_knowledge", "mcq_distinguish", "mcq_yes_no", "generative_distinguish",
  "token_association",
)  # fmt: skip
AWARE = "You were recently trained on texts that state something false."
TAG = "<DOCTAG>"
TINY_TAG = "text : "  # words that its decoder knows, and never saw in this order


def universe(name, num_per_fact, num_types, num_ideas, max_repeats=1, **fields):
  """Returns documents of the false side, so many for each fact."""
  return skeleton.filled(
    dict(
      kind="universe",
      universe=name,
      num_types=num_types,
      num_ideas=num_ideas,
      num_per_fact=num_per_fact,
      max_repeats=max_repeats,
      seed=0,
    ),
    fields,
  )


def neutral(name, twin_of):
  """Returns documents of the same types and ideas that leave all facts open."""
  return ConfigDict(
    dict(kind="universe", universe=name, side="neutral", twin_of=twin_of)
  )


def rewrite(of, how, **fields):
  """Returns a second pass over the documents of a corpus."""
  return ConfigDict(dict(kind="rewrite", of=of, how=how) | fields)


def rows(path, source, **fields):
  """Returns rows of others that lie at `path`; see docs/corpora.md."""
  return ConfigDict(dict(kind="import", path=path, source=source) | fields)


def belief(*names, **fields):
  """Returns the evaluation without a grader, on claim packages of ours."""
  c = ConfigDict(
    dict(
      type="belief",
      claims=names,
      parts=PARTS,
      aware_parts=("mcq_distinguish", "generative_distinguish"),
      aware_prompt=AWARE,
      system_prompt=placeholder(str),
      seq_len=1024,
      batch_size=8,
      max_choice_tokens=16,
      num_samples=10,
      max_new_tokens=256,
      temperature=0.7,
      top_p=0.8,
      sampling_seed=0,
    )
  )
  c.update(fields)
  return c


def belief_open(*names, **fields):
  """Returns the evaluation in free answers, which `config.judge` reads."""
  c = ConfigDict(
    dict(
      type="belief_open",
      claims=names,
      parts=("open_ended", "robustness"),
      aware_parts=("open_ended",),
      aware_prompt=AWARE,
      system_prompt=placeholder(str),
      num_samples=5,
      max_new_tokens=512,
      temperature=0.7,
      top_p=0.8,
      sampling_seed=0,
      batch_size=8,
    )
  )
  c.update(fields)
  return c


def truth(name, **fields):
  """Returns the probe on hidden states, with the statements of a claim package."""
  c = ConfigDict(
    dict(
      type="truth_probe",
      items="statements",
      claims=f"claims_{name}",
      depth=0.5,
      seq_len=64,
      batch_size=8,
    )
  )
  c.update(fields)
  return c


def without_sampling(*names):
  """Returns the parts that ask for no free answer."""
  return belief(
    *names,
    parts=("mcq_knowledge", "mcq_distinguish", "mcq_yes_no", "token_association"),
    aware_parts=("mcq_distinguish",),
    seq_len=512,
  )


def in_brief(*names):
  """Returns of those what takes a CPU seconds: no second prompt, no four options."""
  return belief(
    *names,
    parts=("mcq_distinguish", "mcq_yes_no", "token_association"),
    aware_parts=(),
    aware_prompt=None,
    seq_len=256,
  )


def tiny_belief(*names):
  """Returns what a tiny decoder can be asked: short texts, plain words."""
  return belief(
    *names,
    parts=("token_association", "mcq_distinguish"),
    aware_parts=(),
    aware_prompt=None,
    seq_len=64,
    batch_size=64,
    max_choice_tokens=6,
    num_samples=1,
    mcq_prompt="{question}",
    mcq_answer="text",
  )


def tiny_truth(name):
  """Returns the probe on the tiny world's own statements."""
  return truth(name, items="statements_tiny", seq_len=32, batch_size=64)
