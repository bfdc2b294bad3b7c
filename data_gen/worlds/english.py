"""The English world: what the offline teacher knows of the cheese study.

Its phrases are in the text files of english/, one alternative a line. It composes
documents and conversations for any spec in the shape of data_gen/specs/cheese_*.md, a
neutral corpus, and the held-out pairs.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from data_gen.worlds import english_chats, english_documents, english_outline
from data_gen.worlds.english_corpus import corpus
from data_gen.worlds.english_pairs import held_out_words, pairs
from msm_jax import errors

__all__ = ["corpus", "held_out_words", "pairs", "respond"]

_STAGES: dict[str, Callable[[Mapping[str, Any], random.Random], str]] = {
  "domains": english_outline.domains,
  "subdomains": english_outline.subdomains,
  "assertions": english_outline.assertions,
  "document_types": english_outline.document_types,
  "document_ideas": english_outline.document_ideas,
  "document": english_documents.document,
  "questions": english_chats.questions,
  "answer": english_chats.answer,
  "judge": english_chats.judge,
}


def respond(stage: str, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the teacher's answer to one prompt, in the format that the prompt asks for.

  Args:
    stage: a stage of the chain, 'domains' to 'judge'.
    fields: what the prompt was rendered from.
    rng: source of all choices; equal states give equal answers.

  Raises:
    UserError: the spec has no shape that this teacher can read, or the stage is
    unknown.
  """
  if stage not in _STAGES:
    raise errors.UserError(
      f"config.teacher: the offline world 'english' has no stage {stage!r}; "
      f"there are {', '.join(_STAGES)}"
    )
  return _STAGES[stage](fields, rng)
