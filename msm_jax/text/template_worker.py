"""Renders chat templates in a process of its own, which may be killed.

A template is code from strangers: it may loop for ever, grow a string until the memory
is gone or try to reach out. Nothing inside a Python process stops a tight loop in C
(`9 ** 9 ** 9`), so the sandbox of jinja is only half of the wall; this process is the
other half: limits on processor time, memory and files that the kernel enforces.

The environment is the one of `apply_chat_template` in transformers: immutable sandbox,
trimmed blocks, loop controls, `tojson` without escapes, `raise_exception`,
`strftime_now`, `{% generation %}`.

One line of JSON in, one out:
  {"template": text, "date": "YYYY-MM-DD" or null, "jobs": [variables, ...]}
  {"texts": [...]} or {"error": text}
"""

import datetime
import functools
import json
import resource
import signal
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

CPU_SECONDS = 5  # for one request; a usual one takes a thousandth of one
MAX_CHARACTERS = 1 << 24
MAX_MEMORY = 1 << 30
NO_DATE = (
  "it writes today's date, so rows would depend on the day they were made: set "
  "config.tokenizer.date to a day such as '2026-01-31'"
)


class _Generation(jinja2.ext.Extension):
  """Accepts `{% generation %}`, which marks answers for others; we need no mark."""

  tags = {"generation"}  # noqa: RUF012 (jinja's own form)

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
    # A block of its own, as in transformers: what it sets is not seen outside.
    call = self.call_method("_write")
    return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

  def _write(self, caller):
    return caller()


class _Namespace(jinja2.utils.Namespace):
  """A namespace that takes no name with an underscore in front."""

  def __init__(*args, **kwargs):
    self, *rest = args
    for name in dict(*rest, **kwargs):
      _refuse_hidden(name)
    jinja2.utils.Namespace.__init__(self, *rest, **kwargs)

  def __setitem__(self, name, value):
    _refuse_hidden(name)
    jinja2.utils.Namespace.__setitem__(self, name, value)


class _Dict:
  """Makes dicts, and gives no way to the class itself."""

  def __call__(self, *args, **kwargs):
    return dict(*args, **kwargs)

  def fromkeys(self, *args, **kwargs):
    return dict.fromkeys(*args, **kwargs)


def _refuse_hidden(name: Any) -> None:
  if isinstance(name, str) and name.startswith("_"):
    raise jinja2.exceptions.SecurityError(f"a namespace takes no {name!r}")


def _raise_exception(message: str):
  raise jinja2.TemplateError(message)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


@functools.lru_cache(maxsize=16)
def _compile(template: str, date: str | None) -> jinja2.Template:
  def strftime_now(form: str) -> str:
    if date is None:
      _raise_exception(NO_DATE)
    return datetime.datetime.fromisoformat(date).strftime(form)

  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, jinja2.ext.loopcontrols],
  )
  environment.filters["tojson"] = _tojson
  environment.globals["raise_exception"] = _raise_exception
  environment.globals["strftime_now"] = strftime_now
  environment.globals["namespace"] = _Namespace
  environment.globals["dict"] = _Dict()
  return environment.from_string(template)


def _render(template: jinja2.Template, variables: dict[str, Any]) -> str:
  parts, size = [], 0
  for part in template.generate(**variables):
    size += len(part)
    if size > MAX_CHARACTERS:
      raise ValueError(f"it writes more than {MAX_CHARACTERS} characters")
    parts.append(part)
  return "".join(parts)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
  try:
    template = _compile(request["template"], request["date"])
    return {"texts": [_render(template, variables) for variables in request["jobs"]]}
  except MemoryError:
    return {"error": f"it needs more than {MAX_MEMORY >> 20} MiB of memory"}
  except RecursionError:
    return {"error": "it calls itself without end"}
  except Exception as error:  # whatever a stranger's code may raise
    kind = type(error).__name__
    shown = str(error) if kind == "TemplateError" else f"{kind}: {error}"
    return {"error": shown[:500]}


def main(cpu_seconds: float = CPU_SECONDS) -> None:
  """Answers requests until there are no more."""
  resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  for line in sys.stdin:
    # The kernel ends the process when the time is over, in a loop in C too.
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    answer = json.dumps(_answer(json.loads(line)))
    signal.setitimer(signal.ITIMER_PROF, 0)
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()
