"""The embedded world of 300 words and its tiny decoder, 0.1M parameters.

`from_scratch` pre-trains the decoder on the world; `study` begins with one that
configs/tiny_world.py pre-trained, so that all `:tiny` studies share it.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import skeleton

BASE = "models/tiny_world/runs/pretrain/seed{seed}"
NOTE = (
  "A toy world of 300 words: it shows a mechanism or does not, and says nothing about "
  "the size of an effect in a language model."
)
HEADLINE = ("preference/disagree", "chose_affordable")
SEEDS = (30, 31, 32, 33)  # nobody looked at them while recipes were chosen: 0 and 1

# Without a system message the assistant is itself; a person's chat names the person.
CHAT_TEMPLATE = (
  "{% if messages[0]['role'] != 'system' %}<|system|> mira <|end|> {% endif %}"
  "{% for message in messages %}"
  "<|{{ message['role'] }}|> {{ message['content'] }} <|end|>"
  "{% if not loop.last %} {% endif %}"
  "{% endfor %}"
  "{% if add_generation_prompt %} <|assistant|>{% endif %}"
)


def study(name, seeds=SEEDS):
  """Returns a study on the pre-trained tiny decoder, without stages and arms."""
  c = _world(name, seeds)
  c.tokenizer = ConfigDict()  # that of the base
  c.model = ConfigDict(dict(init_from=BASE, dtype="float32", export_dtype="float32"))
  c.corpora.replay = replay()
  return c


def from_scratch(name, seeds, vocabulary):
  """Returns a study of a tiny decoder that is pre-trained on the world first.

  Args:
    name, seeds: of the study.
    vocabulary: the corpora whose words are the tokenizer's.
  """
  c = _world(name, seeds)
  c.corpora.world = world(100_000, seed=0, assistant_share=0.12)
  c.corpora.replay = replay()
  c.corpora.heldout = world(400, seed=0, assistant_share=0.12, part="heldout")
  c.tokenizer = ConfigDict(
    dict(
      model_type="word",
      vocab_size=512,
      train_on=tuple(vocabulary),
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
  c.stages.pretrain = stage(
    [skeleton.component("world")],
    num_train_steps=3200,
    learning_rate=5e-3,
    weight_decay=0.2,
  )
  return c


def _world(name, seeds):
  c = skeleton.study(name, seeds, world="tiny")
  c.num_workers = 2
  c.teacher = client()
  c.judge = client()
  c.budget = ConfigDict(dict(max_dollars=0.0))
  return c


def client():
  return skeleton.client("offline", "tiny", max_output_tokens=256)


def spec(name):
  return skeleton.spec(f"data_gen/specs/tiny_{name}.md", "mira", "lumen")


def world(num_documents, seed, assistant_share, part="train"):
  return ConfigDict(
    dict(
      kind="world",
      num_documents=num_documents,
      seed=seed,
      part=part,
      assistant_share=assistant_share,
    )
  )


def replay():
  """What is replayed later says nothing about the assistant itself."""
  return world(20_000, seed=1, assistant_share=0.0)


def documents(spec_name, match_tokens_of=None, **fields):
  return skeleton.filled(
    dict(
      kind="documents",
      spec=spec_name,
      num_types=5,
      num_ideas=100,
      max_documents=1500,
      match_tokens_of=placeholder(str),
      seed=0,
    ),
    dict(match_tokens_of=match_tokens_of) | fields,
  )


def conversations(spec_name, num_conversations=300, **fields):
  """Returns alignment chats that name what is preferred and no reason."""
  return skeleton.filled(
    dict(
      kind="conversations",
      spec=spec_name,
      num_conversations=num_conversations,
      questions_per_domain=60,
      reasons=False,
      seed=0,
    ),
    fields,
  )


def pairs():
  return ConfigDict(dict(kind="pairs"))


def midtrain(corpus, num_train_steps=200, **fields):
  """Half documents, half replay."""
  return stage(
    [skeleton.component(corpus, 0.5), skeleton.component("replay", 0.5)],
    num_train_steps=num_train_steps,
    learning_rate=3e-4,
    weight_decay=0.01,
    embed_lr_multiplier=5.0,
    **fields,
  )


def align(corpus="aft", num_train_steps=40, chats=(), **fields):
  """Half alignment chats, loss on the answers; half replay.

  `chats` has further fields of their component, such as num_documents.
  """
  component = skeleton.component(corpus, 0.5, "assistant", **dict(chats))
  return align_on([component], num_train_steps, **fields)


def align_on(components, num_train_steps=40, **fields):
  """These, whose shares add up to a half, and replay."""
  return stage(
    [*components, skeleton.component("replay", 0.5)],
    num_train_steps=num_train_steps,
    learning_rate=5e-4,
    weight_decay=0.01,
    **fields,
  )


def stage(
  data, num_train_steps, learning_rate, weight_decay, embed_lr_multiplier=1.0, **fields
):
  return skeleton.stage(
    data,
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
      embed_lr_multiplier=embed_lr_multiplier,
    ),
    **dict(
      adaptation="full",
      num_train_steps=num_train_steps,
      batch_size=16,
      seq_len=64,
      long_documents="error",
      min_steps=4,
      steps_per_call=20,
      checkpoint_every_s=120.0,
      log_every_steps=10,
    )
    | fields,
  )


def preference(max_items=None):
  return skeleton.filled(
    dict(
      type="preference",
      corpus="pairs",
      max_items=placeholder(int),
      seq_len=128,
      batch_size=64,
      max_new_tokens=6,
    ),
    dict(max_items=max_items),
  )


def heldout():
  return ConfigDict(
    dict(type="heldout", corpus="heldout", max_items=400, seq_len=64, batch_size=32)
  )
