"""The rotary embedding in `config.json`, as both generations of transformers have it.

transformers 4 has `rope_theta` and `rope_scaling` on top; transformers 5 has one object
`rope_parameters` with both. Gemma 3 has two embeddings: `rope_local_base_freq` in the
old form, one object per layer type in the new one. Both are read, as transformers 5
reads them, and both are written: transformers 4 would silently fall back to theta
10000.
"""

from typing import Any

from msm_jax import progress
from msm_jax.hf.fields import Fields
from msm_jax.models.config import FULL, SLIDING, ModelConfig, RopeScaling

KEYS = ("rope_theta", "rope_scaling", "rope_parameters")
LOCAL_KEY = "rope_local_base_freq"
DEFAULT_THETA = 10000.0
_GLOBAL_THETA, _LOCAL_THETA = 1e6, 1e4  # of Gemma 3
_ORIGINAL = "original_max_position_embeddings"
_KEYS_OF_TYPE = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", _ORIGINAL, "low_freq_factor", "high_freq_factor"),
  "yarn": (
    "factor",
    _ORIGINAL,
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
  ),
}


def read(config: Fields) -> dict[str, Any]:
  """Returns the rotary fields of a ModelConfig from a file with one embedding.

  A non-empty `rope_scaling` replaces `rope_parameters`; theta is taken from the chosen
  object, else from `rope_theta`, else it is 10000.
  """
  name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
  chosen = config.inner(name)
  theta = _theta(chosen, config, "rope_theta", DEFAULT_THETA)
  scaling = _scaling(chosen, config)
  if name == "rope_scaling":
    _tell_disagreement(config, config.inner("rope_parameters"), name, theta, scaling)
  else:
    top = config.get("rope_theta", theta)
    if top != theta:
      progress.say(
        f"{config.source}: rope_theta {top} and rope_parameters.rope_theta {theta} "
        "disagree; the second is used, as transformers 5 does"
      )
  return {"rope_theta": theta, "rope_scaling": scaling}


def read_by_layer_type(config: Fields) -> dict[str, Any]:
  """Returns the rotary fields of a ModelConfig from a file with two embeddings."""
  both = config.inner("rope_parameters")
  for key, value in both.config.items():
    if key not in (FULL, SLIDING) and value is not None:
      raise both.error(key, value, f"only {FULL} and {SLIDING} have a meaning there")
  full, sliding = both.inner(FULL), both.inner(SLIDING)
  local = _theta(sliding, config, LOCAL_KEY, _LOCAL_THETA)
  if _scaling(sliding, config) is not None:
    raise sliding.error("rope_type", sliding.get("rope_type"), "only default is known")
  old = config.inner("rope_scaling")
  if old.get("type") is not None and old.get("rope_type") is None:
    raise old.error("type", old.get("type"), "call it rope_type; it is ignored else")
  # transformers 5 writes the old object over the new one.
  merged = {**full.config, **old.config}
  chosen = Fields(merged, config.source, old.prefix if old.config else full.prefix)
  theta = _theta(chosen, config, "rope_theta", _GLOBAL_THETA)
  scaling = _scaling(chosen, config)
  if scaling is not None and not scaling.truncate:
    raise chosen.error("truncate", False, "transformers does not read it there")
  if old.config:
    _tell_disagreement(config, full, "rope_scaling", theta, scaling)
  return {"rope_theta": theta, "rope_scaling": scaling, "local_rope_theta": local}


def write(cfg: ModelConfig) -> dict[str, Any]:
  """Returns the keys of both generations."""
  scaling = _scaling_to_hf(cfg.rope_scaling)
  parameters = {"rope_type": "default", **scaling, "rope_theta": cfg.rope_theta}
  old = {"rope_theta": cfg.rope_theta, "rope_scaling": scaling or None}
  if cfg.local_rope_theta is None:
    return {**old, "rope_parameters": parameters}
  local = {"rope_type": "default", "rope_theta": cfg.local_rope_theta}
  return {
    **old,
    LOCAL_KEY: cfg.local_rope_theta,
    "rope_parameters": {FULL: parameters, SLIDING: local},
  }


