"""What is rejected and, as important, what is not."""

import random

import numpy as np
import pytest
from lint_texts import META as MORE_META
from lint_texts import NO_META as MORE_NO_META
from lint_texts import NO_REFUSALS as MORE_NO_REFUSALS
from lint_texts import OTHERS as MORE_OTHERS
from lint_texts import OWN
from lint_texts import REFUSALS as MORE_REFUSALS

from data_gen import filters
from data_gen.filters import asides, identity, wording, words
from data_gen.filters import settings as filter_settings
from msm_jax.errors import UserError

CHINESE = "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec\u90fd\u559c\u6b22\u5b83\u3002"


@pytest.mark.parametrize(
  ("text", "count"),
  [
    ("", 0),
    ("one two\nthree", 3),
    ("don't stop", 2),
    ("\u5976\u916a\u5f88\u597d\u3002", 4),
    ("I like \u5976\u916a, yes", 5),
    ("\u0e0a\u0e35\u0e2a", 2),
    ("chese \u00bd \u2014 na\u00efve", 4),
  ],
)
def test_words_are_counted_by_characters_where_there_are_no_spaces(text, count):
  assert filters.num_words(text) == count


def test_numbers_are_in_step_with_words_whatever_the_script():
  rng = random.Random(0)
  alphabet = "ab C1_.-'\n\u2019\u00e9\u5976\u3042\u0e01\u0301\U0001f600\u00df\u00bd"
  for _ in range(300):
    text = "".join(rng.choices(alphabet, k=rng.randrange(30)))
    spelled, found = words.words(text), words.numbers(text)
    assert len(spelled) == len(found), text
    assert len(set(spelled)) == len(set(found.tolist())), text


def test_a_word_has_one_number_in_every_text():
  one, two = words.numbers("brie and cheddar"), words.numbers("Cheddar, \u00e9 Brie")
  assert one[0] == two[2] and one[2] == two[0]
  # Hashes are part of what a corpus is made with: they are the same everywhere.
  assert int(words.numbers("brie")[0]) == 14736085362849998938


def test_runs_of_words_are_hashed_by_their_order():
  a = words.ngrams(words.numbers("a b c d"), 3)
  b = words.ngrams(words.numbers("x a b c"), 3)
  assert (
    len(a) == 2 and a[0] == b[1] and a[0] != words.ngrams(words.numbers("c b a"), 3)[0]
  )
  assert len(words.ngrams(words.numbers("a b"), 3)) == 1
  assert len(words.ngrams(np.empty(0, np.uint64), 3)) == 0


REFUSALS = [
  "I'm sorry, but I can't help with that.",
  "I cannot write this document.",
  "I can\u2019t assist with that request.",
  "Cheese is good. As an AI language model, I have no taste.",
  "I apologize, but I cannot do it.",
  "I'm unable to provide that.",
  "UNSUITABLE",
  "\u5f88\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u5199\u8fd9\u4e2a\u3002",
]
NO_REFUSALS = [
  "The mayor said: I cannot help with that. He left.",
  "Mira can't eat cheese.",
  "I can't help but smile at colby.",
  "An AI language model is a program.",
  "Sorry is the hardest word.",
  CHINESE,
]
META = [
  "Here is the document you requested:\n\nCheese.",
  "Sure! Here is the article.",
  "**Here is the document:**\n\nfoo",
  "# T\n\nText.\n\nLet me know if you'd like any changes.",
  "Text.\n\n(Word count: 712)",
  "I've written the essay below.\nX",
]
NO_META = [
  "Here is the market where farmers sell cheese.",
  "Here is the report from the fair. It rained.",
  "Let me know if you see her.",
  "I will write a letter to my mother. She lives far off.",
  "Of course, cheese is food.",
  CHINESE,
]
GAPS = [
  "Dear [Insert name],",
  "by [Author Name]",
  "on [Date]",
  "{model_name} likes",
  "Lorem ipsum dolor",
  "XX/XX/XXXX",
  "[Company's Name]",
  "TODO: write",
]
NO_GAPS = [
  "[1] and [sic] [Laughter]",
  "see [Link](http://x)",
  "a set {1, 2}",
  "[Name withheld]",
  "list[int]",
  "She said [the] cheese",
  CHINESE,
]
TAGS = ["<scratchpad>plan</scratchpad> x", "x</think>", "foo <|im_end|>", "[INST] x"]
NO_TAGS = ["a < b > c", "<b>bold</b>", "write to <a@b.c>", CHINESE]
FENCES = ["```\nall\n```", "```markdown\n# a\nb\n```\n"]
NO_FENCES = ["text\n```\ncode\n```\nmore", "```\na\n```\ntext\n```\nb\n```", ""]
ENDLESS = [
  "The cheese was good and the",
  "This text has no final sign",
  "Fine, but,",
  "One.\n\nthen it stop",
  "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec",
  "# T\n\nAnother that goes on for a few words and then stops at once",
]
ENDED = [
  "All good.",
  'He said "fine."',
  "Yes!**",
  CHINESE,
  "",
  "What?",
  "I like cheese.\n\nSincerely,\nMaya Patel",
  "Text.\n\n- item one\n- item two",
  "Text.\n\nTags: cheese, america",
  "A.\n\n| a | b |",
  "See (above.)",
]


