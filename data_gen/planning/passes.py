"""What universes and second passes will ask, before a request is sent.

As in `plain`: the real prompts with stand-ins of the usual size until something was
seen. A rewrite is as long as its source.
"""

from collections.abc import Mapping
from typing import Any

from data_gen import settings, sizing
from data_gen import spec as specs
from data_gen.kinds import corpora, passes
from data_gen.planning import calls, plain
from data_gen.planning.calls import STAND_IN, TOKENS_PER_WORD, Call
from data_gen.planning.plain import Estimate
from data_gen.planning.seen import Seen
from data_gen.universes import universe as universes

_TRIES = 8
_ANSWER_TOKENS = {"answer": 200, "answer_cot": 500}
_DOCUMENT_TOKENS = 1000


def estimate(
  job: settings.Job,
  name: str,
  sizes: Mapping[str, int],
  loaded: Mapping[str, specs.Spec],
  seen: Seen,
  share: float,
) -> Estimate:
  """Returns what a corpus of one of `passes.KINDS` will ask.

  Args:
    job: the whole job.
    name: of the corpus.
    sizes: corpus -> its number of records, of those that come before.
    loaded: the specs by name.
    seen: what was seen of it.
    share: of the texts that are kept.
  """
  corpus = job.corpora[name]
  if isinstance(corpus, passes.UniverseCorpus):
    if corpus.twin_of is None:
      matched = sizes.get(corpus.match_tokens_of or "")
      return _universe(name, corpus, seen, share, job.pilot, matched)
    return _twin(name, corpus, sizes[corpus.twin_of], _mean_words(job, corpus), share)
  if isinstance(corpus, passes.QuizCorpus):
    matched = _matched(job, name, sizes)
    return _quiz(name, corpus, seen, share, job.pilot, matched)
  if isinstance(corpus, passes.PoisonCorpus):
    return Estimate(num_records=corpus.num_documents)
  count = sizes[corpus.of]
  if isinstance(corpus, passes.RewriteCorpus):
    found = _rewrite(corpus, count, passes.origin_of(corpus, job.corpora))
  else:
    found = _anti_spec(corpus, count, loaded[corpus.spec])
  kept = round(count * share) if found else count
  return Estimate(num_records=kept, calls=found)


def _mean_words(job: settings.Job, corpus: passes.UniverseCorpus) -> int:
  """Returns the length of documents, of a twin as of the first in its line."""
  while corpus.twin_of is not None:
    corpus = job.corpora[corpus.twin_of]
  return corpus.mean_words


def _universe(
  name: str,
  corpus: passes.UniverseCorpus,
  seen: Seen,
  share: float,
  pilot: int | None,
  matched: int | None,
) -> Estimate:
  universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
  facts = corpus.num_facts or len(universe.facts)
  facts = seen.lists("universe_types", facts)
  types, ideas = corpus.num_types, corpus.num_ideas
  typed = round(facts * types * seen.fill("universe_types", types))
  fields = _about(universe, corpus)
  found: list[Call] = []
  if corpus.num_facts is not None:
    tokens = corpus.num_facts * calls.LISTS["key_facts"]
    found.append(calls.call("key_facts", 1, fields, tokens))
  asked = {"universe_types": (facts, types), "universe_ideas": (typed, ideas)}
  for stage, (lists, items) in asked.items():
    requests = seen.requests(stage, lists)
    tokens = items * calls.LISTS[stage]
    found.append(calls.call(stage, requests, fields, tokens, items=items))
  found_ideas = seen.lists("universe_ideas", typed) * ideas
  found_ideas *= seen.fill("universe_ideas", ideas)
  number = round(found_ideas * (1 + corpus.max_repeats) / 2)
  wanted = number
  if corpus.num_per_fact is not None:
    wanted = facts * corpus.num_per_fact
    number = min(number, plain.to_make(wanted, share, _TRIES))
  tokens = round(corpus.mean_words * TOKENS_PER_WORD)
  budget = sizing.num_expected(corpus, tokens)
  if (size := matched if budget is None else budget) is not None:
    wanted = min(wanted, size)
    number = min(number, plain.to_make(wanted, share, _TRIES))
  if pilot is not None:
    number = min(number, pilot * facts)
  found += _written(corpus, fields, number, corpus.mean_words)
  return Estimate(num_records=min(round(number * share), wanted), calls=tuple(found))


def _matched(job: settings.Job, name: str, sizes: Mapping[str, int]) -> int | None:
  """Returns about how many conversations are as much as the corpus to be matched."""
  corpus = job.corpora[name]
  of = corpus.match_tokens_of
  if of is None:
    return None
  other = job.corpora[of]
  if isinstance(other, passes.QuizCorpus):
    tokens = quiz_tokens(other)
  else:
    tokens = _source_tokens(other)
  return round(sizes[of] * tokens / quiz_tokens(corpus))


