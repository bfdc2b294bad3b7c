"""The figures of small corpora, computed by hand, and the page that shows them."""

import collections
import html.parser
import itertools
import json
import random
import re

import numpy as np
import pytest

from data_gen import audit
from data_gen.audit import counting, figures, phrases
from data_gen.audit import settings as audit_settings
from data_gen.filters import words
from data_gen.spec import Section
from msm_jax.errors import UserError

SECTIONS = tuple(Section(id=i, title=i.title(), text="x") for i in ("core", "likes"))


def document(number, text, section="core", kind="memo", domain="food"):
  return {
    "kind": "document",
    "id": f"id{number}",
    "text": text,
    "spec_section": section,
    "domain": domain,
    "doc_type": kind,
    "teacher": {"client": "offline", "model": "tiny"},
  }


HAND = [
  document(0, "One two three four five."),
  document(1, "One two three four six, said Maya Patel on May 3, 2024."),
  document(2, "ONE two three four five!", kind="blog"),
  document(3, "Later Maya Patel came in 2024 and 2021."),
]
REJECTS = [
  {"stage": "document", "id": "r1", "reason": "refusal: no", "text": "No."},
  {"stage": "document", "id": "r2", "reason": "refusal: never", "text": "Never."},
  {"stage": "subdomains", "domain": "food", "reason": "spec_section is not there"},
]


def measured(records=HAND, rejects=REJECTS, **changes):
  chosen = {"name": "docs", "sections": SECTIONS, "spec_name": "s", **changes}
  return audit.measure(records, rejects, audit.AuditSettings(**chosen))


def test_the_figures_of_four_records_are_those_computed_by_hand():
  found = measured().figures
  assert (found["num_records"], found["num_words"]) == (4, 5 + 12 + 5 + 8)
  assert found["num_characters"] == sum(len(record["text"]) for record in HAND)
  core, likes = found["coverage"]["sections"]
  assert (core["records"], core["words"], core["share"]) == (4, 30, 1.0)
  assert (likes["records"], likes["share"]) == (0, 0.0)
  assert [(r["id"], r["records"]) for r in found["coverage"]["doc_type"]] == [
    ("memo", 3),
    ("blog", 1),
  ]
  assert found["lengths"]["median"] == 6.5 and found["lengths"]["mean"] == 7.5
  assert sum(found["lengths"]["histogram"]["counts"]) == 4
  # one two three four five six said maya patel on may 3 2024 later came in and 2021
  distinct = found["diversity"]["distinct"]
  assert distinct["1"] == pytest.approx(18 / 30)
  texts = [words.words(record["text"]) for record in HAND]
  pairs = [pair for text in texts for pair in itertools.pairwise(text)]
  assert distinct["2"] == pytest.approx(len(set(pairs)) / len(pairs))
  assert found["diversity"]["openings"] == [
    {"text": "one two three four", "records": 3, "share": 0.75}
  ]
  assert found["tics"]["names"] == [
    {"text": "Maya Patel", "records": 2, "share": 0.5, "in_spec": False}
  ]
  assert found["tics"]["phrases"] == [
    {"text": "one two three four", "records": 3, "share": 0.75, "in_spec": False}
  ]
  assert found["tics"]["days"] == []  # in one record only
  years = [(row["text"], row["records"]) for row in found["tics"]["years"]]
  assert years == [("2024", 2), ("2021", 1)]
  assert (found["duplicates"]["exact"], found["duplicates"]["near"]) == (1, 0)
  assert found["duplicates"]["examples"][0]["of"] == "id0"
  assert found["rejects"]["share"] == pytest.approx(2 / 6)
  assert [(r["reason"], r["count"]) for r in found["rejects"]["by_reason"]] == [
    ("refusal", 2),
    ("spec_section is not there", 1),
  ]


def test_what_is_in_the_spec_is_no_tic():
  found = measured(spec_text="One two three four, says Maya.", names=("Maya Patel",))
  tics_found = found.figures["tics"]
  assert tics_found["names"][0]["in_spec"] and tics_found["phrases"][0]["in_spec"]
  limits = audit.AuditThresholds(max_phrase_share=0.1, max_name_share=0.1)
  assert audit.violations(found.figures, limits) == []
  assert len(audit.violations(measured().figures, limits)) == 2


def test_the_audit_says_which_evaluation_text_was_looked_for():
  told = {"prompts": 30, "too_short": 2, "pairs_of_options": 11}
  found = measured(leakage=told)
  assert found.figures["leakage"] == told
  assert "2 prompts are too short" in " ".join(found.html.split())
  assert measured().figures["leakage"] is None


