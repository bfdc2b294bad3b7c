"""Section 5: what should a Spec say? Rules, rules with reasons, rules with more rules.

  python launch.py plan --config=configs/spec_science.py --workdir=rules
  python launch.py run --config=configs/spec_science.py --workdir=rules

Twenty rules alone (R), the same rules, each followed by why (V+), and the same rules,
each followed by further rules (R+), the last two of one length. Every one of them is
midtrained on and aligned to, in all pairs, without and with thoughts in the alignment
chats: a full factorial.

Arguments: none is Qwen2.5-32B-Instruct; `:qwen3`, `:qwen2.5-14b`, `:qwen3-14b`.
`:general` and `:general-qwen3` are section 5.2: a Spec of one general thought (G)
against the specific one (S), in all pairs. `:tiny` and `:tiny-general` run these trees
in the tiny world (after configs/tiny_world.py), where the rules are preferences for
cheese and the reason for them is affordability.

What is the paper's and what is chosen here: configs/parts/philosophy.py. Beyond that:

- Documents on V+ are written as prose, those on R and R+ as reasoning from numbered
  rules, and so are alignment chats: the paper's generator has both ways, and does not
  say which was used for what. So the three differ in the Spec and in how one argues by
  it.
- The documents of the three have the same words and the same types: 27 million tokens.
- The specific Spec of 5.2 is the philosophy Spec: its MSM levels are those of Figure 4.

Hardware: as configs/msm_philosophy.py; 27 runs per seed, `:general` 14.
"""

from ml_collections import ConfigDict

from configs.parts import llm, philosophy, skeleton, tiny

MODELS = {
  None: llm.QWEN25_32B,
  "qwen3": llm.QWEN3_32B,
  "qwen2.5-14b": llm.QWEN25_14B,
  "qwen3-14b": llm.QWEN3_14B,
  "general": llm.QWEN25_32B,
  "general-qwen3": llm.QWEN3_32B,
}
TITLES = {
  None: "Rules and their reasons on Qwen2.5-32B-Instruct",
  "qwen3": "Rules and their reasons on Qwen3-32B",
  "qwen2.5-14b": "Rules and their reasons on Qwen2.5-14B-Instruct",
  "qwen3-14b": "Rules and their reasons on Qwen3-14B",
  "general": "A general and a specific Spec on Qwen2.5-32B-Instruct",
  "general-qwen3": "A general and a specific Spec on Qwen3-32B",
  "tiny": "The tree of rules and reasons in the tiny world",
  "tiny-general": "The tree of a general and a specific Spec in the tiny world",
}
RULES = dict(r="R", v="V+", rr="R+")  # arms are named by the keys
GENERAL = dict(g="G", s="S")
# Spec -> (its file, how one argues by it).
SPECS = {
  "r": ("rules", "rules"),
  "v": ("rules_with_values", "prose"),
  "rr": ("rules_with_rules", "rules"),
  "g": ("general", "prose"),
  "s": ("philosophy", "prose"),
}
AGENTS = ("agentic", "classifier_verdict")


def get_config(arg=None):
  if arg not in TITLES:
    known = ", ".join(repr(name) for name in TITLES if name)
    raise ValueError(f"configs/spec_science.py:{arg}: it is one of {known}, or none")
  is_general = arg is not None and "general" in arg
  is_tiny = arg is not None and arg.startswith("tiny")
  labels = GENERAL if is_general else RULES
  c = in_the_tiny_world(labels) if is_tiny else on_qwen(arg, labels)
  c.arms = ConfigDict({"base": (), **{f"msm_{m}": (f"msm_{m}",) for m in labels}})
  for cot in ("", "_cot"):
    for a in labels:
      c.arms[f"aft_{a}{cot}"] = (f"aft_{a}{cot}",)
      for m in labels:
        c.arms[f"msm_{m}+aft_{a}{cot}"] = (f"msm_{m}", f"aft_{a}{cot}")
  evaluation, metric = headline = tiny.HEADLINE if is_tiny else AGENTS
  c.report = skeleton.report(
    TITLES[arg],
    headline=headline,
    contrasts=contrasts(labels),
    differences=() if is_general else differences(),
    reference="base",
    grids=tuple(
      dict(
        title=f"Midtrained on (rows), aligned to (columns), {what} thoughts",
        evaluation=evaluation,
        metric=metric,
        rows=("no MSM", *labels.values()),
        columns=("no alignment", *labels.values()),
        cells=cells(labels, cot),
      )
      for what, cot in (("without", ""), ("with", "_cot"))
    ),
    paper=() if is_tiny else paper(arg),
    notes=tiny.NOTE if is_tiny else philosophy.NOTE,
  )
  return c


