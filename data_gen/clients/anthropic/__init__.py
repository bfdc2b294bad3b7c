"""Claude through the `anthropic` package, an optional extra."""

from data_gen.clients import protocol, settings
from msm_jax import errors


def make(client: settings.ClientSettings, where: str) -> protocol.Client:
  """Returns the client.

  Raises:
    UserError: the package is not installed, or there is no key.
  """
  try:
    from data_gen.clients.anthropic.client import AnthropicClient
  except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "anthropic":
      raise
    raise errors.UserError(
      f"{where}.client is 'anthropic' and the package is not installed: run "
      "pip install 'msm-jax[anthropic]'"
    ) from None
  return AnthropicClient(client, where)
