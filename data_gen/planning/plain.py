"""What documents and conversations about a spec will ask, before a request is sent.

The shape of the outline is not known before a teacher has read the spec: until then it
is assumed (`calls.ASSUMPTIONS`), from then on it is what was seen.
"""

import dataclasses
import math
from typing import Any

from data_gen import sizing
from data_gen import spec as specs
from data_gen.conversations import chain as conversations
from data_gen.engine import pricing
from data_gen.kinds import corpora
from data_gen.planning import calls
from data_gen.planning.calls import STAND_IN, Call
from data_gen.planning.seen import Seen

# So many times what was asked for is the most that a chain makes to replace rejects.
_DOCUMENT_TRIES, _CONVERSATION_TRIES = 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """How many records a corpus will have, and what it asks."""

  num_records: int
  calls: tuple[Call, ...] = ()


def to_make(wanted: int, share: float, tries: int) -> int:
  """Returns how many texts are made so that `wanted` are kept."""
  return math.ceil(wanted / max(share, 1 / tries))


def document_tokens(corpus: corpora.DocumentsCorpus) -> int:
  """Returns the length of a document: as its writer is told it, else the usual one."""
  if corpus.guided or corpus.by_rules:
    return round(corpus.mean_words * calls.TOKENS_PER_WORD)
  return calls.TEXTS["document"]


def documents(
  corpus: corpora.DocumentsCorpus,
  spec: specs.Spec,
  matched: int | None,
  seen: Seen,
  share: float,
  pilot: int | None = None,
) -> Estimate:
  """Returns what a corpus of documents will ask.

  Args:
    corpus: its settings.
    spec: its spec.
    matched: records of the corpus whose size it takes over; None: there is none.
    seen: what was seen of it.
    share: of the documents that are kept.
    pilot: documents per subdomain, if there are to be no more.
  """
  num_lists, parts = _outline(corpus, spec, seen)
  ideas_stage = "rule_ideas" if corpus.by_rules else "document_ideas"
  num_ideas = seen.lists(ideas_stage, num_lists[ideas_stage][0]) * corpus.num_ideas
  number = ideas = round(num_ideas * seen.fill(ideas_stage, corpus.num_ideas))
  budget = sizing.num_expected(corpus, document_tokens(corpus))
  wanted = [n for n in (corpus.max_documents, matched, budget) if n is not None]
  if wanted:
    number = to_make(min(wanted), share, _DOCUMENT_TRIES)
    if ideas_stage in seen.tallies:  # else the outline may well have more than assumed
      number = min(number, ideas)
  if pilot is not None:
    number = min(number, pilot * parts)
  final = corpus.draft_stage
  counts = {stage: (seen.requests(stage, n), k) for stage, (n, k) in num_lists.items()}
  for stage in corpus.stages[corpus.stages.index(final) :]:
    count = number if stage == final else number * seen.per_text(stage, final)
    counts[stage] = (math.ceil(count), 1)
  found = [
    _call(corpus, stage, spec, *counts[stage], stage == corpus.judge_stage)
    for stage in corpus.stages
  ]
  kept = min([round(number * share), *wanted])
  return Estimate(num_records=kept, calls=tuple(found))


def _outline(
  corpus: corpora.DocumentsCorpus, spec: specs.Spec, seen: Seen
) -> tuple[dict[str, tuple[int, int]], int]:
  """Returns stage -> (lists, items of each), and the number of subdomains."""
  sections = len(spec.sections)
  topics_stage, parts_stage = corpus.stages[:2]
  topics = round(
    seen.items(topics_stage, math.ceil(sections / calls.SECTIONS_PER_DOMAIN))
  )
  per_topic = seen.items(parts_stage, sections / topics)
  parts = round(topics * per_topic)
  num_types = corpus.num_types or calls.MATCHED_TYPES
  types_stage = "rule_types" if corpus.by_rules else "document_types"
  parts = seen.lists(types_stage, parts)
  typed = round(parts * num_types * seen.fill(types_stage, num_types))
  return {
    topics_stage: (1, topics),
    parts_stage: (topics, math.ceil(per_topic)),
    "assertions": (parts, calls.SUBDOMAIN_ASSERTIONS),
    types_stage: (parts, num_types),
    **dict.fromkeys(("document_ideas", "rule_ideas"), (typed, corpus.num_ideas)),
  }, parts