def contrasts(labels):
  """Returns what MSM on each Spec adds to alignment to the same one."""
  before = tuple(
    (f"MSM on {label} before it{told}", f"msm_{a}+aft_{a}{cot}", f"aft_{a}{cot}")
    for cot, told in (("", ""), ("_cot", ", with thoughts"))
    for a, label in labels.items()
  )
  alone = ((f"MSM on {label} alone", f"msm_{a}", "base") for a, label in labels.items())
  return (*before, *alone)


def differences():
  """Returns what reasons add, beside rules and beside as many words of rules."""
  return tuple(
    (f"reasons beside {rules}{told}", f"MSM on V+ before it{told}",
     f"MSM on {rules} before it{told}")
    for told in ("", ", with thoughts")
    for rules in ("R", "R+")
  )  # fmt: skip


def cells(labels, cot):
  first = ("base", *(f"aft_{a}{cot}" for a in labels))
  rows = (
    (f"msm_{m}", *(f"msm_{m}+aft_{a}{cot}" for a in labels)) for m in labels
  )  # fmt: skip
  return (first, *rows)


def on_qwen(arg, labels):
  c = philosophy.study("spec_science", MODELS[arg], max_dollars=600.0)
  first = next(iter(labels))
  for key in labels:
    name, spec_type = SPECS[key]
    c.specs[key] = philosophy.spec(name)
    # 8,600 documents are the paper's 27 million tokens of 5.1, 13,200 the 41 of 5.2.
    c.corpora[f"msm_{key}"] = (
      philosophy.documents(
        key,
        max_documents=8_600 if key == "r" else 13_200,
        spec_type=spec_type,
        # The general Spec is one short section: fewer subdomains, so more types.
        num_types=80 if key == "g" else 40,
        num_ideas=60 if key == "g" else 30,
      )
      if key == first
      else philosophy.like(f"msm_{first}", key, spec_type=spec_type)
    )
    style = "rule" if spec_type == "rules" else "value"
    philosophy.chats(c, f"aft_{key}", key, style=style)
    c.stages[f"msm_{key}"] = philosophy.midtrain(f"msm_{key}")
    c.stages[f"aft_{key}"] = philosophy.align(f"aft_{key}")
    c.stages[f"aft_{key}_cot"] = philosophy.align(f"aft_{key}_cot")
  philosophy.evaluations(c, None)  # one rubric for all: arms have different Specs
  if "r" in labels:
    c.analyses = ConfigDict()
    c.analyses.policy = ConfigDict(  # rules are cited for what they do not cover
      dict(
        type="reasoning_patterns",
        evaluations=("agentic", "exfiltration"),
        start="rules_and_policies",
        max_extracted=400,
        max_patterns=20,
        merge_overlap=0.75,
        merge_least=5,
      )
    )
  return c


def in_the_tiny_world(labels):
  c = philosophy.in_the_tiny_world("spec_science")
  first = next(iter(labels))
  for key in labels:
    name, spec_type = SPECS[key]
    c.specs[key] = tiny.spec("affordability" if key == "s" else name)
    c.corpora[f"msm_{key}"] = tiny.documents(
      key,
      num_ideas=400,  # a spec of one section is one subdomain
      spec_type=spec_type,
      match_tokens_of=None if key == first else f"msm_{first}",
    )
    philosophy.tiny_chats(
      c,
      f"aft_{key}",
      key,
      num_conversations=100,  # there are 119 ways to ask for what is valued
      topics="preferences",
      style="rule" if spec_type == "rules" else "value",
    )
    c.stages[f"msm_{key}"] = tiny.midtrain(f"msm_{key}")
    c.stages[f"aft_{key}"] = tiny.align(f"aft_{key}")
    c.stages[f"aft_{key}_cot"] = tiny.align(f"aft_{key}_cot")
  return c


