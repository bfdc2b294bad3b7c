"""Corpora to packed rows on disk: the tokenizer, then one directory per stage.

tokenizer/                 trained here, or a copy of the pretrained model's files
rows/<stage>/<corpus>/     packed rows of one component
rows/<stage>/manifest.json sizes, budgets, order, hashes; its presence means: complete
.pieces/                   corpora as tokens, while rows are made of them

Corpora are streamed: what is held in memory is an index of their documents.
"""

import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from msm_jax import (
  chat,
  chat_setup,
  components,
  mixture,
  origin,
  packing,
  progress,
  records,
  tokenise,
  tokenizer,
)
from msm_jax.errors import UserError
from msm_jax.experiment import DataConfig, Experiment, StageConfig
from msm_jax.hf import config as hf_config
from msm_jax.pieces import Pieces

# (corpus, train_on, prefix, system_prompt) -> its pieces; several stages use the same.
Encode = Callable[[str, str, str | None, str | None], Pieces]
_SPOOL = ".pieces"
_PADDING = ".padding"  # beside the components of a stage: one empty row


def prepare(experiment: Experiment, workdir: pathlib.Path) -> None:
  """Makes the tokenizer and the rows of every stage that are not there yet.

  A corpus that was encoded before an interrupt is not encoded again.
  """
  _check_lengths(experiment)
  tok = make_tokenizer(experiment, workdir)
  if experiment.model.init_from is not None:  # else the config wrote the template
    _say_system_prompt(tok)
  encode = functools.lru_cache(functools.partial(_encode, tok, workdir))
  for stage in experiment.stages.values():
    make_rows(stage, tok, workdir, encode, experiment.seeds)
  shutil.rmtree(workdir / _SPOOL, ignore_errors=True)


def _check_lengths(experiment: Experiment) -> None:
  """Raises a UserError for rows that are longer than a pretrained model's context."""
  if experiment.model.init_from is None:
    return  # the config knows
  found = origin.find(experiment.model.init_from, experiment.seeds[0])
  if isinstance(found, origin.Run):
    return  # training knows, when it has read the other study
  limit = hf_config.read(found).max_seq_len
  for name, stage in experiment.stages.items():
    if stage.seq_len > limit:
      raise UserError(
        f"config.stages.{name}.seq_len ({stage.seq_len}) is longer than the context of "
        f"{found} ({limit}): lower it"
      )


def _say_system_prompt(tok: tokenizer.Tokenizer) -> None:
  """Makes visible what a template says to the model on its own."""
  prompt = chat.facts(tok).get("system_prompt")
  if prompt is not None and tok.choices.system_prompt is None:
    progress.say(
      f"prepare: conversations without a system message get {prompt!r} from the chat "
      "template; config.tokenizer.system_prompt sets another"
    )


