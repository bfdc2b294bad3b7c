"""How each `model_type` writes a model in `config.json`: its keys, both directions.

What families share is in `config.py`, which tensors they have in `names.py`. A family
says what its own keys mean (`read`), writes them (`write`), and names keys that must
have one value (`fixed`) because transformers gives the others a meaning that we do not
compute, or ignores them where a reader would expect an effect. Defaults are those of
the class in transformers; sizes have none, because every real file has them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from msm_jax import progress
from msm_jax.hf import rope
from msm_jax.hf.fields import Fields
from msm_jax.models.config import FULL, SLIDING, ModelConfig

ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
  "gelu": "gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
}
_HF_ACTIVATIONS = {
  "silu": "silu",
  "relu": "relu",
  "gelu": "gelu",
  "gelu_tanh": "gelu_pytorch_tanh",
}
_QKVO = ("q", "k", "v", "o")
_MLP = ("gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class Family:
  """The keys of one `model_type`.

  Attributes:
    read: returns the family's own fields of a ModelConfig.
    write: returns the family's own keys for a ModelConfig.
    keys: that `read` looks at or that follow from others.
    fixed: key -> the values that are accepted.
    max_seq_len, tie_embeddings, head_dim: what an absent key means (None for
      `head_dim`: embed_dim / num_heads).
  """

  read: Callable[[Fields], dict[str, Any]]
  write: Callable[[ModelConfig], dict[str, Any]]
  keys: frozenset[str]
  fixed: Mapping[str, tuple[Any, ...]]
  max_seq_len: int
  tie_embeddings: bool = False
  head_dim: int | None = None


def _read_llama(config: Fields) -> dict[str, Any]:
  bias = _QKVO if config.flag("attention_bias", False) else ()
  bias += _MLP if config.flag("mlp_bias", False) else ()
  activation = config.choice("hidden_act", ACTIVATIONS, "silu")
  return {**rope.read(config), "bias": bias, "activation": activation}


def _write_llama(cfg: ModelConfig) -> dict[str, Any]:
  return {
    **rope.write(cfg),
    "hidden_act": _HF_ACTIVATIONS[cfg.activation],
    "attention_bias": "q" in cfg.bias,
    "mlp_bias": "up" in cfg.bias,
    "pretraining_tp": 1,
  }


def _read_mistral(config: Fields) -> dict[str, Any]:
  window = config.maybe_number("sliding_window", 4096)
  if window is not None:
    window = config.whole("sliding_window", 4096)
  num_layers = config.whole("num_hidden_layers")
  return {
    **rope.read(config),
    "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    "sliding_window": window,
    "layer_types": (SLIDING,) * num_layers if window else (),
  }


def _write_mistral(cfg: ModelConfig) -> dict[str, Any]:
  return {
    **rope.write(cfg),
    "hidden_act": _HF_ACTIVATIONS[cfg.activation],
    "sliding_window": cfg.sliding_window,
  }


def _read_qwen2(config: Fields) -> dict[str, Any]:
  return {
    **rope.read(config),
    "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    "bias": ("q", "k", "v"),
    **_read_qwen_windows(config),
  }


def _write_qwen2(cfg: ModelConfig) -> dict[str, Any]:
  return {
    **rope.write(cfg),
    "hidden_act": _HF_ACTIVATIONS[cfg.activation],
    **_write_qwen_windows(cfg),
  }


def _read_qwen3(config: Fields) -> dict[str, Any]:
  bias = _QKVO if config.flag("attention_bias", False) else ()
  return {**_read_qwen2(config), "bias": bias, "qk_norm": True}


def _write_qwen3(cfg: ModelConfig) -> dict[str, Any]:
  return {**_write_qwen2(cfg), "attention_bias": "q" in cfg.bias}


def _read_qwen_windows(config: Fields) -> dict[str, Any]:
  num_layers = config.whole("num_hidden_layers")
  used = config.flag("use_sliding_window", False)
  window = config.config.get("sliding_window", 4096) if used else None
  first = config.get("max_window_layers", 28)
  default = tuple(
    SLIDING if window is not None and i >= first else FULL for i in range(num_layers)
  )
  types = _layer_types(config, default)
  if SLIDING in types and window is None:
    raise config.error(
      "use_sliding_window", used, f"layer_types has {SLIDING!r}: one of them is wrong"
    )
  return _windows(config, types)


def _write_qwen_windows(cfg: ModelConfig) -> dict[str, Any]:
  types = cfg.layer_types or (FULL,) * cfg.num_layers
  num_full = types.index(SLIDING) if SLIDING in types else cfg.num_layers
  return {
    "use_sliding_window": cfg.sliding_window is not None,
    "sliding_window": cfg.sliding_window,
    "max_window_layers": num_full,
    "layer_types": list(types),
  }


def _read_gemma(config: Fields) -> dict[str, Any]:
  """Returns what Gemma 2 and 3 share."""
  activation = config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
  unused = config.get("hidden_act")
  if unused is not None and ACTIVATIONS.get(unused) != activation:
    progress.say(
      f"{config.source}: hidden_act {unused!r} is not used; hidden_activation "
      f"({activation}) is, as transformers does"
    )
  return {
    "activation": activation,
    "bias": _QKVO if config.flag("attention_bias", False) else (),
    "zero_centered_norms": True,
    "post_norms": True,
    "scale_embeddings": True,
    "query_pre_attn_scalar": config.whole("query_pre_attn_scalar", 256),
  }


def _write_gemma(cfg: ModelConfig) -> dict[str, Any]:
  return {
    **rope.write(cfg),
    "hidden_activation": _HF_ACTIVATIONS[cfg.activation],
    "hidden_act": _HF_ACTIVATIONS[cfg.activation],
    "attention_bias": "q" in cfg.bias,
    "query_pre_attn_scalar": cfg.query_pre_attn_scalar,
    "attn_logit_softcapping": cfg.attention_softcap,
    "final_logit_softcapping": cfg.final_softcap,
    # transformers wants a window even where no layer slides.
    "sliding_window": cfg.sliding_window or 4096,
    "layer_types": list(cfg.layer_types or (FULL,) * cfg.num_layers),
    "use_bidirectional_attention": False,
  }


def _read_gemma2(config: Fields) -> dict[str, Any]:
  num_layers = config.whole("num_hidden_layers")
  default = tuple(FULL if i % 2 else SLIDING for i in range(num_layers))
  return {
    **rope.read(config),
    **_read_gemma(config),
    **_windows(config, _layer_types(config, default)),
    "attention_softcap": config.maybe_number("attn_logit_softcapping", 50.0),
    "final_softcap": config.maybe_number("final_logit_softcapping", 30.0),
  }


def _read_gemma3(config: Fields) -> dict[str, Any]:
  num_layers = config.whole("num_hidden_layers")
  pattern = config.whole("sliding_window_pattern", 6)
  default = tuple(SLIDING if (i + 1) % pattern else FULL for i in range(num_layers))
  return {
    **rope.read_by_layer_type(config),
    **_read_gemma(config),
    **_windows(config, _layer_types(config, default)),
    "qk_norm": True,
    "final_softcap": config.maybe_number("final_logit_softcapping"),
  }


def _layer_types(config: Fields, default: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the kind of every layer; `default` where the file does not list them."""
  types = config.get("layer_types")
  if types is None:
    return default
  known = isinstance(types, list) and all(kind in (FULL, SLIDING) for kind in types)
  if not known or len(types) != len(default):
    raise config.error(
      "layer_types", types, f"it must name {FULL!r} or {SLIDING!r} for every layer"
    )
  return tuple(types)


