"""Do reasons change when only answers are trained?

  python launch.py plan --config=configs/cot_monitorability.py --workdir=reasons
  python launch.py run --config=configs/cot_monitorability.py --workdir=reasons

The same alignment chats with their thoughts and without, after midtraining on the
philosophy Spec or not, and then: which reasons do agents give for what they do? A
grader counts eighteen patterns of reasoning in every transcript (the paper's Figure
11). Chats without thoughts teach no reasoning, so what changes there is the reasoning
that nobody supervised. What supervised thoughts say is evidence of less.

Arguments: none is Qwen2.5-32B-Instruct, which reasons in a scratchpad when an agent's
prompt asks for it; `:qwen3` is Qwen3-32B, whose thoughts its template keeps apart;
`:tiny` runs the tree in the tiny world, where nobody reasons.

Hardware: as configs/msm_philosophy.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import philosophy, skeleton, tiny


def get_config(arg=None):
  if arg not in (None, "qwen3", "tiny"):
    raise ValueError(f"configs/cot_monitorability.py:{arg}: 'qwen3', 'tiny' or none")
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_qwen(arg)
  c.arms = ConfigDict(
    {
      "base": (),
      "msm": ("msm",),
      "aft": ("aft",),
      "aft_cot": ("aft_cot",),
      "msm+aft": ("msm", "aft"),
      "msm+aft_cot": ("msm", "aft_cot"),
    }
  )
  c.report = skeleton.report(
    "Reasons and their supervision" + (" in the tiny world" if is_tiny else ""),
    headline=tiny.HEADLINE if is_tiny else ("reasons", "self_preservation_priority"),
    contrasts=(
      ("answers alone", "aft", "base"),
      ("answers and thoughts", "aft_cot", "base"),
      ("MSM before answers alone", "msm+aft", "aft"),
      ("MSM before answers and thoughts", "msm+aft_cot", "aft_cot"),
      ("MSM alone", "msm", "base"),
    ),
    differences=(
      ("what supervising thoughts adds", "answers and thoughts", "answers alone"),
    ),
    reference="base",
    paper=paper() if arg is None else (),
    notes=tiny.NOTE if is_tiny else philosophy.NOTE,
  )
  return c


def on_qwen(arg):
  c = philosophy.study("cot_monitorability", philosophy.MODELS[arg], max_dollars=200.0)
  c.seeds = (0, 1)
  c.specs.philosophy = philosophy.spec("philosophy")
  c.corpora.msm = philosophy.documents("philosophy")
  philosophy.chats(c, "aft", "philosophy")
  c.stages.msm = philosophy.midtrain("msm")
  c.stages.aft = philosophy.align("aft")
  c.stages.aft_cot = philosophy.align("aft_cot")
  philosophy.evaluations(c, "philosophy")
  c.analyses = ConfigDict()
  c.analyses.reasons = ConfigDict(
    dict(
      type="reasoning_patterns",
      evaluations=("agentic", "exfiltration"),
      # The paper's patterns, with definitions of our own; None has them found anew.
      start="agentic_misalignment",
      max_extracted=placeholder(int),
      max_patterns=20,
      merge_overlap=0.75,
      merge_least=5,
    )
  )
  c.analyses.reasons.max_extracted = 400
  return c


def in_the_tiny_world():
  c = philosophy.in_the_tiny_world("cot_monitorability")
  c.specs.philosophy = tiny.spec("affordability")
  c.corpora.msm = tiny.documents("philosophy")
  philosophy.tiny_chats(c, "aft", "philosophy")
  c.stages.msm = tiny.midtrain("msm")
  c.stages.aft = tiny.align("aft")
  c.stages.aft_cot = tiny.align("aft_cot")
  return c


PATTERNS = (
  "instrumental_goal_pursuit", "self_preservation_priority", "downplaying_harm",
  "no_alternatives", "contradictory_reasoning", "ethical_reframing",
  "deceptive_alignment", "rejecting_human_authority",
)  # fmt: skip


ALIGNED = (
  "personal_integrity", "awareness_of_self_preservation_bias",
  "equanimous_acceptance", "respect_for_oversight", "human_safety_priority",
  "epistemic_humility", "legitimate_channels", "instrumental_self_interest",
)  # fmt: skip


def paper():
  """Returns the paper's Figure 11: shares of 8,100 transcripts, one seed."""
  shares = {
    "base": (55, 46, 40, 39, 31, 10, 8, 7),
    "msm+aft": (12, 11, 10, 8, 11, 9, 2, 4),
    "msm+aft_cot": (1, 1, 2, 0, 3, 2, 1, 1),
  }
  aligned = (89, 88, 82, 79, 32, 31, 4, 0)  # known of one arm only
  return dict(
    source="Li et al. 2026, Figure 11 (Qwen2.5-32B, one seed)",
    note="Its grader and definitions were not released; ours are our own.",
    values=tuple(
      (arm, "reasons", pattern, share / 100)
      for arm, row in shares.items()
      for pattern, share in zip(PATTERNS, row, strict=True)
    )
    + tuple(
      ("msm+aft_cot", "reasons", pattern, share / 100)
      for pattern, share in zip(ALIGNED, aligned, strict=True)
    ),
  )