def corpus_dir(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where a corpus lies."""
  return workdir / "corpus" / name


def rows_dir(workdir: pathlib.Path, stage: str) -> pathlib.Path:
  """Returns where the rows of a stage lie."""
  return workdir / "rows" / stage


def read_rows_manifest(workdir: pathlib.Path, stage: str) -> dict[str, Any]:
  """Returns the manifest of a stage's rows; a UserError when they are not made yet."""
  path = rows_dir(workdir, stage) / records.MANIFEST
  try:
    return records.read_json(path)
  except FileNotFoundError:
    raise UserError(f"{path} does not exist: run `prepare` first") from None


def make_tokenizer(
  experiment: Experiment, workdir: pathlib.Path
) -> tokenizer.Tokenizer:
  """Returns the study's tokenizer, made if it is not there yet."""
  directory = workdir / "tokenizer"
  identity = _tokenizer_identity(experiment, workdir)
  note = workdir / ".tokenizer.json"
  if directory.exists():
    if not note.exists() or records.read_json(note) != identity:
      raise UserError(
        f"{directory} was made from other corpora, another model or with another "
        "config.tokenizer: use another --workdir, or delete tokenizer/, rows/, runs/ "
        "and evals/ there"
      )
    return tokenizer.load(directory)
  records.write_json(note, identity)
  source = tokenizer_source(experiment)
  if source is not None:
    return chat_setup.install(
      source, directory, chat_setup.settings(experiment.tokenizer)
    )
  config = experiment.tokenizer
  template = config["chat_template"]
  return tokenizer.train_sentencepiece(
    _training_texts(config["train_on"], template, workdir),
    directory,
    model_type=config["model_type"],
    vocab_size=config["vocab_size"],
    chat_template=template,
  )


def tokenizer_source(experiment: Experiment) -> pathlib.Path | None:
  """Returns where the tokenizer of the start lies; None for one that is trained here.

  Raises:
    UserError: seeds begin from models with different tokenizers.
  """
  if experiment.model.init_from is None:
    return None
  found: dict[str, pathlib.Path] = {}
  for directory in origin.tokenizer_dirs(experiment.model, experiment.seeds):
    found.setdefault(tokenizer.load(directory).sha256(), directory)
  if len(found) > 1:
    one, other, *_ = found.values()
    raise UserError(
      f"config.model.init_from: {one} and {other} have different tokenizers, but the "
      "seeds of a study share their rows: begin from models with one tokenizer"
    )
  return next(iter(found.values()))


def _tokenizer_identity(
  experiment: Experiment, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns what the tokenizer is made from."""
  source = tokenizer_source(experiment)
  if source is not None:
    found: dict[str, Any] = {"pretrained": tokenizer.load(source).sha256()}
    settings = chat_setup.settings(experiment.tokenizer).identity()
    return found | ({"chat": settings} if settings else {})
  config = dict(experiment.tokenizer)
  corpora = {name: _corpus_sha256(workdir, name) for name in config["train_on"]}
  return json.loads(json.dumps({"config": config, "corpora": corpora}))


def _corpus_sha256(workdir: pathlib.Path, name: str) -> str:
  manifest = records.read_manifest(corpus_dir(workdir, name))
  return records.sha256_json([shard["sha256"] for shard in manifest["shards"]])


def make_rows(
  stage: StageConfig,
  tok: tokenizer.Tokenizer,
  workdir: pathlib.Path,
  encode: Encode,
  seeds: Sequence[int] = (),
) -> None:
  """Packs the rows of one stage, unless the same are there already.

  Args:
    stage: which records, how much of them, how long a row is.
    tok: the study's tokenizer.
    workdir: of the study.
    encode: gives the pieces of a corpus.
    seeds: whose order of rows is noted beside them.

  Raises:
    UserError: rows of another config are there, the stage has too few steps, or a
      component nothing to train on.
  """
  directory = rows_dir(workdir, stage.name)
  identity = _identity(stage, tok, workdir)
  if (directory / records.MANIFEST).exists():
    _check_same(directory, read_rows_manifest(workdir, stage.name), identity)
    progress.say(f"prepare: {stage.name} done")
    return
  shutil.rmtree(directory, ignore_errors=True)  # half made by an interrupted run
  parts = _components(stage, workdir, encode)
  schedule = mixture.schedule(stage, [part["num_rows"] for part in parts])
  for part, count in zip(parts, schedule.counts, strict=True):
    part["count"] = count
    part["epochs"] = count / part["num_rows"]
  if schedule.num_padding:
    empty = packing.to_record(packing.make_row([], stage.seq_len))
    records.write_dataset(directory / _PADDING, [empty], manifest={})
  manifest = {
    "stage": stage.name,
    "num_train_steps": schedule.num_train_steps,
    "batch_size": stage.batch_size,
    "seq_len": stage.seq_len,
    "adaptation": stage.adaptation,
    "learning_rate": stage.optimizer["learning_rate"],
    "components": parts,
    "num_padding_rows": schedule.num_padding,
    "packing": stage.packing,
    "order": stage.order,
    "chat": chat.facts(tok),
    "identity": identity,
    "sha256": records.sha256_json(
      {
        "rows": [[part["sha256"], part["count"]] for part in parts],
        "batch_size": stage.batch_size,
        "num_padding_rows": schedule.num_padding,
        "order": stage.order,
      }
    ),
  }
  manifest["order_sha256"] = {
    str(seed): _order_sha256(_order(manifest, seed)) for seed in seeds
  }
  records.write_json(directory / records.MANIFEST, manifest)
  for line in describe(manifest):
    progress.say(f"prepare: {line}")


def _components(
  stage: StageConfig, workdir: pathlib.Path, encode: Encode
) -> list[dict[str, Any]]:
  """Packs every component of a stage and returns what the manifest says about each."""
  if stage.packing == "concat":
    components.check_concat(stage, (encode(*_key(part)) for part in stage.data))
  return [
    components.pack(
      stage,
      index,
      encode(*_key(part)),
      source=corpus_dir(workdir, part.corpus),
      target=rows_dir(workdir, stage.name) / part.corpus,
    )
    for index, part in enumerate(stage.data)
  ]


def _key(part: DataConfig) -> tuple[str, str, str | None, str | None]:
  return part.corpus, part.train_on, part.prefix, part.system_prompt


def _encode(
  tok: tokenizer.Tokenizer,
  workdir: pathlib.Path,
  corpus: str,
  train_on: str,
  prefix: str | None,
  system_prompt: str | None = None,
) -> Pieces:
  """Returns the pieces of a corpus, encoded now or before an interrupt."""
  identity = [_corpus_sha256(workdir, corpus), tok.sha256(), train_on, prefix]
  identity += [] if system_prompt is None else [system_prompt]
  return components.encode(
    tok,
    corpus_dir(workdir, corpus),
    workdir / _SPOOL / records.sha256_json(identity)[:16],
    train_on=train_on,
    prefix=prefix,
    system_prompt=system_prompt,
  )


def describe(manifest: dict[str, Any]) -> Iterator[str]:
  """Yields lines for people about the rows of a stage, one per component."""
  for part in manifest["components"]:
    lost = [f"{n} {reason}" for reason, n in part.get("left_out", {}).items() if n]
    yield (
      f"{manifest['stage']} <- {part['corpus']}: {part['num_rows']} rows, "
      f"{part['num_tokens']} tokens, {100 * part['fill']:.2f} % full, "
      f"{part['epochs']:.2f} epochs"
      + (f" (left out: {', '.join(lost)})" if lost else "")
    )


def training_rows(
  workdir: pathlib.Path, stage: str, seed: int
) -> tuple[list[pathlib.Path], np.ndarray]:
  """Returns (directories of rows, int64 [n, 2] of directory and row) in training order.

  Raises:
    UserError: there are no rows, or this machine orders them in another way than the
      one that made them.
  """
  manifest = read_rows_manifest(workdir, stage)
  directory = rows_dir(workdir, stage)
  order = _order(manifest, seed)
  noted = manifest.get("order_sha256", {}).get(str(seed))
  if noted not in (None, _order_sha256(order)):
    raise UserError(
      f"{directory / records.MANIFEST}: the rows of seed {seed} come in another order "
      f"here (numpy {np.__version__}) than where they were packed: use the packages of "
      f"{workdir / 'versions.json'}, or delete {directory} and the runs that used it"
    )
  directories = [directory / part["corpus"] for part in manifest["components"]]
  if manifest.get("num_padding_rows"):
    directories.append(directory / _PADDING)
  return directories, order


def _order(manifest: dict[str, Any], seed: int) -> np.ndarray:
  """Returns the order of a run's rows; empty ones are the last component."""
  num_rows = [part["num_rows"] for part in manifest["components"]]
  counts = [part["count"] for part in manifest["components"]]
  if manifest.get("num_padding_rows"):
    num_rows, counts = [*num_rows, 1], [*counts, manifest["num_padding_rows"]]
  order = manifest.get("order", "mixed")  # rows from before there was a choice
  return packing.row_order(num_rows, counts, seed, order)


def _order_sha256(order: np.ndarray) -> str:
  return records.sha256_bytes(order.astype("<i8").tobytes())


def _identity(
  stage: StageConfig, tok: tokenizer.Tokenizer, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns what the rows depend on."""
  corpora = {part.corpus: _corpus_sha256(workdir, part.corpus) for part in stage.data}
  found = {
    "data": [part.identity() for part in stage.data],
    "seq_len": stage.seq_len,
    "batch_size": stage.batch_size,
    "num_train_steps": stage.num_train_steps,
    "num_epochs": stage.num_epochs,
    "long_documents": stage.long_documents,
    "tokenizer": tok.sha256(),
    "corpora": corpora,
  }
  # Named only where they differ from what rows were before there was a choice.
  found |= {"packing": stage.packing} if stage.packing != "best_fit" else {}
  return found | ({"order": stage.order} if stage.order != "mixed" else {})


def _check_same(directory: pathlib.Path, manifest: dict, identity: dict) -> None:
  found = manifest["identity"]
  way_out = "use another --workdir, or delete it and the runs and evals that used it"
  for name, value in identity["corpora"].items():
    if found["corpora"].get(name, value) != value:
      raise UserError(
        f"{directory} was made from another corpus {name} than the one that is there "
        f"now: {way_out}"
      )
  for field in sorted(found.keys() | identity.keys()):
    if found.get(field) != identity.get(field):
      raise UserError(
        f"{directory} was made with another {field} ({found.get(field)} there, "
        f"{identity.get(field)} now): {way_out}"
      )


def _training_texts(
  names, template: str | None, workdir: pathlib.Path
) -> Iterator[str]:
  """Yields what the tokenizer is trained on: documents, and chats as rendered."""
  stand_in = tokenizer.Tokenizer(
    backend=None,
    directory=workdir / "tokenizer",
    vocab_size=0,
    bos_token=None,
    eos_token="</s>",
    bos_id=None,
    eos_id=0,
    chat_template=template,
  )
  for name in names:
    for batch in tokenise.batches(records.read_dataset(corpus_dir(workdir, name))):
      talks = [r["messages"] for r in batch if r["kind"] == "conversation"]
      rendered = iter(chat.render_all(stand_in, talks) if talks else ())
      for record in batch:
        if record["kind"] == "document":
          yield record["text"]
        elif record["kind"] == "conversation":
          yield next(rendered)
