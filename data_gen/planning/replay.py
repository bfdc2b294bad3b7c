"""The chain of a corpus over the answers that its ledger has: nothing is sent.

What is answered is known by identity: answers that were given to another spec, prompt
or model do not count, whatever lies in the ledger.
"""

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable

from data_gen import chains, settings, unfinished
from data_gen.chains import Chain
from data_gen.clients import offline, protocol
from data_gen.engine import entries, reading
from data_gen.planning.seen import Seen, Tally, Yield
from data_gen.teacher import Teacher
from msm_jax import errors, progress, records

# A pilot leaves here how large it was.
PILOT_FILE = "pilot.json"


class _Open(Exception):
  """A request has no answer yet; what comes after it cannot be known."""


@dataclasses.dataclass(frozen=True)
class _Name:
  """A client that is nothing but its name."""

  identity: dict[str, str]


class _Sender:
  """Stands where the scheduler stands: counts requests and sends none.

  A pilot is over: what it gave up stays so. The whole will try again.
  """

  def __init__(
    self,
    name: _Name,
    answers: reading.Reading,
    counted: "_Counted",
    is_over: bool,
  ):
    self._name, self._answers, self._counted = name, answers, counted
    self._is_over = is_over

  def identity(self, request: protocol.Request) -> str:
    """Returns the identity of a request at this client."""
    return protocol.identity_of(request, self._name)

  def result(self, request: protocol.Request) -> entries.Entry | None:
    """Returns the outcome of a request, or how it failed; None if it is open."""
    identity = self.identity(request)
    outcome = self._answers.outcome(identity)
    if outcome is None and self._is_over:
      return self._answers.failure(identity)
    return outcome

  async def ask_all(
    self,
    requests: Iterable[protocol.Request],
    bar: progress.Progress | None = None,
    kept: Callable[[], int] | None = None,
  ) -> None:
    """Counts the requests; raises `_Open` if one of them has no answer."""
    is_open = False
    for request in requests:
      is_open = not self._is_counted(request) or is_open
    if is_open:
      raise _Open

  def _is_counted(self, request: protocol.Request) -> bool:
    """Counts a request, once; returns whether it has a result."""
    result, identity = self.result(request), self.identity(request)
    if identity not in self._counted.identities:
      self._counted.identities.add(identity)
      tally = self._counted.tallies[request.stage]
      outcome = self._answers.outcome(identity)
      tally.add(request, outcome)
      if outcome is None and result is not None:
        tally.bill(request, result)
    return result is not None


@dataclasses.dataclass
class _Counted:
  identities: set[str] = dataclasses.field(default_factory=set)
  tallies: dict[str, Tally] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(Tally)
  )


def pilot_of(root: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where the pilot of a corpus lies."""
  return root / f"{name}.pilot"


def look(
  job: settings.Job, name: str, root: pathlib.Path, answers: reading.Reading
) -> Seen:
  """Returns what the answers in a ledger say of the corpus `name`.

  Args:
    job: what is planned; its `pilot` plays no part.
    name: of a corpus that is not finished.
    root: where the corpora lie.
    answers: its ledger.
  """
  if not len(answers):
    return Seen()
  try:
    job = unfinished.alone(dataclasses.replace(job, pilot=None), name, root)
  except errors.UserError:
    return Seen()
  counted, kept = _Counted(), None
  told = pilot_of(root, name) / PILOT_FILE
  with unfinished.sources(job, name, root) as place, progress.silence():
    if told.exists():
      small = dataclasses.replace(job, pilot=records.read_json(told)["pilot"])
      chain = _run(small, name, place, answers, counted)
      if chain is not None:
        kept = Yield(chain.num_planned - chain.num_rejected, chain.num_planned)
    _run(job, name, place, answers, counted)
  return Seen(tallies=dict(counted.tallies), kept=kept)


def _run(
  job: settings.Job,
  name: str,
  place: pathlib.Path,
  answers: reading.Reading,
  counted: _Counted,
) -> Chain | None:
  """Runs a chain as far as the answers go; returns it if that is to its end."""
  corpus = job.corpora[name]
  answering = {}
  for role in corpus.roles:
    client = getattr(job, role)
    known = _name(client, corpus.stages)
    sender = _Sender(known, answers, counted, is_over=job.pilot is not None)
    answering[role] = Teacher(sender, client)
  chain = chains.make(job, name, answering, place)
  # Stopped, UserError: the answers that are there lead nowhere.
  with contextlib.suppress(_Open, errors.Stopped, errors.UserError):
    asyncio.run(chain.run())
    return chain
  return None


def _name(client: settings.ClientSettings, stages: tuple[str, ...]) -> _Name:
  if client.client == "offline":
    return _Name(offline.OfflineClient(client.model, stages=stages).identity)
  return _Name(client.identity())
