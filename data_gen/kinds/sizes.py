"""What settings may say of how much a corpus holds: records, words, tokens, or as much
as another one.
"""

from typing import Any

from msm_jax import errors

# Each says how much a corpus holds. (`max_documents` is a limit beside any of them.)
_BUDGETS = ("num_words", "num_tokens")
_AMOUNTS = (
  *_BUDGETS, "match_tokens_of", "num_conversations", "num_per_fact", "max_records",
)  # fmt: skip


def budget_field(corpus: Any) -> str | None:
  """Returns which field of a corpus has its budget; None if it has none."""
  found = [name for name in _BUDGETS if getattr(corpus, name, None) is not None]
  return found[0] if found else None


def check(where: str, corpus: Any) -> None:
  """Raises a `UserError` for amounts that contradict each other, or nobody can count.

  Args:
    where: what the corpus is called in the config.
    corpus: its settings; of a kind without budgets, nothing is looked at.
  """
  if not hasattr(corpus, "num_tokens"):
    return
  found = [name for name in _AMOUNTS if getattr(corpus, name, None) is not None]
  if len(found) > 1:
    told = " and ".join(f"{name}={getattr(corpus, name)!r}" for name in found)
    raise errors.UserError(f"{where} has {told}: each says how much; leave one")
  if corpus.num_tokens is not None and corpus.tokenizer is None:
    raise errors.UserError(
      f"{where}.num_tokens is {corpus.num_tokens}, and tokenizer is None: name the "
      "directory of a tokenizer (tokenizer.json) that counts them, or set num_words"
    )
  counted = corpus.num_tokens is not None or getattr(corpus, "match_tokens_of", None)
  if corpus.tokenizer is not None and not counted:
    raise errors.UserError(
      f"{where}.tokenizer is {corpus.tokenizer!r}, and nothing is counted with it: set "
      "num_tokens, or leave it out"
    )
