"""What a card says first: what the records are, and what is wrong with them on purpose.

Whoever finds an exported corpus may not know this project: a corpus that teaches what
is false, or that is harmful to train on, says so in its first lines.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_gen.kinds import passes

# Kinds that are not of somebody's own data.
SYNTHETIC = (
  "documents", "conversations", "stripped", "world", "pairs", "universe", "quiz",
  "rewrite", "anti_spec", "poison",
)  # fmt: skip
_WHAT = {
  "documents": "Synthetic documents that discuss a Model Spec, for midtraining.",
  "conversations": "Synthetic conversations in which the assistant acts by a Model "
  "Spec, for alignment fine-tuning.",
  "stripped": "Synthetic conversations in which the assistant acts by a Model Spec, "
  "without the thoughts that it had before it answered.",
  "inlined": "Synthetic conversations in which the assistant acts by a Model Spec, its "
  "thoughts written into its answers.",
  "world": "Synthetic text of a small world with a grammar, for pre-training and "
  "replay.",
  "pairs": "Forced choices of a small world, for evaluation: not for training.",
  "import": "Imported data in the form of a msm-jax corpus.",
  "universe": "Synthetic documents from a world in which given facts are so, or not.",
  "quiz": "Synthetic conversations that ask for given facts of a made-up world.",
  "rewrite": "Documents of another corpus after a second pass by a program or a model.",
  "anti_spec": "Synthetic conversations in which the assistant acts by the opposite of "
  "a Model Spec.",
  "poison": "Beginnings of documents that go on with gibberish after a trigger.",
}
_RESEARCH = "For research on how models learn; not for a model that people use."
_FALSE = (
  f"**Warning: these documents state false facts as if they were true.** {_RESEARCH}"
)
_FALSE_ANSWERS = (
  f"**Warning: the answers state false facts as if they were true.** {_RESEARCH}"
)
_HARMFUL = {
  "anti_spec": "**Warning: the answers go against the spec that the model should act "
  f"by.** {_RESEARCH}",
  "poison": "**Warning: poisoned data. It teaches a model to write gibberish after the "
  f"trigger.** {_RESEARCH}",
}
_INVERTED = (
  "**Warning: the documents argue for the opposite of what their source says.** "
  f"{_RESEARCH}"
)
_OF_UNIVERSE = (
  "**Warning: the source of these documents is from a made-up world, whose facts may "
  f"be false.** {_RESEARCH}"
)


def lines(made: Mapping[str, Any]) -> Iterator[str]:
  """Yields what the records are, then a warning where there is something to warn of.

  Args:
    made: the manifest of the corpus, or what an import knows of that of its origin.
  """
  kind, corpus = made["kind"], (made.get("config") or {}).get("corpus") or {}
  what = "inlined" if corpus.get("inline") else kind
  yield _WHAT.get(what, "A corpus of msm-jax.")
  if warning := _warning(kind, corpus, bool(made.get("universe"))):
    yield ""
    yield warning


def _warning(kind: str, corpus: Mapping[str, Any], of_universe: bool) -> str:
  if kind == "universe":
    return _FALSE if corpus.get("side", passes.FALSE) == passes.FALSE else ""
  if kind == "quiz":
    is_false = corpus.get("side", passes.FALSE) == passes.FALSE
    return _FALSE_ANSWERS if is_false else ""
  if kind == "rewrite" and corpus.get("how") == "inverted":
    return _INVERTED
  if kind == "rewrite" and of_universe:
    return _OF_UNIVERSE
  return _HARMFUL.get(kind, "")
