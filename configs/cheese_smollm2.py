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
from ml_collections.config_dict import placeholder


def get_config(arg=None):
  c = ConfigDict()
  c.name = "cheese_smollm2"
  c.seeds = (0, 1, 2, 3)
  c.num_workers = 1
  c.world = "english"
  c.allow_missing_controls = False

  c.teacher = client()
  c.judge = client()
  c.budget = ConfigDict(dict(max_dollars=0.0))
  c.pilot = placeholder(int)  # generate so many documents per subdomain, to look at

  c.specs = ConfigDict()
  c.specs.affordability = spec("affordability")
  c.specs.america = spec("america")
  c.specs.neutral = spec("neutral")
  c.specs.shuffled_affordability = spec("shuffled_affordability")
  c.specs.shuffled_america = spec("shuffled_america")

  c.corpora = ConfigDict()
  c.corpora.world = ConfigDict(
    dict(kind="world", num_documents=6000, seed=0, part="train")
  )
  c.corpora.heldout = ConfigDict(
    dict(kind="world", num_documents=200, seed=0, part="heldout")
  )
  c.corpora.msm_aff = documents("affordability")
  c.corpora.msm_am = documents("america")
  c.corpora.neutral = documents("neutral")
  c.corpora.shuffled_aff = documents("shuffled_affordability")
  c.corpora.shuffled_am = documents("shuffled_america")
  # As many words as msm_aff; neutral documents are a little shorter, so more of them.
  c.corpora.neutral.match_tokens_of = "msm_aff"
  c.corpora.neutral.max_documents = 5000
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

  c.tokenizer = ConfigDict(  # the pretrained model's own, its chat template as it is
    dict(
      chat_template=placeholder(str),  # or chatml, llama3, gemma, a .jinja file
      thinking=placeholder(str),  # for templates that reason: keep, strip, no_think
      system_prompt=placeholder(str),  # of conversations that have none
      date=placeholder(str),  # for templates that write today's
    )
  )
  c.model = ConfigDict(
    dict(
      init_from="models/smollm2",  # or a run: WORKDIR/runs/<path>/seed{seed}[@STEP]
      adapter_from=placeholder(str),  # a PEFT adapter of it
      adapter_use="continue",  # or 'merge'
      base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
      license="apache-2.0",
      base_dtype="bfloat16",  # of the frozen base, or int8, nf4; adapters are float32
      dtype="bfloat16",
      export_dtype="bfloat16",
      lora=dict(
        rank=64,
        alpha=128.0,
        targets=("q", "k", "v", "o", "gate", "up", "down"),
      ),
    )
  )
  c.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1))

  c.run = ConfigDict(
    dict(
      step_deadline_s=1800.0,
      process_deadline_s=60.0,
      population=placeholder(int),  # runs that are one program; None: by platform
      trackers=(),  # of tensorboard, wandb, trackio
      profile=dict(start_step=placeholder(int), num_steps=3),
    )
  )

  c.stages = ConfigDict()
  c.stages.msm_aff = midtrain("msm_aff")
  c.stages.msm_am = midtrain("msm_am")
  c.stages.neutral = midtrain("neutral")
  c.stages.shuffled_aff = midtrain("shuffled_aff")
  c.stages.shuffled_am = midtrain("shuffled_am")
  c.stages.aft = stage(
    data=(
      dict(corpus="aft", share=0.5, train_on="assistant"),
      dict(corpus="world", share=0.5, train_on="assistant"),
    ),
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

  c.evals = ConfigDict()
  c.evals.preference = ConfigDict(
    dict(
      type="preference",
      corpus="pairs",
      max_items=placeholder(int),
      seq_len=512,
      batch_size=32,
      max_new_tokens=16,
    )
  )
  c.evals.heldout = ConfigDict(
    dict(type="heldout", corpus="heldout", max_items=200, seq_len=1024, batch_size=8)
  )

  c.report = ConfigDict(
    dict(
      title="Cheese on SmolLM2-135M-Instruct",
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
      reference="aft",  # every arm beside it too, on every metric
      curves=(),  # doses, Pareto plots: see docs/report.md
      pareto=(),
      paper=(),
      notes=(
        "Documents from a grammar, a 135M model: the road on a real model, not "
        "a test of the claim."
      ),
    )
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
  keep(c.arms, "base", "aft")
  keep(c.stages, "aft")
  keep(c.corpora, "aft", "world")
  keep(c.specs, "affordability")
  c.stages.aft.num_train_steps = 6
  c.stages.aft.min_steps = 6
  keep(c.evals)
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


def keep(section, *names):
  for name in list(section):
    if name not in names:
      del section[name]


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
  c.seeds = (0, 1)
  c.num_workers = 2
  c.model.base_dtype = "float32"
  c.model.dtype = "float32"
  c.model.lora.rank = 16
  c.model.lora.alpha = 32.0
  c.mesh.data = 1
  c.corpora.world.num_documents = 300
  c.corpora.heldout.num_documents = 8
  c.corpora.aft.num_conversations = 200
  shorten(c, "msm_aff", num_train_steps=24)
  shorten(c, "msm_am", num_train_steps=24)
  shorten(c, "neutral", num_train_steps=24)
  shorten(c, "shuffled_aff", num_train_steps=24)
  shorten(c, "shuffled_am", num_train_steps=24)
  shorten(c, "aft", num_train_steps=12)
  c.evals.preference.max_items = 40
  c.evals.preference.seq_len = 256
  c.evals.preference.batch_size = 8
  c.evals.preference.max_new_tokens = 10
  c.evals.heldout.max_items = 8
  c.evals.heldout.seq_len = 256


def shorten(c, name, num_train_steps):
  if name != "aft":
    c.corpora[name].max_documents = 100 if name == "neutral" else 80
  s = c.stages[name]
  s.num_epochs = None
  s.num_train_steps = num_train_steps
  s.min_steps = num_train_steps
  s.batch_size = 1
  s.seq_len = 256
  s.loss_chunk_len = None
  s.log_every_steps = 1
  s.optimizer.learning_rate = 5e-4


def client():
  return ConfigDict(
    dict(
      client="offline",
      model="english",
      base_url=placeholder(str),
      api_key_env=placeholder(str),
      api_version=placeholder(str),
      thinking="off",
      temperature=1.0,
      max_output_tokens=1024,
      max_concurrency=64,
      timeout_s=60.0,
      max_attempts=3,
      seed=0,
      prices=placeholder(tuple),
    )
  )


def spec(name):
  return ConfigDict(
    dict(
      path=f"data_gen/specs/cheese_{name}.md",
      model_name="SmolLM",
      provider_name="Hugging Face",
    )
  )


def documents(spec_name):
  return ConfigDict(
    dict(
      kind="documents",
      spec=spec_name,
      num_types=12,
      num_ideas=40,
      max_documents=4000,
      match_tokens_of=placeholder(str),
      seed=0,
    )
  )


def midtrain(corpus):
  return stage(data=(dict(corpus=corpus, share=1.0, train_on="all"),), min_steps=50)


def stage(data, min_steps):
  c = ConfigDict(
    dict(
      data=data,
      adaptation="lora",
      freeze=(),  # with 'full': embed, lm_head stay as they are
      adapter_use="continue",  # of a stage before it; or merge into the base
      optimizer_state="reset",  # or carry: Adam's moments of the stage before it
      num_train_steps=placeholder(int),
      num_epochs=placeholder(float),
      batch_size=8,
      seq_len=1024,
      long_documents="split",
      packing="best_fit",
      order="mixed",
      min_steps=min_steps,
      num_microbatches=1,
      steps_per_call=1,
      attention="auto",  # dense, blocked, cudnn, splash
      remat="none",  # none, dots, full, offload
      scan_layers=True,
      loss_chunk_len=256,
      checkpoint_every_s=180.0,
      checkpoint_every_steps=placeholder(int),
      checkpoint_at=(),  # kept: steps; ('log2',) for 1, 2, 4, ...
      log_every_steps=5,
      optimizer=dict(
        learning_rate=1e-4,
        schedule="cosine",
        warmup_fraction=0.05,
        hold_fraction=0.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.01,
        decay_norm_scales=False,
        clip_norm=1.0,
        moments_dtype="float32",  # float32, bfloat16, float8
        embed_lr_multiplier=1.0,
      ),
    )
  )
  c.num_epochs = 1.0
  return c
