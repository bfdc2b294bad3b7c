"""The page in a real browser: headless Chromium, spoken to over its debugging pipe."""

import base64
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
import report_doses
import report_factors
import report_workdir

from msm_jax import report

pytestmark = pytest.mark.slow

_BINARY = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--remote-debugging-pipe",
)
# Chromium talks on descriptors 3 and 4; both are first moved out of each other's way.
_START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(reads, 3); os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
  """One tab; collects what the console says and what is asked of the network."""

  def __init__(self, binary: str, profile: str):
    theirs_in, self._out = os.pipe()
    inwards, theirs_out = os.pipe()
    command = [binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    self._process = subprocess.Popen(
      [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command],
      pass_fds=(theirs_in, theirs_out),
      stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    self._in = os.fdopen(inwards, "rb", buffering=0)
    self._messages = self._read()
    self._numbers = itertools.count(1)
    self._session: str | None = None
    self._loaded = False
    self.console: list[Any] = []
    self.requests: list[str] = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
      "sessionId"
    ]
    for domain in ("Page", "Runtime", "Log", "Network"):
      self.call(f"{domain}.enable")

  def _read(self) -> Iterator[dict[str, Any]]:
    buffer = b""
    while chunk := self._in.read(1 << 16):
      *whole, buffer = (buffer + chunk).split(b"\0")
      yield from map(json.loads, whole)
    raise RuntimeError("chromium ended early")

  def call(self, method: str, **params: Any) -> dict[str, Any]:
    """Sends a command and returns its result."""
    number = next(self._numbers)
    message = {"id": number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._out, json.dumps(message).encode() + b"\0")
    while (answer := self._next()).get("id") != number:
      pass
    assert "error" not in answer, answer
    return answer["result"]

  def _next(self) -> dict[str, Any]:
    message = next(self._messages)
    method, params = message.get("method", ""), message.get("params", {})
    if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
      self.console.append(params)
    elif method == "Log.entryAdded":
      self.console.append(params["entry"])
    elif method == "Network.requestWillBeSent":
      self.requests.append(params["request"]["url"])
    elif method == "Page.loadEventFired":
      self._loaded = True
    return message

  def open(self, url: str, width: int, dark: bool = False) -> None:
    """Loads `url` in a window of `width` CSS pixels."""
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=900,
      deviceScaleFactor=1,
      mobile=False,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.call("Emulation.setEmulatedMedia", features=[scheme])
    self._loaded = False
    self.call("Page.navigate", url=url)
    while not self._loaded:
      self._next()

  def evaluate(self, expression: str) -> Any:
    """Returns the value of a JavaScript expression, None for undefined."""
    result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
    return result["result"].get("value")

  def wait(self, expression: str, seconds: float = 20) -> None:
    """Returns once a JavaScript expression is true."""
    end = time.monotonic() + seconds
    while not self.evaluate(expression):
      assert time.monotonic() < end, f"never true: {expression}"
      time.sleep(0.05)

  def screenshot(self, path: pathlib.Path, height: int | None = None) -> None:
    """Writes a PNG of the page, cut off at `height`."""
    size = self.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "scale": 1}
    clip["height"] = min(size["height"], height or size["height"])
    shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(shot["data"]))

  def close(self) -> None:
    """Ends the browser."""
    self._session = None
    self.call("Browser.close")
    self._process.wait(timeout=20)
    os.close(self._out)
    self._in.close()


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return report.build(report_workdir.make(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
  if _BINARY is None:
    pytest.skip("no chromium: apt-get install chromium")
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    page = Page(_BINARY, profile)
    yield page
    page.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_silent_asks_for_nothing_and_fits(
  html: pathlib.Path, browser: Page, tmp_path: pathlib.Path, width: int, dark: bool
):
  browser.console.clear()
  browser.requests.clear()
  browser.open(html.as_uri(), width, dark)
  browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
  assert browser.evaluate("document.documentElement.scrollWidth") <= width
  browser.screenshot(tmp_path / f"report-{width}.png")
  assert (tmp_path / f"report-{width}.png").stat().st_size > 50_000
  assert browser.console == []
  assert [
    url for url in browser.requests if not url.startswith(("file:", "data:"))
  ] == []
  assert browser.requests.count(html.as_uri()) == 1


def test_figures_keep_their_text_readable_on_a_phone(html: pathlib.Path, browser: Page):
  browser.open(html.as_uri(), 400)
  smallest = browser.evaluate(
    "Math.min(...[...document.querySelectorAll('figure svg text')]"
    ".map(text => text.getBoundingClientRect().height))"
  )
  assert smallest >= 8  # CSS pixels


def test_printing_gives_pages(html: pathlib.Path, browser: Page):
  browser.open(html.as_uri(), 1280)
  printed = base64.b64decode(browser.call("Page.printToPDF")["data"])
  assert printed.startswith(b"%PDF") and len(printed) > 20_000


# All answers, in a study whose models wrote hostile text


_COUNT = "document.getElementById('t-count').textContent"


@pytest.fixture(scope="module")
def doses(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return report.build(report_doses.make(tmp_path_factory.mktemp("doses")))


@pytest.fixture
def answers(doses: pathlib.Path, browser: Page) -> Page:
  """The page with the browser of answers unpacked."""
  browser.console.clear()
  browser.requests.clear()
  browser.open(doses.as_uri(), 1280)
  browser.evaluate("document.getElementById('browser').open = true")
  browser.wait(f"{_COUNT}.includes('questions')")
  return browser


def _set(page: Page, control: str, value: object) -> None:
  """Sets a control as a person would and waits for what it shows."""
  page.evaluate(f"{_COUNT.removesuffix('.textContent')}.textContent = 'waiting'")
  field = "checked" if isinstance(value, bool) else "value"
  page.evaluate(
    f"{{ const c = document.getElementById('t-{control}');"
    f" c.{field} = {json.dumps(value)};"
    " c.dispatchEvent(new Event('change')); c.dispatchEvent(new Event('input')); }"
  )
  page.wait(f"{_COUNT}.includes('questions')")


def _count(page: Page) -> str:
  return page.evaluate(_COUNT).split(";")[0]


def test_all_answers_are_there_and_hostile_text_stays_text(answers: Page):
  assert _count(answers) == f"{8 * 3 * 72} answers to {3 * 72} questions"
  shown = answers.evaluate("document.querySelector('.said').textContent")
  assert shown == report_doses.HOSTILE
  assert answers.evaluate("document.querySelectorAll('img').length") == 0
  cards = "document.querySelector('.group .answers').children.length"
  assert answers.evaluate(cards) == 8  # the arms side by side
  assert answers.console == []
  assert not [url for url in answers.requests if not url.startswith(("file:", "data:"))]


def test_answers_are_filtered_by_arm_seed_score_text_and_what_has_no_score(
  answers: Page, doses: pathlib.Path
):
  kept = report_doses.block(doses.read_text("utf-8"), "harm")["answers"]
  _set(answers, "arm", "msm")
  _set(answers, "seed", "1")
  assert _count(answers) == "72 answers to 72 questions"
  _set(answers, "test", "is")
  yes = sum(a[1] == "msm" and a[2] == 1 and a[6][0] == 1 for a in kept)
  assert _count(answers) == f"{yes} answers to {yes} questions"
  _set(answers, "test", "none")
  none = sum(a[1] == "msm" and a[2] == 1 and a[6][0] is None for a in kept)
  assert _count(answers) == f"{none} answers to {none} questions"
  for control in ("test", "arm", "seed"):
    _set(answers, control, "")
  _set(answers, "unparsed", True)
  unread = sum(a[8] for a in kept)
  assert _count(answers).startswith(f"{unread} answers")
  _set(answers, "unparsed", False)
  _set(answers, "text", "<IMG SRC=X")
  hostile = sum(a[3] == report_doses.HOSTILE for a in kept)
  assert _count(answers).startswith(f"{hostile} answers")
  _set(answers, "text", "no such words")
  assert _count(answers) == "0 answers to 0 questions"


def test_answers_are_shown_ten_questions_at_a_time_and_by_evaluation(answers: Page):
  assert answers.evaluate("document.querySelectorAll('.group').length") == 10
  answers.evaluate("document.getElementById('t-after').click()")
  assert "questions 11 to 20" in answers.evaluate(_COUNT)
  _set(answers, "block", "qa")
  assert _count(answers) == f"{8 * 3 * 20} answers to {3 * 20} questions"
  assert answers.evaluate("document.getElementById('t-before').disabled") is True


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_doses_fits_with_everything_open(
  doses: pathlib.Path, browser: Page, width: int
):
  browser.console.clear()
  browser.open(doses.as_uri(), width, dark=width == 400)
  browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
  browser.wait(f"{_COUNT}.includes('questions')")
  assert browser.evaluate("document.documentElement.scrollWidth") <= width
  assert browser.console == []


@pytest.fixture(scope="module")
def factors(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return report.build(report_factors.make(tmp_path_factory.mktemp("factors")))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_two_factors_fits_and_every_table_can_be_reached(
  factors: pathlib.Path, browser: Page, width: int
):
  browser.console.clear()
  browser.open(factors.as_uri(), width, dark=width == 400)
  browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
  assert browser.evaluate("document.documentElement.scrollWidth") <= width
  tables = "[...document.querySelectorAll('#grids table, #paper table')]"
  assert browser.evaluate(f"{tables}.length") == 5
  named = "t.closest('[role=region][tabindex][aria-label]') !== null"
  assert browser.evaluate(f"{tables}.every(t => {named})")
  heads = f"{tables}.flatMap(t => [...t.rows].map(r => r.querySelector('th')))"
  assert browser.evaluate(f"{heads}.every(head => head && head.scope)")
  assert browser.console == []
