"""What the generation of corpora is told: frozen dataclasses, checked once.

The config file is turned into these by its owner; nothing below knows `ConfigDict`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from data_gen.importing import settings as import_settings
from data_gen.importing.settings import ImportCorpus
from msm_jax import errors
from msm_jax import fields as fields_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecSettings:
  """Where a spec lies and whose names go into it (`config.specs.<name>`)."""

  path: str
  model_name: str
  provider_name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSettings:
  """Who answers (`config.teacher`, `config.judge`).

  Attributes:
    client: 'offline' or 'gemini'.
    model: the service's model id; for 'offline' the world that answers.
    base_url: None is the service's own, or `GOOGLE_GEMINI_BASE_URL`.
    api_key_env: environment variable with the key; None: the service's usual ones.
    api_version: None is the SDK's default.
    thinking: 'off', or the level that the service knows ('minimal', 'low', ...);
      thoughts are billed and count against `max_output_tokens`.
    max_concurrency: requests in flight.
    timeout_s: limit for one attempt.
    max_attempts: attempts per request; waiting for a rate limit is not an attempt.
    seed: part of the identity of every request.
    prices: dollars per million (prompt, cached prompt, response) tokens, for a model
      that `pricing.py` does not know.
  """

  client: str
  model: str
  base_url: str | None = None
  api_key_env: str | None = None
  api_version: str | None = None
  temperature: float = 1.0
  max_output_tokens: int = 8192
  thinking: str = "off"
  max_concurrency: int = 32
  timeout_s: float = 300.0
  max_attempts: int = 5
  seed: int = 0
  prices: tuple[float, float, float] | None = None

  def content(self) -> dict[str, Any]:
    """Returns the fields that decide what is answered, not how it is fetched."""
    names = (
      "client",
      "model",
      "temperature",
      "max_output_tokens",
      "thinking",
      "seed",
    )
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldCorpus:
  """Pre-training and replay records, drawn from the world.

  Attributes:
    num_documents: how many.
    seed: of the draw.
    part: 'train' or 'heldout'; the two are disjoint.
    assistant_share: the share of records by or about the assistant, for a world that
      knows one; None: the world's own.
  """

  kind: ClassVar[str] = "world"
  num_documents: int
  seed: int = 0
  part: str = "train"
  assistant_share: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsCorpus:
  """The world's evaluation pairs, both orders."""

  kind: ClassVar[str] = "pairs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsCorpus:
  """Documents that discuss a spec.

  Attributes:
    spec: name in `config.specs`.
    num_types: document types per subdomain.
    num_ideas: document ideas per type.
    max_documents: how many to keep; None: every idea becomes a document. Rejected ones
      are replaced while ideas are left.
    match_tokens_of: a corpus whose number of words this one is cut to.
    seed: of the choice among the ideas.
  """

  kind: ClassVar[str] = "documents"
  spec: str
  num_types: int
  num_ideas: int
  max_documents: int | None = None
  match_tokens_of: str | None = None
  seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationsCorpus:
  """Conversations in which the assistant acts by a spec.

  Attributes:
    spec: name in `config.specs`.
    num_conversations: how many to keep.
    questions_per_domain: how many user turns are asked for per domain and round.
    reasons: whether the assistant says why.
    seed: of the order of the questions.
  """

  kind: ClassVar[str] = "conversations"
  spec: str
  num_conversations: int
  questions_per_domain: int
  reasons: bool = True
  seed: int = 0


