"""The sections of a study, and all fields of a stage and of a client."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def study(name, seeds, world):
  """Returns a study without stages, arms and evaluations."""
  c = ConfigDict()
  c.name = name
  c.seeds = tuple(seeds)
  c.num_workers = 1  # processes that share the seeds, one core each
  c.world = world
  c.allow_missing_controls = False
  c.pilot = placeholder(int)  # generate so many documents per subdomain, to look at
  c.specs = ConfigDict()
  c.corpora = ConfigDict()
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
  c.arms = ConfigDict()
  c.evals = ConfigDict()
  return c


def filled(defaults, fields):
  """Returns a section: its defaults, and in their place what is given.

  None leaves the default, so that a placeholder keeps its type.
  """
  return ConfigDict(defaults | {k: v for k, v in fields.items() if v is not None})


def client(name, model, **fields):
  """Returns a teacher or judge."""
  return filled(
    dict(
      client=name,
      model=model,
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
    ),
    fields,
  )


def spec(path, model_name, provider_name):
  return ConfigDict(dict(path=path, model_name=model_name, provider_name=provider_name))


def component(corpus, share=1.0, train_on="all", **fields):
  """Returns what a stage reads of a corpus; see docs/data.md."""
  return dict(corpus=corpus, share=share, train_on=train_on) | fields


def dose(corpus, num_documents, train_on="all", **fields):
  """Returns so many records of a corpus, drawn, each read once."""
  return dict(corpus=corpus, num_documents=num_documents, train_on=train_on) | fields


def stage(data, optimizer, **fields):
  """Returns a stage with every field that it has."""
  c = filled(
    dict(
      data=tuple(data),
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
      min_steps=1,
      num_microbatches=1,
      steps_per_call=1,
      attention="auto",  # dense, blocked, cudnn, splash
      remat="none",  # none, dots, full, offload
      scan_layers=True,
      loss_chunk_len=placeholder(int),
      checkpoint_every_s=180.0,
      checkpoint_every_steps=placeholder(int),
      checkpoint_at=(),  # kept: steps; ('log2',) for 1, 2, 4, ...
      log_every_steps=5,
      optimizer=dict(
        decay_norm_scales=False,
        clip_norm=1.0,
        moments_dtype="float32",  # float32, bfloat16, float8
        embed_lr_multiplier=1.0,
      ),
    ),
    fields,
  )
  c.optimizer.update(optimizer)
  return c


def report(title, headline, contrasts, **fields):
  """Returns the report's section; see docs/report.md."""
  return filled(
    dict(
      title=title,
      headline=headline,
      contrasts=tuple(contrasts),
      differences=(),
      reference="aft",  # every arm beside it too, on every metric
      curves=(),  # doses, Pareto plots
      pareto=(),
      paper=(),
      notes="",
    ),
    fields,
  )


def among(arms, contrasts):
  """Returns the contrasts of which both arms are there."""
  return tuple(each for each in contrasts if {each[1], each[2]} <= set(arms))


def keep(section, *names):
  """Leaves only these in a section."""
  for name in list(section):
    if name not in names:
      del section[name]
