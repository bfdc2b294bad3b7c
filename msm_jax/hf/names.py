"""Which Hugging Face tensor is which leaf: one table per family, both directions.

A kernel of ours is [*in, *out]; theirs is [out, in] with the dimensions flattened.
Layers are stacked on the leading axis of our leaves; theirs are one tensor per layer.
Rotary pairs are (i, i + H/2) in both, so no rows are permuted.

D embed, N heads, K kv heads, H head dim, F mlp, V vocab, r rank.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from msm_jax.models.config import ModelConfig

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
  """One line of the table.

  `num_in_dims` says how many leading dimensions of our leaf (without the layer axis)
  are inputs: their tensor is then the transposed matrix, or, for 0 (a bias), the leaf
  flattened. None: the two are the same.
  """

  name: str  # of theirs; {layer} is the layer's number
  path: Path  # of ours
  num_in_dims: int | None = None


@dataclasses.dataclass(frozen=True)
class Family:
  """The tensors of one `model_type`.

  The table holds every tensor that a model of the family can have; those whose leaf a
  model lacks (a head when embeddings are tied, a bias) are left out for that model.
  """

  architecture: str
  rules: tuple[Rule, ...]
  embedding: str = "model.embed_tokens.weight"
  head: Rule = Rule("lm_head.weight", ("lm_head", "kernel"), 1)
  # Tensors that old checkpoints carry and that follow from config.json.
  ignored: re.Pattern[str] = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
  )


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of theirs and the slice of a leaf of ours that it is."""

  name: str
  path: Path
  layer: int | None
  shape: tuple[int, ...]  # theirs
  leaf_shape: tuple[int, ...]  # of our slice
  num_in_dims: int | None

  def to_leaf(self, theirs: np.ndarray) -> np.ndarray:
    """Returns their tensor as our slice, as a view where NumPy can."""
    if self.num_in_dims is None:
      return theirs
    ins, outs = self.leaf_shape[: self.num_in_dims], self.leaf_shape[self.num_in_dims :]
    if not ins:
      return theirs.reshape(outs)
    unfolded = theirs.reshape(outs + ins)
    order = [*range(len(outs), unfolded.ndim), *range(len(outs))]
    return unfolded.transpose(order)

  def from_leaf(self, ours: np.ndarray) -> np.ndarray:
    """Returns our slice as their tensor."""
    if self.num_in_dims is None:
      return ours
    if not self.num_in_dims:
      return ours.reshape(self.shape)
    num_inputs = math.prod(self.leaf_shape[: self.num_in_dims])
    return ours.reshape(num_inputs, -1).T


_LAYER = "model.layers.{layer}."
# Ours to theirs: the seven projections that can carry an adapter, with the number of
# input dimensions of our kernel.
PROJECTIONS: dict[str, tuple[Path, str, int]] = {
  "q": (("layers", "attention", "q"), _LAYER + "self_attn.q_proj", 1),
  "k": (("layers", "attention", "k"), _LAYER + "self_attn.k_proj", 1),
  "v": (("layers", "attention", "v"), _LAYER + "self_attn.v_proj", 1),
  "o": (("layers", "attention", "o"), _LAYER + "self_attn.o_proj", 2),
  "gate": (("layers", "mlp", "gate"), _LAYER + "mlp.gate_proj", 1),
  "up": (("layers", "mlp", "up"), _LAYER + "mlp.up_proj", 1),
  "down": (("layers", "mlp", "down"), _LAYER + "mlp.down_proj", 1),
}
_KERNELS = tuple(
  Rule(f"{module}.weight", (*path, "kernel"), num_in_dims)
  for path, module, num_in_dims in PROJECTIONS.values()
)
_BIASES = tuple(
  Rule(f"{module}.bias", (*path, "bias"), 0) for path, module, _ in PROJECTIONS.values()
)
_QK_NORMS = tuple(
  Rule(f"{_LAYER}self_attn.{name}.weight", ("layers", "attention", name, "scale"))
  for name in ("q_norm", "k_norm")
)


def _norms(**theirs: str) -> tuple[Rule, ...]:
  """Returns rules for a block's norms: our name = theirs."""
  return tuple(
    Rule(f"{_LAYER}{name}.weight", ("layers", ours, "scale"))
    for ours, name in theirs.items()
  )


_PRE_NORMS = _norms(
  attention_norm="input_layernorm", mlp_norm="post_attention_layernorm"
)
_SANDWICH_NORMS = _norms(
  attention_norm="input_layernorm",
  attention_post_norm="post_attention_layernorm",
  mlp_norm="pre_feedforward_layernorm",
  mlp_post_norm="post_feedforward_layernorm",
)


def _family(architecture: str, *of_block: Rule) -> Family:
  return Family(
    architecture,
    (
      Rule("model.embed_tokens.weight", ("embed", "embedding")),
      *_KERNELS,
      *of_block,
      Rule("model.norm.weight", ("final_norm", "scale")),
      Family.head,
    ),
  )


FAMILIES = {  # by `model_type` of config.json
  "llama": _family("LlamaForCausalLM", *_BIASES, *_PRE_NORMS),
  "mistral": _family("MistralForCausalLM", *_PRE_NORMS),
  "qwen2": _family("Qwen2ForCausalLM", *_BIASES, *_PRE_NORMS),
  "qwen3": _family("Qwen3ForCausalLM", *_BIASES, *_QK_NORMS, *_PRE_NORMS),
  "gemma2": _family("Gemma2ForCausalLM", *_BIASES, *_SANDWICH_NORMS),
  "gemma3_text": _family("Gemma3ForCausalLM", *_BIASES, *_QK_NORMS, *_SANDWICH_NORMS),
}


