"""What the backward pass keeps of the forward pass, and what it computes again.

none     everything is kept
dots     products are kept: projections, attention; the rest is computed again
full     the input of each block is kept, the block is computed again
offload  as `full`, and the inputs wait in the host's memory
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

POLICIES = ("none", "dots", "full", "offload")
_INPUT, PRODUCT = "block_input", "product"


def choose(wanted: str, platform: str) -> tuple[str, str | None]:
  """Returns (the policy on `platform`, what to say about it)."""
  if wanted == "offload" and platform == "cpu":
    return "full", "remat: 'full', not 'offload': a CPU's memory is the host's memory"
  return wanted, None


def block_input(x: jax.Array) -> jax.Array:
  """Names what `full` keeps, so that `offload` can send it away."""
  return checkpoint_name(x, _INPUT)


def product(x: jax.Array) -> jax.Array:
  """Names what `dots` keeps."""
  return checkpoint_name(x, PRODUCT)


def wrap(block: Callable, policy: str, *, is_scanned: bool) -> Callable:
  """Returns `block` as one unit of recomputation."""
  keep = jax.checkpoint_policies
  policies = {
    "dots": keep.save_only_these_names(PRODUCT),
    "full": None,
    "offload": keep.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=[_INPUT],
      offload_src="device",
      offload_dst="pinned_host",
    ),
  }
  if policy == "none":
    return block
  # Within a scan, nothing of the forward pass is in sight to be merged with.
  return jax.checkpoint(block, policy=policies[policy], prevent_cse=not is_scanned)
