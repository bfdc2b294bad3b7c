"""gcloud: flags that every command has, and its errors in one line with the way out.

Wordings are those of the Google Cloud CLI 528 (credentials, IAP, ssh: its own sources)
and of the APIs behind it, as issues of SkyPilot, Marin and Levanter quote them.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from msm_jax import exits
from msm_jax.errors import UserError
from tpu.settings import Settings
from tpu.shell import Failed, Shell

_QUOTAS = "console.cloud.google.com/iam-admin/quotas"
# What passes by itself: the supervisor waits and asks again.
_CAPACITY = re.compile(
  r"RESOURCE_POOL_EXHAUSTED|no more capacity in the zone|enough resources available"
  r"|is currently unavailable in the|[Ss]tockout|Insufficient capacity"
  r"|does not have enough resources",
)
_RATE = r"[Rr]ate ?[Ll]imit|RATE_LIMIT|per minute"
_PASSING = re.compile(
  r"\b50[0234]\b|HTTPError 5\d\d|Internal [Ee]rror|internal error|UNAVAILABLE"
  r"|[Ss]ervice [Uu]navailable|[Bb]ad [Gg]ateway|backendError|DEADLINE_EXCEEDED"
  r"|[Tt]imed? ?out|no answer within|Connection (reset|aborted|refused|closed)"
  r"|Unable to find the server|Failed to resolve|Network is unreachable"
  rf"|Name or service not known|Temporary failure|{_RATE}"
  r"|resourceNotReady|resourceInUse|is not ready|RemoteDisconnected|EOF occurred"
  r"|being deleted|is deleting|state DELETING|DELETING state"
)
_SSH = re.compile(
  r"exited with return code \[255\]|4003: 'failed to connect|Permission denied \(publi"
  r"|Could not fetch host keys|port 22|lookup tpu worker|Connection (refused|closed)"
)
_NOT_FOUND = re.compile(r"was not found|NOT_FOUND|notFound|not found:")
_NO_SUCH_PLACE = re.compile(r"(projects|zones|regions)/[^/']+'? was not found")
_TAKEN = re.compile(r"already exists|ALREADY_EXISTS|alreadyExists")
# What our own scripts on machines say where a person has to do something.
_HOSTS_WORDS = re.compile(r"^error: (setup|on_host)\.sh: .*", re.MULTILINE)

# What a person can fix: (words of the cloud, what it means and the way out).
_WAYS_OUT = (
  (
    r"active account selected|problem refreshing|[Rr]eauthentication|invalid_grant"
    r"|gcloud auth login|valid credentials",
    "no credentials: gcloud auth login",
  ),
  (
    r"4033|not authorized|IAP.*denied|iap\.tunnelInstances",
    "Identity-Aware Proxy refuses: you need roles/iap.tunnelResourceAccessor, and the "
    "network a firewall rule that lets 35.235.240.0/20 in on port 22",
  ),
  (
    r"SERVICE_DISABLED|has not been used in project|accessNotConfigured|it is disabled",
    "an API is not enabled: gcloud services enable compute.googleapis.com "
    "tpu.googleapis.com secretmanager.googleapis.com",
  ),
  (
    r"QUOTA_EXCEEDED|[Qq]uota '?.*(exceeded|exhausted)|quotaExceeded"
    r"|Quota limit .* exceeded|exceeded quota|RESOURCE_EXHAUSTED",
    f"quota refused: ask for more at {_QUOTAS} (the Cloud TPU API and Compute Engine "
    "count apart, as do spot and on demand), or take a smaller --slice or another zone",
  ),
  (
    r"vmExternalIpAccess|constraints/compute\.[a-zA-Z]*[eE]xternalIp",
    "your organisation forbids addresses on the Internet: set external_ip = false and "
    "tunnel_through_iap = true under [compute]",
  ),
  (
    r"[Mm]achine type.*(not exist|not found|not supported|not available|unavailable)"
    r"|machineTypes/\S+ was not found|machineTypes/[^\s]+' was not found"
    r"|[Aa]ccelerator type.*(not found|not available|not supported|unknown|invalid)"
    r"|[Uu]nknown accelerator|acceleratorTypes/\S+ (was )?not found",
    "this zone does not have that chip (or not to this project): take another zone",
  ),
  (
    r"[Uu]nknown zone|zones/\S+ was not found|Invalid value for field 'zone'"
    r"|unrecognized location|Location \S+ is not found|zones/\S+' was not found",
    "there is no such zone: gcloud compute zones list",
  ),
  (
    r"secrets/\S+|[Ss]ecret \[",
    "a secret of [secrets] is not there, or the hosts' service_account may not read it "
    "(roles/secretmanager.secretAccessor)",
  ),
  (
    r"reservations?/\S+|[Rr]eservation.*(not found|not exist|not match|consum)"
    r"|Insufficient reserved capacity",
    "the reservation is not there, is full, or is of other machines",
  ),
  (
    r"PERMISSION_DENIED|permission|forbidden|does not have .* access|\b403\b",
    "not allowed: you need roles/compute.instanceAdmin.v1, roles/iam."
    "serviceAccountUser, roles/tpu.admin (queued), storage.objectAdmin on the bucket",
  ),
  (
    r"project.*(not found|invalid|does not exist)|[Ii]nvalid project",
    "there is no such project (its ID is needed, not its name)",
  ),
  (
    r"components install|command group installed|alpha component",
    "this gcloud lacks a part: gcloud components install alpha",
  ),
  (
    r"unrecognized arguments|Invalid choice|invalid choice",
    "this gcloud is too old: gcloud components update",
  ),
)


def is_capacity(said: str) -> bool:
  """Returns whether the cloud just has no machines left, now."""
  return _CAPACITY.search(said) is not None


def is_passing(said: str) -> bool:
  """Returns whether the same may go well a little later."""
  return is_capacity(said) or _PASSING.search(said) is not None


def is_quota(said: str) -> bool:
  """Returns whether the project may not have so many."""
  return re.search(_WAYS_OUT[3][0], said) is not None


def is_ssh(said: str) -> bool:
  """Returns whether a host cannot be reached (yet): it may still boot."""
  return _SSH.search(said) is not None


def is_absent(said: str) -> bool:
  """Returns whether what was asked for is not there."""
  return bool(_NOT_FOUND.search(said)) and not _NO_SUCH_PLACE.search(said)


def is_taken(said: str) -> bool:
  """Returns whether something of that name is there."""
  return _TAKEN.search(said) is not None


def explained(said: str, doing: str) -> UserError:
  """Returns what the cloud refused, in one line, with the way out.

  Args:
    said: stderr of gcloud.
    doing: what was done, for people.
  """
  found = (way for pattern, way in _WAYS_OUT if re.search(pattern, said))
  way_out = next(found, "that is all that gcloud says")
  return UserError(f"{doing}: {way_out} ({words(said)})")


def words(said: str) -> str:
  """Returns the words that matter of what gcloud wrote, on one line."""
  text = said[said.rfind("ERROR:") :] if "ERROR:" in said else said
  message = re.search(r'"?message"?: (?:"((?:[^"\\]|\\.)*)"|(.+))', text)
  if message:
    text = (message[1] or message[2]).replace('\\"', '"')
  text = re.sub(r"^ERROR: \([\w.-]+\) ", "", exits.one_line(ValueError(text)))
  return text if len(text) <= 300 else f"{text[:297]}..."


@dataclasses.dataclass(frozen=True)
class Gcloud:
  """gcloud with the project of the settings.

  What a person can fix is raised as a UserError. What passes by itself stays `Failed`:
  whoever looks after the job waits and does the same again.
  """

  shell: Shell
  settings: Settings

  @property
  def zonal(self) -> tuple[str, str]:
    """Returns the flags that say where."""
    return f"--project={self.settings.project}", f"--zone={self.settings.zone}"

  @property
  def regional(self) -> tuple[str, str]:
    """Returns the flags for what regions have."""
    return f"--project={self.settings.project}", f"--region={self.settings.region}"

  def do(self, doing: str, *argv: str, absent_ok: bool = False) -> str:
    """Runs a command that changes something and returns what it printed.

    Args:
      doing: what it does, for messages.
      *argv: without 'gcloud'.
      absent_ok: what it is about need not be there.
    """
    try:
      return self.shell.do(["gcloud", *argv, "--quiet"])
    except Failed as error:
      if absent_ok and is_absent(error.said):
        return ""
      raise _sorted_out(error, doing) from None

  def on_host(self, doing: str, *argv: str) -> None:
    """Runs a command that types a line on machines.

    What fails there may have failed because the machine is being taken away, so that
    all but clear words of refusal stays `Failed`.
    """
    try:
      self.shell.do(["gcloud", *argv, "--quiet"])
    except Failed as error:
      told = _HOSTS_WORDS.search(error.said)
      if told is not None:
        raise UserError(f"{doing}: {told[0].removeprefix('error: ')}") from None
      if _refuses(error.said):
        raise explained(error.said, doing) from None
      raise

  def ask(self, doing: str, *argv: str, absent: Any = None) -> Any:
    """Returns what a command printed as JSON; `absent` where it asks for nothing."""
    try:
      said = self.shell.ask(["gcloud", *argv, "--format=json"])
    except Failed as error:
      if is_absent(error.said):
        return absent
      raise _sorted_out(error, doing) from None
    return json.loads(said or "null")


def _sorted_out(error: Failed, doing: str) -> Exception:
  if is_taken(error.said):
    return error  # who made it knows what that means
  if _refuses(error.said):
    return explained(error.said, doing)
  return (
    error
    if is_passing(error.said) or is_ssh(error.said)
    else explained(error.said, doing)
  )


def _refuses(said: str) -> bool:
  """Returns whether a refusal only looks as if it were to pass."""
  is_short = is_capacity(said) or re.search(_RATE, said)
  return not is_short and any(re.search(pattern, said) for pattern, _ in _WAYS_OUT[:4])


def check_ready(gcloud: Gcloud) -> None:
  """Raises a UserError where gcloud is not installed or nobody is logged in."""
  gcloud.shell.need("gcloud")
  if gcloud.shell.dry_run:
    return
  account = gcloud.shell.ask(["gcloud", "config", "get-value", "account", "--quiet"])
  if not account.strip() or account.strip() == "(unset)":
    raise UserError("gcloud has no credentials: gcloud auth login")


def checked_name(name: str) -> str:
  """Returns a name that may be used for resources.

  Raises:
    UserError: it may not.
  """
  if re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name):
    return name
  raise UserError(
    f"--name={name}: lower-case letters, digits and dashes, a letter first, at most 40"
  )


def flags(values: Sequence[tuple[str, str | None]]) -> list[str]:
  """Returns --name=value for all that have a value."""
  return [f"--{name}={value}" for name, value in values if value is not None]
