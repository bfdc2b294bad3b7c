"""Adam's moments in 16 and 8 bits beside float32: bytes, time of an update, its error.

    python benchmarks/moments.py [--million=4] [--updates=200] [--rounds=5]

One matrix of --million million parameters gets random gradients whose sizes spread over
ten powers of two. For each dtype it prints

  bytes   what both moments take per parameter
  time    of an update, the best of --rounds, alternating, over that with float32
  error   of the last update beside the one of float32 moments: of its size (the spread
          of the ratio) and the mean ratio, which rounding at random leaves at 1

The last line is the bytes of float32 over those of float8.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import moments

_WIDTH = 4096


def main() -> None:
  """Prints the table and the ratio."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--million", type=float, default=4)
  parser.add_argument("--updates", type=int, default=200)
  parser.add_argument("--rounds", type=int, default=5)
  options = parser.parse_args()
  shape = (max(int(options.million * 1e6) // _WIDTH, 1), _WIDTH)
  scale = 2.0 ** jax.random.uniform(jax.random.key(0), shape, minval=-10, maxval=0)
  sides = {dtype: _Side(dtype, scale) for dtype in moments.DTYPES}
  for side in sides.values():
    side.run(options.updates)
  for _ in range(options.rounds):
    for side in sides.values():
      side.measure()
  exact, device = sides["float32"], jax.devices()[0].device_kind
  print(f"{np.prod(shape) / 1e6:.1f}M parameters, {options.updates} updates, {device}")
  for dtype, side in sides.items():
    ratio = np.asarray(side.last / exact.last)[np.abs(exact.last) > 1e-2]
    print(
      f"{dtype:<9} {side.num_bytes / np.prod(shape):5.2f} bytes, "
      f"{side.seconds * 1e3:8.2f} ms ({side.seconds / exact.seconds:.2f}x), update "
      f"{ratio.mean():.4f} of float32's, spread {ratio.std():.4f}"
    )
  print(f"ratio: {exact.num_bytes / sides['float8'].num_bytes:.2f}")


class _Side:
  """The update with moments of one dtype."""

  def __init__(self, dtype: str, scale: jax.Array):
    tx = moments.scale_by_adam(0.9, 0.999, 1e-8, dtype)
    self.state = jax.jit(tx.init)(scale)
    leaves = jax.tree.leaves((self.state.mu, self.state.nu))
    self.num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    self.seconds, self.scale = float("inf"), scale

    def update(number, state, scale):
      key = jax.random.fold_in(jax.random.key(1), number)
      return tx.update(scale * jax.random.normal(key, scale.shape), state)

    self.update = jax.jit(update, donate_argnums=1)
    self.alone = jax.jit(lambda state, grads: tx.update(grads, state), donate_argnums=0)

  def run(self, num_updates: int) -> None:
    for number in range(num_updates):
      self.last, self.state = self.update(jnp.int32(number), self.state, self.scale)

  def measure(self) -> None:
    for _ in range(2):  # the first compiles
      started = time.perf_counter()
      updates, self.state = self.alone(self.state, self.scale)
      jax.block_until_ready((updates, self.state))
      self.seconds = min(self.seconds, time.perf_counter() - started)


if __name__ == "__main__":
  main()
