"""Fills in the texts of `templates/`."""

import json
import pathlib
import shlex
from typing import Any

import jinja2

_FOLDER = pathlib.Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
  """Returns a template filled in; a name that it needs and is not given is our bug.

  Filters: `quoted` makes a YAML (and JSON) string of anything, `shell` one word of a
  shell's.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters["quoted"] = lambda value: json.dumps(str(value))
  environment.filters["shell"] = lambda value: shlex.quote(str(value))
  return environment.get_template(template).render(**values)
