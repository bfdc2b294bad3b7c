"""Products with gradients of their own: what plain ones give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax.models import matmul

# input dimensions, output dimensions of each weight: the last one is tiny beside others
DRAWN = [((64,), [(8, 80), (2, 3)]), ((8, 80), [(64,)]), ((200,), [(200,)])]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), DRAWN, ids=str)
def test_several_products_of_one_input_are_what_each_would_be(inputs, outputs, dtype):
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  x, ws = draw(2, 16, *inputs), tuple(draw(*inputs, *out) for out in outputs)
  assert max(w.size for w in ws) > matmul._TINY
  dys = [draw(2, 16, *out) for out in outputs]

  def pulled(products):
    ys, pull = jax.vjp(products, x, ws)
    return ys, pull(dys)

  found = jax.jit(lambda: pulled(lambda *of: matmul.project(*of, len(inputs))))()
  x, ws, dys = jax.tree.map(lambda a: a.astype("float32"), (x, ws, dys))
  exact = pulled(lambda x, ws: [jnp.tensordot(x, w, len(inputs)) for w in ws])
  tolerance = 2.0**-7 if dtype == "bfloat16" else 1e-5  # one rounding, a sum of two
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
    assert a.dtype == dtype
    a, b = np.asarray(a, "float32"), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
