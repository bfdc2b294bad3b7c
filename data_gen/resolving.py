"""What decides the content of each corpus of a job: settings, sources, hashes."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_gen import context, prompts, second_passes, settings, sizing
from data_gen import spec as specs
from data_gen.clients import offline
from data_gen.importing import corpus as importing
from data_gen.kinds import corpora
from data_gen.settings import Job
from msm_jax import errors, records

# What the manifest calls the corpus that a field names.
_FROM = {"match_tokens_of": "matched", "match_types_of": "matched_types", "of": "twin"}


def resolve(job: Job) -> dict[str, dict[str, Any]]:
  """Returns for each corpus everything that decides its content.

  Raises:
    UserError: settings that cannot work, a spec that cannot be read.
  """
  settings.check(job)
  loaded = specs.load_all(job)
  found: dict[str, dict[str, Any]] = {}
  for name in settings.order(job.corpora):
    corpus = job.corpora[name]
    found[name] = {"corpus": corpora.content(corpus), **sizing.identity(name, corpus)}
    if isinstance(corpus, settings.ImportCorpus):
      found[name]["source"] = importing.identity(name, corpus)
    else:
      found[name].update(_sources(job, corpus, loaded))
      found[name].update(second_passes.sources(job, name))
    for field, other in corpora.others(corpus):
      key = _FROM.get(field, f"{field} {other}")
      found[name][key] = records.sha256_json(found[other])
  return found


def _sources(
  job: Job, corpus: settings.Corpus, loaded: Mapping[str, specs.Spec]
) -> dict[str, Any]:
  if isinstance(corpus, settings.WorldCorpus | settings.PairsCorpus):
    offline.load_world(job.world, "config.world")
    return {"world": {"name": job.world, "sha256": offline.world_sha256(job.world)}}
  if not hasattr(corpus, "stages"):
    return {}
  found: dict[str, Any] = {}
  if hasattr(corpus, "spec"):
    found["spec"] = {"name": corpus.spec, "sha256": loaded[corpus.spec].sha256}
  found["prompts"] = prompts.sha256(corpus.stages)
  for role in corpus.roles:
    client, where = getattr(job, role), f"config.{role}"
    found[role] = _content(client, where, corpus.stages)
    if hasattr(corpus, "spec"):
      context.check(loaded[corpus.spec], client, where)
  return found


def _content(
  client: settings.ClientSettings | None, where: str, stages: Sequence[str]
) -> dict[str, Any]:
  if client is None:
    raise errors.UserError(f"{where} is missing: set its client and model")
  if client.client != "offline":
    return client.content()
  offline.load_world(client.model, f"{where}.model")
  version = offline.world_sha256(client.model, stages)
  return {**client.content(), "world_sha256": version}


def hashes(resolved: Mapping[str, Any]) -> dict[str, str | None]:
  """Returns the hashes that the manifest of a corpus names."""
  spec, teacher = resolved.get("spec"), resolved.get("teacher")
  source = resolved.get("source")
  return {
    "config": records.sha256_json(resolved),
    "spec": spec["sha256"] if spec else None,
    "prompts": resolved.get("prompts"),
    "teacher": records.sha256_json(teacher) if teacher else None,
    "source": records.sha256_json(source) if source else None,
  }
