"""Whether a manifest is a JobSet that a cluster would take: schema and webhook.

The schema (schemas/jobset.json) has a small form of its own. A type is a name of
another entry, 'string', 'integer' or 'boolean', '/regular expression/' of a whole
string, '[type]' (a list), '{type}' (a mapping of names) or a list of what may stand
there.
"""

import json
import pathlib
import re
from typing import Any

_SCHEMA = json.loads(
  (pathlib.Path(__file__).parent / "schemas" / "jobset.json").read_text("utf-8")
)
_PLAIN = {"string": str, "integer": int, "boolean": bool}


def faults(manifest: Any) -> list[str]:
  """Returns what is wrong, a line each; empty for a JobSet that is accepted."""
  found = _faults(manifest, "JobSet", "")
  return found or _webhook(manifest)


def _faults(value: Any, kind: Any, where: str) -> list[str]:
  if isinstance(kind, list):
    return [] if value in kind else [f"{where}: {value!r} is none of {kind}"]
  if kind in _PLAIN:
    fits = type(value) is _PLAIN[kind]
    return [] if fits else [f"{where}: {value!r} is no {kind}"]
  if kind[0] == "/":
    fits = isinstance(value, str) and re.fullmatch(kind[1:-1], value)
    return [] if fits else [f"{where}: {value!r} is not {kind}"]
  if kind[0] in "[{":
    items = enumerate(value) if kind[0] == "[" else value.items()
    return [
      fault
      for key, item in items
      for fault in _faults(item, kind[1:-1], f"{where}.{key}")
    ]
  if not isinstance(_SCHEMA[kind], dict):
    return _faults(value, _SCHEMA[kind], where)
  required = _SCHEMA[kind].get("required", {})
  known = required | _SCHEMA[kind].get("optional", {})
  found = [f"{where}.{name}: missing" for name in required if name not in value]
  for name, item in value.items():
    if name not in known:
      found.append(f'unknown field "{where}.{name}"')
    else:
      found += _faults(item, known[name], f"{where}.{name}")
  return found


def _webhook(manifest: dict[str, Any]) -> list[str]:
  """Returns what JobSet's webhook refuses (pkg/webhooks/jobset_webhook.go)."""
  found, before = [], []
  for job in manifest["spec"]["replicatedJobs"]:
    spec = job["template"]["spec"]
    last = f"{job.get('replicas', 1) - 1}-{spec['completions'] - 1}"
    pod = f"{manifest['metadata']['name']}-{job['name']}-{last}-abcde"
    if len(pod) > 63:
      found.append(f"{pod}: names of pods will exceed 63 characters")
    needed = [each["name"] for each in job.get("dependsOn", [])]
    if len(needed) > 1 or not set(needed) <= set(before):
      found.append(f"{job['name']} cannot depend on {needed}")
    before.append(job["name"])
    containers = [each["name"] for each in spec["template"]["spec"]["containers"]]
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
      if ("onExitCodes" in rule) == ("onPodConditions" in rule):
        found.append("one of onExitCodes and onPodConditions is needed")
      name = rule.get("onExitCodes", {}).get("containerName", containers[0])
      if name not in containers:
        found.append(f"podFailurePolicy: there is no container {name}")
  rules = manifest["spec"].get("failurePolicy", {}).get("rules", [])
  if len({rule["name"] for rule in rules}) < len(rules):
    found.append("rule names are not unique")
  return found
