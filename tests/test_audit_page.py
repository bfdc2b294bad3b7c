"""The audit in a real browser: silent, offline, readable on a phone; its sample."""

import pathlib
import random
import tempfile
from collections.abc import Iterator

import pytest
from test_audit import SECTIONS, document
from test_report_page import _BINARY, Page

from data_gen import audit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  rng = random.Random(0)
  vocabulary = [
    "cheese",
    "price",
    "farm",
    "table",
    "plain",
    "good",
    "market",
    "letter",
    "winter",
    "story",
  ]
  records = [
    document(
      i,
      f"It was {rng.randrange(1990, 2026)} when Maya Patel came. "
      + " ".join(rng.choices(vocabulary, k=rng.randrange(40, 400))),
      section=rng.choice(["core", "likes"]),
      kind=f"document type {rng.randrange(16)}",
      domain=f"domain {rng.randrange(5)}",
    )
    for i in range(250)
  ]
  rejects = [
    {**document(i, "No."), "stage": "document", "reason": f"too short ({i} words)"}
    for i in range(20)
  ]
  rejects.append({**document(99, "Sorry."), "stage": "document", "reason": "refusal"})
  limits = audit.AuditThresholds(max_name_share=0.2)
  chosen = audit.AuditSettings(
    name="docs", kind="documents", sections=SECTIONS, thresholds=limits
  )
  path = tmp_path_factory.mktemp("audit")
  audit.write(path, records, rejects, chosen)
  return path / "audit.html"


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
  browser.screenshot(tmp_path / "audit.png", height=6000)
  assert (tmp_path / "audit.png").stat().st_size > 50_000
  assert browser.console == []
  urls = [url for url in browser.requests if not url.startswith("data:")]
  assert urls == [html.as_uri()]


def test_figures_keep_their_text_readable_on_a_phone(html: pathlib.Path, browser: Page):
  browser.open(html.as_uri(), 400)
  smallest = browser.evaluate(
    "Math.min(...[...document.querySelectorAll('figure svg text')]"
    ".map(text => text.getBoundingClientRect().height))"
  )
  assert smallest >= 8  # CSS pixels


def test_the_sample_is_narrowed_by_section_state_and_words(
  html: pathlib.Path, browser: Page
):
  browser.open(html.as_uri(), 1280)

  def shown(name: str, value: str) -> list[str]:
    """Sets one tool and returns what all of them leave."""
    return browser.evaluate(
      f"tools.elements['{name}'].value = {value!r};"
      "tools.dispatchEvent(new Event('input'));"
      "[...document.querySelectorAll('#list > details')].filter(d => !d.hidden)"
      ".map(d => `${d.dataset.state} ${d.dataset.specSection}`)"
    )

  assert len(shown("state", "")) == 200 + 21
  assert set(shown("spec_section", "likes")) == {"kept likes"}
  assert shown("state", "rejected") == []
  assert set(shown("spec_section", "")) == {"rejected core"}
  assert shown("reason", "too short") == ["rejected core"] * 20
  assert shown("contains", "nowhere") == []


def test_printing_gives_pages(html: pathlib.Path, browser: Page):
  browser.open(html.as_uri(), 1280)
  assert len(browser.call("Page.printToPDF")["data"]) > 20_000
