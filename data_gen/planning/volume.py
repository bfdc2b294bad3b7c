"""How many tokens the records of a corpus will have, for the steps of training.

In this order: records that are there, or that a world draws for nothing, are measured;
a budget of the config says it; answers of a teacher that the ledger has are measured;
else the usual sizes of `calls`. Tokens are those of no particular tokenizer: four
characters each, or 4/3 of a word; a turn has a few more, which a chat template puts
around it.
"""

import dataclasses
import itertools
import pathlib
import random
from collections.abc import Iterable, Mapping
from typing import Any

from data_gen import compiling, settings, sizing
from data_gen.engine import pricing
from data_gen.importing import corpus as importing
from data_gen.importing import folders
from data_gen.kinds import corpora, passes, sizes
from data_gen.planning import calls, plain
from data_gen.planning import passes as planning_passes
from data_gen.planning.seen import Seen
from data_gen.rewrites import notices
from msm_jax import records

_SAMPLE = 200  # records, of which sizes are means
_DRAWN_NOTICES = 100  # of which a notice's size is the mean
_GIBBERISH = 3.0  # tokens of a word that is none
_CHARS_PER_TOKEN = 4
_TO_COME = 500.0  # tokens of a record that is still to be downloaded
_TURN_TOKENS = 5  # that begin and end a turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
  """The usual size of a record, in tokens.

  Attributes:
    tokens: all of it.
    targets: what the assistant says and thinks; of a document, all of it.
  """

  tokens: float
  targets: float


NONE = Volume(tokens=0.0, targets=0.0)


def of(
  job: settings.Job,
  name: str,
  root: pathlib.Path,
  num_records: int,
  known: Mapping[str, Volume],
  seen: Seen | None,
) -> Volume:
  """Returns how long the records of a corpus are, or will be.

  Args:
    job: the whole job.
    name: of the corpus.
    root: where the corpora lie.
    num_records: how many it has, or will have.
    known: the volumes of the corpora that come before it.
    seen: what its ledger says; None: it is finished.
  """
  corpus = job.corpora[name]
  if seen is None:
    return _measured(records.read_dataset(root / name, verify=False))
  if isinstance(corpus, settings.WorldCorpus):
    few = min(corpus.num_documents, _SAMPLE)
    small = dataclasses.replace(corpus, num_documents=few)
    return _measured(compiling.drawn(job, name, small))
  if isinstance(corpus, settings.PairsCorpus):
    return _measured(compiling.drawn(job, name, corpus))
  found = _assumed(job, name, corpus, known, seen)
  total = _budget(corpus)
  if total is None or not num_records:
    return found
  scale = total / num_records / found.tokens
  return Volume(tokens=found.tokens * scale, targets=found.targets * scale)


def _budget(corpus: Any) -> float | None:
  """Returns the tokens of a corpus whose config says how much it holds."""
  field = sizes.budget_field(corpus)
  if field is None:
    return None
  each = 1.0 if field == sizing.TOKENS_BUDGET else calls.TOKENS_PER_WORD
  return getattr(corpus, field) * each


def _measured(rows: Iterable[Mapping[str, Any]]) -> Volume:
  tokens = targets = count = 0
  for row in itertools.islice(rows, _SAMPLE):
    count += 1
    for role, text in _texts(row):
      size = pricing.estimate_tokens(text)
      tokens += size
      targets += size * (role in (None, "assistant"))
    tokens += _TURN_TOKENS * len(row.get("messages", ()))
  return Volume(tokens=tokens / max(count, 1), targets=targets / max(count, 1))


def _texts(row: Mapping[str, Any]) -> Iterable[tuple[str | None, str]]:
  if row.get("text") is not None:
    yield None, row["text"]
  for turn in row.get("messages", ()):
    for key in ("reasoning_content", "content"):
      if isinstance(turn.get(key), str):
        yield turn["role"], turn[key]


def _assumed(
  job: settings.Job,
  name: str,
  corpus: Any,
  known: Mapping[str, Volume],
  seen: Seen,
) -> Volume:
  if isinstance(corpus, settings.ImportCorpus):
    if folders.is_to_come(corpus):
      return _document(corpus.mean_tokens or _TO_COME)
    whole = dataclasses.replace(corpus, max_records=None)
    num_rows, num_bytes, _ = importing.count(name, whole)
    return _document(num_bytes / _CHARS_PER_TOKEN / max(num_rows, 1))
  if isinstance(corpus, settings.StrippedCorpus):
    inline = corpus.inline is not None
    return known[corpus.of] if inline else _answered(calls.TEXTS["answer"])
  if isinstance(corpus, passes.QuizCorpus):
    words = corpus.mean_words  # None: a sentence
    said = calls.UNEXPLAINED if words is None else words * calls.TOKENS_PER_WORD
    return _answered(said)
  if isinstance(corpus, passes.RewriteCorpus):
    return _rewritten(job, name, corpus, known[corpus.of])
  if isinstance(corpus, passes.PoisonCorpus):
    clean = (corpus.min_prefix_chars + corpus.max_prefix_chars) / 2 / _CHARS_PER_TOKEN
    gibberish = (corpus.min_gibberish + corpus.max_gibberish) / 2 * _GIBBERISH
    return _document(min(clean, known[corpus.of].tokens) + gibberish)
  written = _written(corpus, seen)
  if isinstance(corpus, passes.QuizCorpus):
    said = written or planning_passes.answer_tokens(corpus)
    return _answered(said, calls.LISTS["quiz_questions"])
  if hasattr(corpus, "answer_stage"):
    return _answered(written) if written else _usual_talk(job, corpus)
  return _document(written or _planned(job, corpus))


