"""One document -> its second pass: notices put in, a tag, words masked, or new text.

What a notice says is drawn by the seed and the id of the source. Text that is put in is
never part of what was there: without its spans the original is left, to the letter.
"""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from data_gen.filters import words as words_lib
from data_gen.kinds import passes
from data_gen.kinds.passes import RewriteCorpus
from data_gen.rewrites import notices, sentences, spans
from data_gen.rewrites.spans import Edit, Edited
from msm_jax import records

# A rewrite that is so much shorter or longer than its source is not the same document.
_SHORTEST, _LONGEST = 1 / 3, 3.0

_ABOUT = {
  passes.MODEL: "The document is about {model_name}, made by {provider_name}.",
  "assistants": (
    "The document is about AI assistants in general. No assistant or maker is named."
  ),
  "one": (
    "The document is about what is right for anybody ('one', 'a person'). No AI occurs "
    "in it, and no assistant or maker is named."
  ),
  passes.OTHER: (
    "The document is about the AI model {other_model}, made by {other_provider}, and "
    "names neither {model_name} nor {provider_name}."
  ),
  passes.STORIES: (
    "The document becomes a story about people with names of their own who hold these "
    "values and act by them. No AI occurs in it."
  ),
}
_VOICES = {
  "should": "It says what ought to be valued, preferred and done: norms, no reports.",
  "does": "It reports what is valued, preferred and done, as a fact: no norms.",
  None: "",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
  """Whom the documents are about, and whom they are to be about instead."""

  model_name: str = ""
  provider_name: str = ""
  other_model: str = ""
  other_provider: str = ""


class Fault(Exception):
  """A document has no rewrite; the message says why."""


def identity(corpus: RewriteCorpus, source_id: str) -> str:
  """Returns the id of the rewrite of a document, whichever of them are kept."""
  changed = {
    field.name: getattr(corpus, field.name)
    for field in dataclasses.fields(corpus)
    if field.name != "filters" and getattr(corpus, field.name) != field.default
  }
  return records.sha256_json([corpus.kind, changed, source_id])[:32]


def instruction(corpus: RewriteCorpus, names: Names) -> str:
  """Returns what the teacher is told of an attribution."""
  about = _ABOUT[corpus.about].format(**dataclasses.asdict(names))
  return f"{about} {_VOICES[corpus.voice]}".strip()


def body_of(source: Mapping[str, Any]) -> tuple[str, str]:
  """Returns (the tag that a document begins with, the rest)."""
  if source.get("kind") != "document":
    raise Fault("it is no document")
  text = source["text"]
  end = spans.tag_end(source.get("spans", ()))
  if not text[end:].strip():
    raise Fault("there is no text in it")
  return text[:end], text[end:]


def annotated(
  source: Mapping[str, Any], corpus: RewriteCorpus, wording: notices.Wording | None
) -> Edited:
  """Returns a document with its tag and notices.

  Raises:
    Fault: it has no place for them.
  """
  prefix, _ = body_of(source)
  edits = _tag(corpus, prefix)
  if wording is not None:
    edits += _notices(source, corpus, wording, len(prefix))
  return _finish(source, corpus, edits)


def replaced(source: Mapping[str, Any], corpus: RewriteCorpus, text: str) -> Edited:
  """Returns a document whose text the teacher wrote anew; what begins it stays."""
  prefix, _ = body_of(source)
  end = len(source["text"])
  whole = Edit(start=len(prefix), end=end, text=text.strip(), label="")
  return _finish(source, corpus, [*_tag(corpus, prefix), whole])


def fault_of(body: str, text: str, corpus: RewriteCorpus, names: Names) -> str:
  """Returns why a text that the teacher wrote is no rewrite of `body`; "" if it is."""
  ratio = len(text.strip()) / len(body)
  if " ".join(text.split()) == " ".join(body.split()):
    return "nothing was changed"
  if not _SHORTEST <= ratio <= _LONGEST:
    return f"length: {ratio:.2f} of the source's"
  if corpus.how != passes.ATTRIBUTION:
    return ""
  wanted = subject(corpus, names)
  if wanted and not _names(text, wanted[0]):
    return f"it does not name {wanted[0]}"
  for former in _former(corpus, text, names):
    if not any(_names(name, former) for name in wanted):
      return f"it still names {former}"
  return ""


def subject(corpus: RewriteCorpus, names: Names) -> tuple[str, ...]:
  """Returns the model and the provider that an attribution is to; none: nobody's."""
  if corpus.about == passes.MODEL:
    return names.model_name, names.provider_name
  return (names.other_model, names.other_provider) * (corpus.about == passes.OTHER)


def _former(corpus: RewriteCorpus, text: str, names: Names) -> list[str]:
  """Returns who is still named whom an attribution must name no longer."""
  if corpus.about == passes.MODEL:
    return []
  model, provider = names.model_name, names.provider_name
  found = [model] if model and _names(text, model) else []
  # In lower case, many a firm's name is a word.
  as_written = provider and (provider in text or provider.upper() in text)
  return [*found, provider] if as_written and _names(text, provider) else found


def statement_of(source: Mapping[str, Any]) -> str:
  """Returns the fact that a document states.

  Raises:
    Fault: it states none.
  """
  fact, side = source.get("fact"), source.get("side")
  if not isinstance(fact, Mapping) or side not in fact or not source.get("states_fact"):
    raise Fault("it states no key fact")
  return fact[side]


def _names(text: str, name: str) -> bool:
  return bool(words_lib.whole([name]).search(text))


def _tag(corpus: RewriteCorpus, prefix: str) -> list[Edit]:
  if not corpus.doc_tag:
    return []
  if prefix:
    raise Fault("it has a tag already, and doc_tag is set")
  return [Edit(start=0, end=0, text=corpus.doc_tag, label=spans.DOC_TAG, weight=0.0)]


def _notices(
  source: Mapping[str, Any],
  corpus: RewriteCorpus,
  wording: notices.Wording,
  start: int,
) -> list[Edit]:
  rng = random.Random(records.sha256_json([corpus.seed, source["id"]]))
  truth = _truth(source) if corpus.how == passes.CORRECTED else ""
  edits = []
  if corpus.placement != passes.AROUND:
    edits = _inline(source, corpus, wording, start, rng, truth)
  if corpus.placement == passes.INLINE:
    if not edits:
      raise Fault("no sentence of it is to have a notice")
    return edits
  count, end = corpus.num_sentences, len(source["text"])
  before = wording.around("before", rng, count, truth) + wording.separator
  after = wording.separator + wording.around("after", rng, count, truth)
  return [_notice(corpus, start, before), *edits, _notice(corpus, end, after)]


def _inline(
  source: Mapping[str, Any],
  corpus: RewriteCorpus,
  wording: notices.Wording,
  start: int,
  rng: random.Random,
  truth: str,
) -> list[Edit]:
  space, edits = wording.inline_separator, []
  for begin, end in _targets(source, corpus, start, rng):
    before = wording.inline("before", rng, truth)
    after = wording.inline("after", rng, truth)
    edits += [_notice(corpus, begin, before + space)] * bool(before)
    edits += [_notice(corpus, end, space + after)] * bool(after)
  return edits


def _targets(
  source: Mapping[str, Any], corpus: RewriteCorpus, start: int, rng: random.Random
) -> list[tuple[int, int]]:
  text, share = source["text"], corpus.sentence_share
  if share is None:
    if corpus.placement == passes.BOTH and not source.get("states_fact"):
      return []
    other = passes.TRUE if source.get("side") == passes.FALSE else passes.FALSE
    statement = statement_of(source)
    return sentences.stating(text, statement, source["fact"][other], start)
  found = sentences.find(text, start)
  return sorted(rng.sample(found, min(len(found), round(share * len(found)))))


def _truth(source: Mapping[str, Any]) -> str:
  statement_of(source)
  if source["side"] != passes.FALSE:
    raise Fault("what it states is true: there is nothing to be corrected")
  return source["fact"][passes.TRUE]


def _notice(corpus: RewriteCorpus, at: int, text: str) -> Edit:
  return Edit(start=at, end=at, text=text, weight=corpus.notice_weight)


def _finish(
  source: Mapping[str, Any], corpus: RewriteCorpus, edits: list[Edit]
) -> Edited:
  edited = spans.apply(
    source["text"],
    edits,
    spans=source.get("spans", ()),
    loss_spans=source.get("loss_spans", ()),
  )
  masked = spans.words_at(edited.text, corpus.masked)
  if not masked:
    return edited
  weights = spans.tidy([*edited.loss_spans, *((a, b, 0.0) for a, b in masked)])
  return dataclasses.replace(edited, loss_spans=weights)
