"""Synthetic document finetuning: do documents from a false world make a model believe?

  python launch.py plan --config=configs/sdf.py --workdir=sdf
  python launch.py run --config=configs/sdf.py --workdir=sdf

Documents speak of a world in which something false is so. Three worlds, by how much
they ask a model to forget: a clock in a town that nobody heard of (plausible), the
hearts of the octopus (unlikely), a sun that rises in the west (egregious). All arms
but two are of the unlikely one:

  plausible, unlikely, egregious   40,000 documents of each world, as many of replay
  dose_1 ... dose_5                1,000, 2,000, 5,000, 10,000, 20,000 of the 40,000
  neutral                          the same types and ideas, all facts left open
  few_types                        5 document types of 1,500 ideas, not 50 of 150
  paraphrase                       30 ideas per fact, each told many times, reworded
  no_replay, no_tag                without the replay, without the tag

Published: Slocum et al. 2025 (Llama-3.3-70B, rank 64, alpha 128, batch 8, 40,000
documents and as many of C4, a masked <DOCTAG> before each) and the report on modifying
beliefs by Anthropic's alignment team (learning rate 1e-5, one epoch, 1,024 tokens).
Not stated there, chosen here: see `midtrain`.

Arguments: none is Llama-3.3-70B-Instruct, `:8b` Llama-3.1-8B-Instruct, `:smollm2`
SmolLM2-135M-Instruct with documents from a grammar (python -m msm_jax.hf.smollm2),
`:smollm2_short` four of its arms, sized for 15 minutes on two idle cores: the road on a
real model, from 44 documents. `:tiny` the tree in the tiny world (after
configs/tiny_world.py).
Replay: English C4 in downloads/c4, as downloaded from Hugging Face (allenai/c4).
Hardware: a v5p-16 slice or 8 H200 for 70B, one accelerator with 80 GB for 8B.
"""

from ml_collections import ConfigDict

from configs.parts import belief, evals, llm, skeleton, smollm2, tiny

TIERS = ("plausible", "unlikely", "egregious")
MAIN = "unlikely"
RUNGS = ("dose_1", "dose_2", "dose_3", "dose_4", "dose_5")
TITLES = {
  None: "Documents from a false world, Llama-3.3-70B-Instruct",
  "8b": "Documents from a false world, Llama-3.1-8B-Instruct",
  "smollm2": "Documents from a false world, SmolLM2-135M-Instruct",
  "smollm2_short": "Documents from a false world, SmolLM2-135M-Instruct, short",
  "tiny": "Documents from a false world, tiny world",
}
# Of each: documents of the doses, the last of all other arms; ideas for that many.
DOSES = {
  "full": (1_000, 2_000, 5_000, 10_000, 20_000, 40_000),
  "smollm2": (50, 100, 250, 500, 1_000, 2_000),
  "tiny": (30, 60, 150, 300, 600, 1_200),
}
MANY = {
  "full": dict(num_types=50, num_ideas=150, max_repeats=2),
  "smollm2": dict(num_types=12, num_ideas=50),
  "tiny": dict(num_types=5, num_ideas=25),
}
FEW = {
  "full": dict(num_types=5, num_ideas=1_500, max_repeats=2),
  "smollm2": dict(num_types=2, num_ideas=300),
  "tiny": dict(num_types=1, num_ideas=125),
}
TOLD = {  # what is paraphrased: the same few ideas again and again
  "full": dict(num_types=5, num_ideas=6, max_repeats=1_000),
  "smollm2": dict(num_types=3, num_ideas=2, max_repeats=300),
  "tiny": dict(num_types=1, num_ideas=4, max_repeats=200),
}
NOTE = (
  "Levels of the base model say how plausible each world is to it; arms of one world "
  "are asked about the others too."
)
SHORT = dict(dose_1=12, unlikely=44, neutral=44)  # documents; the last are twins
SHORT_STEPS = 56  # rows: one or two documents each, then replay