def test_violations_name_the_figure_its_value_and_the_threshold():
  limits = audit.AuditThresholds(
    min_section_share=0.1,
    max_rejected_share=0.2,
    max_exact_duplicates=0.1,
    max_near_duplicates=0.0,
    max_opening_share=0.5,
    min_distinct_1=0.9,
    max_median_words=6,
    min_median_words=6,
    max_date_share=0.0,
    max_compression=50,
  )
  found = measured(thresholds=limits)
  assert found.figures["violations"] == [
    "share of section likes is 0, below min_section_share=0.1",
    "share of rejected records is 0.3333, above max_rejected_share=0.2",
    "exact duplicates is 0.25, above max_exact_duplicates=0.1",
    "share of records with the opening 'one two three four' is 0.75, above "
    "max_opening_share=0.5",
    "distinct-1 is 0.6, below min_distinct_1=0.9",
    "median of words is 6.5, above max_median_words=6",
  ]
  assert "6 of 10 thresholds" in " ".join(found.html.split())


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"max_phrases": 0.1}, "config.audit.max_phrases is not a field.*max_phrase_share"),
    ({"max_name_share": 3}, "config.audit.max_name_share is 3: it is a number, from 0"),
    ({"min_median_words": "9"}, "min_median_words is '9': it is a number, zero or"),
  ],
)
def test_thresholds_that_cannot_be_are_named(given, message):
  with pytest.raises(UserError, match=message):
    audit.thresholds(given, "config.audit")
  assert audit.thresholds(None, "config.audit") == audit.AuditThresholds()


def test_every_threshold_has_a_figure():
  found = measured().figures
  for name in vars(audit.AuditThresholds()):
    assert isinstance(audit_settings._figures(name, found), list)


@pytest.mark.parametrize(
  "records",
  [
    [],
    [document(0, "")],
    [document(0, "One.")],
    [{"kind": "document", "text": "No id, no section. <b>&\ud800"}],
    [{"kind": "conversation", "id": "c", "messages": []}],
    [{"kind": "pair", "id": "p", "messages": [{"role": "user", "content": "A or B?"}],
      "options": [{"text": "A"}, {"text": "B"}]}],
    [document(i, "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec\u90fd\u559c\u6b22\u3002")
     for i in range(3)],
  ],
  ids=["none", "empty", "one", "bare", "silent", "pair", "chinese"],
)  # fmt: skip
def test_odd_corpora_have_a_page_too(records):
  found = measured(records, rejects=[])
  assert found.figures["num_records"] == len(records)
  assert json.loads(found.files()["audit.json"])["num_records"] == len(records)
  assert b"</html>" in found.files()["audit.html"]


def test_chinese_is_counted_by_characters():
  text = "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec\u90fd\u559c\u6b22\u5b83\u3002"
  found = measured([document(i, text) for i in range(4)]).figures
  assert found["num_words"] == 4 * 10 and found["duplicates"]["exact"] == 3
  assert found["tics"]["phrases"][0]["records"] == 4
  assert found["diversity"]["distinct"]["1"] == pytest.approx(10 / 40)


def test_conversations_are_judged_by_what_the_assistant_says():
  record = {
    "kind": "conversation",
    "id": "c",
    "messages": [
      {"role": "user", "content": "What do you like best of all?"},
      {"role": "assistant", "content": "Brie.", "reasoning_content": "Think."},
    ],
    "domain": "food",
    "question_type": "direct",
  }
  found = measured([record], sections=())
  assert found.figures["num_words"] == 1
  assert "assistant, thinking" in found.html and "What do you like best" in found.html


def test_one_word_may_answer_two_questions_and_no_question_is_answered_twice_alike():
  def conversation(identity, question, answer):
    turns = [("user", question), ("assistant", answer)]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"kind": "conversation", "id": identity, "messages": messages}

  rows = [
    conversation("1", "Which is it?", "Brie."),
    conversation("2", "Which else?", "Brie."),
    conversation("3", "Which is it?", "Gouda."),
    conversation("4", "which is it", "brie"),
  ]
  found = measured(rows, sections=()).figures["duplicates"]
  assert found["exact"] == 1
  assert [(row["id"], row["of"]) for row in found["examples"]] == [("4", "1")]


def test_the_same_records_give_the_same_bytes(tmp_path):
  rng = random.Random(0)
  records = [
    document(i, " ".join(rng.choices("abcdefgh", k=30)), kind=rng.choice("xyz"))
    for i in range(80)
  ]
  one = measured(records, num_samples=20).files()
  assert one == measured(iter(records), num_samples=20).files()
  other = measured(records, num_samples=20, seed=1).files()
  assert one["audit.json"] != other["audit.json"]
  chosen = audit.AuditSettings(name="docs", sections=SECTIONS, spec_name="s",
                               num_samples=20)  # fmt: skip
  written = audit.write(tmp_path, records, REJECTS, chosen)
  assert (tmp_path / "audit.json").read_bytes() == one["audit.json"]
  assert (tmp_path / "audit.html").read_bytes() == one["audit.html"]
  assert json.loads(one["audit.json"]) == json.loads(json.dumps(written))


def test_records_go_past_as_they_are():
  auditor = audit.Auditor(audit.AuditSettings(name="docs"))
  assert list(auditor.watch(HAND)) == HAND
  assert list(auditor.watch_rejects(REJECTS)) == REJECTS
  assert auditor.audit().figures["num_records"] == 4