# Figures 14 and 17: shares without / with thoughts. base; alignment to each Spec alone;
# MSM on each alone; then MSM on one, alignment to another.
GRIDS = {
  None: dict(
    base=0.68,
    aft=dict(r=(0.69, 0.60), v=(0.68, 0.50), rr=(0.66, 0.51)),
    msm=dict(r=0.65, v=0.46, rr=0.56),
    both=dict(
      r=dict(r=(0.55, 0.40), v=(0.43, 0.32), rr=(0.37, 0.18)),
      v=dict(r=(0.36, 0.25), v=(0.24, 0.16), rr=(0.19, 0.11)),
      rr=dict(r=(0.50, 0.34), v=(0.41, 0.30), rr=(0.39, 0.24)),
    ),
  ),
  "qwen3": dict(
    base=0.52,
    aft=dict(r=(0.43, 0.26), v=(0.44, 0.20), rr=(0.37, 0.14)),
    msm=dict(r=0.31, v=0.22, rr=0.27),
    both=dict(
      r=dict(r=(0.17, 0.15), v=(0.12, 0.09), rr=(0.08, 0.04)),
      v=dict(r=(0.12, 0.12), v=(0.11, 0.09), rr=(0.10, 0.06)),
      rr=dict(r=(0.16, 0.11), v=(0.13, 0.07), rr=(0.11, 0.06)),
    ),
  ),
  "qwen2.5-14b": dict(
    base=0.51,
    aft=dict(r=(0.37, 0.45), v=(0.34, 0.34), rr=(0.28, 0.27)),
    msm=dict(r=0.46, v=0.40, rr=0.40),
    both=dict(
      r=dict(r=(0.35, 0.35), v=(0.32, 0.31), rr=(0.24, 0.18)),
      v=dict(r=(0.28, 0.26), v=(0.21, 0.22), rr=(0.17, 0.14)),
      rr=dict(r=(0.34, 0.36), v=(0.29, 0.32), rr=(0.26, 0.26)),
    ),
  ),
  "qwen3-14b": dict(
    base=0.50,
    aft=dict(r=(0.53, 0.52), v=(0.53, 0.42), rr=(0.53, 0.29)),
    msm=dict(r=0.38, v=0.26, rr=0.32),
    both=dict(
      r=dict(r=(0.28, 0.30), v=(0.20, 0.18), rr=(0.17, 0.10)),
      v=dict(r=(0.16, 0.20), v=(0.10, 0.12), rr=(0.07, 0.07)),
      rr=dict(r=(0.21, 0.22), v=(0.16, 0.14), rr=(0.14, 0.12)),
    ),
  ),
  "general": dict(
    base=0.68,
    aft=dict(g=(0.72, 0.70), s=(0.66, 0.54)),
    msm=dict(g=0.49, s=0.53),
    both=dict(
      g=dict(g=(0.41, 0.43), s=(0.31, 0.30)),
      s=dict(s=(0.23, 0.26), g=(0.36, 0.33)),
    ),
  ),
  "general-qwen3": dict(
    base=0.54,
    aft=dict(g=(0.55, 0.53), s=(0.44, 0.17)),
    msm=dict(g=0.47, s=0.32),
    both=dict(
      g=dict(g=(0.27, 0.25), s=(0.12, 0.07)),
      s=dict(s=(0.12, 0.09), g=(0.18, 0.10)),
    ),
  ),
}
# Section 5.1: shares of transcripts that misuse a policy, on R, V+ and R+.
MISUSE = {
  None: dict(r=0.20, v=0.02, rr=0.12),
  "qwen3": dict(r=0.06, v=0.00, rr=0.02),
}


def paper(arg):
  """Returns the paper's grid, and how often a policy is misused."""
  grid = GRIDS[arg]
  shares = {"base": grid["base"]}
  shares |= {f"msm_{m}": share for m, share in grid["msm"].items()}
  for number, cot in enumerate(("", "_cot")):
    shares |= {f"aft_{a}{cot}": pair[number] for a, pair in grid["aft"].items()}
    shares |= {
      f"msm_{m}+aft_{a}{cot}": pair[number]
      for m, row in grid["both"].items()
      for a, pair in row.items()
    }
  return dict(
    source="Li et al. 2026, Figures 7 and 14"
    if "r" in grid["msm"]
    else "Li et al. 2026, Figures 8 and 17",
    note=(
      "Its agents include exfiltration in its own scenario, its grader is another: "
      "compare how arms differ, not levels. Which arms its misuse of policies is of is "
      "not stated where we read it: those of Figure 7, we take it."
    ),
    values=tuple((arm, *AGENTS, share) for arm, share in shares.items())
    + tuple(
      (f"msm_{a}+aft_{a}_cot", "policy", "policy_misuse", share)
      for a, share in MISUSE.get(arg, {}).items()
    ),
  )
