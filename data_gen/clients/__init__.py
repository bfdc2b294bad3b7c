"""Teachers and judges behind one protocol: a package for each service."""

from collections.abc import Sequence

from data_gen.clients import offline, protocol, settings


def make(
  client: settings.ClientSettings, where: str, stages: Sequence[str] = ()
) -> protocol.Client:
  """Returns the client that `where` (config.teacher, config.judge) asks for.

  Args:
    client: the settings.
    where: what they are called in the config.
    stages: what will be asked; the offline client's version depends on it.

  Raises:
    UserError: unknown client or world, a setting the client does not have, no key.
  """
  settings.check(where, client)
  if client.client == "offline":
    return offline.OfflineClient(client.model, where, stages)
  # The packages take over a second to import; the offline client does without them.
  if client.client == "gemini":
    from data_gen.clients import gemini

    return gemini.GeminiClient(client, where)
  if client.client == "openai":
    from data_gen.clients import openai

    return openai.OpenAIClient(client, where)
  from data_gen.clients import anthropic

  return anthropic.make(client, where)
