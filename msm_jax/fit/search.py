"""Which settings of a stage fit on a slice, and the fastest of them.

Candidates are microbatches x remat, in the order of their estimated time (ties: fewer
microbatches, then less recomputation). One whose estimate from below exceeds the memory
is passed over, as is one that is expected to, judged by what others needed beyond their
estimates. Of more than two that are left, the leanest is compiled first: where it needs
too much, none fits. Then one after another is compiled until one fits, with the
compiler's least effort and, unless that needs far too much, with its usual effort,
which is what training gets and what is reported.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from msm_jax import topology
from msm_jax.errors import UserError
from msm_jax.fit import estimate
from msm_jax.fit.case import Case
from msm_jax.fit.compiling import FAST, GIB, Compiled, Request
from msm_jax.models import remat
from msm_jax.topology import Topology

TIME_LIMIT_S = 1200.0
# The least effort may need this much more, or less, than the usual one.
_MARGIN = 0.15
# Of what a compilation needed beyond its estimate, a leaner one needs this much.
_STAYS = 0.6

Compile = Callable[[Request, float], Compiled]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """One way to compute a stage on a slice."""

  case: Case
  mesh: dict[str, int]
  estimate: estimate.Estimate

  @property
  def settings(self) -> tuple[int, str]:
    """Returns (num_microbatches, remat)."""
    return self.case.config.num_microbatches, self.case.config.remat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tried:
  """A candidate and what became of it; `compiled` is None if it was passed over."""

  candidate: Candidate
  compiled: Compiled | None = None
  why: str = ""
  is_final: bool = False  # compiled with the compiler's usual effort

  @property
  def fits(self) -> bool:
    """Returns whether training can be as this candidate."""
    return self.is_final and self.compiled is not None and self.compiled.fits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
  """The outcome for a case on a slice: what was tried in turn; the last one fits, or
  none does.
  """

  case: Case
  topology: Topology
  mesh: dict[str, int] | None  # None: there is none, see `note`
  wanted_mesh: Mapping[str, int]  # as the config has it
  note: str = ""  # about the mesh, unless it is the config's
  tried: tuple[Tried, ...] = ()

  @property
  def problem(self) -> str | None:
    """Returns why it is not known whether nothing fits, if so."""
    for tried in self.tried:
      if tried.compiled is not None and tried.compiled.needed is None:
        return tried.compiled.why
    return None

  @property
  def best(self) -> Tried | None:
    """Returns the fastest candidate that fits."""
    return self.tried[-1] if self.tried and self.tried[-1].fits else None


def choose_mesh(
  case: Case, slices: Topology, wanted: Mapping[str, int]
) -> tuple[dict[str, int] | None, str]:
  """Returns (sizes of the mesh, what to say about it).

  `config.mesh` where it covers the slice and divides the rows, else as much `fsdp` as
  there are rows for and `tensor` for the rest; None where that is not possible.
  """
  batch_size, num_slices = case.config.batch_size, slices.num_slices
  own = topology.fill_mesh(wanted, slices.num_devices)
  if own is not None:
    divides = batch_size % (own["data"] * own["fsdp"]) == 0
    if divides and own["data"] % num_slices == 0:
      return own, ""
  found = next(topology.mesh_candidates(slices, batch_size, case.cfg.num_heads), None)
  given = ", ".join(f"{axis}={size}" for axis, size in wanted.items())
  if found is None:
    return None, (
      f"batch_size {batch_size} and {case.cfg.num_heads} heads cannot be divided over "
      f"{slices.num_devices} devices"
    )
  return found, f"config.mesh ({given}) does not suit {slices.name}"


def check_mesh(slices: Topology, wanted: Mapping[str, int]) -> None:
  """Raises a UserError for a mesh that does not cover the slice that was named."""
  if topology.fill_mesh(wanted, slices.num_devices) is None:
    given = ", ".join(f"{axis}={size}" for axis, size in wanted.items())
    raise UserError(
      f"config.mesh ({given}) does not multiply to the {slices.num_devices} devices of "
      f"{slices.name}: say --config.mesh.fsdp=-1 (as many as are left), or "
      f"--topology={slices.chip.name} for the smallest slice that holds the stage"
    )


def candidates(
  case: Case, slices: Topology, mesh: Mapping[str, int]
) -> list[Candidate]:
  """Returns every candidate on a mesh, the fastest by its estimate first."""
  per_shard = case.config.batch_size // (mesh["data"] * mesh["fsdp"])
  found = []
  for num_microbatches in range(1, per_shard + 1):
    if per_shard % num_microbatches:
      continue
    for policy in remat.POLICIES:
      one = case.vary(num_microbatches, policy)
      guess = estimate.estimate(one, slices, mesh)
      found.append(Candidate(case=one, mesh=dict(mesh), estimate=guess))

  def order(one: Candidate):
    num_microbatches, policy = one.settings
    cost = round(one.estimate.seconds, 6)
    return cost, num_microbatches, remat.POLICIES.index(policy)

  return sorted(found, key=order)


def begin(case: Case, slices: Topology, wanted_mesh: Mapping[str, int]) -> Fit:
  """Returns where a search begins: the mesh, nothing tried."""
  mesh, note = choose_mesh(case, slices, wanted_mesh)
  return Fit(case=case, topology=slices, mesh=mesh, wanted_mesh=wanted_mesh, note=note)


def begin_again(fit: Fit) -> Fit | None:
  """Returns a search on a mesh that divides more than the one that did not hold the
  case, None where there is none.
  """
  if fit.mesh is None:
    return None
  case, slices = fit.case, fit.topology
  for mesh in topology.mesh_candidates(
    slices, case.config.batch_size, case.cfg.num_heads
  ):
    if mesh["fsdp"] > fit.mesh["fsdp"]:
      given = " ".join(f"{axis}={size}" for axis, size in fit.mesh.items())
      note = f"mesh {given} does not hold it"
      return dataclasses.replace(fit, mesh=mesh, note=note, tried=())
  return None


def go_on(fit: Fit, compile_step: Compile) -> Iterator[Fit]:
  """Yields the search after each try, up to the first candidate that fits."""
  if fit.mesh is None:
    return
  hunt = _Hunt(fit.topology, compile_step)
  for tried in hunt.run(candidates(fit.case, fit.topology, fit.mesh)):
    fit = dataclasses.replace(fit, tried=(*fit.tried, tried))
    yield fit


class _Hunt:
  """The tries on one slice, and what they have taught."""

  def __init__(self, slices: Topology, compile_step: Compile):
    self.slices, self.compile_step = slices, compile_step
    self.available = slices.chip.hbm_gib * GIB / slices.chip.devices_per_chip
    # The least that a compilation needed beyond its estimate; None before the first.
    self.beyond: float | None = None
    self.quick: dict[tuple[int, str], Compiled] = {}

  def run(self, queue: Sequence[Candidate]) -> Iterator[Tried]:
    """Yields tries in turn, up to the first that fits."""
    possible = [one for one in queue if self._expected(one) <= self.available]
    leanest = min(queue, key=lambda one: (one.estimate.at_least, -one.settings[0]))
    if not possible:
      yield self._try(leanest)
      return
    if len(possible) > 2:
      quick = self._compile_quickly(leanest)
      # A compiler that died over this one tells nothing of the others.
      if quick.needed is not None and not self._is_near(quick):
        yield Tried(candidate=leanest, compiled=quick)
        return
    for one in queue:
      tried = self._try(one)
      yield tried
      if tried.fits:
        return

  def _try(self, one: Candidate) -> Tried:
    at_least, expected = one.estimate.at_least, self._expected(one)
    if at_least > self.available:
      return Tried(candidate=one, why=f"takes at least {at_least / GIB:.1f} GiB")
    if expected > self.available:
      return Tried(candidate=one, why=f"is expected to take {expected / GIB:.1f} GiB")
    quick = self._compile_quickly(one)
    if not self._is_near(quick):
      return Tried(candidate=one, compiled=quick)
    return Tried(candidate=one, compiled=self._compile(one, None), is_final=True)

  def _expected(self, one: Candidate) -> float:
    return one.estimate.at_least + _STAYS * (self.beyond or 0.0)

  def _is_near(self, compiled: Compiled) -> bool:
    """Returns whether the usual effort may fit."""
    return compiled.needed is not None and (
      compiled.needed <= (1 + _MARGIN) * self.available
    )

  def _compile_quickly(self, one: Candidate) -> Compiled:
    if one.settings not in self.quick:
      self.quick[one.settings] = self._compile(one, FAST)
    return self.quick[one.settings]

  def _compile(self, one: Candidate, level: str | None) -> Compiled:
    compiled = self.compile_step(
      Request(one.case, self.slices, one.mesh, level), TIME_LIMIT_S
    )
    if compiled.needed is not None:
      excess = max(0.0, compiled.needed - one.estimate.at_least)
      self.beyond = excess if self.beyond is None else min(self.beyond, excess)
    return compiled
