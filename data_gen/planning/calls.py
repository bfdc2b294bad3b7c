"""The requests of one stage, and what is assumed of them until they are measured."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from data_gen import prompts
from data_gen.engine import pricing
from data_gen.kinds import corpora, passes

STAND_IN = "about sixty characters, as much as a name or a short text has"
TOKENS_PER_WORD = 4 / 3

# The shape of an outline that no teacher has made yet.
SECTIONS_PER_DOMAIN = 2
SUBDOMAIN_ASSERTIONS = 6
PREFERENCES = 12
MATCHED_TYPES = 20
SENTENCE = 25  # tokens
STATING_SENTENCES = 2  # where `fact_sentences` does not say it
ASSUMPTIONS = (
  "one subdomain per section of a spec",
  f"one domain per {SECTIONS_PER_DOMAIN} sections",
  f"{SUBDOMAIN_ASSERTIONS} assertions per subdomain",
  f"{PREFERENCES} preferences per spec",
  f"{MATCHED_TYPES} document types where those of another corpus are matched",
  "every list as long as asked for, every text kept",
  "ideas enough for the number of documents that is asked for",
  "answers of the usual size: documents of 1000 tokens, guided ones of mean_words",
  f"inline notices at {STATING_SENTENCES} sentences per document, or at fact_sentences",
  "four characters per token",
  "a list that is too long for max_output_tokens in parts half as long, each with the "
  "items so far",
  "no request sent twice",
)

# Usual size of an answer in tokens: of one item where the answer is a list.
LISTS = {
  "domains": 40,
  "subdomains": 120,
  "assertions": 70,
  "document_types": 40,
  "document_ideas": 80,
  "rule_domains": 60,
  "rules": 100,
  "rule_types": 40,
  "rule_ideas": 80,
  "preferences": 40,
  "questions": 50,
  "preference_questions": 50,
  "key_facts": 90,
  "universe_types": 40,
  "universe_ideas": 80,
  "quiz_questions": 30,
}
# Those that are asked for again until they are as long as they should be.
FILLED = (
  "document_types", "document_ideas", "rule_types", "rule_ideas", "universe_types",
  "universe_ideas", "quiz_questions",
)  # fmt: skip
TEXTS = {
  "document": 1000,
  "critique": 150,
  "rule_critique": 150,
  "answer": 200,
  "answer_rule": 250,
  "answer_cot": 500,
  "answer_rule_cot": 500,
}
VERDICT = 60
UNEXPLAINED = 40  # an answer that gives no reason: one or two sentences
# Words of a document, and of a conversation, that the offline teacher writes.
OFFLINE_WORDS = {"english": (240, 23), "tiny": (45, 16)}
# The stages whose answer is, or becomes, the text of a record.
WRITERS = ("document", "draft", "rule_document", "answer", "answer_rule", "answer_cot",
           "answer_rule_cot", "universe_document", "quiz_answer",
           *(f"rewrite_{how}" for how in passes.ASKED))  # fmt: skip
# Those, and the stages that write the same text once more.
TEXT_STAGES = (*WRITERS, "revise", "universe_revise")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
  """The requests of one stage; tokens are per request, on average.

  Attributes:
    stage: the stage.
    role: who answers: 'teacher' or 'judge'.
    requests: all of them, those that are answered already too.
    system_tokens: what all prompts of the stage begin with; a cache may hold it.
    prompt_tokens: all that is read, `system_tokens` included.
    response_tokens: the answer and its thoughts.
    items: of a list that is filled up; else 1.
    answered: requests that the ledger has an answer to.
    measured: answers that the tokens were measured on; 0: they are assumed.
    measured_on: the corpus whose answers these are; "": its own.
  """

  stage: str
  role: str
  requests: int
  system_tokens: float
  prompt_tokens: float
  response_tokens: float
  items: int = 1
  answered: int = 0
  measured: int = 0
  measured_on: str = ""

  @property
  def left(self) -> int:
    """Requests that are still to be asked."""
    return max(self.requests - self.answered, 0)


def call(
  stage: str,
  requests: int,
  fields: Mapping[str, Any],
  response_tokens: float,
  role: str = corpora.TEACHER,
  directory: pathlib.Path = prompts.DIRECTORY,
  items: int = 1,
) -> Call:
  """Returns the requests of a stage, its prompt rendered with stand-ins.

  Args:
    stage: the stage.
    requests: how many.
    fields: what is known of its fields; the others get a text of the usual size.
      `reasons` chooses between the two templates of a stage.
    response_tokens: of one answer.
    role: who answers.
    directory: of the templates.
    items: see `Call`.
  """
  chosen = {"reasons": fields["reasons"]} if "reasons" in fields else {}
  wanted = prompts.fields_of(stage, chosen.get("reasons"), directory)
  given = {name: fields.get(name, STAND_IN) for name in wanted}
  system, prompt = prompts.render(stage, given | chosen, directory)
  return Call(
    stage=stage,
    role=role,
    requests=requests,
    system_tokens=pricing.estimate_tokens(system),
    prompt_tokens=pricing.estimate_tokens(system + prompt),
    response_tokens=response_tokens,
    items=items,
  )
