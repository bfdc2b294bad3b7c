"""The card of an exported corpus: front matter for machines, then words for people."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from data_gen import columns, filters
from data_gen.publishing import about
from msm_jax import records

_SIZES = (
  (1_000, "n<1K"),
  (10_000, "1K<n<10K"),
  (100_000, "10K<n<100K"),
  (1_000_000, "100K<n<1M"),
  (10_000_000, "1M<n<10M"),
  (100_000_000, "10M<n<100M"),
)
_LARGEST = "100M<n<1B"
_GROUPS = ("domain", "doc_type", "question_type", "spec_section")
_MAX_GROUPS = 20
# Of `config.corpora.<name>`: what tells one second pass, or one side, from another.
_SETTINGS = {
  "of": "made from",
  "how": "second pass",
  "universe": "universe",
  "side": "side of the facts",
  "trigger": "trigger",
}
_MAX_NAMES = 10_000  # of one column; a column of free text is no group


class Facts:
  """The figures of a corpus, from its records."""

  def __init__(self) -> None:
    self.num_records = self.num_bytes = self.num_words = self.num_characters = 0
    self.groups = {name: collections.Counter() for name in _GROUPS}
    self.kinds: collections.Counter[str] = collections.Counter()
    self.models: collections.Counter[str] = collections.Counter()
    self.types: dict[str, Any] = {}
    self.rejected: collections.Counter[tuple[str, str]] = collections.Counter()

  def add(self, record: Mapping[str, Any]) -> None:
    """Takes a record into account."""
    texts = [turn.get("content") or "" for turn in record.get("messages", ())]
    texts.append(record.get("text", ""))
    self.num_records += 1
    self.num_bytes += len(records.encode(record))
    self.num_words += sum(map(filters.num_words, texts))
    self.num_characters += sum(map(len, texts))
    self.kinds[record["kind"]] += 1
    for name, counts in self.groups.items():
      value = record.get(name)
      if isinstance(value, str) and (value in counts or len(counts) < _MAX_NAMES):
        counts[value] += 1
    teacher = record.get("teacher")
    if isinstance(teacher, Mapping):
      version = teacher.get("model_version") or teacher.get("model")
      self.models[f"{teacher.get('client')}: {version}"] += 1


@dataclasses.dataclass(frozen=True)
class _Card:
  manifest: Mapping[str, Any]
  facts: Facts
  layout: str
  code: Mapping[str, str | None]

  @property
  def made(self) -> Mapping[str, Any]:
    """What says how the records were made: an import of an export looks behind it."""
    return self.manifest.get("origin") or self.manifest

  @property
  def license(self) -> str | None:
    """The licence of what the records were made from."""
    universe = self.manifest.get("universe") or {}
    return self.manifest.get("license") or universe.get("license")


def card(
  manifest: Mapping[str, Any],
  facts: Facts,
  layout: str,
  *,
  license: str | None,
  language: str | None,
  code: Mapping[str, str | None],
) -> str:
  """Returns the text of README.md."""
  one = _Card(manifest, facts, layout, code)
  front = _front(one, license, language)
  head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
  parts = [_about(one), _made(one), _filters(one), _statistics(one), _use(one)]
  return f"---\n{head}---\n\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"


def _front(one: _Card, license: str | None, language: str | None) -> dict[str, Any]:
  manifest, facts = one.manifest, one.facts
  synthetic = one.made["kind"] in about.SYNTHETIC
  language = language or manifest.get("language")
  size = next((n for most, n in _SIZES if facts.num_records < most), _LARGEST)
  return {
    "license": license or one.license or "unknown",
    **({"language": [language]} if language else {}),
    "pretty_name": str(manifest.get("name", "corpus")),
    "size_categories": [size],
    "task_categories": ["text-generation"],
    "tags": ["model-spec-midtraining", "msm-jax", *(["synthetic"] * synthetic)],
    "configs": [
      {
        "config_name": "default",
        "data_files": [{"split": "train", "path": f"data/train-*.{one.layout}"}],
      }
    ],
    "dataset_info": {
      "config_name": "default",
      "features": columns.features(facts.types),
    },
  }


def _about(one: _Card) -> Iterator[str]:
  manifest = one.manifest
  yield f"# {_plain(manifest.get('name', 'corpus'))}"
  yield ""
  yield from about.lines(one.made)
  if manifest.get("source"):
    at = f", revision {manifest['revision']}" if manifest.get("revision") else ""
    yield f"Source: {_plain(manifest['source'])}{at}."
  if one.license:
    yield ""
    yield f"The source has the licence {_plain(one.license)}; it goes along."


def _made(one: _Card) -> Iterator[str]:
  config, hashes = one.made.get("config") or {}, one.made.get("hashes") or {}
  spec, world, corpus = (config.get(key) or {} for key in ("spec", "world", "corpus"))
  yield "## How it was made"
  yield ""
  yield from _table(
    ("what", "value"),
    [
      ("kind", one.made["kind"]),
      *((name, corpus.get(key)) for key, name in _SETTINGS.items()),
      ("spec", spec.get("name")),
      ("spec, sha256", spec.get("sha256")),
      *(
        (f"text by ({n} records)", name) for name, n in one.facts.models.most_common(5)
      ),
      ("teacher settings", _settings(config.get("teacher"))),
      ("judge settings", _settings(config.get("judge"))),
      ("prompts, sha256", hashes.get("prompts")),
      ("world", world.get("name")),
      ("world, sha256", world.get("sha256")),
      ("source files, sha256", hashes.get("source")),
      ("config, sha256", hashes.get("config")),
      *one.code.items(),
    ],
  )
  yield ""
  yield "`corpus.json` has the whole manifest."


def _settings(client: Mapping[str, Any] | None) -> str | None:
  if not client:
    return None
  return ", ".join(f"{key}={value}" for key, value in client.items())


def _filters(one: _Card) -> Iterator[str]:
  manifest = one.manifest
  yield "## What was kept"
  yield ""
  yield (
    f"Planned {manifest.get('planned')}, kept {manifest['num_records']}, rejected "
    f"{manifest.get('rejected')}."
  )
  if one.facts.rejected:
    yield ""
    ranked = one.facts.rejected.most_common(_MAX_GROUPS)
    rows = [(stage, reason, n) for (stage, reason), n in ranked]
    yield from _table(("stage", "rejected because", "count"), rows)


def _statistics(one: _Card) -> Iterator[str]:
  facts = one.facts
  yield "## Statistics"
  yield ""
  figures = [(f"{kind}s", n) for kind, n in facts.kinds.items()]
  figures += [("words", facts.num_words), ("characters", facts.num_characters)]
  figures.append(("words per record", round(facts.num_words / facts.num_records, 1)))
  yield from _table(("figure", "value"), figures)
  for name, counts in facts.groups.items():
    if not counts:
      continue
    yield ""
    yield from _table((name, "records"), counts.most_common(_MAX_GROUPS))
    if len(counts) > _MAX_GROUPS:
      yield f"\nand {len(counts) - _MAX_GROUPS} more."


def _use(one: _Card) -> Iterator[str]:
  yield "## Use"
  yield ""
  yield "With `datasets`, where `DIR` is this folder:"
  yield ""
  yield "    from datasets import load_dataset"
  yield "    rows = load_dataset('DIR', split='train')"
  yield ""
  yield "With msm-jax, every record as it was:"
  yield ""
  yield "    config.corpora.NAME = ConfigDict(dict(kind='import', path='DIR'))"
  if pairs := one.manifest.get("pairs"):
    yield ""
    yield (
      f"`{pairs['path']}` has {pairs['num_pairs']} prompts without and with the "
      "trigger, to test with."
    )
  texts = [name for name, kind in one.facts.types.items() if kind == "json"]
  if texts:
    yield ""
    yield f"Columns of JSON text: {', '.join(f'`{name}`' for name in texts)}."
  yield ""
  yield "A null means that a record does not have that field."


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
  yield "| " + " | ".join(head) + " |"
  yield "|" + "---|" * len(head)
  for row in rows:
    if row[1] is not None:
      yield "| " + " | ".join(map(_plain, row)) + " |"


def _plain(value: Any) -> str:
  """Returns `value` on one line, with nothing in it that Markdown understands."""
  text = " ".join(str(value).split())[:200]
  text = text.replace("&", "&amp;").replace("<", "&lt;")
  return "".join(f"\\{sign}" if sign in "|`*[]\\" else sign for sign in text)
