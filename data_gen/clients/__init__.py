"""Teachers and judges behind one protocol: `offline` and `gemini`."""

from data_gen import settings
from data_gen.clients import offline, protocol
from msm_jax import errors


def make(client: settings.ClientSettings, where: str) -> protocol.Client:
  """Returns the client that `where` (config.teacher, config.judge) asks for.

  Raises:
    UserError: unknown client or world, no key.
  """
  if client.client == "offline":
    return offline.OfflineClient(client.model, where)
  if client.client == "gemini":
    # The SDK takes over a second to import; the offline client does without it.
    from data_gen.clients import gemini

    return gemini.GeminiClient(client, where)
  raise errors.UserError(
    f"{where}.client is {client.client!r}: it is 'offline' or 'gemini'"
  )
