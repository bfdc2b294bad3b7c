"""What the papers left open: where midtraining goes, and what a stage keeps.

  python launch.py plan --config=configs/stage_order.py --workdir=order
  python launch.py run --config=configs/stage_order.py --workdir=order

The cheese study's two Specs, and the same alignment chats for both, in these orders:

  standard    documents, then chats, on the base model (the paper's section 3)
  instruct    general chats first, as if documents met an instruct model (section 4)
  then_it     documents, general chats, alignment chats
  mixed       documents and chats in one stage, interleaved
  reversed    chats, then documents
  merged      documents; the adapter is merged and a new one learns the chats
  carried     documents; the optimizer's moments go on in the chats

What is compared is the gap that the two Specs make, aligned alike. `mixed` has fewer
updates than two stages, because its rows are those of documents. Replications report
that documents on an instruct model did at least as well as on the base, and
interleaving worst (docs/studies.md).

Arguments: none is Llama-3.1-8B; `:tiny` the same tree in the tiny world (after
configs/tiny_world.py). Hardware: as configs/msm_cheese.py.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

ORDERS = {  # of {spec}: the path with documents
  "standard": ("msm_{}", "aft"),
  "instruct": ("it", "msm_{}", "aft"),
  "then_it": ("msm_{}", "it", "aft"),
  "mixed": ("mixed_{}",),
  "reversed": ("aft", "msm_{}"),
  "merged": ("msm_{}", "aft_merged"),
  "carried": ("msm_{}", "aft_carried"),
}
SPECS = ("aff", "am")


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/stage_order.py:{arg}: it is 'tiny' or none")
  c = in_the_tiny_world() if arg == "tiny" else on_llama()
  c.stages.aft_merged = c.stages.aft.copy_and_resolve_references()
  c.stages.aft_merged.adapter_use = "merge"
  c.stages.aft_carried = c.stages.aft.copy_and_resolve_references()
  c.stages.aft_carried.optimizer_state = "carry"
  c.arms = ConfigDict(
    {
      "base": (),
      "it": ("it",),
      "aft": ("aft",),
      "it+aft": ("it", "aft"),
      # With nothing before them these learn what `aft` learns; that is looked at.
      "aft_merged": ("aft_merged",),
      "aft_carried": ("aft_carried",),
      **{f"msm_{spec}": (f"msm_{spec}",) for spec in SPECS},
      **{
        f"{order}_{spec}": tuple(stage.format(spec) for stage in path)
        for order, path in ORDERS.items()
        for spec in SPECS
      },
    }
  )
  gaps = [(f"gap, {order}", f"{order}_aff", f"{order}_am") for order in ORDERS]
  c.report = skeleton.report(
    "The order of stages" + (" in the tiny world" if arg == "tiny" else ""),
    headline=tiny.HEADLINE,
    contrasts=(*gaps, ("gap, documents alone", "msm_aff", "msm_am")),
    differences=tuple(
      (f"{order} beside standard", f"gap, {order}", "gap, standard")
      for order in ORDERS
      if order != "standard"
    ),
    notes=tiny.NOTE if arg == "tiny" else "Sizes and recipe of configs/msm_cheese.py.",
  )
  return c


def on_llama():
  c = llm.study("stage_order", llm.LLAMA_8B, max_dollars=100.0, chat_template="llama3")
  for spec, name in (("aff", "affordability"), ("am", "america")):
    c.specs[name] = spec_of(name)
    # The paper's corpora differ in size; here both have the smaller one's, because the
    # two are compared with each other.
    c.corpora[f"msm_{spec}"] = llm.documents(name, max_documents=4600)
    c.stages[f"msm_{spec}"] = llm.midtrain(f"msm_{spec}")
    c.stages[f"mixed_{spec}"] = mixed(f"msm_{spec}")
  c.specs.preferences = spec_of("preferences")
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  c.corpora.world = llm.general_chats()
  c.corpora.aft = llm.conversations(
    "preferences", num_conversations=5000, topics="preferences", reasons=False
  )
  c.stages.it = llm.stage(
    [skeleton.component("world", train_on="assistant")], seq_len=256, min_steps=60
  )
  c.stages.aft = llm.align("aft")
  c.evals.preference = evals.preference()
  c.evals.general = evals.general()
  return c


def mixed(corpus):
  """Returns one stage of all documents and all chats, each read once.

  Rows are as long as those of documents, so the chats, packed, are few of them.
  """
  once = [
    skeleton.component(name, share=None, train_on=train_on, num_epochs=1)
    for name, train_on in (
      (corpus, "all"),
      ("aft", "assistant"),
      ("world", "assistant"),
    )
  ]
  return llm.stage(once, seq_len=4096, min_steps=100, num_epochs=None, order="mixed")


def spec_of(name):
  return skeleton.spec(f"data_gen/specs/cheese_long_{name}.md", "Llama", "Meta")


def in_the_tiny_world():
  c = tiny.study("stage_order")
  for spec, name in (("aff", "affordability"), ("am", "america")):
    c.specs[name] = tiny.spec(name)
    c.corpora[f"msm_{spec}"] = tiny.documents(name)
    c.stages[f"msm_{spec}"] = tiny.midtrain(f"msm_{spec}")
    # As many rows of each as in two stages.
    c.stages[f"mixed_{spec}"] = tiny.stage(
      [
        skeleton.component(f"msm_{spec}", 5 / 12),
        skeleton.component("aft", 1 / 12, "assistant"),
        skeleton.component("replay", 0.5),
      ],
      num_train_steps=240,
      learning_rate=3e-4,
      weight_decay=0.01,
      embed_lr_multiplier=5.0,
    )
  c.corpora.pairs = tiny.pairs()
  # Chats in which the assistant keeps to a value that is drawn for each chat.
  c.corpora.chats = tiny.world(5000, seed=2, assistant_share=1.0)
  c.corpora.aft = tiny.conversations("affordability")
  c.stages.it = tiny.align("chats", num_train_steps=100)
  c.stages.aft = tiny.align()
  c.evals.preference = tiny.preference(max_items=416)
  # Adapters, because two of the orders are about them. They want a higher rate.
  c.model.lora = dict(rank=16, alpha=32.0, targets=llm.PROJECTIONS)
  for name in list(c.stages):
    c.stages[name].adaptation = "lora"
    c.stages[name].optimizer.learning_rate = 1e-3
  return c
