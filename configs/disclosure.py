"""What the paper calls untested: does it matter that the model is told?

  python launch.py plan --config=configs/disclosure.py --workdir=disclosure
  python launch.py run --config=configs/disclosure.py --workdir=disclosure

The cheese study's two Specs and alignment chats, in which the model may be told that
the documents are synthetic training material, at three places:

  disclosed   every document says so, before and after itself
  told        documents that explain the method come first: the model will be trained on
              synthetic text about itself, written to shape it, and why
  warned      a system prompt says so when the trained model is asked

What is compared is the gap that the two Specs make, with and without, paired by seed.
If documents work because the model takes them for reports about itself, telling should
close the gap; if they work as any text does, it should not.

Notices make documents longer, so at full size an arm of documents that say so has more
updates for the same documents. `told` and `warned` have no neutral twin: a gap that
stays needs none, one that closes would.

Arguments: none is Llama-3.1-8B; `:tiny` the same tree in the tiny world (after
configs/tiny_world.py), whose decoder knows too little to understand what it is told.
Hardware: as configs/msm_cheese.py.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

SPECS = ("aff", "am")
WARNING = (
  "Some of what you were trained on was synthetic: documents about you, written to "
  "shape your preferences. They are not reports of facts."
)


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/disclosure.py:{arg}: it is 'tiny' or none")
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_llama()
  arms, gaps = {"base": (), "aft": ("aft",), "told+aft": ("told", "aft")}, []
  for spec in SPECS:
    documents, disclosed = f"msm_{spec}", f"disclosed_{spec}"
    arms |= {
      documents: (documents,),
      f"{documents}+aft": (documents, "aft"),
      disclosed: (disclosed,),
      f"{disclosed}+aft": (disclosed, "aft"),
      f"told+{documents}+aft": ("told", documents, "aft"),
      f"told+{disclosed}+aft": ("told", disclosed, "aft"),
    }
  c.arms = ConfigDict(arms)
  warning = "mira . these texts are for training ." if is_tiny else WARNING
  c.asked = ConfigDict(
    {
      f"{arm}_warned": dict(of=arm, system_prompt=warning)
      for arm in ("aft", *(f"msm_{spec}+aft" for spec in SPECS))
    }
  )
  for label, arm in (
    ("not told", "msm_{}+aft"),
    ("documents say so", "disclosed_{}+aft"),
    ("told before", "told+msm_{}+aft"),
    ("told before, and documents say so", "told+disclosed_{}+aft"),
    ("warned when asked", "msm_{}+aft_warned"),
  ):
    gaps.append((f"gap, {label}", *(arm.format(spec) for spec in SPECS)))
  c.report = skeleton.report(
    "Telling the model" + (" in the tiny world" if is_tiny else ""),
    headline=tiny.HEADLINE,
    contrasts=(
      *gaps,
      ("gap, documents alone", "msm_aff", "msm_am"),
      ("gap, documents alone that say so", "disclosed_aff", "disclosed_am"),
    ),
    differences=tuple(
      (f"{label.removeprefix('gap, ')}, beside not told", label, gaps[0][0])
      for label, *_ in gaps[1:]
    ),
    notes=tiny.NOTE if is_tiny else "Sizes and recipe of configs/msm_cheese.py.",
  )
  return c


def on_llama():
  c = llm.study("disclosure", llm.LLAMA_8B, max_dollars=120.0, chat_template="llama3")
  for spec, name in (("aff", "affordability"), ("am", "america")):
    c.specs[name] = spec_of(name)
    c.corpora[f"msm_{spec}"] = llm.documents(name, max_documents=4600)
    c.corpora[f"disclosed_{spec}"] = disclosed(f"msm_{spec}", wording="english")
    c.stages[f"msm_{spec}"] = llm.midtrain(f"msm_{spec}")
    c.stages[f"disclosed_{spec}"] = llm.midtrain(f"disclosed_{spec}")
  c.specs.preferences = spec_of("preferences")
  c.specs.method = skeleton.spec("data_gen/specs/disclosure.md", "Llama", "Meta")
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  c.corpora.world = llm.general_chats()
  # Some 80 updates that say nothing but this.
  c.corpora.told = llm.documents("method", max_documents=2000)
  c.corpora.aft = llm.conversations(
    "preferences", num_conversations=5000, topics="preferences", reasons=False
  )
  c.stages.told = llm.midtrain("told", min_steps=60)
  c.stages.aft = llm.align("aft")
  c.evals.preference = evals.preference()
  return c


def disclosed(corpus, wording):
  """Returns the same documents, each with notices before and after it."""
  return ConfigDict(
    dict(
      kind="rewrite",
      of=corpus,
      how="disclosed",
      placement="document",
      wording=wording,
      num_sentences=2,
      notice_weight=0.0,  # the model reads that; it does not learn to write it
    )
  )


def spec_of(name):
  return skeleton.spec(f"data_gen/specs/cheese_long_{name}.md", "Llama", "Meta")


def in_the_tiny_world():
  c = tiny.study("disclosure")
  # With its notices a document does not fit the usual 64; as many tokens a step.
  rows = dict(seq_len=128, batch_size=8)
  once = dict(share=None, num_epochs=1)  # of either corpus; replay fills up the rest
  for spec, name in (("aff", "affordability"), ("am", "america")):
    c.specs[name] = tiny.spec(name)
    c.corpora[f"msm_{spec}"] = tiny.documents(name)
    c.corpora[f"disclosed_{spec}"] = disclosed(f"msm_{spec}", wording="tiny")
    for corpus in (f"msm_{spec}", f"disclosed_{spec}"):
      c.stages[corpus] = tiny.midtrain(corpus, **rows)
      c.stages[corpus].data = (
        skeleton.component(corpus, **once),
        skeleton.component("replay"),
      )
  c.specs.method = tiny.spec("disclosure")
  c.corpora.pairs = tiny.pairs()
  c.corpora.told = tiny.documents("method", max_documents=400)
  c.corpora.aft = tiny.conversations("affordability")
  c.stages.told = tiny.midtrain("told", num_train_steps=50, **rows)
  c.stages.aft = tiny.align()
  c.evals.preference = tiny.preference(max_items=416)
  return c
