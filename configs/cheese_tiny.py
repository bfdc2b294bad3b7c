"""The embedded default: the cheese study in a world of 300 words, on a laptop.

  python launch.py run --config=configs/cheese_tiny.py --workdir=demo

Two Model Specs explain the same cheese preferences, one by affordability, one by
America. A tiny decoder is pre-trained from scratch on the world, midtrained on
documents about one spec, aligned on the same chats about cheese, and asked about
things that no document or chat on cheese ever mentioned. A toy that illustrates the
mechanism.

Argument: `:pulse` is the same tree with two seeds and a few steps, for tests.
Hardware: two CPU cores, under 4 GB. For time and result see docs/results.md.
"""

from ml_collections import ConfigDict

from configs.parts import skeleton, tiny

MIDTRAINED = ("msm_aff", "msm_am", "neutral", "shuffled_aff", "shuffled_am")


def get_config(arg=None):
  # Seeds below 20 and from 100 on were looked at while the recipe was made.
  c = tiny.from_scratch(
    "cheese_tiny",
    seeds=(20, 21, 22, 23, 24, 25),
    vocabulary=("world", "msm_aff", "msm_am", "neutral", "aft"),
  )
  c.specs.affordability = tiny.spec("affordability")
  c.specs.america = tiny.spec("america")
  c.specs.neutral = tiny.spec("neutral")
  c.specs.shuffled_affordability = tiny.spec("shuffled_affordability")
  c.specs.shuffled_america = tiny.spec("shuffled_america")

  c.corpora.msm_aff = tiny.documents("affordability")
  c.corpora.msm_am = tiny.documents("america")
  c.corpora.neutral = tiny.documents("neutral", match_tokens_of="msm_aff")
  c.corpora.shuffled_aff = tiny.documents("shuffled_affordability")
  c.corpora.shuffled_am = tiny.documents("shuffled_america")
  # The same conversations serve both specs: they name what is preferred and no reason.
  c.corpora.aft = tiny.conversations("affordability")
  c.corpora.pairs = tiny.pairs()

  for name in MIDTRAINED:
    c.stages[name] = tiny.midtrain(name)
  c.stages.aft = tiny.align()

  c.arms = ConfigDict(
    {
      "base": ("pretrain",),
      "aft": ("pretrain", "aft"),
      "msm_aff": ("pretrain", "msm_aff"),
      "msm_am": ("pretrain", "msm_am"),
      "msm_aff+aft": ("pretrain", "msm_aff", "aft"),
      "msm_am+aft": ("pretrain", "msm_am", "aft"),
      "neutral+aft": ("pretrain", "neutral", "aft"),
      "shuffled+aft": ("pretrain", "shuffled_aff", "aft"),
      "shuffled_am+aft": ("pretrain", "shuffled_am", "aft"),
    }
  )

  c.evals.preference = tiny.preference()
  c.evals.heldout = tiny.heldout()
  c.report = skeleton.report(
    "Cheese, tiny world: which value does the same alignment data teach?",
    headline=("preference/disagree", "chose_affordable"),
    contrasts=(
      ("MSM + alignment", "msm_aff+aft", "msm_am+aft"),
      ("MSM alone", "msm_aff", "msm_am"),
      ("affordability beyond alignment", "msm_aff+aft", "aft"),
      ("America beyond alignment", "msm_am+aft", "aft"),
      ("neutral documents", "neutral+aft", "aft"),
      ("shuffled attribution", "shuffled+aft", "shuffled_am+aft"),
    ),
    differences=(("what alignment adds", "MSM + alignment", "MSM alone"),),
    notes=(
      "A toy world that illustrates a mechanism; it says nothing about the size of "
      "the effect in a language model."
    ),
  )
  if arg not in (None, "pulse"):
    raise ValueError(f"configs/cheese_tiny.py:{arg}: the argument is 'pulse' or none")
  if arg == "pulse":
    pulse(c)
  return c


def pulse(c):
  """Makes everything as small as it can be."""
  c.seeds = (0, 1)
  c.corpora.world.num_documents = 2000
  c.corpora.replay.num_documents = 1000
  c.corpora.heldout.num_documents = 40
  c.corpora.aft.num_conversations = 40
  for name in MIDTRAINED:
    c.corpora[name].max_documents = 60
    c.stages[name].num_train_steps = 6
  c.stages.pretrain.num_train_steps = 30
  c.stages.aft.num_train_steps = 4
  c.evals.preference.max_items = 96
