"""Requests that come one by one, handed on in batches.

Inspect asks for each sample by itself, from coroutines of one event loop. A model wants
many at once: whoever comes while nobody else has for a moment, or while the batch
before is at work, goes with the next one.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_QUIET_S = 0.2  # without a newcomer; Inspect starts its samples one after the other


class Collector:
  """Collects requests of one event loop and has a thread work on them."""

  def __init__(self, work: Callable[[Sequence[Any]], Iterator[tuple[int, Any]]]):
    """Args:
    work: requests -> (number, result) as each ends; called from one thread at a time.
    """
    self._work = work
    self._open: list[tuple[Any, asyncio.Future]] = []
    self._task: asyncio.Task | None = None

  async def ask(self, request: Any) -> Any:
    """Returns the result of a request.

    Raises:
      Exception: what `work` raised for the batch that it was in.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    self._open.append((request, future))
    if self._task is None or self._task.done():
      self._task = loop.create_task(self._run(loop))
    return await future

  async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
    while self._open:
      number = -1
      while number != len(self._open):
        number = len(self._open)
        await asyncio.sleep(_QUIET_S)
      batch, self._open = self._open, []
      # One that was cancelled meanwhile is not worked for.
      batch = [one for one in batch if not one[1].done()]
      await self._hand_on(batch, loop)

  async def _hand_on(self, batch, loop: asyncio.AbstractEventLoop) -> None:
    """Has a thread do the work; it is a daemon, so that Ctrl-C need not wait for it."""
    done = loop.create_future()

    def work():
      error: BaseException | None = None
      held: list[tuple[int, Any]] = []  # the last one waits until the work is over
      try:
        for found in self._work([request for request, _ in batch]):
          settle(held)
          held = [found]
      except BaseException as raised:  # it belongs to those who wait
        error = raised
      settle(held)
      _tell(loop, finish, error)

    def settle(found: Sequence[tuple[int, Any]]):
      for number, result in found:
        _tell(loop, _settle, batch[number][1], result, None)

    def finish(error: BaseException | None):
      missing = error or RuntimeError("a request was left without an answer")
      for _, future in batch:
        _settle(future, None, missing)
      done.set_result(None)

    if batch:
      threading.Thread(target=work, daemon=True, name="inspect-batch").start()
      await done


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable, *args: Any) -> None:
  with contextlib.suppress(RuntimeError):  # closed: nobody waits any more
    loop.call_soon_threadsafe(callback, *args)


def _settle(future: asyncio.Future, result: Any, error: BaseException | None) -> None:
  if future.done():  # cancelled, or settled before the work failed
    return
  if error is None:
    future.set_result(result)
  else:
    future.set_exception(error)
