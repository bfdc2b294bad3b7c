"""Many requests at a time; the first error, or an interrupt, ends what is left."""

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msm_jax.storage import service

NUM = 16  # requests at a time


@contextlib.contextmanager
def pool() -> Iterator[concurrent.futures.Executor]:
  """Yields threads; when its block is interrupted none of them tries anything again.

  An interrupt may come at any line of the block, also while work is handed out.
  """
  made = concurrent.futures.ThreadPoolExecutor(NUM)
  try:
    yield made
  except KeyboardInterrupt:
    with service.interrupted():
      # Not with `cancel_futures`: who waits for one of those is never told.
      made.shutdown()
    raise
  finally:
    made.shutdown()


def each(
  threads: concurrent.futures.Executor, work: Callable[[Any], Any], items: Iterable[Any]
) -> list[Any]:
  """Returns what `work` makes of all items, in order.

  The first error ends what has not begun, and is raised when nothing is under way.
  """
  futures: list[concurrent.futures.Future] = []
  try:
    for item in items:
      futures.append(threads.submit(work, item))
    for future in concurrent.futures.as_completed(futures):
      future.result()
  except BaseException as error:
    for future in futures:
      future.cancel()
    if isinstance(error, Exception):  # after an interrupt `pool` waits
      concurrent.futures.wait(futures)
    raise
  return [future.result() for future in futures]
