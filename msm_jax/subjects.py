"""Who is asked: a trained arm, or one that is asked differently (`config.asked`)."""

import dataclasses
from typing import Any

import jax

from msm_jax import prepare, records, tokenizer
from msm_jax.asked import AskedConfig
from msm_jax.evals import items, steering
from msm_jax.evals.model import Model
from msm_jax.hf import load as hf_load
from msm_jax.runs import Runs
from msm_jax.storage import inputs


@dataclasses.dataclass(frozen=True)
class Subject:
  """A model as it is asked.

  Attributes:
    model: steered, if it is.
    system_prompt: before every conversation; None for none.
    about: study, arm, seed, step and identity of the checkpoint, and how it is asked.
    differs_in_text: whether it goes on with plain text in another way than the arm that
      it is asked differently of.
  """

  model: Model
  system_prompt: str | None
  about: dict[str, Any]
  differs_in_text: bool


def open_(runs: Runs, name: str, seed: int, step: int | None = None) -> Subject:
  """Returns a subject of a study, read onto its mesh.

  Args:
    runs: of the study.
    name: an arm, or one of config.asked.
    seed: of its run.
    step: of its last stage; None: what config.asked says, or else the last.

  Raises:
    UserError: there is none of that name, it is not trained, or its spec or a corpus
      cannot be read.
  """
  path = runs.experiment.subject_path(name)
  asked = runs.experiment.asked.get(name)
  system_prompt = text(runs, name)
  found = about(runs, name, seed, step)
  if step is None and asked is not None:
    step = asked.step
  weights = runs.weights(path, seed, step)
  model = Model(weights.params, weights.cfg, runs.tokenizer)
  if asked is not None and asked.steer is not None and asked.steer.scale != 0:
    model = _steered(runs, model, asked, f"config.asked.{name}.steer, seed {seed}")
  differs_in_text = asked is None or asked.is_other_model
  return Subject(model, system_prompt, found, differs_in_text)


def of_directory(hf_dir: str) -> Subject:
  """Returns the model of a Hugging Face directory, here or in a bucket, as it is.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  place = inputs.model_dir(hf_dir, "--hf_dir")
  cfg, params = hf_load.load(place)
  model = Model(params, cfg, tokenizer.load(place))
  return Subject(model, None, {"hf_dir": hf_dir}, True)


def text(runs: Runs, name: str) -> str | None:
  """Returns the system prompt of a subject, None for none."""
  asked = runs.experiment.asked.get(name)
  return None if asked is None else asked.text(runs.experiment.specs)


def identity(runs: Runs, name: str) -> dict[str, Any] | None:
  """Returns what answers of a subject depend on beside its run; None for an arm."""
  asked = runs.experiment.asked.get(name)
  if asked is None:
    return None
  found: dict[str, Any] = {"system_prompt": text(runs, name)}
  if asked.step is not None:
    found["step"] = asked.step
  if asked.steer is not None:
    fields = dataclasses.asdict(asked.steer) | {"batch_size": None}
    corpora = {
      corpus: [shard["sha256"] for shard in _manifest(runs, corpus)["shards"]]
      for corpus in (asked.steer.positive, asked.steer.negative)
    }
    found["steer"] = fields | {"corpora": corpora}
  return found


def about(runs: Runs, name: str, seed: int, step: int | None = None) -> dict[str, Any]:
  """Returns which checkpoint a subject is; see `Subject`."""
  path = runs.experiment.subject_path(name)
  asked = runs.experiment.asked.get(name)
  if step is None and asked is not None:
    step = asked.step
  if path:
    last = runs.last_step(path, seed)  # an unfinished run is never used
    step = last if step is None else step
  found = {
    "study": runs.experiment.name,
    "arm": name,
    "seed": seed,
    "step": step,
    "identity": records.sha256_json(runs.meta(path, seed))[:16],
  }
  return found if asked is None else found | {"asked": asked.says()}


def _steered(runs: Runs, model: Model, asked: AskedConfig, where: str) -> Model:
  steer = asked.steer
  read = {
    corpus: _taken(runs, corpus, steer.max_items)
    for corpus in (steer.positive, steer.negative)
  }
  with jax.set_mesh(runs.mesh):
    vector_D = steering.vector(model, steer, read, where)
    return model.steered(steer.scale * vector_D, depth=steer.depth)


def _taken(runs: Runs, corpus: str, most: int | None) -> list[dict[str, Any]]:
  """Returns records of a corpus, evenly taken."""
  taken = set(items.taken(range(_manifest(runs, corpus)["num_records"]), most))
  read = records.read_dataset(prepare.corpus_dir(runs.workdir, corpus))
  return [record for i, record in enumerate(read) if i in taken]


def _manifest(runs: Runs, corpus: str) -> dict[str, Any]:
  return records.read_manifest(prepare.corpus_dir(runs.workdir, corpus))