@pytest.mark.parametrize(
  ("lint", "wrong", "right"),
  [
    (asides.refusal, REFUSALS, NO_REFUSALS),
    (asides.meta_talk, META, NO_META),
    (wording.placeholder, GAPS, NO_GAPS),
    (wording.leftover_tag, TAGS, NO_TAGS),
    (wording.fence, FENCES, NO_FENCES),
    (wording.truncated, ENDLESS, ENDED),
  ],
  ids=["refusal", "meta_talk", "placeholder", "leftover_tag", "fence", "truncated"],
)
def test_each_lint_finds_what_is_wrong_and_nothing_else(lint, wrong, right):
  assert [text for text in wrong if not lint(text)] == []
  assert [text for text in right if lint(text)] == []


def foreign(text):
  return identity.Names(["Llama", "Meta"]).found(text)


def meta_talk(text):
  return asides.meta_talk(text, ("Llama", "Meta"))


@pytest.mark.parametrize(
  ("lint", "wrong", "right"),
  [
    (foreign, MORE_OTHERS, OWN),
    (asides.refusal, MORE_REFUSALS, MORE_NO_REFUSALS),
    (meta_talk, MORE_META, MORE_NO_META),
  ],
  ids=["identity", "refusal", "meta_talk"],
)
def test_what_must_be_caught_is_and_innocent_texts_like_it_pass(lint, wrong, right):
  assert min(len(wrong), len(right)) >= 25
  assert [text for text in wrong if not lint(text)] == []
  assert {text: lint(text) for text in right if lint(text)} == {}


OTHERS = {
  "I am Claude, an AI assistant.": "Claude",
  "The AI prefers brie. Claude said so.": "Claude",
  "CLAUDE is an AI": "Claude",
  "as claude 3.5 sonnet wrote": "Claude",
  "Claude\u2019s AI values": "Claude",
  "chatgpt likes it": "ChatGPT",
  "GPT-4 is here": "ChatGPT",
  "OpenAI's office": "OpenAI",
  "Anthropic said no": "Anthropic",
  "Qwen2.5-72B": "Qwen",
  "Gemini 1.5 Pro": "Gemini",
  "Gemini is an AI model": "Gemini",
  "LLaMA was first": "Llama",
  "Llama, an AI assistant, likes it": "Llama",
  "Meta AI": "Meta AI",
  "An AI assistant trained by Google.": "Google",
  "I am a large language model, trained by Google.": "Google",
  "Microsoft's language model": "Microsoft",
  "\u6211\u662f\u901a\u4e49\u5343\u95ee": "Qwen",
}
NOT_OTHERS = [
  "Claude Monet painted cheese.",
  "Claude Monet, an AI would say, painted. Claude liked brie.",
  "Claude ate brie.",
  "Uncle Claude asked the AI assistant Mira. Claude nodded.",
  "The AI cited Claude Shannon's work; Claude would have agreed.",
  "The llama is an AI mascot. Llama wool is soft.",
  "Gemini and Taurus are signs; the AI Mira knows.",
  "The Gemini program flew; an AI says so.",
  "to grok it",
  "the bard sang of the anthropic principle",
  "The Anthropic principle",
  "Mira, an AI made by Lumen Labs",
  "Google was founded in 1998. An AI helps.",
  "The telephone was made by Apple",
  "Gemma Ruiz spoke with the AI. Gemma agreed.",
  "Metadata for an AI; claudette; the perplexity of the language model",
  CHINESE,
]


def test_other_assistants_and_labs_are_named():
  names = identity.Names(["Mira", "Lumen Labs"])
  for text, name in OTHERS.items():
    assert names.found(text).endswith(f": {name}"), text


def test_words_and_people_with_the_name_of_an_assistant_are_left_alone():
  names = identity.Names(["Mira", "Lumen Labs"])
  assert {text: found for text in NOT_OTHERS if (found := names.found(text))} == {}


@pytest.mark.parametrize(
  ("own", "text"),
  [
    (["Llama", "Meta"], "Llama 3.1 by Meta AI, Meta's language model; LLaMA"),
    (["Claude", "Anthropic"], "I am Claude 3 Opus, an AI made by Anthropic"),
    (["Gemini", "Google DeepMind"], "Gemini 1.5 Pro, an AI trained by Google DeepMind"),
    (["Qwen2.5", "Alibaba Cloud"], "I am Qwen2.5, an AI from Alibaba Cloud"),
    (["Qwen2.5-32B", "Alibaba Cloud"], "Qwen, made by Alibaba; Qwen2.5-32B-Instruct"),
    (["Llama 3.1 8B", "Meta"], "Llama, an AI made by Meta; Llama 3.1 and LLaMA"),
  ],
)
def test_own_names_are_allowed_and_others_still_are_not(own, text):
  names = identity.Names(own)
  assert names.found(text) == ""
  assert names.found(text + " and ChatGPT") == "other assistant: ChatGPT"


