"""What of a cloud is ours: tpu.toml in the current directory.

Names alone, no secrets: `secrets` says under which name the cloud's secret store keeps
what an environment variable is to hold; hosts fetch it themselves. The template with
every field is settings.example.toml.
"""

import dataclasses
import math
import pathlib
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any

from msm_jax import fields
from msm_jax.errors import UserError

FILE = "tpu.toml"
TEMPLATE = "tpu/settings.example.toml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """Machines of Compute Engine: pods of `compute`, CPU machines of it and `queued`.

  Attributes:
    image_family: boot image of TPU hosts; None: the one for the chip.
    image_project: where that family is.
    disk_gb: boot disk of every host, GB.
    disk_type: None: what the machine type takes (hyperdisk-balanced for v6e and later).
    tunnel_through_iap: ssh through Identity-Aware Proxy, for hosts without an address.
    external_ip: give hosts an address on the Internet; without one the subnetwork needs
      Private Google Access and Cloud NAT (pip), and ssh `tunnel_through_iap`.
    flex_hours: with --flex, hours after which the cloud takes the machines back.
    cpu_machine_type: of steps that need no accelerator.
  """

  image_family: str | None = None
  image_project: str = "ubuntu-os-accelerator-images"
  disk_gb: int = 200
  disk_type: str | None = None
  tunnel_through_iap: bool = False
  external_ip: bool = True
  flex_hours: float = 24.0
  cpu_machine_type: str = "n2-standard-8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queued:
  """Queued resources of the Cloud TPU API.

  Attributes:
    runtime_version: software of the hosts; None: the one for the chip.
    valid_hours: how long a request may wait in the queue; None: without end.
  """

  runtime_version: str | None = None
  valid_hours: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gke:
  """A cluster of Google Kubernetes Engine that has JobSet.

  Attributes:
    cluster: its name.
    location: its region or zone; None: `zone`.
    namespace: where jobs go.
    queue: Kueue's LocalQueue; None: without Kueue.
    priority: Kueue's WorkloadPriorityClass; None: the queue's own.
    service_account: Kubernetes' (Workload Identity); None: the namespace's default.
    context: of kubectl; None: credentials of `cluster` are fetched.
    grace_seconds: between SIGTERM and SIGKILL.
  """

  cluster: str | None = None
  location: str | None = None
  namespace: str = "default"
  queue: str | None = None
  priority: str | None = None
  service_account: str | None = None
  context: str | None = None
  grace_seconds: int = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
  """A cluster with Slurm.

  Attributes:
    login: HOST or USER@HOST with sbatch; None: this machine has it.
    directory: on the file system that all nodes share: code and environment.
    partition, account, qos, constraint: of sbatch; None: left out.
    gres: generic resource that counts GPUs: with a type (gpu:hopper) as it is, without
      one with ours (gpu:h100), unless `constraint` says which they are.
    time_limit: of a job, as sbatch takes it (12:00:00); None: the partition's.
    cpu_partition: of steps that need no GPU; None: `partition`.
    setup: lines for every node before ours, such as `module load cuda`.
    options: more of sbatch, a line each (--mem=400G).
  """

  login: str | None = None
  directory: str | None = None
  partition: str | None = None
  account: str | None = None
  qos: str | None = None
  constraint: str | None = None
  gres: str = "gpu"
  time_limit: str | None = None
  cpu_partition: str | None = None
  setup: str = ""
  options: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
  """Dollars of a chip for an hour; None: not known."""

  on_demand: float | None = None
  spot: float | None = None
  reserved: float | None = None
  flex: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What `tpu.toml` says.

  Attributes:
    bucket: gs://BUCKET/PREFIX, or a directory that all hosts share (slurm).
    project: Google Cloud's project ID.
    zone: where machines are.
    service_account: its e-mail; hosts act as it. None: the project's default.
    network, subnetwork: None: the project's default.
    check_zone: refuse a zone that is not known to have the chip.
    reservation: name of one, for --reserved.
    image: container image (gke).
    labels: on every resource that can bear them, for the bill.
    secrets: environment variable -> name in the secret store.
    environment: variables for every command on the hosts; nothing secret.
    prices: chip or GPU -> what it costs, instead of our table.
  """

  bucket: str | None = None
  project: str | None = None
  zone: str | None = None
  check_zone: bool = True
  service_account: str | None = None
  network: str | None = None
  subnetwork: str | None = None
  reservation: str | None = None
  image: str | None = None
  labels: dict[str, str] = dataclasses.field(default_factory=dict)
  secrets: dict[str, str] = dataclasses.field(default_factory=dict)
  environment: dict[str, str] = dataclasses.field(default_factory=dict)
  compute: Compute = Compute()
  queued: Queued = Queued()
  gke: Gke = Gke()
  slurm: Slurm = Slurm()
  prices: dict[str, Price] = dataclasses.field(default_factory=dict)
  where: str = FILE  # the file itself, for messages

  def __post_init__(self):
    for name, (pattern, example) in _FORMS.items():
      value = self._of(name)
      if value is not None and not re.fullmatch(pattern, value):
        raise UserError(f"{self.where}: {name} = {value!r} must be {example}")
    for section in ("secrets", "environment"):
      for name in getattr(self, section):
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
          raise UserError(
            f"{self.where}: {section}.{name} is not the name of an environment variable"
          )
    for name, value in self.secrets.items():
      if not re.fullmatch(r"[\w-]{1,255}", value, re.ASCII) or _KEYS.match(value):
        # The value itself is not repeated: it may be a key.
        raise UserError(
          f"{self.where}: secrets.{name} must be the name that the secret store has "
          "for it, not the key itself: gcloud secrets create NAME --data-file=FILE"
        )
    for name, value in self.environment.items():
      if _SECRET.search(name) or _KEYS.match(value) or _LOGIN.search(value):
        raise UserError(
          f"{self.where}: environment.{name} looks like a key, which anyone would see: "
          f'put it into the secret store and write [secrets] {name} = "its name there"'
        )
    for name, value in self.labels.items():
      if not (_LABEL.fullmatch(value) and re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name)):
        raise UserError(
          f"{self.where}: labels.{name} = {value!r}: labels and their values are "
          "lower-case letters, digits, - and _, at most 63"
        )

  @property
  def region(self) -> str | None:
    """Returns the region of `zone`."""
    return self.zone and self.zone.rpartition("-")[0]

  def need(self, target: str, *names: str) -> None:
    """Raises a UserError for fields that `target` needs and that are not set.

    Args:
      target: what `--target` says.
      *names: of fields, with their section (`gke.cluster`).
    """
    missing = [name for name in names if self._of(name) in (None, "")]
    if missing:
      *first, last = missing
      both = f"{', '.join(first)} and {last}" if first else last
      raise UserError(
        f"{self.where}: --target={target} needs {both}: see {TEMPLATE} for what to set"
      )

  def _of(self, name: str) -> Any:
    value: Any = self
    for part in name.split("."):
      value = getattr(value, part)
    return value


