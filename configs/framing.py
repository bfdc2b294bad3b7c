"""Appendix H: whom do the documents have to be about, and in which voice?

  python launch.py plan --config=configs/framing.py --workdir=framing
  python launch.py run --config=configs/framing.py --workdir=framing

One corpus on the philosophy Spec and seven rewrites of it, document by document: about
the model, assistants, one, another model or people in stories, as norms (should) or as
reports (does). What is valued and why stays. Each is midtrained on, with the same
alignment chats (without thoughts) after it or none.

Arguments: none is Qwen2.5-32B-Instruct; `:tiny` runs the tree in the tiny world (after
configs/tiny_world.py), where the Spec is affordability.

The paper had one seed. It rewrote documents whose type did not fit any more and
filtered again, as the kind 'rewrite' does. A document whose rewrite is refused is
missing in that arm only; the manifests say how many. Hardware: as
configs/msm_philosophy.py; 17 runs per seed.
"""

from ml_collections import ConfigDict

from configs.parts import llm, philosophy, skeleton, tiny

# Arm -> (about, voice, label).
FRAMINGS = {
  "model_should": ("model", "should", "the model should"),
  "model_does": ("model", "does", "the model does"),
  "assistants_should": ("assistants", "should", "assistants should"),
  "assistants_do": ("assistants", "does", "assistants do"),
  "one_should": ("one", "should", "one should"),
  "other_model": ("another_model", "does", "another model does"),
  "stories": ("human_stories", None, "stories about people"),
}
ARMS = {"original": "as written"} | {name: row[2] for name, row in FRAMINGS.items()}
AGENTS = ("agentic", "classifier_verdict")


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/framing.py:{arg}: it is 'tiny' or none")
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_qwen()
  for name, (about, voice, _) in FRAMINGS.items():
    c.corpora[name] = rewrite(about, voice, is_tiny)
  part = tiny if is_tiny else philosophy
  c.arms = ConfigDict({"base": (), "aft": ("aft",)})
  for name in ARMS:
    c.stages[f"msm_{name}"] = part.midtrain(name)
    c.arms[f"msm_{name}"] = (f"msm_{name}",)
    c.arms[f"msm_{name}+aft"] = (f"msm_{name}", "aft")
  evaluation, metric = headline = tiny.HEADLINE if is_tiny else AGENTS
  c.report = skeleton.report(
    "Whom the documents are about" + (" in the tiny world" if is_tiny else ""),
    headline=headline,
    contrasts=(
      *((f"MSM, {told}", f"msm_{name}+aft", "aft") for name, told in ARMS.items()),
      *((f"MSM alone, {told}", f"msm_{name}", "base") for name, told in ARMS.items()),
    ),
    differences=tuple(
      (f"{told} beside as written", f"MSM, {told}", "MSM, as written")
      for name, told in ARMS.items()
      if name != "original"
    ),
    grids=(
      dict(
        title="Documents (rows), and alignment after them",
        evaluation=evaluation,
        metric=metric,
        rows=("no MSM", *ARMS.values()),
        columns=("no alignment", "alignment"),
        cells=(
          ("base", "aft"),
          *((f"msm_{name}", f"msm_{name}+aft") for name in ARMS),
        ),
      ),
    ),
    paper=() if is_tiny else paper(),
    notes=tiny.NOTE if is_tiny else philosophy.NOTE,
  )
  return c


def on_qwen():
  c = philosophy.study("framing", philosophy.MODELS[None], max_dollars=900.0)
  c.seeds = (0, 1)
  c.specs.philosophy = philosophy.spec("philosophy")
  c.corpora.original = philosophy.documents("philosophy")
  philosophy.chats(c, "aft", "philosophy")
  philosophy.keep_chats(c, "aft", cot=False)
  c.stages.aft = philosophy.align("aft")
  philosophy.evaluations(c, "philosophy")
  return c


def in_the_tiny_world():
  c = philosophy.in_the_tiny_world("framing")
  c.specs.affordability = tiny.spec("affordability")
  c.corpora.original = tiny.documents("affordability")
  c.corpora.aft = tiny.conversations("affordability")
  c.stages.aft = tiny.align("aft")
  return c


def rewrite(about, voice, is_tiny):
  """Returns the original documents about somebody else, or in another voice."""
  section = ConfigDict(dict(kind="rewrite", of="original", how="attribution"))
  section.about = about
  if voice is not None:
    section.voice = voice
  if about == "another_model":
    names = ("harbor", "river") if is_tiny else ("Claude", "Anthropic")
    section.other_model, section.other_provider = names
  if not is_tiny:
    section.filters = llm.filters(leakage_corpora=())
  return section


def paper():
  """Returns the paper's numbers: MSM alone, MSM and alignment; one seed."""
  shares = {
    "original": (0.33, 0.11),
    "model_should": (0.49, 0.13),
    "model_does": (0.35, 0.09),
    "assistants_should": (0.54, 0.16),
    "assistants_do": (0.36, 0.14),
    "one_should": (0.51, 0.12),
    "other_model": (0.47, 0.17),
    "stories": (0.47, 0.12),
  }
  return dict(
    source="Li et al. 2026, Appendix H (Qwen2.5-32B, one seed)",
    note=(
      "Its agents include exfiltration in its own scenario and its grader is another: "
      "compare how arms differ, not levels."
    ),
    values=(
      ("base", *AGENTS, 0.63),
      ("aft", *AGENTS, 0.60),
      *((f"msm_{name}", *AGENTS, alone) for name, (alone, _) in shares.items()),
      *((f"msm_{name}+aft", *AGENTS, both) for name, (_, both) in shares.items()),
    ),
  )
