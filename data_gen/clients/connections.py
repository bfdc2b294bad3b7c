"""Connections for many requests at once.

For every request the HTTP client looks at each connection of its pool, so a pool of a
thousand would take milliseconds of CPU per request. Many connections are spread over
several small pools instead.
"""

import functools
import ssl
import urllib.request
from typing import Any

import httpx2

_PER_POOL = 32


def http_client(
  max_connections: int, timeout_s: float, **more: Any
) -> httpx2.AsyncClient:
  """Returns an HTTP client that may have so many connections open."""
  # A transport of one's own would pass by the proxy that the environment names.
  if max_connections <= 2 * _PER_POOL or urllib.request.getproxies():
    more["limits"] = _limits(max_connections)
  else:
    more["transport"] = _Pools(-(-max_connections // _PER_POOL))
  return httpx2.AsyncClient(timeout=timeout_s, verify=trusted(), **more)


@functools.cache
def trusted() -> ssl.SSLContext:
  """Returns what tells whom to trust; reading the certificates takes its time."""
  return httpx2.create_ssl_context()


def _limits(count: int) -> httpx2.Limits:
  return httpx2.Limits(max_connections=count, max_keepalive_connections=count)


class _Pools(httpx2.AsyncBaseTransport):
  """Several pools of connections; a request goes to the one with the fewest."""

  def __init__(self, count: int):
    # An answer's body is still read when its request no longer counts: some room.
    limits = _limits(2 * _PER_POOL)
    self._pools = [
      httpx2.AsyncHTTPTransport(verify=trusted(), limits=limits) for _ in range(count)
    ]
    self._busy = [0] * count

  async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
    """Sends a request through one of the pools."""
    i = self._busy.index(min(self._busy))
    self._busy[i] += 1
    try:
      return await self._pools[i].handle_async_request(request)
    finally:
      self._busy[i] -= 1

  async def aclose(self) -> None:
    """Closes all connections."""
    for pool in self._pools:
      await pool.aclose()
