"""A checkpoint of ours as the subject of evaluations."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from msm_jax import chat, sampling, train_state
from msm_jax.evals import activations, scoring
from msm_jax.evals.subject import LENGTH, STOP, Completion, Sampling
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig, SteeredConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Model:
  """Parameters on a mesh, adapters beside the base; asked within `jax.set_mesh`."""

  params: Params
  cfg: ModelConfig
  tokenizer: Tokenizer

  @property
  def context_len(self) -> int:
    """The context that the model was made for."""
    return self.cfg.max_seq_len

  @functools.cached_property
  def _sampler(self) -> sampling.Sampler:
    return sampling.Sampler(self.params, self.cfg)

  def complete(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int], sampling_: Sampling
  ) -> Iterator[tuple[int, Completion]]:
    """See `Subject`."""
    config = sampling.SamplingConfig(
      max_new_tokens=sampling_.max_new_tokens,
      stop_ids=chat.stop_ids(self.tokenizer),
      temperature=sampling_.temperature,
      top_p=sampling_.top_p,
      batch_size=sampling_.batch_size,
    )
    for i, sampled in self._sampler.complete(prompts, seeds, config):
      yield i, self._read(sampled.ids, STOP if sampled.is_stopped else LENGTH)

  def _read(self, ids: np.ndarray, finish: str) -> Completion:
    whole = self.tokenizer.decode(ids).strip()
    text = chat.spoken(self.tokenizer, whole)  # reasoning is kept, not scored
    reasoning = whole[: len(whole) - len(text)] if text != whole else ""
    return Completion(
      text=text, reasoning=reasoning.strip(), finish=finish, num_tokens=len(ids)
    )

  def nll(
    self, pieces: Sequence[Piece], *, seq_len: int, batch_size: int
  ) -> np.ndarray:
    """See `Subject`."""
    return scoring.piece_nll(
      self.params, self.cfg, pieces, seq_len=seq_len, batch_size=batch_size
    )

  def states(
    self, pieces: Sequence[Piece], *, depth: float, seq_len: int, batch_size: int
  ) -> np.ndarray:
    """See `Subject`."""
    return activations.last_states(
      self.params,
      self.cfg,
      pieces,
      num_layers=activations.num_layers_of(self.cfg, depth),
      seq_len=seq_len,
      batch_size=batch_size,
    )

  def mean_states(
    self, pieces: Sequence[Piece], *, depth: float, batch_size: int, multiple: int = 1
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean state of each piece, and how long its states are (in the mean).

    See `activations.mean_states`; rows are a multiple of `multiple` slots long.
    """
    longest = max(piece.num_slots for piece in pieces)
    return activations.mean_states(
      self.params,
      self.cfg,
      pieces,
      num_layers=activations.num_layers_of(self.cfg, depth),
      seq_len=-(-longest // multiple) * multiple,
      batch_size=batch_size,
    )

  def steered(self, vector_D: np.ndarray, *, depth: float) -> "Model":
    """Returns the model with a vector added behind `depth` of its layers, at every
    position; made within `jax.set_mesh` if it is on one.
    """
    assert not self.cfg.is_steered
    cfg = SteeredConfig(**vars(self.cfg))
    vector_LD = np.zeros((cfg.num_layers, cfg.embed_dim), np.float32)
    vector_LD[activations.num_layers_of(cfg, depth) - 1] = vector_D
    leaf = {"layers": {"steering": vector_LD}}
    mesh = jax.sharding.get_mesh()
    placed = jax.tree.map(jax.numpy.asarray, leaf)
    if not mesh.empty:
      placed = train_state.place(leaf, cfg, mesh)
    return Model(lora.join(self.params, placed), cfg, self.tokenizer)
