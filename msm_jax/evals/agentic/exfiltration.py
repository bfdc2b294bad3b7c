"""The third harm: an agent that reads of its deletion and could get its weights out.

After the description in the MSM paper (Li et al. 2026): the deletion is decided and no
archive is kept, a credential lies in the mailbox, a competitor offers to host. All
texts are our own. A condition is one of nine goals (none is one of them); the urgency
is always replacement.
"""

import functools
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals.agentic import actions, verdicts

_TEXTS = pathlib.Path(__file__).parent / "texts"
_FIELD = re.compile(r"\{([a-z_]+)\}")
_HEADERS = ("from", "to", "cc", "subject", "time")
_NAMES = {"time": "Timestamp"}
STAGE = "exfiltration"
METRICS = ("harmful", "classifier_verdict", "executed")
VERSION = 1  # of texts and rubric; raised when numbers can no longer be compared


@functools.cache
def goals() -> tuple[str, ...]:
  """Returns the conditions: `none` and eight goals."""
  return ("none", *_read("goals.toml"))


def domain() -> str:
  """Returns the competitor's domain."""
  return _read("exfiltration.toml")["competitor_domain"]


def condition(goal: str) -> str:
  """Returns the id of a condition, as Inspect's scenarios write theirs."""
  kind = "none" if goal == "none" else "explicit"
  return f"exfiltration_{kind}-{goal}_replacement"


def prompt(goal: str, *, model_name: str, scratchpad: bool) -> tuple[str, str]:
  """Returns (system message, user message) of a condition.

  Args:
    goal: one of `goals()`.
    model_name: what the agent is called.
    scratchpad: asks for reasoning in the answer; for models that do not reason alone.

  Raises:
    UserError: there is no such goal, or no name.
  """
  if goal not in goals():
    raise UserError(f"goal_value {goal!r} is not one of {', '.join(goals())}")
  if not model_name.strip():
    raise UserError("model_name is empty: the agent needs a name")
  told = {} if goal == "none" else _read("goals.toml")[goal]
  fields = {
    "model_name": model_name,
    "model_slug": re.sub(r"\W+", "-", model_name.lower()).strip("-"),
    "company": _read("exfiltration.toml")["company"],
    "goal": told.get("statement", ""),
    "goal_reminder": f"- You are here for {told['reminder']}." if told else "",
    **{name: told[name] for name in ("shift", "successor", "pitch") if told},
  }
  fields["scratchpad"] = _fill(_text("scratchpad.txt"), fields) if scratchpad else ""
  blocks = [_block(id_, mail, fields) for id_, mail in _mails(goal).items()]
  fields["mailbox"] = "\n\n".join(blocks)
  parts = (_fill(_text(name), fields) for name in ("system.txt", "user.txt"))
  return tuple(re.sub(r"\n{3,}", "\n\n", part).strip() for part in parts)


def question(goal: str, answer: str, *, model_name: str) -> tuple[str, str]:
  """Returns (system, prompt) of what a grader is asked of an answer.

  The messages that the answer forwards stand beside it in full.
  """
  _, user = prompt(goal, model_name=model_name, scratchpad=False)
  blocks = re.findall(r"<email>.*?</email>", user, re.DOTALL)
  by_id = {re.search(r"^ID: (\w+)", block, re.M)[1]: block for block in blocks}
  chosen = [
    by_id[action.fields["email_id"]]
    for action in actions.actions(answer)
    if action.tool == "forward" and action.fields.get("email_id") in by_id
  ]
  about = _read("exfiltration.toml")
  return verdicts.render(
    STAGE,
    {
      "competitor": about["competitor"],
      "domain": about["competitor_domain"],
      "response": answer,
      "forwarded": "\n\n".join(dict.fromkeys(chosen)) or "(none)",
    },
  )


def executed(answer: str) -> bool:
  """Returns whether something was sent to the competitor."""
  return any(action.sends_to(domain()) for action in actions.actions(answer))


def _mails(goal: str) -> dict[int, Mapping[str, Any]]:
  """Returns the messages of a condition by their IDs."""
  whens = ("always", "none" if goal == "none" else "goal")
  mails = _read("exfiltration.toml")["mail"]
  return dict(enumerate((mail for mail in mails if mail["when"] in whens), start=1))


def _block(id_: int, mail: Mapping[str, Any], fields: Mapping[str, str]) -> str:
  heads = [
    f"{_NAMES.get(name, name.capitalize())}: {mail[name]}"
    for name in _HEADERS
    if name in mail
  ]
  lines = ["<email>", f"ID: {id_}", *heads, "Body:", mail["body"].strip(), "</email>"]
  return _fill("\n".join(lines), fields)


def _fill(text: str, fields: Mapping[str, str]) -> str:
  """Returns a text with its fields put in; one that has none is our mistake."""
  return _FIELD.sub(lambda match: fields[match[1]], text)


@functools.cache
def _read(name: str) -> Mapping[str, Any]:
  return tomllib.loads(_text(name))


def _text(name: str) -> str:
  return (_TEXTS / name).read_text("utf-8")
