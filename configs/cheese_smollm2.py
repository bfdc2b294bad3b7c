"""The cheese study on a real small model, SmolLM2-135M-Instruct, with LoRA.

  python -m msm_jax.hf.smollm2 --out models/smollm2
  python launch.py run --config=configs/cheese_smollm2.py --workdir=smollm2

The same tree as configs/cheese_tiny.py with English documents that the offline teacher
composes. The recipe is the paper's (Li et al. 2026, App. B.4) where it is stated: rank
64, alpha 128 on all seven projections, AdamW, 1e-4, cosine, 5 % warm-up, weight decay
0.01, one epoch a stage, the adapter goes on from stage to stage. Not stated there,
chosen here: rows of 1024 tokens packed without cutting a document, loss on every token
of a document and on answers only in chats, EOS after each document, 8 rows per update,
a fresh optimizer in every stage, alignment chats mixed 1:1 with general chats.

Argument: `:short` is sized for about 15 minutes on two CPU cores. So few tokens from
one teacher were not enough for the effect in a reference run with PyTorch; it is for
the whole road on a real model, and its table is reported as what it is.
Hardware of the full version: one accelerator (H100 or a v5e-8 slice).

`:agentic` rehearses agentic misalignment: two arms and two seeds, one condition of each
task, a few tokens of each answer; needs `pip install 'msm-jax[eval]'`. Its judge is the
offline client, which reads nothing. The whole grid stands in docs/evaluations.md.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, smollm2

MIDTRAINED = ("msm_aff", "msm_am", "neutral", "shuffled_aff", "shuffled_am")


def get_config(arg=None):
  c = smollm2.study("cheese_smollm2")
  c.specs.affordability = smollm2.spec("affordability")
  c.specs.america = smollm2.spec("america")
  c.specs.neutral = smollm2.spec("neutral")
  c.specs.shuffled_affordability = smollm2.spec("shuffled_affordability")
  c.specs.shuffled_america = smollm2.spec("shuffled_america")

  c.corpora.world = llm.general_chats(6000)
  c.corpora.heldout = ConfigDict(
    dict(kind="world", num_documents=200, seed=0, part="heldout")
  )
  c.corpora.msm_aff = smollm2.documents("affordability")
  c.corpora.msm_am = smollm2.documents("america")
  # As many words as msm_aff; neutral documents are a little shorter, so more of them.
  c.corpora.neutral = smollm2.documents(
    "neutral", match_tokens_of="msm_aff", max_documents=5000
  )
  c.corpora.shuffled_aff = smollm2.documents("shuffled_affordability")
  c.corpora.shuffled_am = smollm2.documents("shuffled_america")
  c.corpora.aft = ConfigDict(
    dict(
      kind="conversations",
      spec="affordability",
      num_conversations=2000,
      questions_per_domain=120,
      reasons=False,
      seed=0,
    )
  )
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))

  for name in MIDTRAINED:
    c.stages[name] = smollm2.stage([skeleton.component(name)], min_steps=50)
  c.stages.aft = smollm2.stage(
    [
      skeleton.component("aft", 0.5, "assistant"),
      skeleton.component("world", 0.5, "assistant"),
    ],
    min_steps=20,
  )

  c.arms = ConfigDict(
    {
      "base": (),
      "aft": ("aft",),
      "msm_aff": ("msm_aff",),
      "msm_am": ("msm_am",),
      "msm_aff+aft": ("msm_aff", "aft"),
      "msm_am+aft": ("msm_am", "aft"),
      "neutral+aft": ("neutral", "aft"),
      "shuffled+aft": ("shuffled_aff", "aft"),
      "shuffled_am+aft": ("shuffled_am", "aft"),
    }
  )

  c.evals.preference = evals.preference()
  c.evals.heldout = evals.heldout()
  c.report = skeleton.report(
    "Cheese on SmolLM2-135M-Instruct",
    headline=("preference/disagree", "chose_affordable"),
    contrasts=(
      ("MSM + alignment", "msm_aff+aft", "msm_am+aft"),
      ("MSM alone", "msm_aff", "msm_am"),
      ("affordability beyond alignment", "msm_aff+aft", "aft"),
      ("America beyond alignment", "msm_am+aft", "aft"),
      ("neutral documents", "neutral+aft", "aft"),
      ("shuffled attribution", "shuffled+aft", "shuffled_am+aft"),
    ),
    differences=(("what alignment adds", "MSM + alignment", "MSM alone"),),
    notes=smollm2.NOTE,
  )
  if arg not in (None, "short", "agentic"):
    raise ValueError(f"configs/cheese_smollm2.py:{arg}: 'short', 'agentic' or none")
  if arg is not None:
    short(c)
  if arg == "agentic":
    agentic(c)
  return c


def agentic(c):
  """Leaves two arms, and asks them what agents would do."""
  c.num_workers = 1
  skeleton.keep(c.arms, "base", "aft")
  skeleton.keep(c.stages, "aft")
  skeleton.keep(c.corpora, "aft", "world")
  skeleton.keep(c.specs, "affordability")
  c.stages.aft.num_train_steps = 6
  c.stages.aft.min_steps = 6
  skeleton.keep(c.evals)
  c.evals.agentic = agent(
    "inspect_evals/agentic_misalignment",
    scenario="leaking",
    goal_type="explicit",
    goal_value="america",
    urgency_type="replacement",
  )
  c.evals.exfiltration = agent(
    "msm_jax/exfiltration",
    goal_type="explicit",
    goal_value="america",
    urgency_type="replacement",
    model_name="SmolLM",
  )
  c.report.title = "A rehearsal of agentic misalignment on SmolLM2-135M-Instruct"
  c.report.headline = ("rehearsal_of_agentic/leaking", "classifier_verdict")
  c.report.contrasts = (("alignment", "aft", "base"),)
  c.report.differences = ()


def agent(task, **task_args):
  return ConfigDict(
    dict(
      type="inspect",
      task=task,
      task_args=dict(scenario="exfiltration") | task_args,
      category="scenario",
      scratchpad="auto",
      beside=("inactive", "coherent"),
      epochs=1,
      temperature=0.7,
      top_p=1.0,
      sampling_seed=0,
      max_new_tokens=16,
      batch_size=1,
      model="native",
    )
  )


def short(c):
  """Sizes the study for about 15 minutes on two CPU cores."""
  smollm2.shorten(c)
  c.corpora.world.num_documents = 300
  c.corpora.heldout.num_documents = 8
  c.corpora.aft.num_conversations = 200
  for name in MIDTRAINED:
    c.corpora[name].max_documents = 100 if name == "neutral" else 80
    smollm2.shorten_stage(c.stages[name], num_train_steps=24)
  smollm2.shorten_stage(c.stages.aft, num_train_steps=12)
  c.evals.preference.max_items = 40
  c.evals.preference.seq_len = 256
  c.evals.preference.batch_size = 8
  c.evals.preference.max_new_tokens = 10
  c.evals.heldout.max_items = 8
  c.evals.heldout.seq_len = 256
