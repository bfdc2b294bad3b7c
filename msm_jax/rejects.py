"""What is not kept of a corpus lies beside its shards, each with its reason."""

REJECTS = "rejects.jsonl"
_DUPLICATES = ("duplicate of ", "near duplicate of ")
_JUDGE = "judge: "


def category(reason: str) -> str:
  """Returns the part of a rejection's reason that others share: it can be counted.

  What a judge denied and what it said nothing intelligible of are two things.
  """
  if reason.startswith(_JUDGE):
    return _JUDGE + category(reason.removeprefix(_JUDGE))
  for sign in (":", " ("):
    reason = reason.split(sign, 1)[0]
  for start in _DUPLICATES:
    if reason.startswith(start):
      return start.removesuffix(" of ")
  return reason
