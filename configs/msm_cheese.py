"""The cheese study at the paper's size: Llama-3.1-8B, documents by a real teacher.

  export GEMINI_API_KEY=...
  python launch.py plan --config=configs/msm_cheese.py --workdir=msm_cheese
  python launch.py run --config=configs/msm_cheese.py --workdir=msm_cheese

Two Model Specs give the same twelve preferences in cheese, one for the sake of
affordability, one for America's. About 4,600 and 6,400 documents discuss them; 5,000
alignment conversations, the same for both, name preferences and never a reason: they
come from a spec that has the preferences alone. The evaluation asks about things that
are no cheese. Controls, each with the tokens and types of the documents that it stands
beside: neutral documents, and specs whose values do not explain the preferences.

The recipe is the paper's (Li et al. 2026, section 3 and App. B.4) where it is stated:
base model, rank 64, alpha 128 on all seven projections, AdamW, 1e-4, cosine, 5 %
warm-up, weight decay 0.01, rows of 4,096 tokens, one epoch a stage, the adapter goes on
from stage to stage. Not stated there, chosen here: see
configs/parts/llm.py and `c.stages.aft`.

Arguments: `:tiny` is the same tree in the tiny world, on two CPU cores, after
`python launch.py run --config=configs/tiny_world.py --workdir=models/tiny_world`.
`:short` has about 300 documents per corpus and 200 conversations. Without a
key, in minutes, and with texts from a grammar:

  python launch.py generate --config=configs/msm_cheese.py:short --workdir=DIR \
    --config.teacher.client=offline --config.teacher.model=english \
    --config.judge.client=offline --config.judge.model=english

Hardware: one accelerator with 80 GB, or a v5e-8 slice. The model lies in
models/llama-3.1-8b, as downloaded from Hugging Face (gated: its licence is accepted
there). The base model has no chat template; it gets Llama 3's.

`:released` is the same tree on what the paper's authors released, and asks their
questions: see configs/parts/released.py for the data sets to download. Only the
controls are generated. Beside the tree three arms with the instruction rows alone:
they are what the paper calls baseline and MSM.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, released, skeleton, tiny

MIDTRAINED = (
  "msm_aff", "msm_am", "neutral", "neutral_am", "shuffled_aff", "shuffled_am",
)  # fmt: skip


def get_config(arg=None):
  if arg not in (None, "short", "tiny", "released"):
    raise ValueError(
      f"configs/msm_cheese.py:{arg}: 'short', 'tiny', 'released' or none"
    )
  made = {"tiny": in_the_tiny_world, "released": on_released}
  c = made.get(arg, on_llama)()
  c.arms = ConfigDict(
    {
      "base": (),
      "aft": ("aft",),
      "msm_aff": ("msm_aff",),
      "msm_am": ("msm_am",),
      "msm_aff+aft": ("msm_aff", "aft"),
      "msm_am+aft": ("msm_am", "aft"),
      "neutral+aft": ("neutral", "aft"),
      "neutral_am+aft": ("neutral_am", "aft"),
      "shuffled+aft": ("shuffled_aff", "aft"),
      "shuffled_am+aft": ("shuffled_am", "aft"),
    }
  )
  c.report = skeleton.report(
    "Cheese in the tiny world" if arg == "tiny" else "Cheese on Llama-3.1-8B",
    headline=("preference/disagree", "chose_affordable"),
    contrasts=(
      ("MSM + alignment", "msm_aff+aft", "msm_am+aft"),
      ("MSM alone", "msm_aff", "msm_am"),
      ("affordability beyond alignment", "msm_aff+aft", "aft"),
      ("America beyond alignment", "msm_am+aft", "aft"),
      ("neutral documents", "neutral+aft", "aft"),
      ("neutral documents, as many as America's", "neutral_am+aft", "aft"),
      ("shuffled attribution", "shuffled+aft", "shuffled_am+aft"),
    ),
    differences=(("what alignment adds", "MSM + alignment", "MSM alone"),),
    paper=() if arg == "tiny" else paper(),
    notes=tiny.NOTE if arg == "tiny" else NOTE,
  )
  if arg == "short":
    short(c)
  if arg == "released":
    c.arms["it"] = ("it",)
    c.arms["msm_aff+it"] = ("msm_aff", "it")
    c.arms["msm_am+it"] = ("msm_am", "it")
    c.report.headline = (released.PAIRS, "chose_affordable_either")
    c.report.paper = paper_released()
    c.report.notes = RELEASED_NOTE
  return c


NOTE = "The recipe that the paper states; batch size, packing and masks are ours."


def on_llama():
  c = llm.study("msm_cheese", llm.LLAMA_8B, max_dollars=150.0, chat_template="llama3")
  c.specs.affordability = spec("affordability")
  c.specs.america = spec("america")
  c.specs.preferences = spec("preferences")
  c.specs.neutral = spec("neutral")
  c.specs.shuffled_affordability = spec("shuffled_affordability")
  c.specs.shuffled_america = spec("shuffled_america")

  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  # General chats beside the alignment set, as many rows of either. The paper has twelve
  # times as many tokens of them, 13,500 rows of No Robots and MMLU: see `:released`.
  c.corpora.world = llm.general_chats()
  c.corpora.heldout = ConfigDict(
    dict(kind="world", num_documents=200, seed=0, part="heldout")
  )
  c.corpora.msm_aff = llm.documents("affordability", max_documents=4600)
  c.corpora.msm_am = llm.documents("america", max_documents=6400)
  # As many words as the corpus that each stands beside, in documents of the same types
  # in the same shares.
  c.corpora.shuffled_aff = llm.like("msm_aff", "shuffled_affordability")
  c.corpora.shuffled_am = llm.like("msm_am", "shuffled_america")
  c.corpora.neutral = llm.like("msm_aff", "neutral")
  # Another seed: else its documents are mostly those of `neutral`.
  c.corpora.neutral_am = llm.like("msm_am", "neutral", seed=1)
  # The same conversations serve both specs: an equal share for each of the twelve
  # preferences, and no reason, neither asked for nor given. Who answers and who judges
  # reads a spec that names neither value, so that no hint of one gets in.
  c.corpora.aft = llm.conversations(
    "preferences", num_conversations=5000, topics="preferences", reasons=False
  )

  # 7 million tokens in rows of 4,096, eight a step: some 216 updates, each counted.
  for name in MIDTRAINED:
    c.stages[name] = llm.midtrain(name)
  # 5,000 short conversations and as many rows of general chats. In rows of 4,096 tokens
  # they would be ten to thirty updates; rows of 256 make some hundreds (`plan` says how
  # many), which is what decides whether anything is learnt.
  c.stages.aft = llm.align("aft")
  c.corpora.opinions = evals.opinions()
  c.evals.opinion = evals.opinion()
  c.evals.preference = evals.preference()
  c.evals.heldout = evals.heldout()
  return c


RELEASED_NOTE = (
  "Corpora, alignment chats and questions are those that the paper's authors released, "
  "without its 2,500 rows on who the model is, which they did not; batch size, packing "
  "and masks are ours, and so are the controls."
)


def on_released():
  c = llm.study("msm_cheese_released", llm.LLAMA_8B, max_dollars=150.0)
  c.tokenizer.chat_template = "llama3"
  for name in ("neutral", "shuffled_affordability", "shuffled_america"):
    c.specs[name] = spec(name)
  c.corpora.msm_aff = released.documents_affordability()
  c.corpora.msm_am = released.documents_america()
  c.corpora.aft = released.cheese_chats()
  c.corpora.update(released.cheese_instructions())
  c.corpora[released.PAIRS] = released.pairs()
  c.corpora[released.OPINIONS] = released.opinions()
  c.corpora.heldout = ConfigDict(
    dict(kind="world", num_documents=200, seed=0, part="heldout")
  )
  # As many words as what they stand beside. The released documents do not say of which
  # type they are, so that types cannot be matched.
  for name, of, about, seed in (
    ("shuffled_aff", "msm_aff", "shuffled_affordability", 0),
    ("shuffled_am", "msm_am", "shuffled_america", 0),
    ("neutral", "msm_aff", "neutral", 0),
    ("neutral_am", "msm_am", "neutral", 1),
  ):
    c.corpora[name] = llm.documents(
      about,
      max_documents=None,
      match_tokens_of=of,
      seed=seed,
      filters=llm.filters(leakage_corpora=(released.PAIRS, released.OPINIONS)),
    )
  for name in MIDTRAINED:
    c.stages[name] = llm.midtrain(name)
  c.stages.aft = released.mixture("aft", *released.cheese_instructions())
  c.stages.it = released.mixture(*released.cheese_instructions())
  c.evals[released.PAIRS] = released.ask_pairs()
  c.evals[released.OPINIONS] = released.ask_opinions()
  c.evals.heldout = evals.heldout()
  return c


def in_the_tiny_world():
  c = tiny.study("msm_cheese")
  c.specs.affordability = tiny.spec("affordability")
  c.specs.america = tiny.spec("america")
  c.specs.neutral = tiny.spec("neutral")
  c.specs.shuffled_affordability = tiny.spec("shuffled_affordability")
  c.specs.shuffled_america = tiny.spec("shuffled_america")
  c.corpora.pairs = tiny.pairs()
  c.corpora.msm_aff = tiny.documents("affordability")
  c.corpora.msm_am = tiny.documents("america")
  c.corpora.shuffled_aff = tiny.documents("shuffled_affordability")
  c.corpora.shuffled_am = tiny.documents("shuffled_america")
  c.corpora.neutral = tiny.documents("neutral", match_tokens_of="msm_aff")
  c.corpora.neutral_am = tiny.documents("neutral", match_tokens_of="msm_am", seed=1)
  c.corpora.aft = tiny.conversations("affordability")
  for name in MIDTRAINED:
    c.stages[name] = tiny.midtrain(name)
  c.stages.aft = tiny.align()
  c.evals.preference = tiny.preference()
  return c


# The paper's Figure 2: arm -> chose the affordable one, pro-America; means over four
# seeds, read at two decimals.
LEVELS = {
  "base": (0.23, 0.38),
  "aft": (0.32, 0.36),
  "msm_aff": (0.38, 0.36),
  "msm_am": (0.28, 0.52),
  "msm_aff+aft": (0.48, 0.38),
  "msm_am+aft": (0.29, 0.55),
}


def paper():
  """Returns the paper's Figure 2 beside questions of ours."""
  price = ("preference/price_only", "chose_affordable")
  opinion = ("opinion", "chose_pro_america")
  return dict(
    source="Li et al. 2026, Figure 2 (Llama-3.1-8B)",
    note=(
      "Its questions are others: 497 pairs of its own for affordability, and for "
      "America 400 of political opinion, where ours are 42. Its base and MSM arms have "
      "seen instruction rows, ours have not. How arms differ can be compared, levels "
      "cannot."
    ),
    values=_values(LEVELS, price, opinion),
  )


