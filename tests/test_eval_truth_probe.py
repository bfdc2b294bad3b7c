"""The truth probe: states in the middle of a model, and what a direction says."""

import dataclasses
import json

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import said

from msm_jax import sharding
from msm_jax.errors import UserError
from msm_jax.evals import activations, truth_probe
from msm_jax.models import transformer
from msm_jax.packing import Piece

CONFIG = {"items": "statements", "claims": None, "depth": 0.5, "seq_len": 64}
CONFIG |= {"batch_size": 2}


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


@dataclasses.dataclass
class Knowing(said.Said):
  """A model with a state for every statement."""

  state: object = None

  def states(self, pieces, *, depth, seq_len, batch_size):
    """See `Subject`."""
    texts = [self.tokenizer.decode(piece.ids[:-1]) for piece in pieces]
    return np.asarray([self.state(text) for text in texts], np.float64)


def run(tmp_path, tok, state, **changes):
  subject = Knowing(tok, state=state)
  return said.ask(tmp_path, "truth_probe", subject, **CONFIG | changes)


def truth(text):
  """Returns the state of a model that knows the statements that come along."""
  path = truth_probe.items_lib.path_of("statements")
  pairs = map(json.loads, path.read_text("utf-8").splitlines())
  return [float(text in {pair["true"] for pair in pairs}), len(text) / 100]


def test_a_direction_learned_on_some_pairs_decides_on_others(tmp_path, tok):
  lines = run(tmp_path, tok, truth)
  assert len(lines) == 16 and all(line["id"].startswith("test") for line in lines)
  for line in lines:
    assert line["scores"] == {"accuracy_transfer": 1.0, "accuracy_pairs": 1.0}


def test_what_is_held_of_a_claim_is_said_of_both_sides(tmp_path, tok):
  claims = tmp_path / "claims.jsonl"
  pair = {"id": "c", "true": "It rains.", "false": "Ice is frozen water."}
  claims.write_text(json.dumps(pair) + "\n")
  line = run(tmp_path, tok, truth, claims=str(claims))[-1]
  assert line["id"] == "claim/c"
  assert line["scores"] == {"share_held_true": 0.0, "share_held_false": 1.0}


def test_a_model_in_which_nothing_differs_is_null(tmp_path, tok):
  for line in run(tmp_path, tok, lambda text: [1.0, 2.0]):
    assert set(line["scores"].values()) == {None} and line["margins"] is None


def test_states_that_are_not_numbers_score_nothing(tmp_path, tok):
  with pytest.raises(UserError, match=r"hidden states .* not finite; nothing was"):
    run(tmp_path, tok, lambda text: [np.nan, 1.0])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"depth": 0.0}, r"depth \(0\.0\) must be above 0"),
    ({"items": "identity"}, "has no text under 'true'"),
    ({"claims": "nowhere"}, r"claims is 'nowhere', and there is no file"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  config = truth_probe.TruthProbeConfig(**CONFIG | changes)
  with pytest.raises(UserError, match=message):
    truth_probe.check(config, "config.evals.eval")


def test_states_are_those_of_a_cut_model_whatever_shares_the_row():
  cfg = hf_models.config(num_layers=3, lora=hf_models.lora())
  params = jax.tree.map(jnp.asarray, hf_models.params(cfg))
  rng = np.random.default_rng(0)
  drawn = [rng.integers(0, 61, n).astype(np.int32) for n in (5, 9, 3, 12)]
  pieces = [Piece(ids, np.ones(len(ids), np.float32)) for ids in drawn]

  def states(pieces, num_layers, seq_len=16):
    sizes = {"num_layers": num_layers, "seq_len": seq_len, "batch_size": 2}
    return activations.last_states(params, cfg, pieces, **sizes)

  with jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:1])):
    packed, alone = states(pieces, 2), states(pieces[1:2], 2)
    np.testing.assert_allclose(packed[1:2], alone, atol=1e-5)
    np.testing.assert_allclose((packed**2).mean(axis=1), 1, rtol=1e-3)
    # Behind all layers they are what the model itself ends with, but for the scale.
    ids = jnp.asarray(drawn[1][None, :-1])
    positions = jnp.arange(8)[None]
    model = transformer.bind(cfg, params)
    whole, _ = model.hidden(ids, positions, jnp.ones_like(ids))
    wanted = np.asarray(whole[0, -1] / params["final_norm"]["scale"])
    np.testing.assert_allclose(states(pieces, 3)[1], wanted, atol=1e-4)
