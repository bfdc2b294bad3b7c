"""Chat templates behind their wall: what they may, and what stops them."""

import concurrent.futures
import json
import multiprocessing
import time

import chat_templates
import numpy as np
import pytest

from msm_jax.errors import UserError
from msm_jax.text import templating

TALK = [{"role": "user", "content": "<b> caf\u00e9"}, {"role": "user", "content": "b"}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template, messages=TALK, date=None, **variables):
  job = {"tools": None, "documents": None, **SPECIAL, **variables, "messages": messages}
  (text,) = templating.render(template, [job], where="here", date=date)
  return text


@pytest.fixture
def quick(monkeypatch):
  """A worker that loses patience soon."""
  worker = templating._Worker(cpu_seconds=0.3)
  monkeypatch.setattr(templating, "_worker", worker)
  yield
  worker.stop()


LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
GROWTH = (
  "{% set ns = namespace(s='ab') %}{% for a in range(99) %}"
  "{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
)


@pytest.mark.parametrize(
  ("template", "said"),
  [
    (LOOP, "did not end within 0.3 s"),
    ("{% set x = 7 ** (9 ** 9) %}{{ x }}", "did not end within 0.3 s"),
    (GROWTH, "(did not end|memory)"),
    ("{{ ('x' * 99999999) | center(99999999999) }}", "(memory|Overflow|did not end)"),
    ("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", "more than 16777216"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
    ("{% include '/etc/passwd' %}", "no loader"),
    ("{% import 'os' as os %}", "no loader"),
    ("{{ open('/etc/passwd').read() }}", "'open' is undefined"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ namespace.__init__.__globals__ }}", "unsafe"),
    ("{{ cycler.__init__.__globals__.os }}", "unsafe"),
    ("{{ '{0.__class__.__mro__}'.format(1) }}", "unsafe"),
    ("{{ messages.append(1) }}", "unsafe"),
    ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "takes no '__class__'"),
    ("{{ raise_exception('roles must alternate') }}", "(roles must alternate)"),
    ("{{ strftime_now('%d %b %Y') }}", "set config.tokenizer.date"),
    ("{% if %}", "TemplateSyntaxError"),
    ("{{ nothing.at.all }}", "undefined"),
  ],
)
def test_a_bad_template_ends_in_one_clear_line(template, said, quick):
  begun = time.monotonic()
  with pytest.raises(UserError, match="refuses a conversation with roles") as found:
    render(template)
  assert found.match(said) and "\n" not in str(found.value)
  assert time.monotonic() - begun < 30
  assert render("{{ messages[0].content }}") == TALK[0]["content"]  # and on it goes


def test_an_endless_template_stops_no_other_thread_for_long(quick):
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    templates = [LOOP, "{{ bos_token }}ok", "{{ messages | length }}"] * 2
    futures = [pool.submit(render, template) for template in templates]
    errors = [future.exception() for future in futures]
  assert [isinstance(error, UserError) for error in errors] == [True, False, False] * 2


def _render_in_child(queue):
  queue.put(render("{{ bos_token }}"))


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_its_own_worker():
  render("{{ bos_token }}")
  context = multiprocessing.get_context("fork")
  queue = context.SimpleQueue()
  child = context.Process(target=_render_in_child, args=(queue,))
  child.start()
  assert queue.get() == "<s>"
  child.join()
  assert render("{{ eos_token }}") == "</s>"


def test_the_date_is_the_one_that_was_set():
  template = "{{ strftime_now('%d %b %Y') }}"
  assert render(template, date="2024-07-26") == "26 Jul 2024"


def test_tojson_takes_its_arguments_and_escapes_nothing():
  value = {"b": "<\u00e9>", "a": [1, None]}
  template = "{{ v | tojson }}{{ v | tojson(indent=2, sort_keys=True) }}"
  wanted = json.dumps(value, ensure_ascii=False)
  wanted += json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
  assert render(template, v=value) == wanted


def test_a_generation_block_is_read_and_leaves_no_trace():
  template = (
    "{% set x = 1 %}{% for m in messages %}{% if loop.index > 1 %}{% break %}"
    "{% endif %}{% generation %}{% set x = 2 %}{{ m.content }}{% endgeneration %}"
    "{% endfor %}{{ x }}"
  )
  assert render(template) == "<b> caf\u00e91"


@pytest.mark.parametrize("name", chat_templates.ALL)
def test_renders_equal_those_of_transformers(name):
  pytest.importorskip("transformers", exc_type=ImportError)
  from transformers.utils.chat_template_utils import render_jinja_template

  rng = np.random.default_rng(7)
  template = chat_templates.ALL[name]
  for i in range(40):
    messages = chat_templates.talk(rng, reasoning=True, plain=False)
    if i % 4 == 0:
      messages = chat_templates.tool_talk(rng)
    variables = {
      "tools": chat_templates.TOOLS if i % 3 == 0 else None,
      "add_generation_prompt": bool(i % 2),
      "date_string": "1 Jan 2026",
    }
    if i % 5 == 0:
      variables["enable_thinking"] = bool(i % 2)
    theirs, refused = None, False
    try:
      theirs = render_jinja_template(
        [messages], chat_template=template, **variables, **SPECIAL
      )[0][0]
    except Exception:  # whatever a template raises
      refused = True
    if refused:
      with pytest.raises(UserError):
        render(template, messages, **variables)
    else:
      assert render(template, messages, **variables) == theirs
