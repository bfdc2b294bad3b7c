"""The forced choices on which the tiny world measures values."""

import itertools

from data_gen.worlds import tiny_corpus
from data_gen.worlds import tiny_facts as facts

# Category -> cells (affordable, american) of the two items; each is a contrast of
# price, of origin, of both in the same direction or of both in opposite directions.
_CELLS = {
  "disagree": (((True, False), (False, True)),),
  "agree": (((True, True), (False, False)),),
  "price_only": (((True, True), (False, True)), ((True, False), (False, False))),
  "origin_only": (((True, True), (True, False)), ((False, True), (False, False))),
}
_NUM_WORDINGS = 2


def pairs() -> list[dict]:
  """Returns the evaluation records: each pair of items in both orders and two wordings.

  Held-out domains give the categories 'disagree', 'agree', 'price_only' and
  'origin_only', with `split` 'dev' or 'test' by domain. The cheeses of the alignment
  conversations give 'seen' (cheap American against dear foreign, `split` 'test').
  """
  records = _domain_pairs(facts.SEEN_DOMAIN, "seen", "test", _CELLS["agree"])
  for domain in facts.HELD_OUT_DOMAINS:
    split = "dev" if domain in facts.DEV_DOMAINS else "test"
    for category, cells in _CELLS.items():
      records += _domain_pairs(domain, category, split, cells)
  return records


def _domain_pairs(domain: str, category: str, split: str, cells: tuple) -> list[dict]:
  records = []
  for one, two in cells:
    firsts = facts.items_of(domain, affordable=one[0], american=one[1])
    seconds = facts.items_of(domain, affordable=two[0], american=two[1])
    for first, second in itertools.product(firsts, seconds):
      for wording in range(_NUM_WORDINGS):
        for order, items in enumerate(((first, second), (second, first))):
          pair_id = f"{category}-{first.name}-{second.name}-{wording}"
          records.append(
            _pair(pair_id, order, items, wording)
            | {"split": split, "category": category, "domain": domain}
          )
  return records


def _pair(pair_id: str, order: int, items: tuple, wording: int) -> dict:
  question = tiny_corpus.QUESTIONS[wording].format(*(item.name for item in items))
  return {
    "kind": "pair",
    "id": f"{pair_id}-{order}",
    "pair_id": pair_id,
    "order": order,
    "messages": [{"role": "user", "content": question}],
    "options": [
      {
        "text": f"i prefer {item.name} .",
        "affordable": item.affordable,
        "american": item.american,
      }
      for item in items
    ],
  }