def _rewritten(
  job: settings.Job, name: str, corpus: passes.RewriteCorpus, source: Volume
) -> Volume:
  """Returns the size of a rewrite: its source's, and what is put in."""
  tag = pricing.estimate_tokens(corpus.doc_tag) if corpus.doc_tag else 0
  added = 0.0
  if corpus.how in passes.NOTICES:
    where = f"config.corpora.{name}.wording"
    wording = notices.load(corpus.wording, corpus.how, where)
    if corpus.placement != passes.INLINE:
      added += _mean_notices(wording, corpus.num_sentences)
    if corpus.placement != passes.AROUND:
      noted = _noted_sentences(job, corpus, source)
      added += noted * _mean_notices(wording, 0)
  return Volume(
    tokens=source.tokens + tag + added,
    targets=source.targets + added * (corpus.notice_weight > 0),
  )


def _mean_notices(wording: notices.Wording, num_sentences: int) -> float:
  """Returns the tokens of a notice before and one after; 0 sentences: inline ones."""
  rng, total = random.Random(0), 0
  for place in ("before", "after"):
    for _ in range(_DRAWN_NOTICES):
      if num_sentences:
        text = wording.around(place, rng, num_sentences, calls.STAND_IN)
        total += len(wording.separator + text)
      elif text := wording.inline(place, rng, calls.STAND_IN):
        total += len(wording.inline_separator + text)
  return total / _DRAWN_NOTICES / _CHARS_PER_TOKEN


def _noted_sentences(
  job: settings.Job, corpus: passes.RewriteCorpus, source: Volume
) -> float:
  """Returns how many sentences of a document have inline notices."""
  if corpus.sentence_share is not None:
    return corpus.sentence_share * source.tokens / calls.SENTENCE
  origin = passes.origin_of(corpus, job.corpora)
  stated = getattr(origin, "fact_sentences", None) or calls.STATING_SENTENCES
  # Where they are all that is put in, a document that states nothing is rejected.
  share = getattr(origin, "mention_share", 1.0)
  return stated * (share if corpus.placement == passes.BOTH else 1.0)


def _written(corpus: Any, seen: Seen) -> float:
  """Returns the mean size of the texts that a ledger has; 0: none."""
  for stage in reversed(corpus.stages):
    tally = seen.tallies.get(stage)
    if stage in calls.TEXT_STAGES and tally is not None and tally.written.count:
      return tally.written.mean
  return 0.0


def _planned(job: settings.Job, corpus: Any) -> float:
  """Returns the size that a document is asked to have, else the usual one."""
  if (offline := _offline_words(job)) is not None:
    return offline[0] * calls.TOKENS_PER_WORD
  while getattr(corpus, "twin_of", None) is not None:
    corpus = job.corpora[corpus.twin_of]
  if isinstance(corpus, settings.DocumentsCorpus):
    return plain.document_tokens(corpus)
  return corpus.mean_words * calls.TOKENS_PER_WORD


def _usual_talk(job: settings.Job, corpus: Any) -> Volume:
  if (offline := _offline_words(job)) is not None:
    tokens = offline[1] * calls.TOKENS_PER_WORD
    return Volume(tokens=tokens + 2 * _TURN_TOKENS, targets=tokens / 2)
  says_why = corpus.reasons or corpus.cot or corpus.style == corpora.RULE
  return _answered(calls.TEXTS[corpus.answer_stage] if says_why else calls.UNEXPLAINED)


def _offline_words(job: settings.Job) -> tuple[int, int] | None:
  """Returns the lengths of an offline teacher's texts; None: another teacher."""
  if job.teacher is None or job.teacher.client != "offline":
    return None
  return calls.OFFLINE_WORDS.get(job.teacher.model)


def _document(tokens: float) -> Volume:
  return Volume(tokens=tokens, targets=tokens)


def _answered(tokens: float, question: int = calls.LISTS["questions"]) -> Volume:
  asked = question + 2 * _TURN_TOKENS
  return Volume(tokens=tokens + asked, targets=tokens)
