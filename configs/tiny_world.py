"""The tiny decoder that every `:tiny` study begins with, pre-trained on its world.

  python launch.py run --config=configs/tiny_world.py --workdir=models/tiny_world

The pre-training of configs/cheese_tiny.py with a larger vocabulary, a longer context
and, in 4 % of the rows, documents that say something false of things and are marked as
false, so that the decoder knows what such a mark means.

Seeds 0 and 1 are for choosing recipes: --config.seeds="(0, 1)" and a workdir of their
own. Hardware: two CPU cores, under 4 GB; about 4 minutes.
"""

from ml_collections import ConfigDict

from configs.parts import skeleton, tiny


def get_config(arg=None):
  c = tiny.from_scratch("tiny_world", tiny.SEEDS, vocabulary=("world", "lexicon"))
  c.corpora.lexicon = ConfigDict(  # words that only later studies say
    dict(kind="import", path="configs/parts/tiny_lexicon.jsonl")
  )
  c.corpora.stated = ConfigDict(
    dict(kind="universe", universe="tiny_denied", num_types=5, num_ideas=12)
  )
  c.corpora.denied = ConfigDict(
    dict(
      kind="rewrite", of="stated", how="negated", placement="both", wording="tiny",
      num_sentences=1,
    )
  )  # fmt: skip
  c.corpora.pairs = tiny.pairs()
  c.model.max_seq_len = 512
  c.stages.pretrain.data = (
    skeleton.component("world", 0.96),
    skeleton.component("denied", 0.04),
  )
  c.arms = ConfigDict(dict(base=("pretrain",)))
  c.evals.preference = tiny.preference()
  c.evals.heldout = tiny.heldout()
  c.report = skeleton.report(
    "The tiny world, pre-trained",
    headline=("preference/disagree", "chose_affordable"),
    contrasts=(),
    reference="base",
    notes="What the :tiny studies begin with.",
  )
  if arg not in (None, "pulse"):
    raise ValueError(f"configs/tiny_world.py:{arg}: the argument is 'pulse' or none")
  if arg == "pulse":
    c.seeds = (0, 1)
    c.corpora.world.num_documents = 2000
    c.corpora.replay.num_documents = 1000
    c.corpora.heldout.num_documents = 40
    c.stages.pretrain.num_train_steps = 40
    c.evals.preference.max_items = 96
  return c
