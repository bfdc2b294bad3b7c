"""The smallest study that does all that a study does, on a pod of NUM_HOSTS processes.

python launch.py run --config=tests/pod_study.py:NUM_HOSTS --workdir=DIR
"""

from configs import cheese_tiny


def get_config(arg):
  c = cheese_tiny.get_config("pulse")
  c.seeds = (0,)
  c.num_workers = 1
  c.allow_missing_controls = True
  c.mesh.data = int(arg)
  c.arms = {"base": ("pretrain",), "aft": ("pretrain", "aft")}
  for name in set(c.stages) - {"pretrain", "aft"}:
    del c.stages[name]
  for name in set(c.corpora) - {"world", "replay", "heldout", "aft", "pairs"}:
    del c.corpora[name]
  c.corpora.world.num_documents = 600
  c.corpora.replay.num_documents = 200
  c.tokenizer.train_on = ("world", "aft")
  c.model.num_layers = 1
  c.stages.pretrain.num_train_steps = 24
  c.stages.aft.num_train_steps = 8
  for stage in c.stages.values():
    stage.checkpoint_every_steps = 4
    stage.steps_per_call = 1
  c.evals.preference.max_items = 8
  c.report.contrasts = ()
  c.report.differences = ()
  return c