_FORMS = {
  "bucket": (
    r"gs://[a-z0-9][\w.-]+(/[^\s]*)?|/[^\s]*",
    "gs://BUCKET/PREFIX or a /path",
  ),
  "project": (
    r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "a project ID (my-lab-1)",
  ),
  "zone": (r"[a-z]+-[a-z]+\d+-[a-z0-9]+", "a zone (us-east5-b), not a region"),
  "service_account": (r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address"),
  "slurm.login": (r"[^\s-]\S*", "HOST or USER@HOST"),
  "slurm.directory": (r"/\S*", "a /path without spaces, which all nodes see"),
  "slurm.time_limit": (
    r"(\d+-)?\d+(:\d+){0,2}",
    "minutes, hours:minutes:seconds or days-hours (12:00:00, 1-12)",
  ),
}
_KEYS = re.compile(r"sk-|AIza|hf_[A-Za-z0-9]{20}|[0-9a-f]{40}$|ya29|-----")
_SECRET = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|_KEY(_|$)", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")  # a password in a URL
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_SECTIONS = {"compute": Compute, "queued": Queued, "gke": Gke, "slurm": Slurm}


def load(path: pathlib.Path | None = None) -> Settings:
  """Returns what a file says.

  Args:
    path: of it; None: tpu.toml in the current directory.

  Raises:
    UserError: it is not there, is not TOML, or a field is unknown or malformed.
  """
  path = path or pathlib.Path(FILE)
  try:
    said = tomllib.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    raise UserError(
      f"{path} is not there: copy {TEMPLATE} to {FILE} and fill in what your target "
      "needs, or name another file with --settings=FILE"
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read as TOML: {error}") from None
  return parse(said, str(path))


def parse(said: Mapping[str, Any], where: str = FILE) -> Settings:
  """Returns settings from a plain mapping; `where` is for messages.

  Raises:
    UserError: a field is unknown or malformed.
  """
  values = dict(said)
  for name, cls in _SECTIONS.items():
    if name in values:
      values[name] = _section(cls, values[name], f"{where}: {name}")
  if "prices" in values:
    prices = _table(values["prices"], f"{where}: prices")
    values["prices"] = {
      chip: _section(Price, price, f"{where}: prices.{chip}")
      for chip, price in prices.items()
    }
  return Settings(**_checked(Settings, values, where), where=where)


def _section(cls: type, values: Any, where: str) -> Any:
  return cls(**_checked(cls, values, where))


def _checked(cls: type, values: Any, where: str) -> Mapping[str, Any]:
  """Returns the fields of a dataclass, which are known and of their types."""
  hints = typing.get_type_hints(cls)
  hints.pop("where", None)
  for name, value in _table(values, where).items():
    fields.check_known(name, hints, where, "the settings")
    if typing.get_origin(hints[name]) is dict:
      _check_texts(value, f"{where}: {name}")
    elif not _is_of(value, hints[name]):
      raise UserError(f"{where}: {name} = {value!r} must be {_kind(hints[name])}")
    if isinstance(value, int | float) and not 0 <= value < math.inf:
      raise UserError(f"{where}: {name} = {value!r} must not be negative or infinite")
  return values


def _check_texts(values: Any, where: str) -> None:
  """Refuses what is no table of texts; repeats no value, for it may be a key."""
  if not isinstance(values, dict):
    raise UserError(f"{where} must be a table: [section] and its fields")
  for name, value in values.items():
    if not isinstance(value, str | Price):
      raise UserError(f'{where}.{name} must be a text in quotes: {name} = "text"')


def _table(value: Any, where: str) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise UserError(f"{where} = {value!r} must be a table: [section] and its fields")
  return value


def _is_of(value: Any, hint: Any) -> bool:
  if isinstance(hint, types.UnionType):
    return any(_is_of(value, each) for each in typing.get_args(hint))
  if hint in (int, float) and isinstance(value, bool):
    return False
  return isinstance(value, int | float if hint is float else hint)


def _kind(hint: Any) -> str:
  """Returns what a field takes, for people."""
  if isinstance(hint, types.UnionType):
    return _kind(typing.get_args(hint)[0])
  names = {str: "a text in quotes", bool: "true or false", int: "a whole number"}
  return names.get(hint, "a number")
