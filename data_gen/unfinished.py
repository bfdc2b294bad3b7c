"""A chain by itself, before the corpora that it is made from are there.

A pilot makes no corpus, and a plan writes nothing: what their chains read is laid out
in a place that is gone afterwards.
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator

from data_gen import generate, settings
from data_gen.kinds import corpora
from msm_jax import errors, records

_SIZE = "match_tokens_of"


def alone(job: settings.Job, name: str, root: pathlib.Path) -> settings.Job:
  """Returns a job whose corpus `name` needs no corpus that is not there.

  The size of another corpus is left out; the corpora that filters look into are drawn
  anew where that costs nothing.

  Raises:
    UserError: it needs more than that of a corpus that is not there.
  """
  corpus = job.corpora[name]
  if not getattr(corpus, "roles", ()):
    raise errors.UserError("nobody is asked for it")
  for field, other in corpora.others(corpus):
    if _is_there(root, other) or field == _SIZE:
      continue
    if field != corpora.LEAKAGE or not isinstance(job.corpora[other], generate.FREE):
      raise errors.UserError(f"it waits for {other} (its {field}), which is not made")
  size_of = getattr(corpus, _SIZE, None)
  if size_of is None or _is_there(root, size_of):
    return job
  corpus = dataclasses.replace(corpus, **{_SIZE: None})
  return dataclasses.replace(job, corpora={**job.corpora, name: corpus})


def _is_there(root: pathlib.Path, name: str) -> bool:
  return (root / name / records.MANIFEST).exists()


@contextlib.contextmanager
def sources(job: settings.Job, name: str, root: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a directory that has the corpora that `name` of a job `alone` reads."""
  with tempfile.TemporaryDirectory() as directory:
    place = pathlib.Path(directory)
    for other in {other for _, other in corpora.others(job.corpora[name])}:
      if _is_there(root, other):
        os.symlink((root / other).resolve(), place / other)
      else:
        generate.make_free(job, place, other, {})
    yield place
