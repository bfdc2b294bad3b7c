"""Where else metrics go beside `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio.

Each is an extra of its own and imported only when `config.run.trackers` names it. A
tracker never ends a run: one that fails is let go of, with one loud line.
"""

import functools
import pathlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msm_jax import progress, records
from msm_jax.errors import UserError

_FILE = "tracked.json"


class Tracker(Protocol):
  """Takes the metrics of steps, in order."""

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    """Takes the metrics of one step."""

  def close(self) -> None:
    """Sends what is left."""


class _TensorBoard:
  """Event files in `<run>/tensorboard`."""

  def __init__(self, about: "About"):
    from tensorboardX import SummaryWriter

    # What a restart makes again is hidden.
    self._writer = SummaryWriter(
      str(about.run_dir / "tensorboard"), purge_step=about.first_step + 1
    )

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


class _Wandb:
  """A run of Weights & Biases; its mode, entity and key come from the environment."""

  def __init__(self, about: "About"):
    import wandb

    self._run = wandb.init(
      project=about.project,
      name=about.name,
      id=about.identity,
      resume="allow",
      reinit="create_new",  # those of a population live at the same time
      dir=str(about.run_dir),
      config=dict(about.config),
    )

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    self._run.log(dict(metrics), step=step)

  def close(self) -> None:
    self._run.finish()


class _Trackio:
  """A run of Trackio, which keeps its database in the user's cache directory."""

  def __init__(self, about: "About"):
    import trackio

    self._run = trackio.init(
      project=about.project,
      name=f"{about.name}-{about.identity}",
      resume="allow",
      config=dict(about.config),
      embed=False,
      auto_log_gpu=False,
      auto_log_cpu=False,
    )

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    self._run.log(dict(metrics), step=step)

  def close(self) -> None:
    self._run.finish()


# Name in config.run.trackers -> (how it is made, what to install).
TRACKERS: dict[str, tuple[Callable[["About"], Tracker], str]] = {
  "tensorboard": (_TensorBoard, "tensorboard"),
  "wandb": (_Wandb, "wandb"),
  "trackio": (_Trackio, "trackio"),
}


class About:
  """What a tracker is told of a run."""

  def __init__(
    self,
    run_dir: pathlib.Path,
    *,
    name: str,
    project: str,
    config: Mapping[str, Any],
    first_step: int,
  ):
    self.run_dir = pathlib.Path(run_dir).absolute()
    self.name, self.project, self.config = name, project, config
    self.first_step = first_step

  @functools.cached_property
  def identity(self) -> str:
    """Returns the same for every process that goes on with a run, another for a run
    that begins again in a directory of the same name.
    """
    path = self.run_dir / _FILE
    if not path.exists():
      records.write_json(path, {"identity": secrets.token_hex(6)})
    return records.read_json(path)["identity"]


def check(names: Sequence[str]) -> None:
  """Raises a UserError for a tracker that does not exist or is not installed."""
  import importlib.util

  packages = {"tensorboard": "tensorboardX"}
  for name in names:
    if name not in TRACKERS:
      raise UserError(
        f"config.run.trackers names {name!r}: it is not one of {', '.join(TRACKERS)}"
      )
    if importlib.util.find_spec(packages.get(name, name)) is None:
      raise UserError(
        f"config.run.trackers names {name!r}, whose package "
        f"{packages.get(name, name)} is not installed: "
        f"pip install 'msm-jax[{TRACKERS[name][1]}]', or leave it out"
      )


def start(names: Sequence[str], about: About) -> "Trackers":
  """Returns the trackers of a run, each at work."""
  found = Trackers()
  for name in names:
    found.add(name, lambda name=name: TRACKERS[name][0](about))
  return found


class Trackers:
  """Several trackers as one; those that fail are dropped, loudly."""

  def __init__(self):
    self._live: dict[str, Tracker] = {}

  def add(self, name: str, make: Callable[[], Tracker]) -> None:
    """Adds one, unless it cannot be made."""
    try:
      self._live[name] = make()
    except Exception as error:  # of a library, a service or the network
      _say_lost(name, error)

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    """Passes the metrics of one step on."""
    self._each(lambda tracker: tracker.log(step, metrics))

  def close(self) -> None:
    """Lets all send what is left."""
    self._each(lambda tracker: tracker.close())

  def _each(self, work: Callable[[Tracker], None]) -> None:
    for name, tracker in list(self._live.items()):
      try:
        work(tracker)
      except Exception as error:
        del self._live[name]
        _say_lost(name, error)


def _say_lost(name: str, error: Exception) -> None:
  reason = " ".join(str(error).split())[:200]
  progress.say(
    f"WARNING: the tracker {name} failed ({type(error).__name__}: {reason}) and gets "
    "no more; training goes on, metrics.jsonl has everything"
  )
