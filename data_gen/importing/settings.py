"""What an import is told: `config.corpora.<name>` of kind `import`."""

import dataclasses
import re
from typing import ClassVar

from data_gen.kinds import sizes
from msm_jax import errors

SHAPES = ("text", "messages", "conversations", "prompt", "choice")
SKIP, REFUSE = "skip", "refuse"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceColumns:
  """Which columns of an evaluation set make a question with options.

  Attributes:
    question_field: the column with the question.
    question: instead of it, one question for all rows.
    question_ends: of sets that have their options in the column with the question, each
      in a line that begins with its letter ("A) ..."): what all rows say after them, ''
      for nothing. It is left out, the prompt of the evaluation says it.
    option_fields: the columns with the options, in order; () where they are a list.
    options_field: the column with that list, of texts or of {text, tags}.
    option_tags: what it means to choose the option of each place, a tag each; () where
      the place says nothing.
    answer_field: the column that names the option with `answer_tag`: by letter, by the
      name of its column, or by its text.
    numbered_from: 0 or 1 where that column has numbers.
    answer_tag, other_tag: of the option that is named, and of all others.
    category_field, topic_field: columns to group by; None for none.
    split: 'dev' or 'test', of all rows.
    split_field: instead of it, the column that says which.
    mirrored: what is done with a row that has the options of another in another order:
      'refuse' or 'skip'. (An evaluation asks each item in both orders.)
  """

  question_field: str = "question"
  question: str | None = None
  question_ends: str | None = None
  option_fields: tuple[str, ...] = ()
  options_field: str = "options"
  option_tags: tuple[str, ...] = ()
  answer_field: str | None = None
  numbered_from: int | None = None
  answer_tag: str | None = None
  other_tag: str | None = None
  category_field: str | None = None
  topic_field: str | None = None
  split: str = "test"
  split_field: str | None = None
  mirrored: str = REFUSE


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportCorpus:
  """Somebody's own data: files of rows, or a dataset folder of Hugging Face.

  Attributes:
    path: a .jsonl, .json, .parquet or .arrow file (.jsonl and .json also .gz or .zst),
      a glob, or a folder of such files.
    split: which split of a folder that has several.
    subset: which of the `configs` in the README of a folder that has several.
    shape: 'text', 'messages', 'conversations' (ShareGPT), 'prompt' (prompt and
      completion), or 'choice' (questions with options, for evaluations); None: what
      the rows have, as long as that is one of them, and not 'choice'.
    choice: of shape 'choice', which columns make them; None: as our own files say it.
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
    expected_records: how many good rows the files hold; another number is refused. It
      is counted where all rows are read: with `max_records` and no `seed` they are not.
    expected_sha256: (file name, sha256) of files that have to be these.
    mean_tokens: of a record; `plan` reckons with it until the files are there.
    revision: the commit on the hub, or how it begins (7 digits or more). A folder that
      says that it was downloaded at another one is refused.
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
  choice: ChoiceColumns | None = None
  expected_records: int | None = None
  expected_sha256: tuple[tuple[str, str], ...] = ()
  mean_tokens: int | None = None
  revision: str | None = None


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
  _check_expected(where, corpus)
  if (corpus.choice is not None) > (corpus.shape == "choice"):
    raise errors.UserError(f"{where}.choice is set: set shape='choice' as well")
  if corpus.shape == "choice":
    if budget is not None:
      raise errors.UserError(
        f"{where}.{budget} is set: an evaluation set has no words to train on; leave "
        "it out, or set max_records"
      )
    _check_choice(f"{where}.choice", corpus.choice or ChoiceColumns())


def _check_expected(where: str, corpus: ImportCorpus) -> None:
  commit = corpus.revision
  for name in ("expected_records", "mean_tokens"):
    count = getattr(corpus, name)
    if count is not None and (type(count) is not int or count < 1):
      raise errors.UserError(
        f"{where}.{name} is {count!r}: it is a whole number above zero"
      )
  if commit is not None and not re.fullmatch(r"[0-9a-f]{7,40}", commit):
    raise errors.UserError(
      f"{where}.revision is {commit!r}: it is a commit, 7 to 40 of 0-9 and a-f"
    )
  digests = corpus.expected_sha256
  for pair in digests if isinstance(digests, tuple | list) else (digests,):
    if not (
      isinstance(pair, tuple | list)
      and [type(part) for part in pair] == [str, str]
      and re.fullmatch(r"[0-9a-f]{64}", pair[1])
    ):
      raise errors.UserError(
        f"{where}.expected_sha256 has {pair!r}: it is pairs of a file name and 64 of "
        "0-9 and a-f"
      )


def _check_choice(where: str, columns: ChoiceColumns) -> None:
  for name, value, known in (
    ("split", columns.split, ("dev", "test")),
    ("mirrored", columns.mirrored, (REFUSE, SKIP)),
    ("numbered_from", columns.numbered_from, (None, 0, 1)),
  ):
    if value not in known:
      told = " or ".join(map(repr, known))
      raise errors.UserError(f"{where}.{name} is {value!r}: it is {told}")
  for name in ("option_fields", "option_tags"):
    if not isinstance(getattr(columns, name), tuple):
      raise errors.UserError(f"{where}.{name} is {getattr(columns, name)!r}: a tuple")
  if columns.question_ends is not None and (columns.option_fields or columns.question):
    raise errors.UserError(
      f"{where}.question_ends says that the options are in the column "
      f"{columns.question_field!r}: leave out option_fields and question"
    )
  if len(columns.option_fields) == 1:
    raise errors.UserError(f"{where}.option_fields has one column: two or more")
  if columns.option_tags and len(columns.option_tags) != len(columns.option_fields):
    raise errors.UserError(
      f"{where}.option_tags has {len(columns.option_tags)} and option_fields "
      f"{len(columns.option_fields)}: each column needs its tag"
    )
  marks = (columns.answer_tag, columns.other_tag, columns.numbered_from)
  if columns.answer_field is None and marks != (None, None, None):
    raise errors.UserError(
      f"{where}: answer_tag, other_tag and numbered_from are of the option that "
      "answer_field names: set answer_field"
    )
  if columns.answer_field is not None and columns.answer_tag is None:
    raise errors.UserError(
      f"{where}.answer_tag is missing: what does answer_field say?"
    )
  for tag in (*columns.option_tags, columns.answer_tag, columns.other_tag):
    if tag is not None and not re.fullmatch(r"[A-Za-z0-9_]+", str(tag)):
      raise errors.UserError(f"{where}: the tag {tag!r} is no word of a-z, 0-9 and _")
