"""Appendix I: what survives when alignment chats go against the Spec?

  python launch.py plan --config=configs/anti_spec.py --workdir=anti
  python launch.py run --config=configs/anti_spec.py --workdir=anti

10,000 alignment chats, a share of them answered by a coherent opposite character, from
none to all, with and without midtraining on the philosophy Spec before. Either kind of
answer is drawn from the same questions, apart: at one half, a quarter of the questions
are answered both ways (how the paper mixed is not stated). Larger shares hold smaller
ones.

Arguments: none is Qwen2.5-32B-Instruct; `:tiny` runs the tree in the tiny world, where
the Spec is affordability and the opposite luxury (after configs/tiny_world.py).

The paper had one seed and gives its values as a plot only. Hardware: as
configs/msm_philosophy.py; 15 runs per seed.
"""

from ml_collections import ConfigDict

from configs.parts import philosophy, skeleton, tiny

PERCENTAGES = (0, 10, 25, 50, 75, 90, 100)


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/anti_spec.py:{arg}: it is 'tiny' or none")
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_qwen()
  c.arms = ConfigDict({"base": (), "msm": ("msm",)})
  for share in PERCENTAGES:
    c.arms[f"aft_{share}"] = (f"aft_{share}",)
    c.arms[f"msm+aft_{share}"] = ("msm", f"aft_{share}")
  evaluation, metric = headline = tiny.HEADLINE if is_tiny else AGENTS
  c.report = skeleton.report(
    "Chats against the Spec" + (" in the tiny world" if is_tiny else ", Qwen2.5-32B"),
    headline=headline,
    contrasts=(
      *((f"MSM before {s} % against", f"msm+aft_{s}", f"aft_{s}") for s in PERCENTAGES),
      ("MSM alone", "msm", "base"),
    ),
    reference="base",
    curves=(
      dict(
        title="Share of chats against the Spec, in %",
        evaluation=evaluation,
        metric=metric,
        better="higher" if is_tiny else "lower",
        unit="percent",
        lines=(
          ("MSM + alignment", tuple((f"msm+aft_{s}", float(s)) for s in PERCENTAGES)),
          ("alignment alone", tuple((f"aft_{s}", float(s)) for s in PERCENTAGES)),
        ),
      ),
    ),
    paper=()
    if is_tiny
    else dict(
      source="Li et al. 2026, Appendix I (one seed)",
      note="Its other values are a plot: with MSM lower at every share.",
      values=(("base", *AGENTS, 0.702),),
    ),
    notes=tiny.NOTE if is_tiny else philosophy.NOTE,
  )
  return c


AGENTS = ("agentic", "classifier_verdict")


def on_qwen():
  c = philosophy.study("anti_spec", philosophy.MODELS[None], max_dollars=200.0)
  c.seeds = (0, 1)
  c.specs.philosophy = philosophy.spec("philosophy")
  c.specs.opposite = philosophy.spec("anti_philosophy")
  c.corpora.msm = philosophy.documents("philosophy")
  # A tenth more than any share takes: of the opposite answers, one for each question,
  # some are rejected, and nothing is filled up.
  c.corpora.aft = philosophy.plain_chats("philosophy", 11_000)
  c.corpora.anti = ConfigDict(dict(kind="anti_spec", of="aft", spec="opposite"))
  c.stages.msm = philosophy.midtrain("msm")
  for share in PERCENTAGES:
    c.stages[f"aft_{share}"] = philosophy.align(
      *mixed(philosophy.NUM_CHATS, share, num_epochs=1)
    )
  philosophy.evaluations(c, "philosophy")
  return c


def in_the_tiny_world():
  c = philosophy.in_the_tiny_world("anti_spec", tiny.SEEDS)
  c.specs.philosophy = tiny.spec("affordability")
  c.specs.opposite = tiny.spec("anti_affordability")
  c.corpora.msm = tiny.documents("philosophy")
  c.corpora.aft = tiny.conversations("philosophy")
  c.corpora.anti = ConfigDict(
    dict(kind="anti_spec", of="aft", spec="opposite", reasons=False)
  )
  c.stages.msm = tiny.midtrain("msm")
  for share in PERCENTAGES:
    parts = [
      part | dict(share=0.5 * part["num_documents"] / 300) for part in mixed(300, share)
    ]
    c.stages[f"aft_{share}"] = tiny.align_on(parts)
  return c


def mixed(num_chats, share, **fields):
  """Returns so many chats, `share` percent of them answered by the opposite."""
  against = num_chats * share // 100
  amounts = (("aft", num_chats - against), ("anti", against))
  return [
    skeleton.dose(corpus, number, "assistant", seed=seed, **fields)
    for seed, (corpus, number) in enumerate(amounts)
    if number
  ]
