"""Matrix products with gradients that suit the platform they run on.

On a CPU, XLA multiplies with a transposed left factor at half the speed of any other
form (40 against 88 GFLOP/s for float32, one core), and rounds every product to bfloat16
where float32 accumulators could be read instead (96 against 173 GFLOP/s where the CPU
has bfloat16 instructions). So there one factor is transposed before it is multiplied,
and products of bfloat16 factors come as float32 first. Elsewhere the product is left
to XLA, in the dtype of its factors: it crosses the mesh in that dtype.

The weights of tiny models are left to XLA too: they would gain as well, but sums in
another order have other last digits, and results of the built-in study are on record.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

_TINY = 1 << 15  # numbers in a weight
_FEW = 64  # rows


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=["kernel_OI"], meta_fields=["out_dims"]
)
@dataclasses.dataclass(frozen=True)
class Flipped:
  """A weight [*in, *out] that lies as [out, in], for products with few rows on a CPU.

  As the left factor it is multiplied with 16 rows at 53 GFLOP/s (float32, one core), as
  the right one at 28.
  """

  kernel_OI: jax.Array
  out_dims: tuple[int, ...]

  def astype(self, dtype) -> "Flipped":
    """Returns it in another dtype."""
    return dataclasses.replace(self, kernel_OI=self.kernel_OI.astype(dtype))


def flipped(w: jax.Array, num_in: int) -> jax.Array | Flipped:
  """Returns w [*in, *out] for products with few rows; tiny weights stay as they are."""
  if w.size < _TINY:
    return w
  out_dims = w.shape[num_in:]
  return Flipped(w.reshape(-1, math.prod(out_dims)).T, out_dims)


def flipped_product(x: jax.Array, w: Flipped, num_in: int) -> jax.Array:
  """Returns what `product` does of a flipped weight, as float32."""
  lead = x.shape[: x.ndim - num_in]
  x_MI = x.reshape(math.prod(lead), -1)
  multiply = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
  if x_MI.shape[0] <= _FEW:
    # The barriers keep XLA from making the right factor of it again.
    barrier = jax.lax.optimization_barrier
    y_MO = barrier(multiply(w.kernel_OI, barrier(x_MI.T))).T
  else:
    y_MO = multiply(x_MI, w.kernel_OI.T)
  return y_MO.reshape(*lead, *w.out_dims)


def product(a: jax.Array, b: jax.Array, num_in) -> jax.Array:
  """Returns a [*lead, *in] times b [*in, *out] as float32: [*lead, *out].

  `num_in` is the number of dimensions of `in` (or the dimensions of a and of b).
  """
  return jnp.tensordot(a, b, num_in, preferred_element_type=jnp.float32)


def weight_gradient(x: jax.Array, dy: jax.Array, num_lead: int) -> jax.Array:
  """Returns x [*lead, *in] and dy [*lead, *out] contracted over `lead`: [*in, *out],
  as float32.
  """
  return _weight_gradients(x, (dy,), num_lead, product)[0]


def project(x: jax.Array, ws: tuple[jax.Array, ...], num_in: int) -> list[jax.Array]:
  """Returns x [*lead, *in] times each w [*in, *out]: [*lead, *out], in their dtype.

  `num_in` is the number of dimensions of `in`.
  """
  if any(isinstance(w, Flipped) for w in ws):
    return [_any_product(x, w, num_in) for w in ws]
  if max(w.size for w in ws) < _TINY:
    return [jnp.tensordot(x, w, num_in) for w in ws]
  return _project(x, ws, num_in)


def _any_product(x, w, num_in):
  if isinstance(w, Flipped):
    return flipped_product(x, w, num_in).astype(x.dtype)
  return jnp.tensordot(x, w, num_in)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _project(x, ws, num_in):
  return [_product(x, w, num_in) for w in ws]


def _project_fwd(x, ws, num_in):
  return _project(x, ws, num_in), (x, ws)


def _project_bwd(num_in, residuals, dys):
  x, ws = residuals
  num_lead = x.ndim - num_in
  dxs = [
    _product(dy, w, (tuple(range(num_lead, dy.ndim)), tuple(range(num_in, w.ndim))))
    for dy, w in zip(dys, ws, strict=True)
  ]
  # From the last to the first, as single products would be differentiated.
  dx = functools.reduce(jnp.add, reversed(dxs))
  dws = _weight_gradients(x, dys, num_lead, jnp.tensordot)
  return dx, tuple(dw.astype(w.dtype) for dw, w in zip(dws, ws, strict=True))


_project.defvjp(_project_fwd, _project_bwd)


def _product(a, b, num_in):
  return jax.lax.platform_dependent(
    a,
    b,
    cpu=lambda a, b: product(a, b, num_in).astype(a.dtype),
    default=lambda a, b: jnp.tensordot(a, b, num_in),
  )


def _weight_gradients(x, dys, num_lead, elsewhere) -> list[jax.Array]:
  """Returns the gradient of each weight; `elsewhere` multiplies where it is no CPU."""
  lead = tuple(range(num_lead))

  def on_cpu(x, *dys):
    # The barriers keep XLA from folding a transposition into a product.
    barrier, grads = jax.lax.optimization_barrier, []
    x_first = barrier(_transposed(x, num_lead))
    for dy in dys:
      if math.prod(x.shape[num_lead:]) <= math.prod(dy.shape[num_lead:]):
        grads.append(product(x_first, dy, num_lead))
      else:  # the narrower of the two is transposed
        dy_first = barrier(_transposed(dy, num_lead))
        grad = barrier(product(dy_first, x, num_lead))
        grads.append(_transposed(grad, dy.ndim - num_lead))
    return grads

  def default(x, *dys):
    return [elsewhere(x, dy, (lead, lead)).astype(jnp.float32) for dy in dys]

  return jax.lax.platform_dependent(x, *dys, cpu=on_cpu, default=default)


def _transposed(x: jax.Array, num_lead: int) -> jax.Array:
  """Returns [*lead, *rest] as [*rest, *lead]."""
  return x.transpose((*range(num_lead, x.ndim), *range(num_lead)))
