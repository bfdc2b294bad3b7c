"""What the objects of a cluster say of themselves: JSON as kubectl prints it."""

import re
from typing import Any

from msm_jax import exits


def name(thing: dict[str, Any]) -> str:
  """Returns the name of an object."""
  return thing["metadata"]["name"]


def annotation(thing: dict[str, Any], name: str) -> str | None:
  """Returns what an annotation of an object says."""
  return thing["metadata"].get("annotations", {}).get(name)


def is_deleting(thing: dict[str, Any]) -> bool:
  """Returns whether an object is on its way out."""
  return "deletionTimestamp" in thing["metadata"]


def age(pod: dict[str, Any]) -> tuple[str, bool]:
  """Returns what pods are sorted by, the newest last.

  Times are of whole seconds: of two in one, what has not ended came later.
  """
  is_over = pod["status"].get("phase") in ("Succeeded", "Failed")
  return pod["metadata"]["creationTimestamp"], not is_over


def condition(thing: dict[str, Any], kind: str, status: str = "True") -> dict[str, Any]:
  """Returns a condition of an object; empty unless it has that status."""
  for each in thing.get("status", {}).get("conditions", []):
    if each["type"] == kind and each["status"] == status:
      return each
  return {}


def ended(there: dict[str, Any]) -> dict[str, Any]:
  """Returns how a JobSet ended for good, if it did."""
  return condition(there, "Completed") or condition(there, "Failed")


def _waiting(pod: dict[str, Any]) -> dict[str, Any]:
  """Returns why the container of a pod does not start."""
  for container in pod["status"].get("containerStatuses", []):
    return container.get("state", {}).get("waiting", {})
  return {}


def broken(pod: dict[str, Any]) -> str:
  """Returns why a pod will never start, '' while it may."""
  waiting = _waiting(pod)
  reason, message = waiting.get("reason", ""), waiting.get("message", "")
  pulling = reason in ("ErrImagePull", "ImagePullBackOff")
  if pulling and re.search(r"not found|denied|unauthorized|forbidden", message, re.I):
    return f"{reason}: {message}: is `image` in tpu.toml there, and may nodes read it?"
  if reason in ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"):
    return f"{reason}: {message}"
  return ""


def pending(pod: dict[str, Any]) -> str:
  """Returns what a pod waits for: an image, a node."""
  waiting = _waiting(pod)
  if waiting:
    return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
  return condition(pod, "PodScheduled", "False").get("message", "")


def failed(pods: list[dict[str, Any]]) -> list[tuple[str, int]]:
  """Returns names of pods that failed and with what, those that meant it last (75)."""
  found = []
  for pod in sorted(pods, key=age, reverse=True):
    for container in pod["status"].get("containerStatuses", []):
      code = container.get("state", {}).get("terminated", {}).get("exitCode")
      if code:
        found.append((name(pod), code))
  return sorted(found, key=lambda each: each[1] == exits.STOPPED)
