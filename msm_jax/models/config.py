"""What a model is: sizes, rotary embedding, adapters; parameter and FLOP counts.

Letters as in the scaling book: L layers, D embed, N heads, K kv heads, H head dim, F
mlp, V vocab.
"""

import dataclasses

from msm_jax.errors import UserError

ACTIVATIONS = ("silu", "relu", "gelu_tanh")
ROPE_TYPES = ("linear", "llama3")
LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """Scaled rotary frequencies.

  `linear` divides every frequency by `factor`. `llama3` divides the low frequencies,
  keeps the high ones and blends in between (Llama 3.1 release, `rope_scaling`).
  """

  rope_type: str
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_position_embeddings: int = 8192

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
class ModelConfig:
  """Sizes of a Llama-family decoder; every field changes the computation."""

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
  norm_eps: float = 1e-5
  tie_embeddings: bool = True
  activation: str = "silu"
  dtype: str = "float32"  # of the computation; norms, softmax and loss are float32
  lora: LoraConfig | None = None

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

  def num_params(self) -> int:
    """Returns the number of base parameters (adapters not counted)."""
    attention = (
      self.embed_dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
    )
    mlp = 3 * self.embed_dim * self.mlp_dim
    block = attention + mlp + 2 * self.embed_dim
    head = 0 if self.tie_embeddings else self.embed_dim * self.vocab_size
    embed = self.vocab_size * self.embed_dim
    return embed + self.num_layers * block + self.embed_dim + head

  def flops_per_token(self, seq_len: int, *, train_base: bool = True) -> float:
    """Returns matmul FLOPs per token of one training step (scaling book, chapter 4).

    Causal attention is counted once (half of the full square). With a frozen base
    (`train_base=False`) the weight gradients are not computed: 4 instead of 6 per
    weight.
    """
    weights = self.num_params()
    if not self.tie_embeddings:  # the embedding look-up is no matmul
      weights -= self.vocab_size * self.embed_dim
    per_weight = 6 if train_base else 4
    attention = 6 * self.num_layers * self.num_heads * self.head_dim * seq_len
    return per_weight * weights + attention
