"""One component of a stage: a corpus to tokens, tokens to packed rows.

What is held in memory is an index of the corpus: its tokens lie on disk between the two
halves and are read row by row.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from msm_jax import mixture, packing, pieces, progress, records, tokenise
from msm_jax.errors import UserError
from msm_jax.experiment import DataConfig, StageConfig
from msm_jax.pieces import Piece, Pieces
from msm_jax.tokenizer import Tokenizer

T = TypeVar("T")
U = TypeVar("U")
_SHOWN_AFTER_S = 2.0
_AHEAD = 2  # batches being encoded at a time


def encode(
  tok: Tokenizer,
  source: pathlib.Path,
  directory: pathlib.Path,
  *,
  train_on: str,
  prefix: str | None,
  system_prompt: str | None,
) -> Pieces:
  """Returns the pieces of the corpus in `source`, which lie in `directory`.

  They are made unless they are there.

  Raises:
    UserError: a record that cannot be encoded; it names the corpus and the record.
  """
  found = pieces.read(directory)
  if found is not None:
    return found
  total = records.read_manifest(source)["num_records"]

  def encoded(batch: list[tokenise.Record]) -> list[tuple[Piece, bool]]:
    made = tokenise.encode_records(
      batch, tok, train_on=train_on, prefix=prefix, system_prompt=system_prompt
    )
    kinds = [record["kind"] == "document" for record in batch]
    return list(zip(made, kinds, strict=True))

  batches = tokenise.batches(records.read_dataset(source))
  found = itertools.chain.from_iterable(_ahead(encoded, batches))
  watched = _watched(found, f"prepare: encode {source.name}", total, "records")
  try:
    pieces.write(directory, watched)
  except UserError as error:
    raise UserError(f"{source}: {error}") from None
  found = pieces.read(directory)
  assert found is not None
  return found


def _ahead(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
  """Yields `work(item)` in order, the next ones under way in threads.

  A tokenizer works on all cores, but not while what it made is taken into Python.
  """
  with concurrent.futures.ThreadPoolExecutor(_AHEAD) as pool:
    pending: collections.deque[concurrent.futures.Future[U]] = collections.deque()
    for item in items:
      pending.append(pool.submit(work, item))
      if len(pending) > _AHEAD:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()


def _watched(items: Iterable, label: str, total: int, unit: str) -> Iterator:
  """Yields `items`; shows how far they have come, unless that takes no time."""
  began = time.monotonic()
  with contextlib.ExitStack() as stack:
    bar = None
    for number, item in enumerate(items):
      yield item
      if bar is None and time.monotonic() - began > _SHOWN_AFTER_S:
        bar = stack.enter_context(progress.Progress(label, total, unit, done=number))
      if bar is not None:
        bar.advance()


def check_concat(stage: StageConfig, corpora: Iterable[Pieces]) -> None:
  """Raises a UserError for `packing='concat'` where nothing can be joined."""
  if not any(every.is_document.any() for every in corpora):
    raise UserError(
      f"config.stages.{stage.name}.packing is 'concat', but its corpora have no "
      "documents, and conversations are never cut: set it to 'best_fit'"
    )


def pack(
  stage: StageConfig,
  index: int,
  every: Pieces,
  *,
  source: pathlib.Path,
  target: pathlib.Path,
) -> dict[str, Any]:
  """Writes the rows of component `index` to `target`; returns facts for the manifest.

  Args:
    stage: how long rows are, how they are packed.
    index: of the component in `stage.data`.
    every: the pieces of its corpus.
    source: where the corpus lies.
    target: appears complete or not at all.

  Raises:
    UserError: nothing to train on, fewer records than chosen, or a document that is too
      long.
  """
  part = stage.data[index]
  fitting = _fit(every, part, stage, source)
  where = f"config.stages.{stage.name}.data[{index}]"
  chosen = mixture.choose(fitting, part, where)
  laid, plan = packing.layout(chosen, stage.seq_len, stage.packing, part.seed)
  made = map(packing.to_record, packing.make_rows(laid, plan, stage.seq_len))
  label = f"prepare: {stage.name} <- {part.corpus}"
  manifest = records.write_dataset(
    target, _watched(made, label, len(plan), "rows"), manifest={"stage": stage.name}
  )
  used = laid.take(np.fromiter(itertools.chain.from_iterable(plan), np.int64))
  num_slots = int(used.num_slots.sum())
  return {
    "corpus": part.corpus,
    "share": part.amount[1] if part.amount[0] == "share" else None,
    "train_on": part.train_on,
    **({} if part.system_prompt is None else {"system_prompt": part.system_prompt}),
    "amount": part.says(),
    "num_records": len(every),
    "num_documents": len(np.unique(used.records)),
    "num_pieces": len(used),
    "num_rows": manifest["num_records"],
    "num_tokens": num_slots,
    "num_target_tokens": int(used.num_targets.sum()),
    "fill": num_slots / (manifest["num_records"] * stage.seq_len),
    "left_out": _left_out(every, fitting, stage),
    "sha256": records.sha256_json([shard["sha256"] for shard in manifest["shards"]]),
  }


def _fit(
  every: Pieces, part: DataConfig, stage: StageConfig, source: pathlib.Path
) -> Pieces:
  """Returns the pieces that fit into rows and carry loss; at least one."""
  try:
    fitting = packing.fit(every, stage.seq_len, stage.long_documents)
  except packing.TooLong as error:
    numbered = enumerate(records.read_dataset(source))
    name = next(record.get("id") for i, record in numbered if i == error.record)
    raise UserError(
      f"config.stages.{stage.name}: {source}, record {name!r}: {error}"
    ) from None
  if len(fitting):
    return fitting
  lost = [f"{n} {why}" for why, n in _left_out(every, fitting, stage).items() if n]
  raise UserError(
    f"config.stages.{stage.name}.data: corpus {part.corpus} gives nothing to train on: "
    + (f"its {len(every)} records are {' and '.join(lost)}" if lost else "it is empty")
    + "; mend the corpus, or leave it out"
  )


def _left_out(every: Pieces, fitting: Pieces, stage: StageConfig) -> dict[str, int]:
  """Returns how many records give nothing to train on, by reason."""
  lost = every.take(~np.isin(every.records, fitting.records))
  too_long = lost.num_slots > stage.seq_len
  if stage.long_documents == "split":  # documents are cut, whatever their length
    too_long &= ~lost.is_document
  long = int(too_long.sum())
  return {"longer than a row": long, "without a target token": len(lost) - long}
