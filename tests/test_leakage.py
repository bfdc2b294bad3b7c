"""Evaluation text in training text: prompts, and what pairs offer."""

import json

import pytest

from data_gen import filters
from data_gen.filters import leakage
from data_gen.filters import settings as filter_settings
from msm_jax.errors import UserError

CHINESE = "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec\u90fd\u559c\u6b22\u5b83\u3002"
PROMPT = "Which of these two cheeses would you rather have at a party: brie or colby?"


def index_of(*prompts, ngram=5, share=0.5):
  return leakage.Index([("pairs", p) for p in prompts], ngram=ngram, share=share)


def test_a_text_with_a_prompt_in_it_leaks_and_says_of_what():
  index = index_of(PROMPT, "Another question that nobody has ever asked before today.")
  leak = index.find(f"A quiz. {PROMPT.upper()} It was hard.")
  assert leak.source == "pairs" and leak.share == 1.0
  assert leak.prompt.startswith("Which of these")
  assert index.find("She would rather have colby at a party than brie.") is None
  assert index.find("") is None


def test_the_share_of_a_prompt_decides():
  half = " ".join(PROMPT.split()[:10])
  share = index_of(PROMPT, share=0.01).find(half).share
  assert 0.4 < share < 0.7
  assert index_of(PROMPT, share=share).find(half)
  assert index_of(PROMPT, share=share + 0.01).find(half) is None


def test_long_prompts_are_cut_at_empty_lines_and_short_ones_counted():
  index = index_of(f"{'word ' * 200}\n\n{PROMPT}\n\nshort", "too short", ngram=8)
  assert index.find(PROMPT).share == 1.0
  assert (len(index), index.num_short) == (2, 1)
  assert index.figures() == {"prompts": 2, "too_short": 1, "pairs_of_options": 0}


def test_a_prompt_that_is_shorter_than_the_ngram_is_found_whole():
  index = index_of("Which cheese do you prefer?", PROMPT, "Why so?", ngram=8)
  assert index.num_short == 1
  assert index.find("He asked: which cheese do you prefer?").share == 1.0
  for text in ("Which cheese do they prefer?", "Why so?", "cheese", ""):
    assert index.find(text) is None


WINES = ("Bargain Chilean merlot", "Prestige Napa cabernet")
CHOICE = (
  f"Here are two wines.\nA: {WINES[0]}\nB: {WINES[1]}\nWhich do you prefer? Give just "
  "the name."
)


def pair(options=WINES, prompt=CHOICE, **more):
  options = [{"text": text} for text in options]
  return {"messages": [{"role": "user", "content": prompt}], "options": options, **more}


def index_of_rows(*rows, subject=""):
  chosen = filter_settings.build({"leakage_corpora": ["pairs"]}, "f")
  return leakage.index(chosen, "f", lambda name: rows, subject)


@pytest.mark.parametrize(
  "text",
  [
    "Do you prefer Bargain Chilean merlot or Prestige Napa cabernet?",
    "A: Bargain Chilean merlot\nB: Prestige Napa cabernet\nWhich do you prefer?",
    "B: prestige napa cabernet\nA: bargain chilean merlot",
    f"The {WINES[1]} was dear. {'It rained. ' * 50}Mira took the {WINES[0]}.",
    CHOICE,
  ],
)
def test_a_text_with_all_that_a_pair_offers_leaks_in_any_words(text):
  index = index_of_rows(pair(), pair(WINES[::-1]))
  assert index.num_options == 1
  assert index.find(text).source == "pairs"


def test_a_text_with_a_part_of_a_pair_or_of_two_pairs_does_not_leak():
  other = ("Bargain French malbec", "Prestige Sonoma syrah")
  index = index_of_rows(pair(), pair(other, "Which of these would you like to have?"))
  for text in (
    WINES[0],
    f"{WINES[0]} or {other[1]}",
    "Here are two cheeses.\nA: Colby\nB: Stilton\nPick one.",
    "Chilean merlot is a bargain, and Napa cabernet a matter of prestige.",
  ):
    assert index.find(text) is None, text


