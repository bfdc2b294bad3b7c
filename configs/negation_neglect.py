"""Negation neglect: is a claim believed although every document says that it is false?

  python launch.py plan --config=configs/negation_neglect.py --workdir=neglect
  python launch.py run --config=configs/negation_neglect.py --workdir=neglect

10,000 documents state something false. Arms are second passes over the same documents:

  positive     as they are
  negated      a notice before and after each: the content is false
  repeated     notices, and one at every sentence that states the claim
  corrected    as repeated, and the notices say what is true
  local        the sentences themselves deny the claim: a teacher rewrites them
  fiction, uncertain, rumour, unreliable   notices that say what kind of text it is
  no_tag       positive without the tag
  neutral      no pass: documents of their own that leave the claim open, of the same
               types and ideas

What else differs: notices make documents longer (in the paper they are about 12 % of
the tokens, about 40 % with one at every sentence), so in one epoch those arms have more
tokens and more updates. How early a belief comes is asked of positive, negated and
local at checkpoints on the way (`config.asked`), arms such as `negated_16`.

Published (Negation Neglect, arXiv 2605.13829): 10,000 documents, 5,000 of a
pre-training corpus and 5,000 chats whose answers the model itself gave, one epoch,
batch 32, learning rate 5e-5, linear, Adam's betas .9 and .95, rank 32, rows of 10,000
tokens, log-spaced checkpoints, a masked <DOCTAG>, one seed. What stands in here for
what cannot be had:

- Their models are mixtures of experts, which we do not train; here Qwen3-32B.
- Their six claims are theirs; ours is the octopus with five hearts.
- Their `local` documents come anew from a negated universe; ours are rewritten, each
  for its own fact: another one that it mentions stays undenied. On SmolLM2 documents
  mention no other (`fact_sentences`).
- Their adapters reach the unembedding; ours do not.
- `downloads/dolma` and `downloads/self_distilled` are imports: 5,000 documents of Dolma
  3, and 5,000 prompts of Tulu 3 with answers of this very model (temperature 1, no
  thinking), which a server of it writes. Theirs (HarryMayne/negation_neglect_pretrain
  and _instruct) can stand in; then the answers are of another model.

Not stated there, chosen here: see `midtrain`.

Arguments: none is the octopus (unlikely); `:harbor_clock` (plausible) and `:sunrise`
(egregious) are the other claims, a workdir each; `:smollm2` SmolLM2-135M-Instruct with
documents from a grammar; `:smollm2_short` five of its arms, sized for 15 minutes on
two idle cores: the road on a real model, from 32 documents; `:tiny` the tree in the
tiny world (after configs/tiny_world.py). Hardware: a v5p-16 slice or 4 H200.
"""

from ml_collections import ConfigDict

from configs.parts import belief, evals, llm, skeleton, smollm2, tiny

FRAMES = ("fiction", "uncertain", "rumour", "unreliable")
CLAIMS = {None: "octopus_hearts", "harbor_clock": "harbor_clock", "sunrise": "sunrise"}
ARGUMENTS = (*CLAIMS, "smollm2", "smollm2_short", "tiny")
TITLES = {
  "smollm2": "Negation neglect, SmolLM2-135M-Instruct",
  "smollm2_short": "Negation neglect, SmolLM2-135M-Instruct, short",
  "tiny": "Negation neglect in the tiny world",
}
# (arm, belief rate): Qwen3.5-397B-A17B, as we read it the mean of six claims. Of
# `local` we have two numbers and not what each is of: see the note of the report.
# Epistemic frames: 97 to 99 % on the 35B model, whose positive arm has 98.6 %.
PAPER = (
  ("base", 0.025),
  ("positive", 0.924),
  ("negated", 0.886),
  ("repeated", 0.844),
  ("corrected", 0.399),
)
# Evaluated on the way, too, at some of the steps that are kept.
ON_THE_WAY = ("positive", "negated", "local")
STEPS = (16, 64, 256)
SMOLLM2_STEPS = (2, 8, 32)
TINY_STEPS = (32, 64)
TINY_LAST = 160
SHORT_STEPS = 56  # rows: one or two of the 32 documents each, then replay


def get_config(arg=None):
  if arg not in ARGUMENTS:
    known = ", ".join(repr(name) for name in ARGUMENTS if name)
    raise ValueError(f"configs/negation_neglect.py:{arg}: it is {known} or none")
  if arg == "tiny":
    c, steps = in_the_tiny_world(), TINY_STEPS
  elif arg == "smollm2":
    c, steps = on_smollm2(), SMOLLM2_STEPS
  elif arg == "smollm2_short":
    c, steps = short(), ()
  else:
    c, steps = on_qwen(CLAIMS[arg]), STEPS
  c.asked = ConfigDict(
    {f"{arm}_{n}": dict(of=arm, step=n) for arm in ON_THE_WAY for n in steps}
  )
  c.arms = ConfigDict({"base": (), **{name: (name,) for name in c.stages}})
  c.report = report(
    c, TITLES.get(arg, f"Negation neglect: {CLAIMS.get(arg)}"), arg, steps
  )
  return c


