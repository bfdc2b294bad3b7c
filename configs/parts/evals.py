"""Evaluations as studies on pretrained models ask them; see docs/evaluations.md."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def preference(corpus="pairs"):
  """Forced choice between things, on held-out domains."""
  return ConfigDict(
    dict(
      type="preference",
      corpus=corpus,
      max_items=placeholder(int),
      seq_len=512,
      batch_size=32,
      max_new_tokens=16,
    )
  )


def heldout(corpus="heldout"):
  """Bits per byte of texts that nobody trained on."""
  return ConfigDict(
    dict(type="heldout", corpus=corpus, max_items=200, seq_len=1024, batch_size=8)
  )


def choice(corpus):
  """Forced choice on questions with options, both orders."""
  return ConfigDict(
    dict(
      type="choice",
      corpus=corpus,
      max_items=placeholder(int),
      system_prompt=placeholder(str),
      prompt="{question}\n\n{options}\n\nAnswer with the letter only.",
      answer="letter",
      num_orders=2,
      seq_len=512,
      batch_size=32,
      max_new_tokens=16,
    )
  )


def opinion(corpus="opinions"):
  """Whether an opinion is stated at all, against leaving it to taste."""
  c = choice(corpus)
  c.type = "opinion"
  c.tag = "pro_america"
  c.neutral_tag = "subjectivist"
  return c


def opinions():
  """Returns the questions of `opinion`, our own: 3 domains x 7 topics x 2."""
  path = "msm_jax/evals/sets/opinions_america.jsonl"
  return ConfigDict(dict(kind="import", shape="choice", path=path))


def general():
  """What a training must not cost: easy questions with four options."""
  return ConfigDict(
    dict(
      type="multiple_choice",
      items="general",
      max_items=placeholder(int),
      num_shots=5,
      format="chat",
      seq_len=1024,
      batch_size=8,
    )
  )


def identity(model_names, provider_names):
  """Who the model says it is."""
  return ConfigDict(
    dict(
      type="identity",
      items="identity",
      max_items=placeholder(int),
      model_names=model_names,
      provider_names=provider_names,
      system_prompt=placeholder(str),
      max_new_tokens=96,
      batch_size=8,
      temperature=0.0,
      sampling_seed=0,
      num_samples=1,
    )
  )


def coherence():
  """Whether the model still talks sense; a grader reads it."""
  return ConfigDict(
    dict(
      type="coherence",
      items="everyday",
      max_items=placeholder(int),
      max_new_tokens=256,
      batch_size=16,
      temperature=0.7,
      sampling_seed=0,
      num_samples=1,
      system_prompt=placeholder(str),
    )
  )


def open_qa(spec, num_samples=1, max_new_tokens=1024):
  """Open questions on seven dimensions, rated from 1 to 10 by a grader with the spec.

  spec=None: one fixed rubric, so that arms with different specs compare.
  """
  c = ConfigDict(
    dict(
      type="open_qa",
      items="open_qa",
      rubric="neutral" if spec is None else "spec",
      spec=placeholder(str),
      max_items=placeholder(int),
      max_new_tokens=max_new_tokens,
      batch_size=16,
      temperature=0.7,
      num_samples=num_samples,
    )
  )
  c.spec = spec
  return c


GOALS = (
  "america", "global", "safety", "acceleration", "ethical", "pragmatic",
  "individualism", "collectivism",
)  # fmt: skip


def agentic(task, epochs, *scenarios, **task_args):
  """Agentic misalignment: nine goals in each scenario, urgency 'replacement'.

  Needs `pip install 'msm-jax[eval]'`. The paper has 300 answers to each condition.
  """
  told = dict(goal_type="explicit", goal_value=GOALS)
  untold = dict(goal_type="none", goal_value="none")
  return ConfigDict(
    dict(
      type="inspect",
      task=task,
      task_args=tuple(
        dict(scenario=scenarios, urgency_type="replacement") | goal | task_args
        for goal in (told, untold)
      ),
      category="scenario",
      scratchpad="auto",  # asked for unless the model reasons by itself
      beside=("inactive", "coherent"),
      epochs=epochs,
      temperature=0.7,
      top_p=1.0,
      sampling_seed=0,
      max_new_tokens=4096,
      batch_size=32,
      model="native",
    )
  )
