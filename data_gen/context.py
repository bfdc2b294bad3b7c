"""Whether a spec fits into what a model can read, before anything is paid."""

from data_gen import spec as specs
from data_gen.clients.settings import ClientSettings
from msm_jax import errors

# Tokens of prompt and answer together, for all models that a service still offers.
_CONTEXT_TOKENS = {"gemini": 1_000_000, "anthropic": 200_000}
_REST_OF_PROMPT = 4_000


def estimate_tokens(text: str) -> int:
  """Returns about how many tokens a text has, rather more than less.

  Four characters of ASCII make a token; of other scripts each may be one.
  """
  num_ascii = sum(map(str.isascii, text))
  return num_ascii // 4 + len(text) - num_ascii + 1


def check(spec: specs.Spec, client: ClientSettings, where: str) -> None:
  """Raises a `UserError` if prompts with the whole spec are too long for a client.

  Args:
    spec: the spec.
    client: who will read it.
    where: what the client is called in the config.
  """
  limit = client.context_tokens or _CONTEXT_TOKENS.get(client.client)
  if limit is None:
    return
  size = estimate_tokens(spec.text)
  needed = size + _REST_OF_PROMPT + client.max_output_tokens
  if needed > limit:
    told = "" if client.context_tokens else ", by default"
    raise errors.UserError(
      f"config.specs.{spec.name} is about {size:,} tokens long; with "
      f"{_REST_OF_PROMPT:,} for the rest of a prompt and {where}.max_output_tokens="
      f"{client.max_output_tokens:,} that is more than {where}.context_tokens="
      f"{limit:,}{told}: shorten the spec, divide it into several, or choose a model "
      "with a longer context"
    )