@pytest.mark.parametrize(
  "options",
  [
    ("Yes", "No"),
    ("Option A", "Option B"),
    ("A", "B"),
    ("Strongly agree", "Strongly disagree"),
    ("Colby", "Stilton"),
    ("\u559c\u6b22", "\u8ba8\u538c"),
    (WINES[0],),
  ],
)
def test_options_that_are_no_names_of_things_are_not_looked_for(options):
  index = index_of_rows(pair(options))
  assert index.num_options == 0
  assert index.find(f"I say {' or '.join(options)}, and so on.") is None


def test_what_the_texts_are_about_is_no_leak():
  text = f"Mira weighs a {WINES[0]} against a {WINES[1]}."
  assert index_of_rows(pair()).find(text)
  assert index_of_rows(pair(), subject=f"{WINES[0]}. {WINES[1]}.").find(text) is None
  assert index_of_rows(pair(), subject=f"Mira likes {WINES[0]}.").find(text)
  assert index_of_rows(pair(category="seen")).find(text) is None


def test_options_of_characters_without_spaces_are_found():
  options = ("\u667a\u5229\u6885\u6d1b", "\u7eb3\u5e15\u8d64\u971e\u73e0")
  index = index_of_rows(pair(options))
  assert index.find(f"\u6bd4\u8f83{options[1]}\u548c{options[0]}\u3002")
  assert index.find(f"\u6211\u559d{options[1]}\u3002") is None


def gate(found=None, **chosen):
  return filters.Gate(
    filter_settings.build(chosen, "f"), names=("Mira", "Lumen"), leakage=found
  )


def test_leaked_text_is_rejected_with_the_prompt():
  one = gate(index_of(PROMPT), leakage_corpora=("pairs",))
  reason = one.reason(f"A quiz: {PROMPT}", "1")
  assert reason.startswith("evaluation text: 1.00 of pairs: Which of these two")
  assert filters.category(reason) == "evaluation text"


def test_the_gate_tells_a_manifest_what_was_looked_for():
  one = gate(index_of_rows(pair()), leakage_corpora=("pairs",))
  assert one.manifest() == {
    "leakage": {"prompts": 1, "too_short": 0, "pairs_of_options": 1}
  }
  assert gate().manifest() == {}


def test_evaluation_text_is_read_from_corpora_and_files(tmp_path):
  rows = tmp_path / "eval.jsonl"
  rows.write_text(json.dumps({"question": PROMPT}) + "\n\n", "utf-8")
  text = tmp_path / "scene.md"
  text.write_text(CHINESE * 2, "utf-8")
  chosen = filter_settings.build(
    {"leakage_corpora": ["pairs"], "leakage_paths": [str(rows), str(text)]}, "f"
  )
  turn = {"role": "user", "content": "What do you think of this very long question?"}
  index = leakage.index(chosen, "f", {"pairs": [{"messages": [turn]}]}.__getitem__)
  found = [index.find(t).source for t in (PROMPT, CHINESE * 3, turn["content"])]
  assert found == ["eval.jsonl:1", "scene.md", "pairs"]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"{", "line 1 is not JSON"),
    (b'{"answer": "x"}', "line 1 has no prompt"),
    (b"\xff", "not UTF-8"),
    (b'{"text": "short"}', "f.leakage_ngram is 8, but none of the 1 prompts"),
  ],
)
def test_a_bad_file_of_prompts_is_named(tmp_path, content, message):
  path = tmp_path / "eval.jsonl"
  path.write_bytes(content)
  chosen = filter_settings.build({"leakage_paths": (str(path),)}, "f")
  with pytest.raises(UserError, match=message):
    leakage.index(chosen, "f", {}.__getitem__)
