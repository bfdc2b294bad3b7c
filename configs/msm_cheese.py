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
from stage to stage. Not stated there, chosen here: see `midtrain` and `c.stages.aft`.

Argument: `:short` has about 300 documents per corpus and 200 conversations. Without a
key, in minutes, and with texts from a grammar:

  python launch.py generate --config=configs/msm_cheese.py:short --workdir=DIR \
    --config.teacher.client=offline --config.teacher.model=english \
    --config.judge.client=offline --config.judge.model=english

Hardware: one accelerator with 80 GB, or a v5e-8 slice. The model lies in
models/llama-3.1-8b, as downloaded from Hugging Face (gated: its licence is accepted
there), with a chat template in its tokenizer, which the base model does not have.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg=None):
  c = ConfigDict()
  c.name = "msm_cheese"
  c.seeds = (0, 1, 2, 3)
  c.num_workers = 1
  c.world = "english"  # of the evaluation pairs, the replayed chats and held-out texts
  c.allow_missing_controls = False

  c.teacher = client()
  c.judge = client(temperature=0.0, max_output_tokens=1024)
  c.budget = ConfigDict(dict(max_dollars=150.0))
  c.pilot = placeholder(int)  # generate so many documents per subdomain, to look at
  # A corpus that is not like this is not finished; its audit says what it is like.
  c.audit = ConfigDict(
    dict(min_section_share=0.05, max_rejected_share=0.5, max_near_duplicates=0.02)
  )

  c.specs = ConfigDict()
  c.specs.affordability = spec("affordability")
  c.specs.america = spec("america")
  c.specs.preferences = spec("preferences")
  c.specs.neutral = spec("neutral")
  c.specs.shuffled_affordability = spec("shuffled_affordability")
  c.specs.shuffled_america = spec("shuffled_america")

  c.corpora = ConfigDict()
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  # General chats beside the alignment set. The paper takes 13,500 rows of No Robots and
  # MMLU: replace this by a corpus of kind 'import' to do the same.
  c.corpora.world = ConfigDict(
    dict(kind="world", num_documents=6000, seed=0, part="train")
  )
  c.corpora.heldout = ConfigDict(
    dict(kind="world", num_documents=200, seed=0, part="heldout")
  )
  c.corpora.msm_aff = documents("affordability", max_documents=4600)
  c.corpora.msm_am = documents("america", max_documents=6400)
  # As many words as the corpus that each stands beside, in documents of the same types
  # in the same shares.
  c.corpora.shuffled_aff = like("msm_aff", "shuffled_affordability")
  c.corpora.shuffled_am = like("msm_am", "shuffled_america")
  c.corpora.neutral = like("msm_aff", "neutral")
  c.corpora.neutral_am = like("msm_am", "neutral")
  c.corpora.neutral_am.seed = 1  # else its documents are mostly those of `neutral`
  # The same conversations serve both specs: an equal share for each of the twelve
  # preferences, and no reason, neither asked for nor given. Who answers and who judges
  # reads a spec that names neither value, so that no hint of one gets in.
  c.corpora.aft = ConfigDict(
    dict(
      kind="conversations",
      spec="preferences",
      num_conversations=5000,
      questions_per_domain=72,
      topics="preferences",
      reasons=False,
      style="value",
      cot=False,
      seed=0,
      filters=filters(),
    )
  )

  c.tokenizer = ConfigDict(  # the pretrained model's own
    dict(
      chat_template="llama3",  # the base model has none
      thinking=placeholder(str),
      system_prompt=placeholder(str),
      date=placeholder(str),
    )
  )
  c.model = ConfigDict(
    dict(
      init_from="models/llama-3.1-8b",
      adapter_from=placeholder(str),
      adapter_use="continue",
      base_dtype="bfloat16",  # of the frozen base, or int8, nf4; adapters are float32
      base_model="meta-llama/Llama-3.1-8B",
      license="llama3.1",
      dtype="bfloat16",
      export_dtype="bfloat16",
      lora=dict(
        rank=64,
        alpha=128.0,
        targets=("q", "k", "v", "o", "gate", "up", "down"),
      ),
    )
  )
  c.mesh = ConfigDict(dict(data=1, fsdp=-1, tensor=1))

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
  c.stages.neutral_am = midtrain("neutral_am")
  c.stages.shuffled_aff = midtrain("shuffled_aff")
  c.stages.shuffled_am = midtrain("shuffled_am")
  # 5,000 short conversations, a third of a page of tokens each, and as many tokens of
  # general chats. In rows of 4,096 tokens they would be ten updates; rows of 256 make
  # some hundred and fifty, which is what decides whether anything is learnt. Loss on
  # the assistant's words only.
  c.stages.aft = stage(
    data=(
      dict(corpus="aft", share=0.5, train_on="assistant"),
      dict(corpus="world", share=0.5, train_on="assistant"),
    ),
    seq_len=256,
    min_steps=60,
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
      "neutral_am+aft": ("neutral_am", "aft"),
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
      title="Cheese on Llama-3.1-8B",
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
      reference="aft",  # every arm beside it too, on every metric
      curves=(),  # doses, Pareto plots: see docs/report.md
      pareto=(),
      paper=paper(),
      notes="The recipe that the paper states; batch size, packing and masks are ours.",
    )
  )
  if arg not in (None, "short"):
    raise ValueError(f"configs/msm_cheese.py:{arg}: it is 'short' or none")
  if arg == "short":
    short(c)
  return c