def _windows(config: Fields, types: tuple[str, ...]) -> dict[str, Any]:
  """Returns the fields about windows; a model without sliding layers has none."""
  if SLIDING not in types:
    return {}
  window = config.config.get("sliding_window", 4096)
  if window is None:
    raise config.error("sliding_window", None, f"layer_types has {SLIDING!r}: set it")
  return {"sliding_window": config.whole("sliding_window", 4096), "layer_types": types}


_WINDOW_KEYS = frozenset({"sliding_window", "layer_types"})
_QWEN_KEYS = _WINDOW_KEYS | {"hidden_act", "use_sliding_window", "max_window_layers"}
_GEMMA_KEYS = _WINDOW_KEYS | {
  "hidden_activation",
  "hidden_act",
  "attention_bias",
  "query_pre_attn_scalar",
  "attn_logit_softcapping",
  "final_logit_softcapping",
}
_OFF = (False, None)
_NO_BIAS = {"attention_bias": _OFF, "mlp_bias": _OFF}
_CAUSAL = {"use_bidirectional_attention": _OFF, "mlp_bias": _OFF}

FAMILIES = {  # by `model_type` of config.json
  "llama": Family(
    read=_read_llama,
    write=_write_llama,
    keys=frozenset({"hidden_act", "attention_bias", "mlp_bias"}),
    fixed={"pretraining_tp": (1, None)},
    max_seq_len=2048,
  ),
  "mistral": Family(
    read=_read_mistral,
    write=_write_mistral,
    keys=frozenset({"hidden_act", "sliding_window"}),
    fixed=_NO_BIAS,
    max_seq_len=131072,
  ),
  "qwen2": Family(
    read=_read_qwen2,
    write=_write_qwen2,
    keys=_QWEN_KEYS,
    fixed=_NO_BIAS,
    max_seq_len=32768,
  ),
  "qwen3": Family(
    read=_read_qwen3,
    write=_write_qwen3,
    keys=_QWEN_KEYS | {"attention_bias"},
    fixed={"mlp_bias": _OFF},
    max_seq_len=32768,
    head_dim=128,
  ),
  "gemma2": Family(
    read=_read_gemma2,
    write=_write_gemma,
    keys=_GEMMA_KEYS,
    fixed=_CAUSAL,
    max_seq_len=8192,
    tie_embeddings=True,
    head_dim=256,
  ),
  "gemma3_text": Family(
    read=_read_gemma3,
    write=_write_gemma,
    # The pattern has been spelt out in layer_types where the second key is written.
    keys=_GEMMA_KEYS
    | {"sliding_window_pattern", "_sliding_window_pattern", rope.LOCAL_KEY},
    fixed={**_CAUSAL, "attn_logit_softcapping": (None,)},  # transformers ignores it
    max_seq_len=131072,
    tie_embeddings=True,
    head_dim=256,
  ),
}
