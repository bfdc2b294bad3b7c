"""kubectl: which cluster is meant, and its errors in one line with the way out."""

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

from msm_jax.errors import UserError
from tpu.settings import Settings
from tpu.shell import Failed, Shell

# What kubectl says -> what a person does. See `explained` for {...}.
_WAYS_OUT = (
  (
    r"gke-gcloud-auth-plugin",
    "kubectl cannot log in: gcloud components install gke-gcloud-auth-plugin",
  ),
  (
    r"context .* does not exist|context was not found|no context exists",
    "kubectl has no context {context}: {credentials}",
  ),
  (
    r"must be logged in|Unauthorized|provide credentials|invalid_grant|"
    r"gcloud auth login",
    "you are not logged in to {context}: gcloud auth login, then {credentials}",
  ),
  (
    r"the server doesn't have a resource type \"jobset|no matches for kind \"JobSet\"|"
    r"couldn't find resource for .*jobset",
    "{context} has no JobSet: install it (jobset.sigs.k8s.io/docs/installation, v0.8 "
    "or later)",
  ),
  (
    r"the server doesn't have a resource type \"(localqueues|workloads)",
    "{context} has no Kueue: install it (kueue.sigs.k8s.io/docs/installation), or "
    "leave out gke.queue",
  ),
  (
    r"field \"?\w+\"? does not exist|strict decoding error|unknown field",
    "JobSet of {context} is too old: install v0.8 or later "
    "(jobset.sigs.k8s.io/docs/installation)",
  ),
  (
    r"namespaces? \"[^\"]*\" not found",
    "there is no such namespace: kubectl create namespace {namespace}, or set "
    "gke.namespace",
  ),
  (
    r"hostNetwork|autogke-disallow",
    "the cluster (Autopilot?) allows no pods on the host's network: set "
    "gke.service_account, and they get a network of their own",
  ),
  (
    r"[Ff]orbidden",
    "you may not do that in namespace {namespace} of {context}: ask for the role "
    "roles/container.developer",
  ),
  (
    r"AlreadyExists|already exists",
    "a JobSet of that name is somebody else's (or of another --workdir): take another "
    "--name",
  ),
  (r"denied the request|is invalid|Invalid value", "the cluster refuses the job"),
)


@dataclasses.dataclass(frozen=True)
class Kubectl:
  """kubectl for the cluster and namespace of the settings.

  Both are named in every command, so that never the cluster is meant that somebody
  looked at last.
  """

  settings: Settings
  shell: Shell

  @property
  def context(self) -> str:
    """Returns the context's name: gcloud's own where tpu.toml names none."""
    gke = self.settings.gke
    own = f"gke_{self.settings.project}_{self.location}_{gke.cluster}"
    return gke.context or own

  @property
  def location(self) -> str | None:
    """Returns where the cluster is."""
    return self.settings.gke.location or self.settings.zone

  def ask(self, *arguments: str) -> str:
    """Returns what a question prints.

    Raises:
      UserError: a person can fix it.
      Failed: it may go well the next time.
    """
    try:
      return self.shell.ask([*self._argv, *arguments])
    except Failed as error:
      raise self._explained(error) from None

  def items(self, *arguments: str) -> list[dict[str, Any]]:
    """Returns the objects that `get` finds; raises as `ask`."""
    return json.loads(self.ask("get", *arguments, "--output=json"))["items"]

  def do(self, *arguments: str, stdin: str | None = None) -> None:
    """Changes something; raises as `ask`."""
    try:
      self.shell.do([*self._argv, *arguments], stdin)
    except Failed as error:
      raise self._explained(error) from None

  def patch(self, name: str, spec: dict[str, Any]) -> None:
    """Changes fields of the spec of an object."""
    self.do("patch", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

  def lines(self, *arguments: str) -> Iterator[str]:
    """Yields what a long command prints."""
    return self.shell.lines([*self._argv, *arguments])

  def log_in(self) -> None:
    """Makes sure that kubectl has the context: fetches credentials if need be."""
    if self.shell.dry_run or not self._has_context():
      self._fetch_credentials()

  def need(self, kind: str, name: str, field: str) -> None:
    """Raises a UserError unless an object is there; `field` of tpu.toml names it."""
    if not self.ask("get", kind, name, "--ignore-not-found", "--output=name").strip():
      raise UserError(
        f"{self.settings.where}: {field} = {name!r} is not in namespace "
        f"{self.settings.gke.namespace} of {self.context}"
      )

  def need_secret(self, variable: str, secret: str) -> None:
    """Raises a UserError unless a secret has a key; does not read what it holds."""
    keys = "--output=go-template={{range $key, $_ := .data}}{{$key}} {{end}}"
    question = ("get", "secret", secret, "--ignore-not-found", keys)
    if variable not in self.ask(*question).split():
      make = f"create secret generic {secret} --from-file={variable}=FILE"
      raise UserError(
        f"{self.settings.where}: secrets.{variable}: {self.context} has no secret "
        f"{secret} with that key: {' '.join(self._argv)} {make}"
      )

  @property
  def _argv(self) -> list[str]:
    namespace = f"--namespace={self.settings.gke.namespace}"
    return ["kubectl", f"--context={self.context}", namespace]

  @property
  def _credentials(self) -> list[str]:
    where = [f"--location={self.location}", f"--project={self.settings.project}"]
    cluster = self.settings.gke.cluster or "CLUSTER"
    return ["gcloud", "container", "clusters", "get-credentials", cluster, *where]

  def _has_context(self) -> bool:
    listed = self.shell.ask(["kubectl", "config", "get-contexts", "--output=name"])
    if self.context not in listed.split() and self.settings.gke.context:
      raise UserError(
        f"{self.settings.where}: gke.context = {self.context!r} is not one of "
        f"kubectl's: {', '.join(listed.split()) or 'it has none'}"
      )
    return self.context in listed.split()

  def _fetch_credentials(self) -> None:
    if self.settings.gke.context:
      return
    self.shell.need("gcloud")
    try:
      self.shell.do(self._credentials)
    except Failed as error:
      words = error.said.strip().splitlines() or ["no reason given"]
      raise UserError(
        f"gcloud: no credentials for gke.cluster = {self.settings.gke.cluster!r} in "
        f"{self.location} ({words[-1]}): gcloud auth login, or mend gke.cluster and "
        "gke.location"
      ) from None

  def _explained(self, error: Failed) -> Exception:
    """Returns a UserError for what a person can fix; else the error, to try again."""
    said = error.said.strip()
    for pattern, way_out in _WAYS_OUT:
      if re.search(pattern, said):
        more = way_out.format(
          context=self.context,
          namespace=self.settings.gke.namespace,
          credentials=" ".join(self._credentials),
        )
        return UserError(f"kubectl: {more} ({said.splitlines()[-1]})")
    return error
