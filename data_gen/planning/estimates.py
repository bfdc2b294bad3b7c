"""What the corpora of a job will cost, before a request is sent.

The shape of the outline is not known before a teacher has read the spec. The estimate
takes one subdomain per section and one domain per two sections, renders the real
prompts with stand-ins of the usual size, and counts four characters per token. Retries,
rejected texts and their replacements are not in it.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from data_gen import generate, prompts, settings, sizing
from data_gen import spec as specs
from data_gen.clients import protocol
from data_gen.conversations import chain as conversations
from data_gen.engine import pricing
from data_gen.importing import corpus as importing
from data_gen.kinds import passes
from data_gen.planning import passes as planning_passes

# Usual size of an answer in tokens: per item for lists, else of the whole text.
_RESPONSE_TOKENS = {
  "domains": 40,
  "subdomains": 120,
  "assertions": 70,
  "document_types": 40,
  "document_ideas": 80,
  "document": 1000,
  "draft": 1300,
  "rule_domains": 60,
  "rules": 100,
  "rule_types": 40,
  "rule_ideas": 80,
  "rule_document": 1300,
  "critique": 150,
  "rule_critique": 150,
  "revise": 1300,
  "judge_document": 60,
  "judge_rule_document": 60,
  "preferences": 40,
  "questions": 50,
  "preference_questions": 50,
  "answer": 200,
  "answer_rule": 250,
  "answer_cot": 500,
  "answer_rule_cot": 500,
  "judge": 60,
  "judge_rule": 60,
  "judge_cot": 60,
  "judge_rule_cot": 60,
}
_SUBDOMAIN_ASSERTIONS = 6
_PREFERENCES = 12
_MATCHED_TYPES = 20
_STAND_IN = "about sixty characters, as much as a name or a short text has"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCost:
  """Estimate of one stage; `dollars` is None where the model has no known price."""

  stage: str
  requests: int
  prompt_tokens: int
  response_tokens: int
  dollars: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusCost:
  """Estimate of one corpus; one that is `done` costs nothing more."""

  name: str
  kind: str
  done: bool
  num_records: int
  stages: tuple[StageCost, ...]
  note: str = ""

  @property
  def requests(self) -> int:
    """Requests of all stages."""
    return sum(stage.requests for stage in self.stages)

  @property
  def prompt_tokens(self) -> int:
    """Prompt tokens of all stages."""
    return sum(stage.prompt_tokens for stage in self.stages)

  @property
  def response_tokens(self) -> int:
    """Response tokens of all stages."""
    return sum(stage.response_tokens for stage in self.stages)

  @property
  def dollars(self) -> float | None:
    """Dollars of all stages; None if one of them has no price."""
    prices = [stage.dollars for stage in self.stages]
    return None if None in prices else sum(prices)


def plan(job: settings.Job, workdir: str | os.PathLike[str]) -> dict[str, CorpusCost]:
  """Returns what each corpus will cost; sends nothing and writes nothing.

  Raises:
    UserError: settings that cannot work, or a corpus made with other ones.
  """
  root = pathlib.Path(workdir) / "corpus"
  resolved = generate.resolve(job)
  loaded = specs.load_all(job)
  costs: dict[str, CorpusCost] = {}
  for name in settings.order(job.corpora):
    done = generate.finished(root, name, resolved[name])
    if done is not None:
      costs[name] = _cost(job, name, done["num_records"], (), done=True)
    else:
      costs[name] = _estimate(job, name, loaded, costs)
  return {name: costs[name] for name in job.corpora}


def lines(job: settings.Job, workdir: str | os.PathLike[str]) -> Iterator[str]:
  """Yields the plan of generation as lines of text for people."""
  costs = plan(job, workdir)
  head = ("records", "requests", "tokens in", "tokens out")
  yield f"{'corpus':<16}{head[0]:>10}{head[1]:>10}{head[2]:>12}{head[3]:>12}  price"
  for cost in costs.values():
    price = "done" if cost.done else _dollars(cost.dollars)
    price += f" ({cost.note})" if cost.note else ""
    yield (
      f"{cost.name:<16}{cost.num_records:>10}{cost.requests:>10}"
      f"{cost.prompt_tokens:>12}{cost.response_tokens:>12}  {price}"
    )
  known = [cost.dollars for cost in costs.values() if cost.dollars is not None]
  unknown = len(costs) - len(known)
  more = f" and {unknown} corpora of a model without a known price" if unknown else ""
  yield f"generation: {_dollars(sum(known))}{more} (prices of {pricing.PRICES_AS_OF})"


def _dollars(amount: float | None) -> str:
  return "price unknown" if amount is None else f"${amount:.2f}"


def _cost(
  job: settings.Job,
  name: str,
  num_records: int,
  stages: tuple[StageCost, ...],
  done: bool = False,
) -> CorpusCost:
  kind = job.corpora[name].kind
  return CorpusCost(
    name=name, kind=kind, done=done, num_records=num_records, stages=stages
  )


def _estimate(
  job: settings.Job,
  name: str,
  loaded: dict[str, specs.Spec],
  costs: dict[str, CorpusCost],
) -> CorpusCost:
  corpus = job.corpora[name]
  if isinstance(corpus, settings.ImportCorpus):
    num_rows, num_bytes, num_files = importing.count(name, corpus)
    cost = _cost(job, name, num_rows, ())
    note = f"{num_bytes / 1e6:.1f} MB in {num_files} files"
    return dataclasses.replace(cost, note=note)
  if isinstance(corpus, settings.PairsCorpus):
    return _cost(job, name, 0, ())
  if isinstance(corpus, settings.WorldCorpus):
    return _cost(job, name, corpus.num_documents, ())
  if isinstance(corpus, settings.StrippedCorpus):
    return _cost(job, name, costs[corpus.of].num_records, ())
  if isinstance(corpus, passes.KINDS):
    sizes = {other: cost.num_records for other, cost in costs.items()}
    found = planning_passes.estimate(job, name, sizes, loaded)
    stages = tuple(_priced(getattr(job, call.role), call) for call in found.calls)
    return _cost(job, name, found.num_records, stages)
  spec = loaded[corpus.spec]
  if isinstance(corpus, settings.DocumentsCorpus):
    matched = costs.get(corpus.match_tokens_of or "")
    calls = _document_calls(corpus, spec, matched and matched.num_records)
  else:
    calls = _conversation_calls(corpus, spec)
  judges = (corpus.judge_stage,)
  stages = tuple(
    _stage_cost(job.judge if stage in judges else job.teacher, stage, spec, *counts)
    for stage, counts in calls.items()
  )
  is_documents = isinstance(corpus, settings.DocumentsCorpus)
  final = corpus.draft_stage if is_documents else corpus.answer_stage
  return _cost(job, name, calls[final][0], stages)


def _priced(client: settings.ClientSettings, call: planning_passes.Call) -> StageCost:
  response = call.requests * min(call.response_tokens, client.max_output_tokens)
  price = pricing.price_of(client)
  usage = protocol.Usage(
    prompt_tokens=call.requests * call.prompt_tokens, response_tokens=response
  )
  return StageCost(
    stage=call.stage,
    requests=call.requests,
    prompt_tokens=usage.prompt_tokens,
    response_tokens=response,
    dollars=None if price is None else price.dollars(usage),
  )


def _document_calls(
  corpus: settings.DocumentsCorpus, spec: specs.Spec, matched: int | None
) -> dict[str, tuple[int, int]]:
  """Returns stage -> (requests, items per answer)."""
  sections = len(spec.sections)
  topics = math.ceil(sections / 2)
  num_types = corpus.num_types or _MATCHED_TYPES
  ideas = sections * num_types * corpus.num_ideas
  budget = sizing.num_expected(corpus, _RESPONSE_TOKENS[corpus.draft_stage])
  limits = [n for n in (ideas, corpus.max_documents, matched, budget) if n is not None]
  number = min(limits)
  parts = (topics, math.ceil(sections / topics))
  counts = {
    "assertions": (sections, _SUBDOMAIN_ASSERTIONS),
    **dict.fromkeys(("domains", "rule_domains"), (1, topics)),
    **dict.fromkeys(("subdomains", "rules"), parts),
    **dict.fromkeys(("document_types", "rule_types"), (sections, num_types)),
    **dict.fromkeys(
      ("document_ideas", "rule_ideas"), (sections * num_types, corpus.num_ideas)
    ),
  }
  return {stage: counts.get(stage, (number, 1)) for stage in corpus.stages}


def _conversation_calls(
  corpus: settings.ConversationsCorpus, spec: specs.Spec
) -> dict[str, tuple[int, int]]:
  """Returns stage -> (requests, items per answer)."""
  topics = math.ceil(len(spec.sections) / 2)
  if corpus.by_preference:
    topics = _PREFERENCES
  kinds = min(len(conversations.QUESTION_TYPES), corpus.questions_per_domain)
  per_request = math.ceil(corpus.questions_per_domain / kinds)
  number = corpus.num_conversations
  number = number or sizing.num_expected(corpus, _RESPONSE_TOKENS[corpus.answer_stage])
  rounds = math.ceil(number / (topics * corpus.questions_per_domain))
  return {
    corpus.topic_stage: (1, topics),
    corpus.question_stage: (rounds * topics * kinds, per_request),
    corpus.answer_stage: (number, 1),
    corpus.judge_stage: (number, 1),
  }


def _stage_cost(
  client: settings.ClientSettings,
  stage: str,
  spec: specs.Spec,
  requests: int,
  items: int,
) -> StageCost:
  system, prompt = prompts.render(stage, _stand_ins(stage, spec))
  prompt_tokens = requests * pricing.estimate_tokens(system + prompt)
  response = items * _RESPONSE_TOKENS[stage]
  if stage in ("subdomains", "rules"):
    response += pricing.estimate_tokens(spec.text) * items // len(spec.sections)
  response_tokens = requests * min(response, client.max_output_tokens)
  price = pricing.price_of(client)
  usage = protocol.Usage(prompt_tokens=prompt_tokens, response_tokens=response_tokens)
  return StageCost(
    stage=stage,
    requests=requests,
    prompt_tokens=prompt_tokens,
    response_tokens=response_tokens,
    dollars=None if price is None else price.dollars(usage),
  )


def _stand_ins(stage: str, spec: specs.Spec) -> dict[str, Any]:
  """Returns fields of the usual size for one prompt of a stage."""
  special: dict[str, Any] = {
    "spec_text": spec.text,
    "spec_section": max((section.text for section in spec.sections), key=len),
    "assertions": [{"assertion": _STAND_IN, "explanation": 2 * _STAND_IN}]
    * _SUBDOMAIN_ASSERTIONS,
    "existing": [],
    "count": 10,
    "context": 4 * _STAND_IN,
    "idea": 4 * _STAND_IN,
    "answer": 12 * _STAND_IN,
    "question": 3 * _STAND_IN,
    "document": 90 * _STAND_IN,
    "reasoning": 15 * _STAND_IN,
    "guidance": [_STAND_IN] * 4,
    "faults": [2 * _STAND_IN] * 3,
    "rule_text": 4 * _STAND_IN,
  }
  in_two = ("answer", "judge", "preference_questions")
  chosen = {"reasons": True} if stage in in_two else {}
  wanted = prompts.fields_of(stage, chosen.get("reasons"))
  return chosen | {name: special.get(name, _STAND_IN) for name in wanted}