Corpus = (
  WorldCorpus | PairsCorpus | DocumentsCorpus | ConversationsCorpus | ImportCorpus
)
_KINDS = {
  cls.kind: cls
  for cls in (
    WorldCorpus,
    PairsCorpus,
    DocumentsCorpus,
    ConversationsCorpus,
    ImportCorpus,
  )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """All that `generate` and `plan` need to know.

  Attributes:
    corpora: name -> what to make.
    specs: name -> where the spec lies.
    teacher, judge: who answers and who judges; None if no corpus needs one.
    world: the world of the kinds 'world' and 'pairs'.
    max_dollars: over all corpora of the workdir; None: no limit.
  """

  corpora: Mapping[str, Corpus]
  specs: Mapping[str, SpecSettings] = dataclasses.field(default_factory=dict)
  teacher: ClientSettings | None = None
  judge: ClientSettings | None = None
  world: str | None = None
  max_dollars: float | None = None


def job(config: Mapping[str, Any]) -> Job:
  """Returns what the sections of a whole config (plain dicts) say of generation."""
  clients = {
    who: fields_lib.build(ClientSettings, config[who], f"config.{who}")
    for who in ("teacher", "judge")
  }
  corpora = {name: corpus(name, fields) for name, fields in config["corpora"].items()}
  specs = {
    name: fields_lib.build(SpecSettings, fields, f"config.specs.{name}")
    for name, fields in config["specs"].items()
  }
  return Job(
    corpora=corpora,
    specs=specs,
    world=config["world"],
    max_dollars=config["budget"]["max_dollars"],
    **clients,
  )


def corpus(name: str, fields: Mapping[str, Any]) -> Corpus:
  """Returns the settings of `config.corpora.<name>` from a plain mapping."""
  fields = dict(fields)
  kind = fields.pop("kind", None)
  if kind not in _KINDS:
    raise errors.UserError(
      f"config.corpora.{name}.kind is {kind!r}: it is one of {', '.join(_KINDS)}"
    )
  return fields_lib.build(_KINDS[kind], fields, f"config.corpora.{name}")


def check(job: Job) -> None:
  """Raises a `UserError` for settings that cannot work, before anything is paid."""
  for name, corpus in job.corpora.items():
    where = f"config.corpora.{name}"
    if name != name.strip() or "/" in name or name.startswith(".") or not name:
      raise errors.UserError(f"{where}: a corpus name is a file name without slashes")
    _check_counts(where, corpus)
    _check_sources(where, corpus, job)
  for where, client in (("config.teacher", job.teacher), ("config.judge", job.judge)):
    if client is not None:
      _check_counts(where, client)
      _check_number(f"{where}.timeout_s", client.timeout_s, above=0)
      _check_number(f"{where}.temperature", client.temperature)
  if job.max_dollars is not None:
    _check_number("config.budget.max_dollars", job.max_dollars)
  order(job.corpora)


def _check_sources(where: str, corpus: Corpus, job: Job) -> None:
  if isinstance(corpus, ImportCorpus):
    return import_settings.check(where, corpus)
  if isinstance(corpus, WorldCorpus | PairsCorpus):
    if job.world is None:
      raise errors.UserError(f"{where} is of kind {corpus.kind}: set config.world")
  elif corpus.spec not in job.specs:
    raise errors.UserError(
      f"{where}.spec is {corpus.spec!r}: config.specs has "
      f"{', '.join(job.specs) or 'none'}"
    )
  if isinstance(corpus, WorldCorpus) and corpus.part not in ("train", "heldout"):
    raise errors.UserError(
      f"{where}.part is {corpus.part!r}: it is 'train' or 'heldout'"
    )


def order(corpora: Mapping[str, Corpus]) -> list[str]:
  """Returns the names so that a corpus comes after the one whose size it matches."""
  done: list[str] = []
  waiting = dict(corpora)
  while waiting:
    ready = [name for name, c in waiting.items() if _other(name, c, corpora) in done]
    ready += [name for name, c in waiting.items() if _other(name, c, corpora) is None]
    if not ready:
      raise errors.UserError(
        f"config.corpora: match_tokens_of goes in a circle among {', '.join(waiting)}"
      )
    done += ready
    for name in ready:
      del waiting[name]
  return done


def _other(name: str, corpus: Corpus, corpora: Mapping[str, Corpus]) -> str | None:
  other = getattr(corpus, "match_tokens_of", None)
  sized = DocumentsCorpus | ImportCorpus
  if other is not None and not isinstance(corpora.get(other), sized):
    raise errors.UserError(
      f"config.corpora.{name}.match_tokens_of is {other!r}: it names a corpus of kind "
      "documents or import"
    )
  return other


def _check_counts(where: str, value: Any) -> None:
  """Checks the fields that count something, by their names."""
  for field in dataclasses.fields(value):
    count = getattr(value, field.name)
    if not field.name.startswith(("num_", "max_", "questions_")) or count is None:
      continue
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
      raise errors.UserError(
        f"{where}.{field.name} is {count!r}: it is a whole number above zero"
      )


def _check_number(where: str, value: Any, above: float | None = None) -> None:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  low = -1e-300 if above is None else above
  if not is_number or not value > low:
    wanted = "zero or more" if above is None else f"above {above:g}"
    raise errors.UserError(f"{where} is {value!r}: it is a number, {wanted}")