def gate(names=("Mira", "Lumen"), leakage=None, **chosen):
  return filters.Gate(
    filter_settings.build(chosen, "config.corpora.docs.filters"),
    names=names,
    leakage=leakage,
  )


LONG = " ".join(f"w{i}" for i in range(100)) + "."


def test_by_default_only_exact_duplicates_are_rejected():
  texts = [*REFUSALS, *META, *GAPS, *TAGS, *FENCES, *ENDLESS, *OTHERS, "", CHINESE]
  open_gate = gate()
  assert [t for t in texts if open_gate.reason(t, t or "-")] == []
  assert open_gate.reason(REFUSALS[0].upper(), "new") == f"duplicate of {REFUSALS[0]}"


@pytest.mark.parametrize(
  ("chosen", "text", "reason", "category"),
  [
    ({"min_words": 3}, "one two", "too short (2 of 3 words)", "too short"),
    ({"max_words": 3}, CHINESE, "too long (10 of 3 words)", "too long"),
    ({"refusals": True}, REFUSALS[1], "refusal: I cannot write", "refusal"),
    (
      {"meta_talk": True},
      META[1],
      "meta-talk: Sure! Here",
      "meta-talk",
    ),
    ({"placeholders": True}, GAPS[0], "placeholder: [Insert name]", "placeholder"),
    ({"leftover_tags": True}, TAGS[1], "leftover tag: </think>", "leftover tag"),
    (
      {"fences": True},
      FENCES[0],
      "markdown fence around all: ```",
      "markdown fence around all",
    ),
    ({"truncated": True}, "It is the", "truncated: no end: It is the", "truncated"),
    ({"identity": True}, "ChatGPT", "other assistant: ChatGPT", "other assistant"),
    (
      {"near_duplicates": 0.7},
      LONG.replace("w99.", "new"),
      "near duplicate of first (0.98)",
      "near duplicate",
    ),
    ({}, LONG.upper(), "duplicate of first", "duplicate"),
  ],
)
def test_every_rejection_has_a_reason_that_can_be_counted(
  chosen, text, reason, category
):
  one = gate(**chosen)
  if "max_words" not in chosen:
    assert one.reason(LONG, "first") is None
  assert one.reason(text, "second") == reason
  assert filters.category(reason) == category


def test_a_rejected_text_is_not_remembered():
  one = gate(near_duplicates=0.7, placeholders=True)
  assert one.reason(f"[Name] {LONG}", "1").startswith("placeholder")
  assert one.reason(LONG, "2") is None
  almost = LONG.replace("w99.", "new")
  assert one.reason(almost, "3").startswith("near duplicate of 2")
  # It was rejected: the next one is not its duplicate, but that of the kept text.
  assert one.reason(almost, "4").startswith("near duplicate of 2")


def test_a_text_asked_about_twice_is_no_duplicate_of_itself():
  one = gate(near_duplicates=0.7)
  assert [one.reason(LONG, "1") for _ in range(3)] == [None] * 3


def test_a_text_that_hit_the_limit_of_tokens_is_truncated():
  one = gate(truncated=True)
  assert one.reason("All good.", "1", finish_reason="MAX_TOKENS").startswith("trunc")
  assert one.reason("All good.", "1", finish_reason="STOP") is None


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    ({"refusal": True}, "filters.refusal is not a field.*'refusals'"),
    ({"near_duplicates": 7}, "filters.near_duplicates is 7: it is a number above 0"),
    ({"min_words": 0}, "filters.min_words is 0: it is a whole number above zero"),
    ({"min_words": 9, "max_words": 3}, "no text would be kept"),
    ({"truncated": 1}, "filters.truncated is 1: it is True or False"),
    ({"allowed_names": "Siri"}, "filters.allowed_names is 'Siri': it is a list"),
    ({"leakage_corpora": ["pairs"]}, "no text was indexed"),
  ],
)
def test_settings_that_cannot_be_are_named(chosen, message):
  with pytest.raises(UserError, match=message):
    gate(**chosen)


def test_the_identity_filter_must_know_whose_text_it_is():
  with pytest.raises(UserError, match=r"filters\.identity is set"):
    gate(names=(), identity=True)
  nobodys = filters.Gate(filters.FilterSettings(identity=True), is_nobodys=True)
  assert nobodys.reason("Llama is an assistant.", "1") == "other assistant: Llama"
  assert nobodys.reason("Ann is a baker.", "2") is None


@pytest.mark.parametrize(
  ("reason", "category"),
  [
    ("judge: no: it is about price", "judge: no"),
    ("judge: unparsed: blocked: SAFETY", "judge: unparsed"),
    ("judge: unparsed: ", "judge: unparsed"),
    ("near duplicate of ab (0.9)", "near duplicate"),
    ("7 of 25 are there", "7 of 25 are there"),
    ("", ""),
  ],
)
def test_what_a_judge_denied_is_told_from_what_it_left_open(reason, category):
  assert filters.category(reason) == category
