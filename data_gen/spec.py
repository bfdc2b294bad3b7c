"""A Model Spec: its text, its sections with ids, and the hash of its content."""

import dataclasses
import difflib
import os
import pathlib
import re
from typing import TYPE_CHECKING

from data_gen import sections as sections_lib
from data_gen.sections import Place, Section
from msm_jax import errors, records
from msm_jax.storage import inputs

if TYPE_CHECKING:
  from data_gen import settings

PathLike = str | os.PathLike[str]

# What is filled in. Other braces (JSON, sets, code) are text, but for what looks like
# one of these with a slip. In doubled braces it is the placeholder itself.
_NAMES = ("model_name", "provider_name")
_NAME = r"[A-Za-z](?:[\w -]*\w)?"
_PLACEHOLDER = re.compile(rf"\{{(\{{{_NAME}\}})\}}|\{{ *({_NAME}) *\}}", re.ASCII)
_SHORT_NAMES = ("model", "provider")
_SLIP = 0.8  # how like a name it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
  """A spec with the names filled in.

  Attributes:
    name: what it is called in the config.
    text, sha256: the whole of it, and its hash.
    sections: those that have a text.
    empty: titles of headings without a text below them.
    model_name, provider_name: whose spec it is.
  """

  name: str
  text: str
  sections: tuple[Section, ...]
  sha256: str
  empty: tuple[str, ...] = ()
  model_name: str = ""
  provider_name: str = ""

  def place_of(self, quote: str) -> Place | None:
    """Returns the section and paragraph that `quote` comes from, or None.

    See `sections.find`.
    """
    return sections_lib.find(self.sections, quote)


def load(
  path: PathLike, model_name: str, provider_name: str, *, name: str | None = None
) -> Spec:
  """Reads a spec and fills `{model_name}` and `{provider_name}`.

  Args:
    path: a UTF-8 text file in Markdown: `# Title`, then `## Section` headings (a file
      without headings is one section).
    model_name: the model that the spec is about.
    provider_name: who made it.
    name: what the spec is called in the config; default: the stem of `path`.

  Raises:
    UserError: the file is missing, not UTF-8, empty, or has a placeholder with a slip
      or code without an end.
  """
  path = inputs.local(path, "config.specs.*.path")
  name = name or path.stem
  text = _fill(
    _read(path), {"model_name": model_name, "provider_name": provider_name}, path
  )
  sections, empty = sections_lib.split(text, name, path)
  if not sections:
    raise errors.UserError(
      f"{path} has headings but no text below them: write what the spec says"
    )
  return Spec(
    name=name,
    text=text,
    sections=sections,
    sha256=records.sha256_text(text),
    empty=empty,
    model_name=model_name,
    provider_name=provider_name,
  )


def load_all(job: "settings.Job") -> dict[str, Spec]:
  """Returns the specs that the corpora of a job use, by name."""
  used = {corpus.spec for corpus in job.corpora.values() if hasattr(corpus, "spec")}
  return {
    name: load(s.path, s.model_name, s.provider_name, name=name)
    for name, s in job.specs.items()
    if name in used
  }


def _read(path: pathlib.Path) -> str:
  try:
    text = path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError:
    raise errors.UserError(
      f"{path} does not exist: set the path of the spec in config.specs"
    ) from None
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8"
    ) from None
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read ({error.strerror}): config.specs needs a text file"
    ) from None
  if not text.strip():
    raise errors.UserError(f"{path} is empty: write a spec, or set another path")
  return text.replace("\r\n", "\n").strip() + "\n"


def _fill(text: str, names: dict[str, str], path: pathlib.Path) -> str:
  def value(match: re.Match[str]) -> str:
    doubled, single = match.groups()
    if doubled:
      return doubled if _is_meant(doubled.strip("{}")) else match[0]
    if match[0] == f"{{{single}}}" and single in names:
      return names[single]
    if not _is_meant(single):
      return match[0]
    line = text.count("\n", 0, match.start()) + 1
    raise errors.UserError(
      f"{path} line {line} has the unknown placeholder {match[0]}: known are "
      "{model_name} and {provider_name}; for the text itself write "
      f"{{{{{single}}}}}"
    )

  return _PLACEHOLDER.sub(value, text)


def _is_meant(name: str) -> bool:
  """Whether a name in braces is, or looks like, one of those that are filled in."""
  folded = re.sub(r"[\W_]+", "_", name.casefold())
  return folded in _SHORT_NAMES or bool(
    difflib.get_close_matches(folded, _NAMES, n=1, cutoff=_SLIP)
  )
