"""What universes and second passes will ask, before a request is sent.

As in `estimates`: the real prompts with stand-ins of the usual size, four characters
per token, no retries or replacements. A rewrite is as long as its source.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_gen import prompts, settings, sizing
from data_gen import spec as specs
from data_gen.engine import pricing
from data_gen.kinds import passes
from data_gen.universes import universe as universes

_STAND_IN = "about sixty characters, as much as a name or a short text has"
_TOKENS_PER_WORD = 4 / 3
# Usual size of an answer in tokens, per item of a list.
_ITEM_TOKENS = {"key_facts": 90, "universe_types": 40, "universe_ideas": 80}
_ANSWER_TOKENS = {"answer": 200, "answer_cot": 500}
_VERDICT_TOKENS = 60
_DOCUMENT_TOKENS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
  """The requests of one stage; tokens are per request."""

  stage: str
  role: str
  requests: int
  prompt_tokens: int
  response_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """How many records a corpus will have, and what it asks."""

  num_records: int
  calls: tuple[Call, ...] = ()


def estimate(
  job: settings.Job, name: str, sizes: Mapping[str, int], loaded: Mapping[str, Any]
) -> Estimate:
  """Returns what a corpus of one of `passes.KINDS` will ask.

  Args:
    job: the whole job.
    name: of the corpus.
    sizes: corpus -> its number of records, of those that come before.
    loaded: the specs by name.
  """
  corpus = job.corpora[name]
  if isinstance(corpus, passes.UniverseCorpus):
    twin = None if corpus.twin_of is None else sizes[corpus.twin_of]
    matched = sizes.get(corpus.match_tokens_of or "")
    return _universe(name, corpus, twin, _mean_words(job, corpus), matched)
  if isinstance(corpus, passes.PoisonCorpus):
    return Estimate(num_records=corpus.num_documents)
  if isinstance(corpus, passes.RewriteCorpus):
    origin = passes.origin_of(corpus, job.corpora)
    return _rewrite(corpus, sizes[corpus.of], origin)
  return _anti_spec(corpus, sizes[corpus.of], loaded[corpus.spec])


def _mean_words(job: settings.Job, corpus: passes.UniverseCorpus) -> int:
  """Returns the length of documents, of a twin as of the first in its line."""
  while corpus.twin_of is not None:
    corpus = job.corpora[corpus.twin_of]
  return corpus.mean_words


def _universe(
  name: str,
  corpus: passes.UniverseCorpus,
  twin: int | None,
  mean_words: int,
  matched: int | None,
) -> Estimate:
  universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
  facts = corpus.num_facts or len(universe.facts)
  tokens = round(mean_words * _TOKENS_PER_WORD)
  found: list[Call] = []
  fields = {
    "title": universe.title,
    "ground": universe.ground,
    "context": universe.context(corpus.side),
    "true_context": universe.true_context,
    "false_context": universe.false_context,
    "guidance": [_STAND_IN] * 3,
    "existing": [],
    "count": 10,
  }
  if corpus.num_facts is not None:
    found.append(_call("key_facts", 1, fields, facts * _ITEM_TOKENS["key_facts"]))
  if twin is None:
    types, ideas = corpus.num_types, corpus.num_ideas
    asked = {"universe_types": (facts, types), "universe_ideas": (facts * types, ideas)}
    for stage, (requests, items) in asked.items():
      found.append(_call(stage, requests, fields, items * _ITEM_TOKENS[stage]))
    count = round(facts * types * ideas * (1 + corpus.max_repeats) / 2)
    count = min(count, facts * (corpus.num_per_fact or count))
    budget = sizing.num_expected(corpus, tokens)
    count = min(n for n in (count, matched, budget) if n is not None)
  else:
    count = twin
  fields["document"] = " " * 4 * tokens
  found.append(_call("universe_document", count, fields, tokens))
  if corpus.revise:
    found.append(_call("universe_revise", count, fields, tokens))
  if corpus.judged:
    judged = _call("judge_universe", count, fields, _VERDICT_TOKENS)
    found.append(dataclasses.replace(judged, role=passes.JUDGE))
  return Estimate(num_records=count, calls=tuple(found))


def _rewrite(corpus: passes.RewriteCorpus, count: int, origin: Any) -> Estimate:
  if not corpus.asks:
    return Estimate(num_records=count)
  words = getattr(origin, "mean_words", None)
  # A plain document's length is not set: `mean_words` counts for guided ones alone.
  known = words is not None and getattr(origin, "guided", True)
  tokens = round(words * _TOKENS_PER_WORD) if known else _DOCUMENT_TOKENS
  fields = {"document": " " * 4 * tokens, "instruction": 4 * _STAND_IN}
  call = _call(corpus.stages[0], count, fields, tokens)
  return Estimate(num_records=count, calls=(call,))


def _anti_spec(corpus: passes.AntiSpecCorpus, count: int, spec: specs.Spec) -> Estimate:
  tokens = _ANSWER_TOKENS["answer_cot" if corpus.cot else "answer"]
  fields = {
    "spec_text": spec.text,
    "question": 3 * _STAND_IN,
    "answer": " " * 4 * tokens,
    "reasoning": " " * 2 * tokens,
  }
  plain = not corpus.cot and corpus.style == "value"
  chosen = {"reasons": corpus.reasons} if plain else {}
  answers = _call(corpus.answer_stage, count, fields | chosen, tokens)
  verdicts = _call(corpus.judge_stage, count, fields | chosen, _VERDICT_TOKENS)
  verdicts = dataclasses.replace(verdicts, role=passes.JUDGE)
  return Estimate(num_records=count, calls=(answers, verdicts))


def _call(
  stage: str, requests: int, fields: Mapping[str, Any], response_tokens: int
) -> Call:
  reasons = fields.get("reasons")
  wanted = prompts.fields_of(stage, reasons)
  given = {name: fields.get(name, _STAND_IN) for name in wanted}
  chosen = {} if reasons is None else {"reasons": reasons}
  system, prompt = prompts.render(stage, given | chosen)
  return Call(
    stage=stage,
    role=passes.TEACHER,
    requests=requests,
    prompt_tokens=pricing.estimate_tokens(system + prompt),
    response_tokens=response_tokens,
  )