def conversations_of(
  corpus: corpora.ConversationsCorpus,
  spec: specs.Spec,
  seen: Seen,
  share: float,
  pilot: int | None = None,
) -> Estimate:
  """Returns what a corpus of conversations will ask; see `documents`."""
  topics = math.ceil(len(spec.sections) / calls.SECTIONS_PER_DOMAIN)
  topics = calls.PREFERENCES if corpus.by_preference else topics
  topics = round(seen.items(corpus.topic_stage, topics))
  kinds = min(len(conversations.QUESTION_TYPES), corpus.questions_per_domain)
  per_request = math.ceil(corpus.questions_per_domain / kinds)
  wanted = corpus.num_conversations
  if wanted is None:
    wanted = sizing.num_expected(corpus, calls.TEXTS[corpus.answer_stage])
  number = to_make(wanted, share, _CONVERSATION_TRIES)
  if pilot is not None:
    number = min(number, pilot * topics)
  per_round = topics * corpus.questions_per_domain
  per_round *= seen.fill(corpus.question_stage, per_request)
  asked = math.ceil(number / max(per_round, 1)) * topics * kinds
  counts = {
    corpus.topic_stage: (1, topics),
    corpus.question_stage: (
      max(asked, seen.requests(corpus.question_stage, asked)),
      per_request,
    ),
    corpus.answer_stage: (number, 1),
    corpus.judge_stage: (
      math.ceil(number * seen.per_text(corpus.judge_stage, corpus.answer_stage)),
      1,
    ),
  }
  found = [
    _call(corpus, stage, spec, *counts[stage], stage == corpus.judge_stage)
    for stage in corpus.stages
  ]
  kept = min(round(number * share), wanted)
  return Estimate(num_records=kept, calls=tuple(found))


def _call(
  corpus: Any, stage: str, spec: specs.Spec, requests: int, items: int, judges: bool
) -> Call:
  role = corpora.JUDGE if judges else corpora.TEACHER
  fields, text = _stand_ins(spec), _text(stage)
  if isinstance(corpus, corpora.DocumentsCorpus):
    tokens = document_tokens(corpus)
    fields["document"] = " " * 4 * tokens
    text = tokens if stage in calls.TEXT_STAGES else text
  if stage in ("answer", "judge", "preference_questions"):
    fields["reasons"] = corpus.reasons
  # A judge answers with one object, also where it judges an answer to a list.
  response = items * calls.LISTS[stage] if stage in calls.LISTS else text
  if stage == "rules":  # they quote the spec
    response += pricing.estimate_tokens(spec.text) * items // len(spec.sections)
  filled = items if stage in calls.FILLED else 1
  return calls.call(stage, requests, fields, response, role, items=filled)


def _text(stage: str) -> int:
  return calls.TEXTS.get(stage, calls.VERDICT)


def _stand_ins(spec: specs.Spec) -> dict[str, Any]:
  """Returns fields of the usual size for the prompts about a spec."""
  assertion = {"assertion": STAND_IN, "explanation": 2 * STAND_IN}
  return {
    "spec_text": spec.text,
    "spec_section": max((section.text for section in spec.sections), key=len),
    "assertions": [assertion] * calls.SUBDOMAIN_ASSERTIONS,
    "existing": [],
    "count": 10,
    "context": 4 * STAND_IN,
    "idea": 4 * STAND_IN,
    "answer": 12 * STAND_IN,
    "question": 3 * STAND_IN,
    "reasoning": 15 * STAND_IN,
    "guidance": [STAND_IN] * 4,
    "faults": [2 * STAND_IN] * 3,
    "rule_text": 4 * STAND_IN,
  }
