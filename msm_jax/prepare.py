"""Corpora to packed rows on disk: the tokenizer, then one directory per stage.

tokenizer/                 trained here, or a copy of the pretrained model's files
rows/<stage>/<corpus>/     packed rows of one component
rows/<stage>/manifest.json sizes, budgets, hashes; its presence means: complete
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from msm_jax import chat, chat_setup, origin, packing, progress, records, tokenizer
from msm_jax.errors import UserError
from msm_jax.experiment import DataConfig, Experiment, StageConfig
from msm_jax.packing import Piece

# (corpus, train_on) -> its pieces; several stages use the same, it is encoded once.
Encode = Callable[[str, str], list[Piece]]


def prepare(experiment: Experiment, workdir: pathlib.Path) -> None:
  """Makes the tokenizer and the rows of every stage that are not there yet."""
  tok = make_tokenizer(experiment, workdir)
  if experiment.model.init_from is not None:  # else the config wrote the template
    _say_system_prompt(tok)
  encode = functools.lru_cache(functools.partial(_encode, tok, workdir))
  for stage in experiment.stages.values():
    make_rows(stage, tok, workdir, encode)


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
  stage: StageConfig, tok: tokenizer.Tokenizer, workdir: pathlib.Path, encode: Encode
) -> None:
  """Packs the rows of one stage, unless the same are there already.

  Raises:
    UserError: rows of another config are there, or the stage has too few steps.
  """
  directory = rows_dir(workdir, stage.name)
  identity = _identity(stage, tok, workdir)
  if (directory / records.MANIFEST).exists():
    _check_same(directory, read_rows_manifest(workdir, stage.name), identity)
    progress.say(f"prepare: {stage.name} done")
    return
  shutil.rmtree(directory, ignore_errors=True)  # half made by an interrupted run
  components = [_pack(part, stage, encode, directory) for part in stage.data]
  num_steps = _num_steps(stage, components)
  counts = packing.exact_shares(
    num_steps * stage.batch_size, [part.share for part in stage.data]
  )
  for component, count in zip(components, counts, strict=True):
    component["count"] = count
    component["epochs"] = count / component["num_rows"]
  records.write_json(
    directory / records.MANIFEST,
    {
      "stage": stage.name,
      "num_train_steps": num_steps,
      "batch_size": stage.batch_size,
      "seq_len": stage.seq_len,
      "adaptation": stage.adaptation,
      "learning_rate": stage.optimizer["learning_rate"],
      "components": components,
      "chat": chat.facts(tok),
      "identity": identity,
      "sha256": records.sha256_json([part["sha256"] for part in components]),
    },
  )
  for part in components:
    progress.say(
      f"prepare: {stage.name} <- {part['corpus']}: {part['num_rows']} rows, "
      f"{part['num_tokens']} tokens, {100 * part['fill']:.2f} % full, "
      f"{part['epochs']:.2f} epochs"
    )


def _encode(
  tok: tokenizer.Tokenizer, workdir: pathlib.Path, corpus: str, train_on: str
) -> list[Piece]:
  return [
    packing.encode_record(record, tok, train_on=train_on)
    for record in records.read_dataset(corpus_dir(workdir, corpus))
  ]


def _pack(
  part: DataConfig, stage: StageConfig, encode: Encode, directory: pathlib.Path
) -> dict[str, Any]:
  pieces = encode(part.corpus, part.train_on)
  pieces = packing.fit(pieces, stage.seq_len, stage.long_documents)
  if not pieces:
    raise UserError(
      f"corpus {part.corpus} has no document for config.stages.{stage.name}.data"
    )
  rows = map(packing.to_record, packing.pack(pieces, stage.seq_len))
  target = directory / part.corpus
  manifest = records.write_dataset(target, rows, manifest={"stage": stage.name})
  num_slots = sum(piece.num_slots for piece in pieces)
  return {
    **dataclasses.asdict(part),
    "num_pieces": len(pieces),
    "num_rows": manifest["num_records"],
    "num_tokens": num_slots,
    "num_target_tokens": int(sum(piece.weights[1:].sum() for piece in pieces)),
    "fill": num_slots / (manifest["num_records"] * stage.seq_len),
    "sha256": records.sha256_json([shard["sha256"] for shard in manifest["shards"]]),
  }


def _num_steps(stage: StageConfig, components: list[dict[str, Any]]) -> int:
  """Returns the optimizer steps: as configured, or epochs over the first component."""
  num_steps = stage.num_train_steps
  if num_steps is None:
    total_share = sum(part.share for part in stage.data)
    first = stage.num_epochs * components[0]["num_rows"]
    num_steps = round(first * total_share / stage.data[0].share / stage.batch_size)
  if num_steps < stage.min_steps:
    raise UserError(
      f"config.stages.{stage.name}: {num_steps} optimizer steps are fewer than "
      f"min_steps ({stage.min_steps}); so few updates often teach nothing. Lower "
      f"batch_size ({stage.batch_size}), add data or epochs, or lower min_steps"
    )
  return num_steps


def _identity(
  stage: StageConfig, tok: tokenizer.Tokenizer, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns what the rows depend on."""
  corpora = {part.corpus: _corpus_sha256(workdir, part.corpus) for part in stage.data}
  return {
    "data": [dataclasses.asdict(part) for part in stage.data],
    "seq_len": stage.seq_len,
    "batch_size": stage.batch_size,
    "num_train_steps": stage.num_train_steps,
    "num_epochs": stage.num_epochs,
    "long_documents": stage.long_documents,
    "tokenizer": tok.sha256(),
    "corpora": corpora,
  }


def _check_same(directory: pathlib.Path, manifest: dict, identity: dict) -> None:
  found = manifest["identity"]
  for field, value in identity.items():
    if found.get(field) != value:
      raise UserError(
        f"{directory} was made with another {field} ({found.get(field)} there, {value} "
        "now): use another --workdir, or delete it and the runs and evals that used it"
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
    for record in records.read_dataset(corpus_dir(workdir, name)):
      if record["kind"] == "document":
        yield record["text"]
      elif record["kind"] == "conversation":
        yield chat.render(stand_in, record["messages"])
