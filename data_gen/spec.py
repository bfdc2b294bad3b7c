"""A Model Spec: its text, its sections with ids, and the hash of its content."""

import dataclasses
import os
import pathlib
import re
from typing import TYPE_CHECKING

from msm_jax import errors, records

if TYPE_CHECKING:
  from data_gen import settings

PathLike = str | os.PathLike[str]

# A placeholder is one bare name in braces; any other use of braces (JSON, sets, code)
# is text. `{{name}}` writes the placeholder itself.
_PLACEHOLDER = re.compile(r"\{(\{[A-Za-z_]\w*\})\}|\{([A-Za-z_]\w*)\}", re.ASCII)
_PREAMBLE = "preamble"
_LONGEST_MEAN_WORD = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """One section: `id` is the slug of its title, `text` its body without the heading."""

  id: str
  title: str
  text: str


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

  def section_of(self, quote: str) -> Section | None:
    """Returns the section that `quote` comes from, or None.

    A verbatim quote (white space and the heading aside) is found where it stands; one
    that was copied with slips goes to the section that holds most of its words, as long
    as that is more than half of them.
    """
    flat = _flatten(quote)
    if not flat:
      return None
    for section in self.sections:
      body = _flatten(section.text)
      if flat in body or body in flat or flat in _flatten(section.title):
        return section
    words = _units(flat)
    overlaps = [
      len(words & _units(_flatten(section.text))) / len(words)
      for section in self.sections
    ]
    best = max(range(len(overlaps)), key=overlaps.__getitem__)
    return self.sections[best] if overlaps[best] > 0.5 else None


def load(
  path: PathLike, model_name: str, provider_name: str, *, name: str | None = None
) -> Spec:
  """Reads a spec and fills `{model_name}` and `{provider_name}`.

  Args:
    path: a UTF-8 text file: `# Title`, then `## Section` headings (a file without
      headings is one section).
    model_name: the model that the spec is about.
    provider_name: who made it.
    name: what the spec is called in the config; default: the stem of `path`.

  Raises:
    UserError: the file is missing, not UTF-8, empty, or has an unknown placeholder.
  """
  path = pathlib.Path(path)
  name = name or path.stem
  text = _fill(
    _read(path), {"model_name": model_name, "provider_name": provider_name}, path
  )
  sections, empty = _split(text, name)
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
    literal, placeholder = match.groups()
    if literal:
      return literal
    if placeholder not in names:
      line = text.count("\n", 0, match.start()) + 1
      raise errors.UserError(
        f"{path} line {line} has the unknown placeholder {{{placeholder}}}: known are "
        "{model_name} and {provider_name}; for the text itself write "
        f"{{{{{placeholder}}}}}"
      )
    return names[placeholder]

  return _PLACEHOLDER.sub(value, text)


def _split(text: str, name: str) -> tuple[tuple[Section, ...], tuple[str, ...]]:
  """Returns the sections that have a body, and the titles of those that have none."""
  marker = "## " if re.search(r"^## ", text, re.M) else "# "
  blocks: list[tuple[str, list[str]]] = [(_PREAMBLE, [])]
  for line in text.splitlines():
    if line.startswith(marker):
      blocks.append((line[len(marker) :].strip(), []))
    elif not line.startswith("# "):
      blocks[-1][1].append(line)
  sections: list[Section] = []
  empty: list[str] = []
  taken: set[str] = set()
  for title, lines in blocks:
    body = "\n".join(lines).strip()
    if not body:
      empty += [title] if title != _PREAMBLE else []
      continue
    title = name if title == _PREAMBLE and len(blocks) == 1 else title
    sections.append(Section(id=_unique(slug(title), taken), title=title, text=body))
  return tuple(sections), tuple(empty)


def slug(title: str) -> str:
  """Returns `title` as an id: lower case, words of any script joined by `-`."""
  return re.sub(r"[\W_]+", "-", title.casefold()).strip("-") or "section"


def _unique(wanted: str, taken: set[str]) -> str:
  candidate, count = wanted, 1
  while candidate in taken:
    count += 1
    candidate = f"{wanted}-{count}"
  taken.add(candidate)
  return candidate


def _units(flat: str) -> set[str]:
  """Returns what two texts are compared by: words, or pairs of characters.

  A script without spaces between words has no words to be split at.
  """
  words = flat.split()
  if len(flat) < _LONGEST_MEAN_WORD * len(words):
    return set(words)
  return {flat[i : i + 2] for i in range(max(len(flat) - 1, 1))}


def _flatten(text: str) -> str:
  return " ".join(text.casefold().replace("#", " ").split())
