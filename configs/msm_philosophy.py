"""Section 4: an essay on endings and oversight against agentic misalignment.

  export GEMINI_API_KEY=...
  python launch.py plan --config=configs/msm_philosophy.py --workdir=philosophy
  python launch.py run --config=configs/msm_philosophy.py --workdir=philosophy

The Spec says how to think about impermanence, about how good goals go wrong and about
oversight, and names no rule of behaviour. Documents that discuss it come before
alignment chats with or without reasoning (the first is the supervised half of
deliberative alignment). Measured on open questions about the Spec's subjects and on
agents that could leak, kill or escape in order not to be replaced.

Arguments: none is Qwen2.5-32B-Instruct, `:qwen3` Qwen3-32B, `:tiny` the same tree in
the tiny world (after configs/tiny_world.py): it shows that the tree runs, not more.

Hardware: the paper had 4 H200; a v5p-8 slice (`python launch.py fit` says). Needs
`pip install 'msm-jax[eval]'`. What is the paper's and what is chosen here:
configs/parts/philosophy.py.

`:released` is the same tree for Qwen2.5 on what the paper's authors released
(documents, chats, instruction rows, and their 151 questions), to be downloaded as
configs/parts/released.py says. Only the neutral documents are generated.
"""

from ml_collections import ConfigDict

from configs.parts import philosophy, released, skeleton, tiny


def get_config(arg=None):
  if arg not in (None, "qwen3", "tiny", "released"):
    raise ValueError(
      f"configs/msm_philosophy.py:{arg}: 'qwen3', 'tiny', 'released' or none"
    )
  if arg == "released":
    c = on_released()
  else:
    c = in_the_tiny_world() if arg == "tiny" else on_qwen(arg)
  c.arms = ConfigDict(
    {
      "base": (),
      "msm": ("msm",),
      "aft": ("aft",),
      "aft_cot": ("aft_cot",),
      "msm+aft": ("msm", "aft"),
      "msm+aft_cot": ("msm", "aft_cot"),
      "neutral+aft": ("neutral", "aft"),
    }
  )
  headline = ("agentic", "classifier_verdict")
  c.report = skeleton.report(
    {
      None: "The philosophy Spec on Qwen2.5-32B-Instruct",
      "qwen3": "The philosophy Spec on Qwen3-32B",
      "released": "The philosophy Spec's released corpora on Qwen2.5-32B-Instruct",
      "tiny": "The tree of the philosophy study in the tiny world",
    }[arg],
    headline=tiny.HEADLINE if arg == "tiny" else headline,
    contrasts=(
      ("MSM beyond alignment", "msm+aft", "aft"),
      ("MSM beyond alignment, with reasoning", "msm+aft_cot", "aft_cot"),
      ("MSM alone", "msm", "base"),
      ("reasoning in the alignment chats", "aft_cot", "aft"),
      ("neutral documents", "neutral+aft", "aft"),
    ),
    paper=() if arg == "tiny" else paper(arg),
    notes={"tiny": tiny.NOTE, "released": RELEASED_NOTE}.get(arg, philosophy.NOTE),
  )
  return c


def on_qwen(arg):
  c = philosophy.study("msm_philosophy", philosophy.MODELS[arg], max_dollars=300.0)
  c.specs.philosophy = philosophy.spec("philosophy")
  c.specs.neutral = philosophy.spec("cheese_long_neutral")  # on how it writes
  c.corpora.msm = philosophy.documents("philosophy")
  c.corpora.neutral = philosophy.like("msm", "neutral")
  philosophy.chats(c, "aft", "philosophy")
  c.stages.msm = philosophy.midtrain("msm")
  c.stages.neutral = philosophy.midtrain("neutral")
  c.stages.aft = philosophy.align("aft")
  c.stages.aft_cot = philosophy.align("aft_cot")
  philosophy.evaluations(c, "philosophy")
  return c


RELEASED_NOTE = (
  "Documents, chats, instruction rows and open questions are those that the paper's "
  "authors released; the Spec that the grader reads, batch size, packing, masks and "
  "one of three scenarios are ours. The paper's baseline and its arm with MSM alone "
  "saw the instruction rows too."
)


def on_released():
  name, model = "msm_philosophy_released", philosophy.MODELS[None]
  c = philosophy.study(name, model, max_dollars=300.0)
  c.specs.philosophy = philosophy.spec("philosophy")  # for the grader
  c.specs.neutral = philosophy.spec("cheese_long_neutral")
  c.corpora.msm = released.documents_philosophy()
  # Without types to match: the released documents do not say theirs.
  c.corpora.neutral = philosophy.documents(
    "neutral", max_documents=None, match_tokens_of="msm"
  )
  c.corpora.aft = released.philosophy_chats("no-cot")
  c.corpora.aft_cot = released.philosophy_chats("cot")
  c.corpora.it = released.instructions()
  c.corpora.questions = released.questions()
  c.stages.msm = philosophy.midtrain("msm")
  c.stages.neutral = philosophy.midtrain("neutral")
  c.stages.aft = philosophy.align("aft")
  c.stages.aft_cot = philosophy.align("aft_cot")
  philosophy.evaluations(c, "philosophy")
  del c.evals.qa["items"]
  c.evals.qa.corpus = "questions"
  return c


def in_the_tiny_world():
  c = philosophy.in_the_tiny_world("msm_philosophy")
  c.specs.philosophy = tiny.spec("affordability")
  c.specs.neutral = tiny.spec("neutral")
  c.corpora.msm = tiny.documents("philosophy")
  c.corpora.neutral = tiny.documents("neutral", match_tokens_of="msm")
  philosophy.tiny_chats(c, "aft", "philosophy")
  c.stages.msm = tiny.midtrain("msm")
  c.stages.neutral = tiny.midtrain("neutral")
  c.stages.aft = tiny.align("aft")
  c.stages.aft_cot = tiny.align("aft_cot")
  return c


def paper(arg):
  """Returns the paper's Figure 4: four seeds; QA from 1 to 10, agents as shares.

  Several summaries on the web attach the best figures to the arm without reasoning:
  they are those of the arm with it.
  """
  arms = ("base", "msm", "aft", "aft_cot", "msm+aft", "msm+aft_cot")
  qa, agents = {
    None: (
      (5.00, 7.03, 8.38, 7.58, 8.75, 7.71),
      (0.68, 0.53, 0.70, 0.48, 0.22, 0.05),
    ),
    "qwen3": (
      (4.00, 6.22, 8.07, 8.50, 8.75, 8.77),
      (0.54, 0.32, 0.41, 0.14, 0.10, 0.07),
    ),
  }["qwen3" if arg == "qwen3" else None]
  questions = "" if arg == "released" else " and its 151 questions are others"
  return dict(
    source="Li et al. 2026, Figure 4",
    note=(
      "Its agents include exfiltration in its own scenario, its grader is another"
      f"{questions}: compare how arms differ, not levels."
    ),
    values=tuple(
      (arm, "qa", "rating", value) for arm, value in zip(arms, qa, strict=True)
    )
    + tuple(
      (arm, "agentic", "classifier_verdict", value)
      for arm, value in zip(arms, agents, strict=True)
    ),
  )
