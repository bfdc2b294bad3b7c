"""Which runs of a study can be one program, and why others cannot.

Runs that start from trained parents differ in their numbers (seed, rows, adapters) and
may differ in their shapes. Those of the same shapes, on the same frozen base, are
siblings: `population.py` trains them together.
"""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from msm_jax import progress
from msm_jax.runs import Path
from msm_jax.tree import path_name


@dataclasses.dataclass(frozen=True)
class Task:
  """A run that is to be trained: a path of stages and a seed."""

  path: Path
  seed: int

  @property
  def label(self) -> str:
    """Returns its name, for people."""
    return f"{path_name(self.path)} seed {self.seed}"


def groups(
  shapes: Mapping[Task, Mapping[str, Hashable]], most: Callable[[Task], int]
) -> list[list[Task]]:
  """Returns the tasks in groups of siblings, at most so many in one.

  Says which tasks could not be one group, and in what they differ.

  Args:
    shapes: all that siblings must agree in, per task: field -> value.
    most: of the siblings of a task in one group; more are divided into equal parts.
  """
  found: list[list[Task]] = []
  for task, shape in shapes.items():
    for group in found:
      if shapes[group[0]] == shape:
        group.append(task)
        break
    else:
      found.append([task])
  for one, other in itertools.pairwise(found):
    if most(one[0]) > 1 and most(other[0]) > 1:
      _say_apart(one, other, shapes)
  return [part for group in found for part in _divided(group, most(group[0]))]


def _divided(group: Sequence[Task], most: int) -> Iterator[list[Task]]:
  """Yields parts of nearly the same size: equal ones share a compiled program."""
  size = -(-len(group) // -(-len(group) // most))
  for start in range(0, len(group), size):
    yield list(group[start : start + size])


def _say_apart(one: Sequence[Task], other: Sequence[Task], shapes) -> None:
  before, now = shapes[one[0]], shapes[other[0]]
  differing = [name for name in before if before[name] != now[name]]
  progress.say(
    f"note: {one[0].label} and {other[0].label} are not one program: they differ in "
    f"{', '.join(differing)}"
  )
