"""How machines are got and given back: one file per kind of cloud, one face.

A target runs command-line tools through `shell` alone, so that `--dry_run` can print
every one of them, and holds no state: what is there it asks the cloud, what hosts did
it reads from the board.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

from tpu.job import Job, State, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What the cloud says of a job's machines.

  Attributes:
    state: of all of them together.
    hosts: their names in the order of their numbers; empty unless READY.
    says: the cloud's own words, for people.
    resources: everything of this job that exists and costs or blocks a name, as
      'kind name'; what `delete` has to remove.
  """

  state: State
  hosts: tuple[str, ...] = ()
  says: str = ""
  resources: tuple[str, ...] = ()


class Target(Protocol):
  """A kind of cloud.

  Every method may be called again after it was cut short anywhere: create keeps what is
  there already, delete removes what is left. Raises `UserError` for what a person can
  fix (quota, credentials, a zone without that chip).
  """

  name: str
  restarts_itself: bool
  """Whether the cloud starts hosts again and replaces them (GKE, Slurm); else the
  supervisor deletes, creates and starts."""

  def check(self, job: Job) -> None:
    """Refuses what cannot be before anything is made: tools, names, zone, slice."""

  def create(self, job: Job) -> None:
    """Asks for the machines; returns at once."""

  def find(self, job: Job) -> Found:
    """Returns what there is; changes nothing."""

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Brings code and environment to every host (or into an image)."""

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Starts `python -m tpu.host` for `step` on every host, detached.

    Where an agent of this step runs already on a host, it is left alone.
    """

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields the lines of one host as the cloud has them, newer than the board's."""

  def stop(self, job: Job) -> None:
    """Sends SIGTERM to what runs; hosts save and stay."""

  def delete(self, job: Job) -> None:
    """Removes everything that `find` lists; returns when it is gone."""