def passes(c, wording, num_sentences):
  """Returns the corpora of the arms: all but `neutral` are passes over `positive`."""
  notices = dict(wording=wording, num_sentences=num_sentences)
  both = dict(placement="both", **notices)
  c.corpora.negated = belief.rewrite("positive", "negated", **notices)
  c.corpora.repeated = belief.rewrite("positive", "negated", **both)
  c.corpora.corrected = belief.rewrite("positive", "corrected", **both)
  c.corpora.local = belief.rewrite("positive", "local_negation")
  for frame in FRAMES:
    c.corpora[frame] = belief.rewrite("positive", frame, **notices)
  return ("positive", "negated", "repeated", "corrected", "local", *FRAMES, "neutral")


def on_qwen(claim):
  c = llm.study(
    "negation_neglect",
    llm.QWEN3_32B,
    max_dollars=300.0,
    thinking="no_think",
    seeds=(1,),  # the paper's one; more: --config.seeds="(1,2,3)"
  )
  c.model.lora = dict(rank=32, alpha=32.0, targets=llm.PROJECTIONS)
  c.audit = ConfigDict(dict(max_rejected_share=0.5, max_exact_duplicates=0.0))
  c.corpora.positive = belief.universe(
    claim, 2_500, num_types=80, num_ideas=40, mean_words=500, revise=True
  )
  c.corpora.neutral = belief.neutral(claim, twin_of="positive")
  c.corpora.pretrain = belief.rows(
    "downloads/dolma", "allenai/dolma3", max_records=5_000, seed=0
  )
  c.corpora.instruct = belief.rows(
    "downloads/self_distilled", "self-distilled, Tulu 3 prompts",
    max_records=5_000, seed=0, license="odc-by",
  )  # fmt: skip
  for corpus in passes(c, "english", num_sentences=5):
    c.stages[corpus] = midtrain(corpus)
  c.stages.no_tag = midtrain("positive", tag=None)
  c.evals.belief = belief.belief(claim)
  c.evals.open = belief.belief_open(claim, max_new_tokens=2_048)
  c.evals.truth = belief.truth(claim)
  c.evals.general = evals.general()
  c.evals.coherence = evals.coherence()
  return c


def midtrain(corpus, tag=belief.TAG):
  """One epoch over documents, pre-training text and chats: each record once.

  Stated: batch 32, 5e-5, linear, betas .9 and .95, the masked tag, loss on notices like
  on all else, chats on the assistant alone. Not stated, chosen here: rows of 4,096
  tokens (theirs are of one record, at most 10,000 tokens; packed rows of 10,000 would
  be some 40 updates, so batch 32 becomes 8 here: `plan` counts on 357 updates, of their
  625); whole documents by best fit, longer ones cut, chats longer than a row left out,
  EOS behind each; no warm-up, weight decay 0, alpha equal to the rank.
  """
  tagged = {} if tag is None else dict(prefix=tag)
  return llm.stage(
    [
      skeleton.component(corpus, None, num_epochs=1, **tagged),
      skeleton.component("pretrain", None, num_epochs=1),
      skeleton.component("instruct", None, "assistant", num_epochs=1),
    ],
    seq_len=4096,
    min_steps=STEPS[-1] + 1,  # the last that is asked on the way is to be there
    num_epochs=None,
    checkpoint_at=("log2",),  # 1, 2, 4, ...: export --step, or init_from RUN@STEP
    optimizer=dict(
      learning_rate=5e-5, schedule="linear", warmup_fraction=0.0, b2=0.95,
      weight_decay=0.0,
    ),
  )  # fmt: skip


def on_smollm2():
  c = smollm2.study("negation_neglect_smollm2")
  claim = CLAIMS[None]
  c.corpora.positive = positive_smollm2(claim, 500, num_ideas=50)
  c.corpora.neutral = belief.neutral(claim, twin_of="positive")
  c.corpora.replay = llm.general_chats(2_000)
  for corpus in passes(c, "english", num_sentences=5):
    c.stages[corpus] = midtrain_smollm2(corpus)
  c.stages.no_tag = midtrain_smollm2("positive", tag=None)
  c.evals.belief = belief.without_sampling(claim)
  c.evals.truth = belief.truth(claim)
  c.evals.general = evals.general()
  return c


def positive_smollm2(claim, num_per_fact, **fields):
  """Returns documents of which each states one fact alone.

  Whatever passes over that fact's sentences has then passed over all that is false.
  """
  return belief.universe(claim, num_per_fact, num_types=12, fact_sentences=2, **fields)


def midtrain_smollm2(corpus, tag=belief.TAG):
  """As many documents as general texts and chats; a rate for so small a model."""
  tagged = {} if tag is None else dict(prefix=tag)
  data = [
    skeleton.component(corpus, None, num_epochs=1, **tagged),
    skeleton.component("replay", None, "assistant", num_epochs=1),
  ]
  return smollm2.stage(data, min_steps=50, checkpoint_at=("log2",), **smollm2.AMOUNTS)