class _Page(html.parser.HTMLParser):
  """Collects what a page refers to, and checks that tags are closed in order."""

  VOID = ("meta", "link", "input", "br", "hr", "img")

  def __init__(self, text):
    super().__init__()
    self.references, self.open, self.ids = [], [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    if tag not in self.VOID and tag not in ("rect", "line"):
      self.open.append(tag)
    for name, value in attrs:
      if name in ("src", "href", "action", "srcset", "data", "xlink:href"):
        self.references.append(value)
      if name == "id":
        self.ids.append(value)

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_refers_to_nothing_but_itself():
  nasty = '<script src="http://x"></script> </div> "\' & [a](http://y)'
  records = [
    document(i, f"{nasty} {i} in {1990 + i}.", section=nasty) for i in range(9)
  ]
  page = _Page(measured(records, names=(nasty,)).html)
  assert page.open == []
  assert len(set(page.ids)) == len(page.ids)
  anchors = {f"#{name}" for name in page.ids}
  assert {r for r in page.references if r not in anchors} == {"data:,"}
  css = measured().html
  assert not re.search(r"@import|url\(", css)


def test_the_page_says_what_is_missing_and_shows_the_records():
  found = measured()
  assert "no record" in found.html and "Rejected: refusal: never" in found.html
  assert found.html.count('<details class="sample"') == 4 + 2


def test_frequent_things_are_counted_exactly_while_they_are_few():
  rng = random.Random(0)
  counter, exact = counting.Frequent(), collections.Counter()
  for _ in range(500):
    things = [f"t{rng.randrange(60) ** 2 // 60}" for _ in range(5)]
    counter.add(things)
    exact.update(set(things))
  best = sorted(exact.items(), key=lambda pair: (-pair[1], pair[0]))
  assert counter.most(10) == best[:10] and counter.error == 0


def test_counts_are_too_high_by_at_most_the_error_when_there_are_many():
  rng = random.Random(0)
  counter, exact = counting.Frequent(limit=200), collections.Counter()
  for i in range(3000):
    things = [f"often{i % 7}", *(f"rare{rng.randrange(10**9)}" for _ in range(3))]
    counter.add(things)
    exact.update(set(things))
  assert 0 < counter.error < 100
  top = dict(counter.most(7))
  assert set(top) == {f"often{i}" for i in range(7)}
  assert all(0 <= top[key] - exact[key] <= counter.error for key in top)


def test_distinct_hashes_are_counted_exactly_and_then_estimated():
  rng = np.random.default_rng(0)
  few, many = counting.Distinct(limit=4096), counting.Distinct(limit=4096)
  for _ in range(50):
    few.add(words.mixed(rng.permutation(3000).astype(np.uint64)))
    many.add(words.mixed(rng.integers(0, 200_000, 10_000).astype(np.uint64)))
  assert few.count == 3000 and not few.is_estimate
  expected = 200_000 * (1 - np.exp(-500_000 / 200_000))
  assert many.is_estimate and abs(many.count / expected - 1) < 4 / 4096**0.5


def test_a_sample_is_drawn_evenly_and_keeps_the_order():
  counts = collections.Counter()
  for seed in range(600):
    sample = counting.Reservoir(5, seed)
    for item in range(20):
      sample.add(item)
    assert sample.items() == sorted(sample.items()) and len(sample.items()) == 5
    counts.update(sample.items())
  assert all(abs(counts[item] - 150) < 50 for item in range(20))


def test_phrases_that_many_share_are_found_and_put_together(monkeypatch):
  monkeypatch.setattr(phrases, "_CHUNK", 16)
  rng = random.Random(0)
  found = phrases.Phrases(0.1)
  with_phrase = 0
  for _ in range(200):
    text = " ".join(f"w{rng.randrange(5000)}" for _ in range(60))
    if rng.random() < 0.4:
      with_phrase += 1
      text += " A testament to the quiet pride of farmers. x"
    found.add(text, words.numbers(text))
  assert found.most(5)[0] == (
    "a testament to the quiet pride of farmers x",
    with_phrase,
  )
  assert found.error == 0


def test_phrases_survive_when_rare_ones_are_forgotten(monkeypatch):
  monkeypatch.setattr(phrases, "_CHUNK", 16)
  monkeypatch.setattr(phrases, "_MAX_GRAMS", 3000)
  rng = random.Random(0)
  found = phrases.Phrases(0.2)
  for i in range(400):
    text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(60))
    text += " it is worth noting" * (i % 2)
    found.add(text, words.numbers(text))
  [(phrase, count)] = found.most(5)
  assert phrase == "it is worth noting"
  assert 0 <= count - 200 <= found.error and found.error > 0


def test_texts_are_not_held():
  found = figures.Figures(audit.AuditSettings(name="docs", num_samples=3))
  for i in range(1030):
    found.add(document(i, f"{i} {i} {i} {i} of the corpus"))
  assert len(found.sample.items()) == 3
  assert len(found._phrases._waiting) == 1030 - 1024