def family(cfg: ModelConfig) -> Family:
  """Returns the family that `cfg` is exported as."""
  return FAMILIES[cfg.family]


def leaf_shapes(cfg: ModelConfig) -> dict[Path, tuple[int, ...]]:
  """Returns the shape of every base leaf, the layer axis included."""
  L, D, F, V = cfg.num_layers, cfg.embed_dim, cfg.mlp_dim, cfg.vocab_size
  N, K, H = cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
  kernels = {
    "q": (D, N, H),
    "k": (D, K, H),
    "v": (D, K, H),
    "o": (N, H, D),
    "gate": (D, F),
    "up": (D, F),
    "down": (F, D),
  }
  shapes: dict[Path, tuple[int, ...]] = {
    ("embed", "embedding"): (V, D),
    ("layers", "attention_norm", "scale"): (L, D),
    ("layers", "mlp_norm", "scale"): (L, D),
    ("final_norm", "scale"): (D,),
  }
  for target, shape in kernels.items():
    path, _, num_in_dims = PROJECTIONS[target]
    shapes[(*path, "kernel")] = (L, *shape)
    if target in cfg.bias:
      shapes[(*path, "bias")] = (L, *shape[num_in_dims:])
  if cfg.qk_norm:
    for name in ("q_norm", "k_norm"):
      shapes["layers", "attention", name, "scale"] = (L, H)
  if cfg.post_norms:
    for name in ("attention_post_norm", "mlp_post_norm"):
      shapes["layers", name, "scale"] = (L, D)
  if not cfg.tie_embeddings:
    shapes["lm_head", "kernel"] = (D, V)
  return shapes


def tensors(cfg: ModelConfig) -> list[Tensor]:
  """Returns every tensor of theirs, in their order of layers.

  Each leaf of ours is filled exactly once, layer by layer.
  """
  shapes = leaf_shapes(cfg)
  rules = [rule for rule in family(cfg).rules if rule.path in shapes]
  return _expand(rules, shapes, cfg.num_layers)


def adapter_tensors(
  cfg: ModelConfig, rank: int, targets: Sequence[str]
) -> list[Tensor]:
  """Returns every tensor of a PEFT adapter of `rank` on `targets`."""
  shapes = leaf_shapes(cfg)
  rules, adapter_shapes = [], {}
  for target in targets:
    path, module, num_in_dims = PROJECTIONS[target]
    layers, *dims = shapes[(*path, "kernel")]
    a, b = (*path, "lora_a"), (*path, "lora_b")
    adapter_shapes[a] = (layers, *dims[:num_in_dims], rank)
    adapter_shapes[b] = (layers, rank, *dims[num_in_dims:])
    module = f"base_model.model.{module}"
    rules += [Rule(f"{module}.lora_A.weight", a, num_in_dims)]
    rules += [Rule(f"{module}.lora_B.weight", b, 1)]
  return _expand(rules, adapter_shapes, cfg.num_layers)


def _expand(
  rules: Sequence[Rule], shapes: Mapping[Path, tuple[int, ...]], num_layers: int
) -> list[Tensor]:
  assert {rule.path for rule in rules} == set(shapes), "the table misses a leaf"
  stacked = [rule for rule in rules if "{layer}" in rule.name]
  first = rules.index(stacked[0])
  after = [rule for rule in rules[first:] if rule not in stacked]
  found = [_tensor(rule, shapes[rule.path], None) for rule in rules[:first]]
  for layer in range(num_layers):
    found += [_tensor(rule, shapes[rule.path], layer) for rule in stacked]
  return found + [_tensor(rule, shapes[rule.path], None) for rule in after]


def _tensor(rule: Rule, shape: tuple[int, ...], layer: int | None) -> Tensor:
  slice_shape = shape if layer is None else shape[1:]
  theirs = slice_shape
  if rule.num_in_dims is not None:
    ins, outs = slice_shape[: rule.num_in_dims], slice_shape[rule.num_in_dims :]
    theirs = (math.prod(outs), math.prod(ins)) if ins else (math.prod(outs),)
  name = rule.name.format(layer=layer)
  return Tensor(name, rule.path, layer, theirs, slice_shape, rule.num_in_dims)


def by_leaf(found: Sequence[Tensor]) -> dict[Path, list[Tensor]]:
  """Returns the tensors of each leaf, in the order of layers."""
  leaves: dict[Path, list[Tensor]] = {}
  for tensor in found:
    leaves.setdefault(tensor.path, []).append(tensor)
  return leaves


def walk(tree: Mapping, prefix: Path = ()) -> Iterator[tuple[Path, object]]:
  """Yields (path, leaf) of a nested dict."""
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from walk(value, (*prefix, name))
    else:
      yield (*prefix, name), value


def nest(leaves: Mapping[Path, object]) -> dict:
  """Returns the nested dict with these leaves."""
  tree: dict = {}
  for path, leaf in leaves.items():
    node = tree
    for name in path[:-1]:
      node = node.setdefault(name, {})
    node[path[-1]] = leaf
  return tree
