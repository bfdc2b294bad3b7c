"""Whether an import is what the config expects: rows, hashes, the revision on the hub.

A released set that changed, or of which half was downloaded, is another experiment.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping

from data_gen.importing.folders import Source
from data_gen.importing.settings import ImportCorpus
from msm_jax import errors

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Where `hf download --local-dir` notes the commit of each file, in the first line.
_NOTES = pathlib.PurePath(".cache", "huggingface", "download")


def check_files(
  name: str, corpus: ImportCorpus, source: Source, files: Mapping[str, str]
) -> None:
  """Raises a `UserError` for files of another content or another revision.

  Args:
    name: in `config.corpora`.
    corpus: what is expected of them.
    source: where they lie.
    files: sha256 by name.
  """
  where = f"config.corpora.{name}.expected_sha256"
  for file, digest in corpus.expected_sha256:
    if file not in files:
      raise errors.UserError(
        f"{where} names {file!r}, but {corpus.path} has {', '.join(files)}: download "
        "it, or take it out"
      )
    if files[file] != digest:
      raise errors.UserError(
        f"{where}: {file} in {corpus.path} has {files[file]}, not {digest}: download "
        f"{_wanted(corpus)} again, or set what you have"
      )
  if corpus.revision is None:
    return
  for path, commit in _commits(source):
    if not commit.startswith(corpus.revision):
      raise errors.UserError(
        f"config.corpora.{name}.revision is {corpus.revision!r}, but {path} was "
        f"downloaded at {commit}: download {_wanted(corpus)}, or set what you have"
      )


def check_count(
  name: str, corpus: ImportCorpus, num_good: int, num_rows: int, first: str
) -> None:
  """Raises a `UserError` for another number of good rows than is expected.

  Args:
    name: in `config.corpora`.
    corpus: what is expected.
    num_good: rows of the whole source that became records.
    num_rows: all of its rows.
    first: the place and reason of a row that did not; '' if there was none.
  """
  if corpus.expected_records in (None, num_good):
    return
  lost = f"; {num_rows - num_good} of {num_rows} rows are not good" if first else ""
  reason = f" (the first: {first})" if first else ""
  raise errors.UserError(
    f"config.corpora.{name}.expected_records is {corpus.expected_records}, but "
    f"{corpus.path} has {num_good} good rows{lost}{reason}: download "
    f"{_wanted(corpus)} again, or set what you have"
  )


def revision(corpus: ImportCorpus, source: Source) -> str | None:
  """Returns the commit on the hub: in full where the folder knows it, else as set."""
  return next((commit for _, commit in _commits(source)), corpus.revision)


def _commits(source: Source) -> Iterator[tuple[pathlib.Path, str]]:
  """Yields (path, commit on the hub) of files whose folder knows it."""
  for file in source.files:
    path = file.path.absolute()
    for folder in path.parents:
      note = folder / _NOTES / f"{path.relative_to(folder)}.metadata"
      if folder.parent.name == "snapshots":
        found = folder.name
      elif note.is_file():
        found = note.read_text("utf-8", "replace").partition("\n")[0].strip()
      else:
        continue
      if _COMMIT.fullmatch(found):
        yield file.path, found
        break


def _wanted(corpus: ImportCorpus) -> str:
  source = corpus.source or "it"
  return source if corpus.revision is None else f"{source} at {corpus.revision}"
