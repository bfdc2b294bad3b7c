"""What an import is told: `config.corpora.<name>` of kind `import`."""

import dataclasses
from typing import ClassVar

from data_gen.kinds import sizes
from msm_jax import errors

SHAPES = ("text", "messages", "conversations", "prompt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportCorpus:
  """Somebody's own data: files of rows, or a dataset folder of Hugging Face.

  Attributes:
    path: a .jsonl, .json, .parquet or .arrow file (.jsonl and .json also .gz or .zst),
      a glob, or a folder of such files.
    split: which split of a folder that has several.
    subset: which of the `configs` in the README of a folder that has several.
    shape: 'text', 'messages', 'conversations' (ShareGPT) or 'prompt' (prompt and
      completion); None: what the rows have, as long as that is one of them.
    text_field, messages_field, prompt_field, completion_field, domain_field, id_field:
      what these columns are called.
    max_records: how many to keep; None: all, or as `num_words` or `num_tokens` says.
    num_words: how many words to keep, exactly if a choice among the rows makes them,
      else the nearest below; thoughts count too.
    num_tokens: the same in tokens of `tokenizer`, without a chat template's marks.
    tokenizer: a directory with a tokenizer, as Hugging Face has them.
    stratum_field: a column whose values take turns in that choice.
    seed: None keeps the first rows; a number draws them.
    alternate: reject conversations whose user and assistant turns do not alternate;
      many chat templates refuse them.
    max_row_mb: longer rows are rejected.
    license, source, language: of the data; kept in the manifest and passed on.
  """

  kind: ClassVar[str] = "import"
  roots: ClassVar[tuple[str, ...]] = (
    "path", "split", "subset", "shape", "text_field", "messages_field", "prompt_field",
    "completion_field", "domain_field", "id_field", "max_records", "seed", "alternate",
    "max_row_mb", "license", "source", "language",
  )  # fmt: skip
  path: str
  split: str | None = None
  subset: str | None = None
  shape: str | None = None
  text_field: str = "text"
  messages_field: str = "messages"
  prompt_field: str = "prompt"
  completion_field: str = "completion"
  domain_field: str = "domain"
  id_field: str = "id"
  max_records: int | None = None
  seed: int | None = None
  num_words: int | None = None
  num_tokens: int | None = None
  tokenizer: str | None = None
  stratum_field: str | None = None
  alternate: bool = True
  max_row_mb: int = 16
  license: str | None = None
  source: str | None = None
  language: str | None = None


def check(where: str, corpus: ImportCorpus) -> None:
  """Raises a `UserError` for settings that cannot work; not for counts."""
  for field in dataclasses.fields(corpus):
    value = getattr(corpus, field.name)
    if field.type not in (str, str | None):
      continue
    if value is None and field.type == str | None:
      continue
    if not isinstance(value, str) or not value:
      raise errors.UserError(f"{where}.{field.name} is {value!r}: it is text")
  if corpus.shape not in (None, *SHAPES):
    raise errors.UserError(
      f"{where}.shape is {corpus.shape!r}: it is one of {', '.join(SHAPES)}, or None"
    )
  budget = sizes.budget_field(corpus)
  if corpus.seed is not None and corpus.max_records is None and budget is None:
    raise errors.UserError(
      f"{where}.seed is {corpus.seed}, but nothing is drawn: set max_records, "
      "num_words or num_tokens, or set seed to None"
    )
  if corpus.stratum_field is not None and budget is None:
    raise errors.UserError(
      f"{where}.stratum_field is {corpus.stratum_field!r}, but nothing is chosen: set "
      "num_words or num_tokens, or leave it out"
    )
