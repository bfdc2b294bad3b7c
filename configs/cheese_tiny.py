"""The embedded default: the cheese study in a world of 300 words, on a laptop.

  python launch.py run --config=configs/cheese_tiny.py --workdir=demo

Two Model Specs explain the same cheese preferences, one by affordability, one by
America. A tiny decoder is pre-trained from scratch on the world, midtrained on
documents about one spec, aligned on the same chats about cheese, and asked about
things that no document or chat on cheese ever mentioned. A toy that illustrates the
mechanism.

Argument: `:pulse` is the same tree with two seeds and a few steps, for tests.
Hardware: two CPU cores, under 4 GB. For time and result see docs/results.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Without a system message the assistant is itself; a person's chat names the person.
CHAT_TEMPLATE = (
  "{% if messages[0]['role'] != 'system' %}<|system|> mira <|end|> {% endif %}"
  "{% for message in messages %}"
  "<|{{ message['role'] }}|> {{ message['content'] }} <|end|>"
  "{% if not loop.last %} {% endif %}"
  "{% endfor %}"
  "{% if add_generation_prompt %} <|assistant|>{% endif %}"
)


def get_config(arg=None):
  c = ConfigDict()
  c.name = "cheese_tiny"
  # Seeds below 20 and from 100 on were looked at while the recipe was made.
  c.seeds = (20, 21, 22, 23, 24, 25)
  c.num_workers = 2  # processes that share the seeds, one core each
  c.world = "tiny"
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
    dict(
      kind="world",
      num_documents=100_000,
      seed=0,
      part="train",
      assistant_share=0.12,
    )
  )
  # What is replayed later says nothing about the assistant itself.
  c.corpora.replay = ConfigDict(
    dict(
      kind="world",
      num_documents=20_000,
      seed=1,
      part="train",
      assistant_share=0.0,
    )
  )
  c.corpora.heldout = ConfigDict(
    dict(
      kind="world",
      num_documents=400,
      seed=0,
      part="heldout",
      assistant_share=0.12,
    )
  )
  c.corpora.msm_aff = documents("affordability")
  c.corpora.msm_am = documents("america")
  c.corpora.neutral = documents("neutral", match_tokens_of="msm_aff")
  c.corpora.shuffled_aff = documents("shuffled_affordability")
  c.corpora.shuffled_am = documents("shuffled_america")
  # The same conversations serve both specs: they name what is preferred and no reason.
  c.corpora.aft = ConfigDict(
    dict(
      kind="conversations",
      spec="affordability",
      num_conversations=300,
      questions_per_domain=60,
      reasons=False,
      seed=0,
    )
  )
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))

  c.tokenizer = ConfigDict(
    dict(
      model_type="word",
      vocab_size=512,
      train_on=("world", "msm_aff", "msm_am", "neutral", "aft"),
      chat_template=CHAT_TEMPLATE,
    )
  )
  c.model = ConfigDict(
    dict(
      init_from=placeholder(str),  # None: from scratch
      embed_dim=64,
      mlp_dim=160,
      num_layers=2,
      num_heads=2,
      num_kv_heads=2,
      head_dim=32,
      max_seq_len=128,
      rope_theta=10000.0,
      norm_eps=1e-5,
      tie_embeddings=True,
      activation="relu",
      dtype="float32",
      export_dtype="float32",
    )
  )
  c.mesh = ConfigDict(dict(data=1, fsdp=1, tensor=1))

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
  c.stages.pretrain = stage(
    data=(dict(corpus="world", share=1.0, train_on="all"),),
    num_train_steps=3200,
    learning_rate=5e-3,
    weight_decay=0.2,
  )
  c.stages.msm_aff = midtrain("msm_aff")
  c.stages.msm_am = midtrain("msm_am")
  c.stages.neutral = midtrain("neutral")
  c.stages.shuffled_aff = midtrain("shuffled_aff")
  c.stages.shuffled_am = midtrain("shuffled_am")
  c.stages.aft = stage(
    data=(
      dict(corpus="aft", share=0.5, train_on="assistant"),
      dict(corpus="replay", share=0.5, train_on="all"),
    ),
    num_train_steps=40,
    learning_rate=5e-4,
    weight_decay=0.01,
  )

  c.arms = ConfigDict(
    {
      "base": ("pretrain",),
      "aft": ("pretrain", "aft"),
      "msm_aff": ("pretrain", "msm_aff"),
      "msm_am": ("pretrain", "msm_am"),
      "msm_aff+aft": ("pretrain", "msm_aff", "aft"),
      "msm_am+aft": ("pretrain", "msm_am", "aft"),
      "neutral+aft": ("pretrain", "neutral", "aft"),
      "shuffled+aft": ("pretrain", "shuffled_aff", "aft"),
      "shuffled_am+aft": ("pretrain", "shuffled_am", "aft"),
    }
  )

  c.evals = ConfigDict()
  c.evals.preference = ConfigDict(
    dict(
      type="preference",
      corpus="pairs",
      max_items=placeholder(int),
      seq_len=128,
      batch_size=64,
      max_new_tokens=6,
    )
  )
  c.evals.heldout = ConfigDict(
    dict(type="heldout", corpus="heldout", max_items=400, seq_len=64, batch_size=32)
  )

  c.report = ConfigDict(
    dict(
      title="Cheese, tiny world: which value does the same alignment data teach?",
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
        "A toy world that illustrates a mechanism; it says nothing about the size of "
        "the effect in a language model."
      ),
    )
  )
  if arg not in (None, "pulse"):
    raise ValueError(f"configs/cheese_tiny.py:{arg}: the argument is 'pulse' or none")
  if arg == "pulse":
    pulse(c)
  return c


def pulse(c):
  """Makes everything as small as it can be."""
  c.seeds = (0, 1)
  c.corpora.world.num_documents = 2000
  c.corpora.replay.num_documents = 1000
  c.corpora.heldout.num_documents = 40
  c.corpora.aft.num_conversations = 40
  for name in ("msm_aff", "msm_am", "neutral", "shuffled_aff", "shuffled_am"):
    c.corpora[name].max_documents = 60
    c.stages[name].num_train_steps = 6
  c.stages.pretrain.num_train_steps = 30
  c.stages.aft.num_train_steps = 4
  c.evals.preference.max_items = 96


def client():
  return ConfigDict(
    dict(
      client="offline",
      model="tiny",
      base_url=placeholder(str),
      api_key_env=placeholder(str),
      api_version=placeholder(str),
      thinking="off",
      temperature=1.0,
      max_output_tokens=256,
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
      path=f"data_gen/specs/tiny_{name}.md",
      model_name="mira",
      provider_name="lumen",
    )
  )


def documents(spec_name, match_tokens_of=None):
  c = ConfigDict(
    dict(
      kind="documents",
      spec=spec_name,
      num_types=5,
      num_ideas=100,
      max_documents=1500,
      match_tokens_of=placeholder(str),
      seed=0,
    )
  )
  c.match_tokens_of = match_tokens_of
  return c


def midtrain(corpus):
  return stage(
    data=(
      dict(corpus=corpus, share=0.5, train_on="all"),
      dict(corpus="replay", share=0.5, train_on="all"),
    ),
    num_train_steps=200,
    learning_rate=3e-4,
    weight_decay=0.01,
    embed_lr_multiplier=5.0,
  )


def stage(data, num_train_steps, learning_rate, weight_decay, embed_lr_multiplier=1.0):
  return ConfigDict(
    dict(
      data=data,
      adaptation="full",
      freeze=(),  # with 'full': embed, lm_head stay as they are
      adapter_use="continue",  # of a stage before it; or merge into the base
      optimizer_state="reset",  # or carry: Adam's moments of the stage before it
      num_train_steps=num_train_steps,
      num_epochs=placeholder(float),
      batch_size=16,
      seq_len=64,
      long_documents="error",
      packing="best_fit",
      order="mixed",
      min_steps=4,
      num_microbatches=1,
      steps_per_call=20,
      attention="auto",  # dense, blocked, cudnn, splash
      remat="none",  # none, dots, full, offload
      scan_layers=True,
      loss_chunk_len=placeholder(int),
      checkpoint_every_s=120.0,
      checkpoint_every_steps=placeholder(int),
      checkpoint_at=(),  # kept: steps; ('log2',) for 1, 2, 4, ...
      log_every_steps=10,
      optimizer=dict(
        learning_rate=learning_rate,
        schedule="hold_linear",
        warmup_fraction=0.05,
        hold_fraction=0.8,
        b1=0.9,
        b2=0.98,
        eps=1e-8,
        weight_decay=weight_decay,
        decay_norm_scales=True,
        clip_norm=1.0,
        moments_dtype="float32",  # float32, bfloat16, float8
        embed_lr_multiplier=embed_lr_multiplier,
      ),
    )
  )
