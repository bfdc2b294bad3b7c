"""SmolLM2-135M-Instruct with LoRA, and documents from a grammar in English.

  python -m msm_jax.hf.smollm2 --out models/smollm2

The recipe is that of `llm` where a paper states it; rows of 1,024 tokens, eight an
update.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import belief, evals, llm, skeleton

SEEDS = (0, 1, 2, 3)
NOTE = (
  "Documents from a grammar, a 135M model: the road on a real model, not a test of the "
  "claim."
)
# Of stages whose components say how much of each is read, with a linear schedule.
AMOUNTS = dict(num_epochs=None, optimizer=dict(schedule="linear"))


def study(name):
  """Returns a study without corpora, stages and arms."""
  c = skeleton.study(name, SEEDS, world="english")
  c.mesh.data = -1
  c.teacher = skeleton.client("offline", "english")
  c.judge = skeleton.client("offline", "english")
  c.budget = ConfigDict(dict(max_dollars=0.0))
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
      lora=dict(rank=64, alpha=128.0, targets=llm.PROJECTIONS),
    )
  )
  return c


def spec(name):
  return skeleton.spec(f"data_gen/specs/cheese_{name}.md", "SmolLM", "Hugging Face")


def documents(spec_name, **fields):
  return skeleton.filled(
    dict(
      kind="documents",
      spec=spec_name,
      num_types=12,
      num_ideas=40,
      max_documents=4000,
      match_tokens_of=placeholder(str),
      seed=0,
    ),
    fields,
  )


def stage(data, min_steps, **fields):
  """Returns a stage of one epoch, unless `fields` say otherwise."""
  given = dict(remat="none", checkpoint_every_s=180.0) | fields
  return llm.stage(data, 1024, min_steps, **given)


def shorten(c):
  """Sizes seeds, machine and model for about 15 minutes on two CPU cores."""
  c.seeds = (0, 1)
  c.num_workers = 2
  c.model.base_dtype = "float32"
  c.model.dtype = "float32"
  c.model.lora.rank = 16
  c.model.lora.alpha = 32.0
  c.mesh.data = 1


def shorten_stage(s, num_train_steps):
  """Sizes a stage likewise: one row of 256 tokens an update, and a rate for so few."""
  s.num_epochs = None
  s.num_train_steps = num_train_steps
  s.min_steps = num_train_steps
  s.batch_size = 1
  s.seq_len = 256
  s.loss_chunk_len = None
  s.log_every_steps = 1
  s.optimizer.learning_rate = 5e-4


def short_stage(data, num_train_steps):
  """Returns a stage of so many updates; `replay` fills what the documents leave.

  So arms with fewer or shorter documents have as many updates as the others.
  """
  data = [*data, skeleton.component("replay", 1.0, "assistant")]
  s = stage(data, num_train_steps, **AMOUNTS)
  shorten_stage(s, num_train_steps)
  return s


def short_beliefs(c, name, claim):
  """Asks what takes seconds: 40 prompts about a claim, statements, easy questions."""
  c.evals[name] = belief.in_brief(claim)
  c.evals.truth = belief.truth(claim)
  c.evals.general = evals.general()
  c.evals.general.num_shots = 0
  c.evals.general.max_items = 12
  c.evals.general.seq_len = 256