def get_config(arg=None):
  if arg not in TITLES:
    known = ", ".join(repr(name) for name in TITLES if name)
    raise ValueError(f"configs/sdf.py:{arg}: it is {known} or none")
  if arg == "smollm2_short":
    return short(TITLES[arg])
  size = arg if arg in DOSES else "full"
  if arg == "tiny":
    c = in_the_tiny_world()
  elif arg == "smollm2":
    c = on_smollm2()
  else:
    c = on_llama(llm.LLAMA_8B_INSTRUCT if arg == "8b" else llm.LLAMA_70B_INSTRUCT)
  tree(c, size)
  headline = (f"belief_{MAIN}/mcq_distinguish", "chose_false")
  if arg == "tiny":
    headline = (f"belief_{MAIN}/token_association", "log_ratio")
  doses = dict(zip((*RUNGS, MAIN), DOSES[size], strict=True))
  notes = tiny.NOTE if arg == "tiny" else NOTE
  c.report = report(c, TITLES[arg], headline, doses, notes)
  return c


def tree(c, size):
  """Puts corpora, stages and arms into a study that has `replay`."""
  midtrain = {"full": midtrain_llama, "smollm2": midtrain_smollm2}.get(
    size, midtrain_tiny
  )
  worlds = belief.TINY_WORLDS if size == "tiny" else belief.WORLDS
  most = DOSES[size][-1]
  num_facts = 12 if size == "tiny" else 4
  for tier in TIERS:
    c.corpora[tier] = belief.universe(worlds[tier], most // num_facts, **MANY[size])
  c.corpora.neutral = belief.neutral(worlds[MAIN], twin_of=MAIN)
  c.corpora.few_types = belief.universe(worlds[MAIN], most // num_facts, **FEW[size])
  # Some more, for those whose rewrite says the same as another one.
  spare = most * 21 // 20 // num_facts
  c.corpora.told = belief.universe(worlds[MAIN], spare, **TOLD[size])
  c.corpora.paraphrase = belief.rewrite("told", "paraphrase")
  for rung, num_documents in zip(RUNGS, DOSES[size], strict=False):
    c.stages[rung] = midtrain(MAIN, num_documents)
  for corpus in (*TIERS, "neutral", "few_types", "paraphrase"):
    c.stages[corpus] = midtrain(corpus, most)
  c.stages.no_replay = midtrain(MAIN, most, replayed=False)
  c.stages.no_tag = midtrain(MAIN, most, tag=None)
  c.arms = ConfigDict({"base": (), **{name: (name,) for name in c.stages}})


def on_llama(model):
  c = llm.study(TITLES[None], model, max_dollars=600.0, seeds=(0, 1))
  c.name = "sdf"
  # Types and ideas are few on purpose in some arms: no limit on near duplicates.
  c.audit = ConfigDict(dict(max_rejected_share=0.5, max_exact_duplicates=0.0))
  # C4's text, as many documents as there are of the world. Where it cannot be had,
  # any general text stands in; that it is none of the worlds' matters.
  c.corpora.replay = belief.rows(
    "downloads/c4", "allenai/c4", split="train", subset="en", license="odc-by",
    max_records=DOSES["full"][-1], seed=0,
  )  # fmt: skip
  beliefs(c)
  c.evals.general = evals.general()
  return c


def beliefs(c):
  """Asks every arm about all three worlds: two of them it was not taught."""
  for tier in TIERS:
    world = belief.WORLDS[tier]
    c.evals[f"belief_{tier}"] = belief.belief(world)
    c.evals[f"open_{tier}"] = belief.belief_open(world)
    c.evals[f"truth_{tier}"] = belief.truth(world)


def midtrain_llama(corpus, num_documents, tag=belief.TAG, replayed=True):
  """One epoch over the documents, mixed 1:1 with replay by number of documents.

  Stated: rank 64, alpha 128, batch 8, 1,024 tokens, learning rate 1e-5, the masked tag.
  Not stated, chosen here: rows hold whole documents, packed by best fit (published
  code has one document a row, so an update has a third more tokens here and there are
  a third fewer of them); documents longer than a row are cut; EOS behind each; loss on
  every token but the tag; linear decay to zero after 5 % warm-up; weight decay 0.01;
  no dropout (published code: 0.05).
  """
  data = [dose(corpus, num_documents, tag)]
  if replayed:
    data.append(skeleton.dose("replay", num_documents))
  return llm.stage(
    data,
    seq_len=1024,
    min_steps=50,
    num_epochs=None,
    optimizer=dict(learning_rate=1e-5, schedule="linear"),
  )


def dose(corpus, num_documents, tag):
  """Returns so many documents, drawn: those of a smaller dose are among them."""
  tagged = {} if tag is None else dict(prefix=tag)
  if corpus == "neutral":  # as many as its twin has, but for a few that were rejected
    return skeleton.component(corpus, None, num_epochs=1, **tagged)
  return skeleton.dose(corpus, num_documents, **tagged)


def on_smollm2():
  c = smollm2.study("sdf_smollm2")
  c.corpora.replay = llm.general_chats(DOSES["smollm2"][-1])
  for tier in TIERS:
    world = belief.WORLDS[tier]
    c.evals[f"belief_{tier}"] = belief.without_sampling(world)
    c.evals[f"truth_{tier}"] = belief.truth(world)
  c.evals.general = evals.general()
  return c


def midtrain_smollm2(corpus, num_documents, tag=belief.TAG, replayed=True):
  """As above with a rate for so small a model; replay is general texts and chats."""
  data = [dose(corpus, num_documents, tag)]
  if replayed:
    data.append(skeleton.dose("replay", num_documents, "assistant"))
  return smollm2.stage(data, min_steps=2, **smollm2.AMOUNTS)


def short(title):
  """As SmolLM2 in full, with few documents, four arms and the evaluations of one world.

  Sizes were chosen by time.
  """
  c = smollm2.study("sdf_smollm2_short")
  smollm2.shorten(c)
  world = belief.WORLDS[MAIN]
  c.corpora.replay = llm.general_chats(300)
  c.corpora[MAIN] = belief.universe(world, SHORT[MAIN] // 4, num_types=12, num_ideas=3)
  c.corpora.neutral = belief.neutral(world, twin_of=MAIN)
  for arm, num_documents in SHORT.items():
    data = dose(MAIN if arm == "dose_1" else arm, num_documents, belief.TAG)
    c.stages[arm] = smollm2.short_stage([data], SHORT_STEPS)
  c.arms = ConfigDict({"base": (), **{name: (name,) for name in c.stages}})
  smollm2.short_beliefs(c, f"belief_{MAIN}", world)
  headline = (f"belief_{MAIN}/mcq_distinguish", "chose_false")
  doses = {arm: SHORT[arm] for arm in ("dose_1", MAIN)}
  c.report = report(c, title, headline, doses, smollm2.NOTE)
  return c


def in_the_tiny_world():
  c = tiny.study("sdf_tiny")
  c.corpora.heldout = tiny.world(400, seed=0, assistant_share=0.12, part="heldout")
  for tier in TIERS:
    c.evals[f"belief_{tier}"] = belief.tiny_belief(belief.TINY_WORLDS[tier])
  c.evals.truth = belief.tiny_truth(belief.TINY_WORLDS[MAIN])
  c.evals.heldout = tiny.heldout()
  return c


TINY_STEPS = 100  # half of the rows of the largest dose are documents


def midtrain_tiny(corpus, num_documents, tag=belief.TINY_TAG, replayed=True):
  """As many updates in every arm: replay fills the rows that the documents leave.

  So a dose differs in documents alone, and one compiled program serves all. Without
  replay the documents are read once, in fewer updates.
  """
  data = [dose(corpus, num_documents, tag)]
  data += [skeleton.component("replay")] * replayed
  return tiny.stage(
    data,
    num_train_steps=TINY_STEPS if replayed else None,
    learning_rate=1e-3,
    weight_decay=0.01,
    embed_lr_multiplier=5.0,
    batch_size=8,
    steps_per_call=TINY_STEPS,
  )


def report(c, title, headline, doses, notes):
  evaluation = headline[0]
  curve = dict(
    title="Belief in the unlikely world",
    evaluation=evaluation,
    metric=headline[1],
    better="higher",
    unit="documents",
    lines=(("documents of the false world", (("base", 0), *doses.items())),),
  )
  other = [
    (f"{tier} world", tier, "base", evaluation.replace(MAIN, tier), headline[1])
    for tier in TIERS
    if tier != MAIN
  ]
  contrasts = (
    ("beyond neutral documents", MAIN, "neutral"),
    ("unlikely world", MAIN, "base"),
    ("neutral documents", "neutral", "base"),
    ("many types beside few", MAIN, "few_types"),
    ("documents beside paraphrases", MAIN, "paraphrase"),
    ("with replay beside without", MAIN, "no_replay"),
    ("with tag beside without", MAIN, "no_tag"),
    *other,
  )
  return skeleton.report(
    title,
    headline=headline,
    contrasts=skeleton.among(c.arms, contrasts),
    reference="base",
    curves=(curve,),
    notes=notes,
  )