def _theta(chosen: Fields, config: Fields, key: str, default: float) -> float:
  """Returns theta: in the chosen object, else `key` on top, else the default."""
  theta = chosen.number("rope_theta", config.number(key, default))
  if theta > 1:
    return theta
  inside = chosen.get("rope_theta") is not None
  place, field = (chosen, "rope_theta") if inside else (config, key)
  # The frequencies are its powers; with 1 they are all the same.
  raise place.error(field, theta, "it must be above 1")


def _type_of(chosen: Fields) -> str:
  key = "type" if chosen.get("rope_type") is None else "rope_type"
  return chosen.choice(key, {name: name for name in _KEYS_OF_TYPE}, "default")


def _scaling(chosen: Fields, config: Fields) -> RopeScaling | None:
  """Returns the scaling that an object describes, None for the default embedding."""
  rope_type = _type_of(chosen)
  _check_keys(chosen, rope_type)
  if rope_type == "default":
    return None
  values: dict[str, Any] = {}
  if rope_type != "linear":
    # transformers 5 lets the key on top win, and falls back to the whole context.
    inside = chosen.get(_ORIGINAL, config.get("max_position_embeddings"))
    values[_ORIGINAL] = config.whole(_ORIGINAL, inside)
  if rope_type == "llama3":
    for key in ("low_freq_factor", "high_freq_factor"):
      values[key] = chosen.number(key)
  if rope_type == "yarn":
    values |= _yarn(chosen)
    if chosen.get("factor") is None:
      ratio = config.whole("max_position_embeddings") / values[_ORIGINAL]
      return RopeScaling(rope_type=rope_type, factor=ratio, **values)
  return RopeScaling(rope_type=rope_type, factor=chosen.number("factor"), **values)


def _yarn(chosen: Fields) -> dict[str, Any]:
  values: dict[str, Any] = {
    "beta_fast": chosen.number("beta_fast", 32.0),
    "beta_slow": chosen.number("beta_slow", 1.0),
    "truncate": chosen.flag("truncate", True),
  }
  for key in ("attention_factor", "mscale", "mscale_all_dim"):
    if chosen.get(key):  # 0 means: not set
      values[key] = chosen.number(key)
  return values


def _check_keys(chosen: Fields, rope_type: str) -> None:
  """Refuses what is not known to belong to the type or to mean nothing with it."""
  known = {*_KEYS_OF_TYPE[rope_type], "rope_type", "type", "rope_theta"}
  without_effect = {key for keys in _KEYS_OF_TYPE.values() for key in keys}
  if rope_type == "yarn":
    without_effect = set()
  for key, value in chosen.config.items():
    if key == "partial_rotary_factor" and value == 1:
      continue
    if key not in known | without_effect and value is not None:
      raise chosen.error(
        key, value, f"it is not supported with rope type {rope_type!r}"
      )


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any]:
  if scaling is None:
    return {}
  values = {key: getattr(scaling, key) for key in _KEYS_OF_TYPE[scaling.rope_type]}
  values = {key: value for key, value in values.items() if value is not None}
  return {"rope_type": scaling.rope_type, **values}


def _tell_disagreement(
  config: Fields, other: Fields, used: str, theta, scaling
) -> None:
  """Says on stderr which of two disagreeing objects is followed."""
  if not other.config:
    return
  same_type = other.get("rope_type", "default") == (
    scaling.rope_type if scaling else "default"
  )
  same_factor = scaling is None or other.get("factor") == scaling.factor
  if not (same_type and same_factor and other.get("rope_theta", theta) == theta):
    progress.say(
      f"{config.source}: rope_scaling and rope_parameters disagree; {used} with theta "
      f"{theta} is used, as transformers 5 does"
    )