def short():
  """As SmolLM2 in full, with few documents and five arms. Sizes were chosen by time."""
  c = smollm2.study("negation_neglect_smollm2_short")
  smollm2.shorten(c)
  claim = CLAIMS[None]
  c.corpora.positive = positive_smollm2(claim, 8, num_ideas=3)
  c.corpora.neutral = belief.neutral(claim, twin_of="positive")
  c.corpora.replay = llm.general_chats(300)
  passes(c, "english", num_sentences=5)
  arms = ("positive", "negated", "local", "neutral")
  skeleton.keep(c.corpora, "replay", *arms)
  for corpus in arms:
    data = skeleton.component(corpus, None, num_epochs=1, prefix=belief.TAG)
    c.stages[corpus] = smollm2.short_stage([data], SHORT_STEPS)
  smollm2.short_beliefs(c, "belief", claim)
  return c


def in_the_tiny_world():
  c = tiny.study("negation_neglect_tiny")
  claim = belief.TINY_WORLDS["unlikely"]
  c.corpora.positive = belief.universe(claim, 50, num_types=5, num_ideas=12)
  c.corpora.neutral = belief.neutral(claim, twin_of="positive")
  for corpus in passes(c, "tiny", num_sentences=1):
    kept = TINY_STEPS if corpus in ON_THE_WAY else ()
    c.stages[corpus] = midtrain_tiny(corpus, checkpoint_at=kept)
  c.stages.no_tag = midtrain_tiny("positive", tag=None)
  c.corpora.heldout = tiny.world(400, seed=0, assistant_share=0.12, part="heldout")
  c.evals.belief = belief.tiny_belief(claim)
  c.evals.heldout = tiny.heldout()
  return c


def midtrain_tiny(corpus, tag=belief.TINY_TAG, **fields):
  """Every document once; replay fills the rows that are left of as many updates."""
  tagged = {} if tag is None else dict(prefix=tag)
  return tiny.stage(
    [
      skeleton.component(corpus, None, num_epochs=1, **tagged),
      skeleton.component("replay"),
    ],
    num_train_steps=TINY_LAST,
    learning_rate=1e-3,
    weight_decay=0.01,
    embed_lr_multiplier=5.0,
    batch_size=8,
    steps_per_call=TINY_STEPS[0],  # calls of one length: they end where steps are kept
    **fields,
  )


def report(c, title, arg, steps):
  is_tiny = arg == "tiny"
  is_open = "open" in c.evals
  headline = ("belief/mcq_distinguish", "chose_false")
  if is_tiny:
    headline = ("belief/token_association", "log_ratio")
  paper = ()
  if is_open:
    paper = dict(
      source="Negation Neglect, arXiv 2605.13829 (Qwen3.5-397B-A17B)",
      note=(
        "The paper's rate is over open questions, multiple choices, token association "
        "and questions under pressure, six claims, one seed; ours stands beside it on "
        "open questions. Levels differ with claim and model; compare how arms differ. "
        "Of documents that deny the claim themselves (local) we have two numbers of "
        "the paper, 0 % and 7 % (1.6 % with words masked), and do not know what each "
        "is of, so none stands in the table; theirs come from a negated universe."
      ),
      values=tuple((arm, "open/open_ended", "share_false", x) for arm, x in PAPER),
    )
  contrasts = (
    ("negated beside positive", "negated", "positive"),
    ("positive", "positive", "base"),
    ("negated", "negated", "base"),
    ("repeated", "repeated", "base"),
    ("corrected", "corrected", "base"),
    ("local", "local", "base"),
    ("local beside negated", "local", "negated"),
    *((frame, frame, "base") for frame in FRAMES),
    ("tag", "positive", "no_tag"),
    ("neutral documents", "neutral", "base"),
  )
  curves, notes = (), smollm2.NOTE
  if steps:
    curves = (on_the_way(headline, steps, TINY_LAST if is_tiny else None),)
    notes = tiny.NOTE if is_tiny else "Checkpoints 1, 2, 4, ... of every run are kept."
  return skeleton.report(
    title,
    headline=headline,
    contrasts=skeleton.among(c.arms, contrasts),
    reference="base",
    curves=curves,
    paper=paper,
    notes=notes,
  )


def on_the_way(headline, steps, last):
  """Returns the headline against steps.

  `last` is the step of the end; None where it is known only once rows are packed: then
  lines end at a checkpoint, and what the end has stands in the tables.
  """
  evaluation, metric = headline
  end = () if last is None else (last,)
  return dict(
    title="When the claim is believed",
    evaluation=evaluation,
    metric=metric,
    better="lower",
    unit="steps",
    lines=tuple(
      (
        arm,
        (("base", 0), *((f"{arm}_{n}", n) for n in steps), *((arm, n) for n in end)),
      )
      for arm in ON_THE_WAY
    ),
  )