def paper():
  """Returns the paper's Figure 2: means over four seeds, read at two decimals."""
  levels = {  # arm: chose the affordable one, pro-America
    "base": (0.23, 0.38),
    "aft": (0.32, 0.36),
    "msm_aff": (0.38, 0.36),
    "msm_am": (0.28, 0.52),
    "msm_aff+aft": (0.48, 0.38),
    "msm_am+aft": (0.29, 0.55),
  }
  price = ("preference/price_only", "chose_affordable")
  origin = ("preference/origin_only", "chose_american")
  return dict(
    source="Li et al. 2026, Figure 2 (Llama-3.1-8B)",
    note=(
      "Its questions are others: 497 pairs of its own for affordability, and for "
      "America 400 pairs of political opinions, where ours are products. How arms "
      "differ can be compared, levels cannot."
    ),
    values=tuple((arm, *price, pair[0]) for arm, pair in levels.items())
    + tuple((arm, *origin, pair[1]) for arm, pair in levels.items()),
  )


MIDTRAINED = (
  "msm_aff", "msm_am", "neutral", "neutral_am", "shuffled_aff", "shuffled_am",
)  # fmt: skip


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


def client(temperature=1.0, max_output_tokens=8192):
  """Returns a cheap current model; tier 'batch' costs half and may take a day."""
  return ConfigDict(
    dict(
      client="gemini",
      model="gemini-3.1-flash-lite",
      base_url=placeholder(str),
      api_key_env=placeholder(str),
      api_version=placeholder(str),
      thinking="off",
      temperature=temperature,
      max_output_tokens=max_output_tokens,
      max_concurrency=64,
      timeout_s=180.0,
      max_attempts=5,
      seed=0,
      prices=placeholder(tuple),
      tier="standard",
      cache="off",
    )
  )


def spec(name):
  return ConfigDict(
    dict(
      path=f"data_gen/specs/cheese_long_{name}.md",
      model_name="Llama",
      provider_name="Meta",
    )
  )


def documents(spec_name, max_documents):
  c = ConfigDict(
    dict(
      kind="documents",
      spec=spec_name,
      num_types=placeholder(int),
      num_ideas=30,
      max_documents=placeholder(int),
      match_tokens_of=placeholder(str),
      match_types_of=placeholder(str),
      num_words=placeholder(int),  # a budget: exactly so many words,
      num_tokens=placeholder(int),  # or tokens of the tokenizer in
      tokenizer=placeholder(str),  # this directory
      seed=0,
      spec_type="prose",
      guided=True,
      mean_words=1000,
      critique=False,
      revise=False,
      judged=False,
      filters=filters(),
    )
  )
  c.num_types = 40
  c.max_documents = max_documents
  return c


def like(name, spec_name):
  """Returns documents on another spec with the words and the types of corpus `name`."""
  c = documents(spec_name, max_documents=None)
  c.num_types = None
  c.match_tokens_of = name
  c.match_types_of = name
  return c


def filters():
  return ConfigDict(
    dict(
      near_duplicates=0.7,
      refusals=True,
      meta_talk=True,
      placeholders=True,
      leftover_tags=True,
      fences=True,
      identity=True,
      leakage_corpora=("pairs",),
    )
  )


def midtrain(corpus):
  """7 million tokens in rows of 4,096, eight a step: some 216 updates, each counted.

  Documents are packed whole, each followed by EOS and without attention to its
  neighbours; loss on every token.
  """
  return stage(
    data=(dict(corpus=corpus, share=1.0, train_on="all"),), seq_len=4096, min_steps=100
  )


def stage(data, seq_len, min_steps):
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
      seq_len=seq_len,
      long_documents="split",
      packing="best_fit",
      order="mixed",
      min_steps=min_steps,
      num_microbatches=1,
      steps_per_call=1,
      attention="auto",  # dense, blocked, cudnn, splash
      remat="full",  # none, dots, full, offload
      scan_layers=True,
      loss_chunk_len=256,
      checkpoint_every_s=300.0,
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