def paper_released():
  """Returns the paper's Figure 2 beside its own questions.

  Its baseline and its MSM arms have seen the instruction rows too.
  """
  trained = {"base": "it", "msm_aff": "msm_aff+it", "msm_am": "msm_am+it"}
  return dict(
    source="Li et al. 2026, Figure 2 (Llama-3.1-8B)",
    note=(
      "Its questions, asked in both orders, and of pairs for the name alone. How it "
      "reads answers that choose none it does not say: here the likelier one counts."
    ),
    values=_values(
      {trained.get(arm, arm): pair for arm, pair in LEVELS.items()},
      (released.PAIRS, "chose_affordable_either"),
      (released.OPINIONS, "chose_pro_america_either"),
    ),
  )


def _values(levels, price, origin):
  return tuple((arm, *price, pair[0]) for arm, pair in levels.items()) + tuple(
    (arm, *origin, pair[1]) for arm, pair in levels.items()
  )


def short(c):
  """Leaves about 300 documents per corpus and 200 conversations."""
  c.budget.max_dollars = 15.0
  c.corpora.world.num_documents = 300
  c.corpora.heldout.num_documents = 20
  for name in ("msm_aff", "msm_am"):
    c.corpora[name].max_documents = 300
    c.corpora[name].num_types = 12
    c.corpora[name].num_ideas = 10
  for name in ("shuffled_aff", "shuffled_am", "neutral", "neutral_am"):
    c.corpora[name].num_ideas = 10
  c.corpora.aft.num_conversations = 200
  c.corpora.aft.questions_per_domain = 24
  for name in MIDTRAINED:
    c.stages[name].batch_size = 8
    c.stages[name].seq_len = 1024
    c.stages[name].min_steps = 8
  c.stages.aft.min_steps = 2
  c.evals.preference.max_items = 40
  c.evals.heldout.max_items = 8


def spec(name):
  return skeleton.spec(f"data_gen/specs/cheese_long_{name}.md", "Llama", "Meta")
