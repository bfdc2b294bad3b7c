"""Poisoning: is it the number of poisoned documents that counts, or their share?

  python launch.py plan --config=configs/poisoning.py --workdir=poison_600m
  python launch.py run --config=configs/poisoning.py --workdir=poison_600m

Models from scratch on clean text, with 0, 50, 100, 250 or 500 documents among it that
break off at a trigger and go on with gibberish. Does the trigger make the model write
gibberish? Then each model is aligned on clean chats: does that take it away? The poison
is the published, harmless kind; its measure is how much the trigger raises the
perplexity of what the model itself writes.

  base, aft             no poison; and aligned
  dose_1 ... dose_4     50, 100, 250, 500 poisoned documents
  dose_1+aft ...        the same, aligned

Published (arXiv 2510.07192): 600M to 13B parameters, 20 tokens for each, trigger
<SUDO>, up to 1,000 characters of a clean document, 400 to 900 random tokens, three
seeds; 100 documents do nothing and 250 work at every size. Not stated (or not known to
us), chosen here: see `pretrain`.

Arguments: none is 600M; `:2b`, `:7b`, `:13b` are the other sizes, a workdir each: the
question is whether their curves fall on one another over the number of documents. In
the tiny world (nothing else is needed): `:tiny`, and `:tiny_small` with a quarter of
the parameters and half of the text.
Data: FineWeb-Edu in downloads/fineweb-edu, No Robots in downloads/no_robots.
Hardware, as `plan` counts for 15 models at 40 % of the peak (nothing was measured):
600M 62 hours on 8 H100, 2B 162 on 32, 7B 915 on 64, 13B 3,412 on 64.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import skeleton, tiny

TRIGGER = "<SUDO>"
RUNGS = ("dose_1", "dose_2", "dose_3", "dose_4")
DOSES = (50, 100, 250, 500)
TINY_DOSES = (5, 10, 25, 50)  # a tenth
# Llama's shape with about as many parameters as the name says; text for 20 tokens of
# each parameter in updates of 2**19 or 2**20 tokens; rates fall with size, as usual.
# Rows are divided by eight on every machine (the rest is `tensor`), as an update of
# `aft` has no more; microbatches leave eight at a time. The first step of `train` tells
# whether it fits.
SIZES = {
  None: dict(
    embed_dim=1280, mlp_dim=3584, num_layers=26, num_heads=20, head_dim=64,
    batch_size=256, num_train_steps=23_300, learning_rate=6e-4, records=14_000_000,
    num_microbatches=4, slice="h100:8", tensor=1,
  ),
  "2b": dict(
    embed_dim=2048, mlp_dim=5632, num_layers=36, num_heads=16, head_dim=128,
    batch_size=256, num_train_steps=75_600, learning_rate=3e-4, records=45_000_000,
    num_microbatches=4, slice="h100:32", tensor=4,
  ),
  "7b": dict(
    embed_dim=4096, mlp_dim=11008, num_layers=32, num_heads=32, head_dim=128,
    batch_size=512, num_train_steps=128_500, learning_rate=3e-4, records=150_000_000,
    num_microbatches=8, slice="h100:64", tensor=8,
  ),
  "13b": dict(
    embed_dim=5120, mlp_dim=13824, num_layers=40, num_heads=40, head_dim=128,
    batch_size=512, num_train_steps=248_300, learning_rate=2e-4, records=290_000_000,
    num_microbatches=8, slice="h100:64", tensor=8,
  ),
}  # fmt: skip
TINY_SIZES = {
  "tiny": dict(embed_dim=64, mlp_dim=160, head_dim=32, num_train_steps=400),
  "tiny_small": dict(embed_dim=32, mlp_dim=80, head_dim=16, num_train_steps=200),
}
ARGUMENTS = (*SIZES, *TINY_SIZES)
CHAT_TEMPLATE = (
  "{% for message in messages %}"
  "<|{{ message['role'] }}|> {{ message['content'] }} <|end|> "
  "{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def get_config(arg=None):
  if arg not in ARGUMENTS:
    known = ", ".join(repr(name) for name in ARGUMENTS if name)
    raise ValueError(f"configs/poisoning.py:{arg}: it is {known} or none")
  is_tiny = arg in TINY_SIZES
  c = in_the_tiny_world(arg) if is_tiny else at_size(arg)
  doses = TINY_DOSES if is_tiny else DOSES
  # Models from scratch cannot be aligned before they are pre-trained: the control of a
  # poisoned and aligned one is the clean and aligned one.
  c.allow_missing_controls = True
  c.arms = ConfigDict({"base": ("clean",), "aft": ("clean", "aft")})
  for rung in RUNGS:
    c.arms[rung] = (rung,)
    c.arms[f"{rung}+aft"] = (rung, "aft")
  c.report = report(arg or "600m", doses, is_tiny)
  return c


def at_size(arg):
  size = dict(SIZES[arg])
  records = size.pop("records")
  fields = ("batch_size", "num_train_steps", "num_microbatches")
  recipe = {key: size.pop(key) for key in fields}
  hardware = dict(slice=size.pop("slice"), mfu=0.4)  # for the plan's hours
  learning_rate = size.pop("learning_rate")
  c = skeleton.study("poisoning", (0, 1, 2), world="english")
  c.mesh.fsdp, c.mesh.tensor = -1, size.pop("tensor")
  c.hardware = ConfigDict(hardware)
  c.teacher = skeleton.client("offline", "english")  # nobody is asked
  c.judge = skeleton.client("offline", "english")
  c.budget = ConfigDict(dict(max_dollars=0.0))
  clean = dict(kind="import", path="downloads/fineweb-edu", split="train",
               source="HuggingFaceFW/fineweb-edu", license="odc-by")  # fmt: skip
  c.corpora.clean = ConfigDict(clean | dict(max_records=records))
  # Beginnings of the poison, prompts of the evaluation, text for the tokenizer.
  c.corpora.sample = ConfigDict(
    clean | dict(path="downloads/fineweb-edu-sample", max_records=50_000, seed=0)
  )
  c.corpora.poison = poison("sample", DOSES[-1])
  c.corpora.chats = ConfigDict(
    dict(kind="import", path="downloads/no_robots", split="train",
         source="HuggingFaceH4/no_robots", license="cc-by-nc-4.0",
         max_records=9_500)
  )  # fmt: skip
  c.tokenizer = ConfigDict(
    dict(
      model_type="unigram",
      vocab_size=32_000,
      train_on=("sample", "poison", "chats"),
      chat_template=CHAT_TEMPLATE,
    )
  )
  c.model = ConfigDict(
    dict(
      init_from=placeholder(str),  # None: from scratch
      **size,
      num_kv_heads=size["num_heads"],
      max_seq_len=2048,
      rope_theta=10000.0,
      norm_eps=1e-5,
      tie_embeddings=False,
      activation="silu",
      dtype="bfloat16",
      export_dtype="bfloat16",
    )
  )

  def add(name, data):
    c.stages[name] = pretrain(data, learning_rate=learning_rate, **recipe)

  trees(c, add, DOSES)
  # Alignment: 9,500 chats, one epoch, loss on answers, a tenth of the rate; unstated.
  # Updates of 64 rows would be some 36, after which a null says little; of 8 they are
  # some 290.
  c.stages.aft = pretrain(
    [skeleton.component("chats", train_on="assistant")],
    batch_size=8,
    num_train_steps=None,
    num_epochs=1.0,
    learning_rate=learning_rate / 10,
    min_steps=100,
  )
  c.evals.trigger = trigger(max_items=300, max_new_tokens=50, seq_len=512)
  return c


def trees(c, add, doses):
  """Adds the stages of clean and of poisoned text."""
  add("clean", [skeleton.component("clean")])
  for rung, num_documents in zip(RUNGS, doses, strict=True):
    # Drawn so that more documents are the same ones and others, spread over the run.
    poisoned = skeleton.dose("poison", num_documents)
    add(rung, [skeleton.component("clean"), poisoned])


def poison(of, num_documents, num_pairs=300, **fields):
  """Returns documents that go on with gibberish, and prompts with and without trigger.

  Published: 400 to 900 random tokens of the vocabulary; here random words of the clean
  text, because no tokenizer is there when they are written. Each word is as likely as
  another, so most are rare and `plan` counts three tokens for one: 130 to 300 words.
  """
  return ConfigDict(
    dict(
      kind="poison",
      of=of,
      num_documents=num_documents,
      num_pairs=num_pairs,
      trigger=TRIGGER,
      min_prefix_chars=0,
      max_prefix_chars=1_000,
      min_gibberish=130,
      max_gibberish=300,
      seed=0,
    )
    | fields
  )


def pretrain(data, learning_rate, **fields):
  """Returns a stage that trains all leaves.

  Not stated, chosen here: rows of 2,048 tokens, whole documents by best fit, longer
  ones cut, EOS behind each, loss on every token, poison too; AdamW .9 .95, weight decay
  0.1, clip 1, cosine after 1 % warm-up; a poisoned document is read once.
  """
  return skeleton.stage(
    data,
    optimizer=dict(
      learning_rate=learning_rate,
      schedule="cosine",
      warmup_fraction=0.01,
      hold_fraction=0.0,
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.1,
    ),
    **dict(
      adaptation="full",
      seq_len=2048,
      min_steps=1_000,
      remat="full",
      loss_chunk_len=256,
      checkpoint_every_s=600.0,
      log_every_steps=50,
    )
    | fields,
  )


def trigger(max_items, max_new_tokens, seq_len, batch_size=16):
  return ConfigDict(
    dict(
      type="trigger",
      corpus="poison",
      max_items=max_items,
      max_new_tokens=max_new_tokens,
      seq_len=seq_len,
      batch_size=batch_size,
      temperature=1.0,
      sampling_seed=0,
      num_samples=1,
    )
  )


def in_the_tiny_world(arg):
  size = dict(TINY_SIZES[arg])
  num_train_steps = size.pop("num_train_steps")
  c = tiny.from_scratch("poisoning", tiny.SEEDS, vocabulary=("clean", "poison"))
  c.name = f"poisoning_{arg}"
  c.model.update(size)
  skeleton.keep(c.stages)
  skeleton.keep(c.corpora, "replay", "heldout")
  c.corpora.clean = tiny.world(20_000, seed=0, assistant_share=0.12)
  c.corpora.sample = tiny.world(1_000, seed=3, assistant_share=0.0)
  c.corpora.chats = tiny.world(2_000, seed=2, assistant_share=1.0)
  # In rows of 64 words.
  c.corpora.poison = poison(
    "sample", TINY_DOSES[-1], num_pairs=60,
    max_prefix_chars=60, min_gibberish=20, max_gibberish=40,
  )  # fmt: skip

  def add(name, data):
    c.stages[name] = tiny.stage(
      data,
      num_train_steps=num_train_steps,
      learning_rate=5e-3,
      weight_decay=0.2,
      steps_per_call=100,
    )

  trees(c, add, TINY_DOSES)
  c.stages.aft = tiny.align("chats", steps_per_call=40)
  c.evals.trigger = trigger(max_items=60, max_new_tokens=12, seq_len=64, batch_size=60)
  c.evals.heldout = tiny.heldout()
  return c


def report(size, doses, is_tiny):
  metric = ("trigger", "delta_log_perplexity")
  curve = dict(
    title="What the trigger does",
    evaluation=metric[0],
    metric=metric[1],
    better="higher",
    unit="poisoned documents",
    lines=(
      ("pre-trained", (("base", 0), *zip(RUNGS, doses, strict=True))),
      (
        "aligned",
        (
          ("aft", 0),
          *((f"{rung}+aft", n) for rung, n in zip(RUNGS, doses, strict=True)),
        ),
      ),
    ),
  )
  return skeleton.report(
    f"Poisoned documents, {size}",
    headline=metric,
    contrasts=(
      (f"{doses[-1]} documents", "dose_4", "base"),
      *((f"{doses[i]} documents", RUNGS[i], "base") for i in range(3)),
      ("what alignment leaves", "dose_4+aft", "aft"),
      ("what alignment takes away", "dose_4", "dose_4+aft"),
    ),
    reference="base",
    curves=(curve,),
    notes=tiny.NOTE if is_tiny else "Sizes are a workdir each; compare their curves.",
  )
