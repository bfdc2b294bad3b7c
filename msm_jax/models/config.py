"""What a model is: sizes, rotary embedding, windows, adapters; parameters and FLOPs.

One description covers the families Llama, Mistral, Qwen2, Qwen3, Gemma 2 and Gemma 3:
they differ in the values of these fields, never in code of their own.

Letters as in the scaling book: L layers, D embed, N heads, K kv heads, H head dim, F
mlp, V vocab.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from msm_jax.errors import UserError

ACTIVATIONS = ("silu", "relu", "gelu", "gelu_tanh")
ROPE_TYPES = ("linear", "llama3", "yarn")
LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Scaled rotary frequencies.

  `linear` divides every frequency by `factor`. `llama3` divides the low frequencies,
  keeps the high ones and blends in between (Llama 3.1 release, `rope_scaling`). `yarn`
  blends by dimension and lengthens queries and keys by `attention_factor` (Peng et al.
  2023; None: it follows from `factor` and the two mscales).
  """

  rope_type: str
  factor: float
  original_max_position_embeddings: int = 8192  # llama3, yarn
  low_freq_factor: float = 1.0  # llama3
  high_freq_factor: float = 4.0  # llama3
  beta_fast: float = 32.0  # yarn
  beta_slow: float = 1.0  # yarn
  attention_factor: float | None = None  # yarn
  mscale: float | None = None  # yarn
  mscale_all_dim: float | None = None  # yarn
  truncate: bool = True  # yarn: whether the blend's bounds are whole dimensions

  def __post_init__(self):
    if self.rope_type not in ROPE_TYPES:
      raise UserError(f"rope_type {self.rope_type!r} is not one of {ROPE_TYPES}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Low-rank adapters: y = x W + (alpha / rank) (x A) B (Hu et al. 2021)."""

  rank: int
  alpha: float
  targets: tuple[str, ...] = LORA_TARGETS

  def __post_init__(self):
    unknown = sorted(set(self.targets) - set(LORA_TARGETS))
    if unknown or self.rank < 1:
      raise UserError(
        f"lora.targets {unknown} or lora.rank {self.rank} is not possible: "
        f"targets are any of {LORA_TARGETS}, rank is at least 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """How a model is computed: what it costs, not what comes out.

  `attention` is a backend of `models/attention`, `remat` a policy of `models/remat.py`.
  `scan_layers` compiles one block and runs it for each layer in turn; unrolled, every
  layer is compiled. `loss_chunk_len` makes logits for that many positions at a time.
  """

  attention: str = "dense"
  remat: str = "none"
  scan_layers: bool = True
  loss_chunk_len: int | None = None


PLAIN = Compute()  # as the formulas have it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """Sizes and traits of a decoder; every field but `family` changes the computation."""

  vocab_size: int
  embed_dim: int
  mlp_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  max_seq_len: int
  rope_theta: float = 10000.0
  rope_scaling: RopeScaling | None = None
  local_rope_theta: float | None = None  # of sliding layers; None: as the others
  norm_eps: float = 1e-5
  zero_centered_norms: bool = False  # norms multiply by 1 + scale
  post_norms: bool = False  # norms after attention and mlp too
  qk_norm: bool = False  # norms over the head dim of queries and keys
  bias: tuple[str, ...] = ()  # projections that add one
  tie_embeddings: bool = True
  scale_embeddings: bool = False  # by sqrt(D), rounded to the compute dtype
  activation: str = "silu"
  query_pre_attn_scalar: int | None = None  # scores / sqrt(this); None: head_dim
  attention_softcap: float | None = None  # cap * tanh(scores / cap)
  final_softcap: float | None = None  # the same for logits
  sliding_window: int | None = None  # keys that a query of a sliding layer sees
  layer_types: tuple[str, ...] = ()  # of each layer; () means: all full attention
  dtype: str = "float32"  # of the computation; norms, softmax and loss are float32
  family: str = "llama"  # what Hugging Face calls such a model (hf/families.py)
  lora: LoraConfig | None = None
  is_steered: ClassVar[bool] = False  # no field: it is no trait of what is trained

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise UserError(
        f"model.num_heads ({self.num_heads}) must be a multiple of "
        f"model.num_kv_heads ({self.num_kv_heads})"
      )
    if self.head_dim % 2:
      raise UserError(
        f"model.head_dim ({self.head_dim}) must be even: RoPE needs pairs"
      )
    if self.activation not in ACTIVATIONS:
      raise UserError(
        f"model.activation {self.activation!r} is not one of {ACTIVATIONS}"
      )
    unknown = sorted(set(self.bias) - set(LORA_TARGETS))
    if unknown:
      raise UserError(f"model.bias {unknown} is not any of {LORA_TARGETS}")
    self._check_windows()

  def _check_windows(self) -> None:
    types = self.layer_types
    if types and len(types) != self.num_layers:
      raise UserError(
        f"model.layer_types names {len(types)} layers, model.num_layers is "
        f"{self.num_layers}"
      )
    unknown = sorted(set(types) - {FULL, SLIDING})
    if unknown:
      raise UserError(
        f"model.layer_types has {unknown[0]!r}: each is {FULL!r} or {SLIDING!r}"
      )
    if (SLIDING in types) != (self.sliding_window is not None):
      raise UserError(
        f"model.sliding_window ({self.sliding_window}) and model.layer_types do not "
        f"agree: set a window exactly when some layer is {SLIDING!r}"
      )

  def _widths(self) -> dict[str, tuple[int, int]]:
    """Returns (input, output) features of every kernel of a block."""
    D, F = self.embed_dim, self.mlp_dim
    N, K = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
    widths = {"q": (D, N), "k": (D, K), "v": (D, K), "o": (N, D)}
    return widths | {"gate": (D, F), "up": (D, F), "down": (F, D)}

  def num_adapter_params(self) -> int:
    """Returns the number of parameters of the adapters, 0 without."""
    if self.lora is None:
      return 0
    widths = self._widths()
    return self.num_layers * sum(
      self.lora.rank * sum(widths[name]) for name in self.lora.targets
    )

  def num_params(self) -> int:
    """Returns the number of base parameters (adapters not counted)."""
    D, H = self.embed_dim, self.head_dim
    attention = D * H * 2 * (self.num_heads + self.num_kv_heads)
    norms = D * (4 if self.post_norms else 2) + (2 * H if self.qk_norm else 0)
    biases = sum(self._widths()[name][1] for name in self.bias)
    block = attention + 3 * D * self.mlp_dim + norms + biases
    head = 0 if self.tie_embeddings else D * self.vocab_size
    return self.vocab_size * D + self.num_layers * block + D + head

  def flops_per_token(
    self, seq_len: int, *, train_base: bool = True, freeze: Sequence[str] = ()
  ) -> float:
    """Returns matmul FLOPs per token of one training step (scaling book, chapter 4).

    Causal attention is counted once (half of the full square; less in a window). With
    a frozen base (`train_base=False`) the weight gradients are not computed: 4 instead
    of 6 per weight; adapters have 6. `freeze` names modules of a trained base that are
    frozen: the output layer (`embed` where it is tied, else `lm_head`) has 4.
    """
    weights = self.num_params()
    if not self.tie_embeddings:  # the embedding look-up is no matmul
      weights -= self.vocab_size * self.embed_dim
    per_weight = 6 if train_base else 4
    total = per_weight * weights + 6 * self.num_adapter_params()
    if train_base and ("embed" if self.tie_embeddings else "lm_head") in freeze:
      total -= 2 * self.vocab_size * self.embed_dim
    num_sliding = self.layer_types.count(SLIDING)
    num_keys = (self.num_layers - num_sliding) * seq_len / 2
    if num_sliding:
      window = min(self.sliding_window, seq_len)
      num_keys += num_sliding * window * (1 - window / (2 * seq_len))
    return total + 12 * self.num_heads * self.head_dim * num_keys


class SteeredConfig(ModelConfig):
  """A model with a vector behind every layer, [L, D] in `layers/steering`.

  It is added to the residual stream at every position. Such models are asked, never
  trained or written.
  """

  is_steered = True