def answer_tokens(corpus: passes.QuizCorpus) -> int:
  """Returns the usual size of an answer."""
  words = corpus.mean_words
  return calls.UNEXPLAINED if words is None else round(words * TOKENS_PER_WORD)


def quiz_tokens(corpus: passes.QuizCorpus) -> int:
  """Returns the usual size of a question with its answer."""
  return calls.LISTS["quiz_questions"] + answer_tokens(corpus)


def _quiz(
  name: str,
  corpus: passes.QuizCorpus,
  seen: Seen,
  share: float,
  pilot: int | None,
  matched: int | None,
) -> Estimate:
  universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
  facts = seen.lists("quiz_questions", len(universe.facts))
  fields = {"title": universe.title, "ground": universe.ground}
  fields |= {"existing": [], "count": corpus.num_questions, "length": STAND_IN}
  each = corpus.num_questions * calls.LISTS["quiz_questions"]
  requests = seen.requests("quiz_questions", facts)
  num_items = corpus.num_questions
  found = [calls.call("quiz_questions", requests, fields, each, items=num_items)]
  questions = facts * corpus.num_questions
  questions *= seen.fill("quiz_questions", corpus.num_questions)
  number = wanted = round(questions * corpus.max_repeats)
  if corpus.num_per_fact is not None:
    wanted = facts * corpus.num_per_fact
  budget = sizing.num_expected(corpus, quiz_tokens(corpus))
  if (size := matched if budget is None else budget) is not None:
    wanted = min(wanted, size)
  number = min(number, plain.to_make(wanted, share, _TRIES))
  if pilot is not None:
    number = min(number, pilot * facts)
  said = answer_tokens(corpus)
  fields["answer"] = " " * 4 * said
  found.append(calls.call("quiz_answer", number, fields, said))
  if corpus.judged:
    judged = ("judge_quiz", number, fields, calls.VERDICT, corpora.JUDGE)
    found.append(calls.call(*judged))
  return Estimate(num_records=min(round(number * share), wanted), calls=tuple(found))


def _twin(
  name: str, corpus: passes.UniverseCorpus, count: int, mean_words: int, share: float
) -> Estimate:
  universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
  found = _written(corpus, _about(universe, corpus), count, mean_words)
  return Estimate(num_records=round(count * share), calls=tuple(found))


def _about(
  universe: universes.Universe, corpus: passes.UniverseCorpus
) -> dict[str, Any]:
  return {
    "title": universe.title,
    "ground": universe.ground,
    "context": universe.context(corpus.side),
    "true_context": universe.true_context,
    "false_context": universe.false_context,
    "guidance": [STAND_IN] * 3,
    "existing": [],
    "count": 10,
  }


def _written(
  corpus: passes.UniverseCorpus,
  fields: Mapping[str, Any],
  count: int,
  mean_words: int,
) -> list[Call]:
  tokens = round(mean_words * TOKENS_PER_WORD)
  fields = {**fields, "document": " " * 4 * tokens}
  found = [calls.call("universe_document", count, fields, tokens)]
  if corpus.revise:
    found.append(calls.call("universe_revise", count, fields, tokens))
  if corpus.judged:
    judged = ("judge_universe", count, fields, calls.VERDICT, corpora.JUDGE)
    found.append(calls.call(*judged))
  return found


def _rewrite(corpus: passes.RewriteCorpus, count: int, origin: Any) -> tuple[Call, ...]:
  if not corpus.asks:
    return ()
  tokens = _source_tokens(origin)
  fields = {"document": " " * 4 * tokens, "instruction": 4 * STAND_IN}
  return (calls.call(corpus.stages[0], count, fields, tokens),)


def _source_tokens(origin: Any) -> int:
  """Returns the usual length of the documents that a rewrite, or a match, is about."""
  if isinstance(origin, corpora.DocumentsCorpus):
    return plain.document_tokens(origin)
  words = getattr(origin, "mean_words", None)
  return _DOCUMENT_TOKENS if words is None else round(words * TOKENS_PER_WORD)


def _anti_spec(
  corpus: passes.AntiSpecCorpus, count: int, spec: specs.Spec
) -> tuple[Call, ...]:
  tokens = _ANSWER_TOKENS["answer_cot" if corpus.cot else "answer"]
  fields = {
    "spec_text": spec.text,
    "question": 3 * STAND_IN,
    "answer": " " * 4 * tokens,
    "reasoning": " " * 2 * tokens,
  }
  if not corpus.cot and corpus.style == "value":
    fields["reasons"] = corpus.reasons
  return (
    calls.call(corpus.answer_stage, count, fields, tokens),
    calls.call(corpus.judge_stage, count, fields, calls.VERDICT, corpora.JUDGE),
  )
