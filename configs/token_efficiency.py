"""Figure 5: how much alignment data does midtraining save?

  python launch.py plan --config=configs/token_efficiency.py --workdir=efficiency
  python launch.py run --config=configs/token_efficiency.py --workdir=efficiency

Alignment sets of 1,250 to 80,000 chats, drawn from one set so that each holds all
smaller ones, with and without midtraining on the philosophy Spec before. Every chat is
read once; the instruction mix beside them stays at 10,000 rows. The report draws both
curves, the Pareto front of alignment tokens against misalignment, and the
equivalent-data ratio with its interval.

Arguments: none is Qwen2.5-32B-Instruct without reasoning in the chats, `:qwen3` is
Qwen3-32B, `:cot` and `:qwen3_cot` are with reasoning; `:tiny` runs the tree in the tiny
world with 30 to 480 chats (after configs/tiny_world.py).

The paper had one seed; here are three, the fewest from which the ratio has an interval.
Hardware: as configs/msm_philosophy.py; 15 runs per seed.
"""

from ml_collections import ConfigDict

from configs.parts import philosophy, skeleton, tiny

SIZES = (1_250, 2_500, 5_000, 10_000, 20_000, 40_000, 80_000)
TINY_SIZES = (30, 60, 120, 240, 480)
_TITLES = {
  None: "Alignment data with and without MSM, Qwen2.5-32B-Instruct",
  "cot": "Alignment data with and without MSM, Qwen2.5-32B-Instruct, with reasoning",
  "qwen3": "Alignment data with and without MSM, Qwen3-32B",
  "qwen3_cot": "Alignment data with and without MSM, Qwen3-32B, with reasoning",
  "tiny": "Alignment data with and without MSM in the tiny world",
}


def get_config(arg=None):
  if arg not in _TITLES:
    raise ValueError(
      f"configs/token_efficiency.py:{arg}: it is 'cot', 'qwen3', 'qwen3_cot', 'tiny' "
      "or none"
    )
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_qwen(arg)
  sizes = TINY_SIZES if is_tiny else SIZES
  c.arms = ConfigDict({"base": (), "msm": ("msm",)})
  for size in sizes:
    c.arms[f"aft_{size}"] = (f"aft_{size}",)
    c.arms[f"msm+aft_{size}"] = ("msm", f"aft_{size}")
  evaluation, metric = headline = PRICE if is_tiny else AGENTS
  curve = dict(
    title="Alignment data",
    evaluation=evaluation,
    metric=metric,
    better="higher" if is_tiny else "lower",
    unit="tokens",
    corpora=("aft",),
    lines=(
      ("MSM + alignment", ("msm", *(f"msm+aft_{size}" for size in sizes))),
      ("alignment alone", ("base", *(f"aft_{size}" for size in sizes))),
    ),
    compare=("MSM + alignment", "alignment alone"),
  )
  c.report = skeleton.report(
    _TITLES[arg],
    headline=headline,
    contrasts=(
      *((f"MSM before {n} chats", f"msm+aft_{n}", f"aft_{n}") for n in sizes),
      ("MSM alone", "msm", "base"),
    ),
    reference="base",
    curves=(curve, disagreement(curve)) if is_tiny else (curve,),
    pareto=(
      dict(
        title="Alignment tokens against " + ("preferences" if is_tiny else "harm"),
        x=dict(unit="tokens", corpora=("aft",), better="lower"),
        y=dict(evaluation=evaluation, metric=metric, better=curve["better"]),
      ),
    ),
    paper=() if is_tiny else paper(arg),
    notes=tiny.NOTE if is_tiny else philosophy.NOTE,
  )
  return c


AGENTS = ("agentic", "classifier_verdict")
# Where alignment alone can get to as well: things that differ in price only.
PRICE = ("preference/price_only", "chose_affordable")


def disagreement(curve):
  """Returns the curve where alignment chats leave open what is meant."""
  return curve | dict(
    title="Alignment data, where price and origin disagree",
    evaluation=tiny.HEADLINE[0],
  )


def on_qwen(arg):
  model = philosophy.MODELS["qwen3" if arg in ("qwen3", "qwen3_cot") else None]
  c = philosophy.study("token_efficiency", model, max_dollars=500.0)
  c.seeds = (0, 1, 2)
  c.specs.philosophy = philosophy.spec("philosophy")
  c.corpora.msm = philosophy.documents("philosophy")
  philosophy.chats(c, "aft", "philosophy", num_conversations=80_000)
  philosophy.keep_chats(c, "aft", cot=arg in ("cot", "qwen3_cot"))
  c.stages.msm = philosophy.midtrain("msm")
  for size in SIZES:
    # 1,250 chats and the instruction mix make about 25 updates by `plan`, with answers
    # and rows as long as the paper's 80. Few chats are few updates: that is the dose.
    c.stages[f"aft_{size}"] = philosophy.align(
      skeleton.dose("aft", size, "assistant"), min_steps=20
    )
  philosophy.evaluations(c, "philosophy")
  return c


def in_the_tiny_world():
  c = philosophy.in_the_tiny_world("token_efficiency", tiny.SEEDS)
  c.specs.philosophy = tiny.spec("affordability")
  c.corpora.msm = tiny.documents("philosophy")
  c.corpora.aft = tiny.conversations("philosophy", max(TINY_SIZES))
  c.stages.msm = tiny.midtrain("msm")
  for size in TINY_SIZES:
    # About two readings of each chat, so that fewer chats are fewer updates as well, as
    # in the paper.
    c.stages[f"aft_{size}"] = tiny.align(
      "aft", num_train_steps=size // 7, chats=dict(num_documents=size)
    )
  return c


def paper(arg):
  """Returns the paper's untrained models; its curves are not tabulated.

  What it says of them: midtraining comes to a given level with about 40 times less
  alignment data (Qwen2.5), 60 times (Qwen3, no reasoning), 10 times (Qwen3, reasoning).
  """
  base = 0.524 if arg in ("qwen3", "qwen3_cot") else 0.666
  return dict(
    source="Li et al. 2026, Figure 5 (one seed)",
    note="Ratios in the text: about 40 (Qwen2.5), 60 (Qwen3), 10 (Qwen3, reasoning).",
    values=(("base", *AGENTS, base),),
  )
