"""The plan of training of a study whose corpora nobody has counted."""

from data_gen.engine import entries
from data_gen.planning import tree
from msm_jax import planning

NOTHING = tree.Whole(corpora=(), graders=(), spent=entries.Totals())


def lines(experiment, workdir, corpora=None, costs=NOTHING):
  """Returns the lines of the plan of a study."""
  return list(planning.lines(experiment, workdir, corpora or {}, costs))
