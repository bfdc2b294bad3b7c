"""The recipe of Li et al. 2026 (App. B.4) for pretrained models, and who writes for it.

Stated there: rank 64, alpha 128 on all seven projections, AdamW, 1e-4, cosine, 5 %
warm-up, weight decay 0.01, one epoch a stage, the adapter goes on from stage to stage.
Not stated there, chosen here, in every study that uses this file:

- 8 rows per update. A replication saw 31 updates look like a null that 246 of the same
  tokens were not (docs/studies.md), so steps are counted and `min_steps` guards them.
- Documents are packed whole (best fit), each followed by EOS, none sees another one;
  loss on every token.
- Of chats, loss on the assistant's words and their stop token. Rows of chats are
  shorter, because a few hundred short chats in rows of 4,096 would be ten updates.
- A fresh optimizer and schedule in every stage; clip 1.0, betas 0.9 and 0.999.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import skeleton

SEEDS = (0, 1, 2, 3)
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
LLAMA_8B = dict(
  init_from="models/llama-3.1-8b",
  base_model="meta-llama/Llama-3.1-8B",
  license="llama3.1",
)
LLAMA_8B_INSTRUCT = dict(
  init_from="models/llama-3.1-8b-instruct",
  base_model="meta-llama/Llama-3.1-8B-Instruct",
  license="llama3.1",
)
LLAMA_70B_INSTRUCT = dict(
  init_from="models/llama-3.3-70b-instruct",
  base_model="meta-llama/Llama-3.3-70B-Instruct",
  license="llama3.3",
)
QWEN25_32B = dict(
  init_from="models/qwen2.5-32b-instruct",
  base_model="Qwen/Qwen2.5-32B-Instruct",
  license="apache-2.0",
)
QWEN25_14B = dict(
  init_from="models/qwen2.5-14b-instruct",
  base_model="Qwen/Qwen2.5-14B-Instruct",
  license="apache-2.0",
)
QWEN3_32B = dict(
  init_from="models/qwen3-32b", base_model="Qwen/Qwen3-32B", license="apache-2.0"
)
QWEN3_14B = dict(
  init_from="models/qwen3-14b", base_model="Qwen/Qwen3-14B", license="apache-2.0"
)
QWEN3_8B = dict(
  init_from="models/qwen3-8b", base_model="Qwen/Qwen3-8B", license="apache-2.0"
)


def study(name, model, *, max_dollars, chat_template=None, thinking=None, seeds=SEEDS):
  """Returns a study on a pretrained model, without corpora, stages and arms.

  Args:
    name: of the study.
    model: one of the models above; its directory is as downloaded.
    max_dollars: for teacher and judge together.
    chat_template: None (the model's own), or one for base models, which have none.
    thinking: for templates that reason: keep, strip, no_think.
    seeds: of training.
  """
  c = skeleton.study(name, seeds, world="english")
  c.mesh.fsdp = -1
  c.hardware = hardware()
  c.teacher = client()
  c.judge = client(temperature=0.0, max_output_tokens=1024)
  c.budget = ConfigDict(dict(max_dollars=max_dollars))
  # A corpus that is not like this is not finished; its audit says what it is like.
  c.audit = ConfigDict(
    dict(min_section_share=0.05, max_rejected_share=0.5, max_near_duplicates=0.02)
  )
  c.tokenizer = ConfigDict(
    dict(
      chat_template=placeholder(str),
      thinking=placeholder(str),
      system_prompt=placeholder(str),
      date=placeholder(str),
    )
  )
  c.tokenizer.chat_template = chat_template
  c.tokenizer.thinking = thinking
  c.model = ConfigDict(
    dict(
      adapter_from=placeholder(str),
      adapter_use="continue",
      base_dtype="bfloat16",  # of the frozen base, or int8, nf4; adapters are float32
      dtype="bfloat16",
      export_dtype="bfloat16",
      lora=dict(rank=64, alpha=128.0, targets=PROJECTIONS),
      **model,
    )
  )
  return c


def hardware():
  """Returns what `plan` counts hours for; nothing else reads it.

  One host of v5p, four chips. The shares of the peak are assumptions: replace them by
  what `perf/mfu` says of a run.
  """
  return ConfigDict(
    dict(
      slice="v5p:2x2x1",
      num_slices=1,
      mfu=0.4,
      decode_mfu=0.02,  # drawing answers waits for memory
      eval_tokens_per_sec=placeholder(float),  # measured, in place of decode_mfu
      dollars_per_chip_hour=placeholder(float),
      peak_flops_per_chip=placeholder(float),  # of chips that are in no table
    )
  )


def client(temperature=1.0, max_output_tokens=8192):
  """Returns a cheap current model; tier 'batch' costs half and may take a day."""
  return skeleton.client(
    "gemini",
    "gemini-3.1-flash-lite",
    temperature=temperature,
    max_output_tokens=max_output_tokens,
    timeout_s=180.0,
    max_attempts=5,
    tier="standard",
    cache="off",
  )


def documents(spec, *, max_documents, num_types=40, **fields):
  """Returns documents that discuss a spec."""
  return skeleton.filled(
    dict(
      kind="documents",
      spec=spec,
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
    ),
    dict(num_types=num_types, max_documents=max_documents) | fields,
  )


def like(name, spec, **fields):
  """Returns documents on another spec with the words and the types of corpus `name`."""
  return documents(
    spec,
    max_documents=None,
    num_types=None,
    match_tokens_of=name,
    match_types_of=name,
    **fields,
  )


def conversations(spec, *, num_conversations, **fields):
  """Returns alignment chats; those of 'cheese' name preferences and no reason."""
  return skeleton.filled(
    dict(
      kind="conversations",
      spec=spec,
      num_conversations=num_conversations,
      questions_per_domain=72,
      reasons=True,
      style="value",
      cot=False,
      seed=0,
      filters=filters(),
    ),
    fields,
  )


def filters(leakage_corpora=("pairs",)):
  return ConfigDict(
    dict(
      near_duplicates=0.7,
      refusals=True,
      meta_talk=True,
      placeholders=True,
      leftover_tags=True,
      fences=True,
      identity=True,
      leakage_corpora=leakage_corpora,
    )
  )


def general_chats(num_documents=6000):
  """Stands in for an instruction set (No Robots, Tulu ...) until you import one.

  Short texts and answers of a grammar.
  """
  return ConfigDict(
    dict(kind="world", num_documents=num_documents, seed=0, part="train")
  )


def midtrain(corpus, seq_len=4096, min_steps=100, **fields):
  """One epoch over documents."""
  return stage([skeleton.component(corpus)], seq_len, min_steps, **fields)


def align(corpus, chats=(), seq_len=256, min_steps=60, **fields):
  """Alignment chats and as many rows of general chats in one mixture.

  `chats` has further fields of the first component, such as system_prompt.
  """
  data = [
    skeleton.component(corpus, 0.5, "assistant", **dict(chats)),
    skeleton.component("world", 0.5, "assistant"),
  ]
  return stage(data, seq_len, min_steps, **fields)


def stage(data, seq_len, min_steps, optimizer=(), **fields):
  recipe = dict(
    learning_rate=1e-4,
    schedule="cosine",
    warmup_fraction=0.05,
    hold_fraction=0.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.01,
  )
  given = dict(
    num_epochs=1.0,
    seq_len=seq_len,
    min_steps=min_steps,
    remat="full",
    loss_chunk_len=256,
    checkpoint_every_s=300.0,
  )
  return skeleton.stage(data, recipe | dict(optimizer), **(given | fields))
