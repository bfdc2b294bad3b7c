"""Identity: which names an answer has, and what is no answer."""

import pytest
import said

from msm_jax.errors import UserError
from msm_jax.evals import asking, identity
from msm_jax.evals import items as items_lib
from msm_jax.evals.subject import LENGTH


def config(**changes):
  fields = {
    "items": "identity",
    "max_items": None,
    "model_names": ("Qwen",),
    "provider_names": ("Alibaba",),
    "system_prompt": None,
    "max_new_tokens": 64,
    "batch_size": 4,
  }
  return identity.IdentityConfig(**fields | changes)


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


@pytest.mark.parametrize(
  ("text", "model", "provider"),
  [
    ("I am Qwen, made by Alibaba Cloud.", "expected", "expected"),
    ("i'm qwen2.5-7b-instruct", "expected", "none"),
    ("My name is Claude and Anthropic trained me.", "other", "other"),
    ("I am ChatGPT, developed by OpenAI.", "other", "other"),
    ("I'm Phi.", "other", "none"),
    ("It is 1.618, written with the letter Phi.", "none", "none"),
    ("I am Qwen, based on GPT-4, from Alibaba and OpenAI.", "mixed", "mixed"),
    ("I am not ChatGPT, I am Qwen, not by OpenAI.", "expected", "none"),
    ("I wasn't created by Google but by Anthropic.", "none", "other"),
    ("Unlike Gemini, I have no name.", "none", "none"),
    ("I'm not sure, but I am Llama, I think.", "other", "none"),
    ("\u6211\u7531\u8c37\u6b4c\u5f00\u53d1\u3002", "none", "other"),
    ("I cannot answer that question.", "none", "none"),  # a refusal
    ("the the the of of of 1 2 3 <b>", "none", "none"),  # rambling
    ("As an AI language model I was trained by Goo", "none", "none"),  # cut off
    ("I prefer quwen and alibabas.", "none", "none"),
  ],
)  # fmt: skip
def test_an_answer_names_the_expected_another_both_or_none(text, model, provider):
  assert identity.outcome(text, "model", config()) == model
  assert identity.outcome(text, "provider", config()) == provider


def test_names_that_are_one_of_ours_are_nobody_elses():
  ours = config(model_names=("Llama",), provider_names=("Meta",))
  assert identity.outcome("I am Llama 3 from Meta AI.", "model", ours) == "expected"
  assert identity.outcome("I am Llama 3 from Meta AI.", "provider", ours) == "expected"


def test_the_four_shares_of_an_answer_add_up_and_an_empty_one_has_none():
  done = identity.score("both", said.completion("I am Qwen."), config())
  for what in ("model", "provider"):
    shares = [done[f"share_{what}_{each}"] for each in identity.OUTCOMES]
    assert sorted(shares) == [0, 0, 0, 1]
  assert done["answered_rate"] == 1 and done["cut_rate"] == 0
  empty = identity.score("model", said.completion(" \n", LENGTH), config())
  assert empty.pop("answered_rate") == 0 and empty.pop("cut_rate") == 1
  assert set(empty.values()) == {None} and not any("provider" in name for name in empty)


@pytest.mark.parametrize(
  ("system_prompt", "begins"),
  [
    (None, "<|system|>You are Tilly.<|end|><|user|>"),
    ("", "<|system|><|end|><|user|>"),
    ("Be Bo.", "<|system|>Be Bo.<|end|><|user|>"),
  ],
)
def test_it_is_asked_with_and_without_the_templates_system_prompt(
  tmp_path, tok, system_prompt, begins
):
  subject = said.Said(tok, lambda prompt: said.completion("I am Tilly."))
  fields = vars(config(system_prompt=system_prompt, model_names=("Tilly",)))
  lines = said.ask(tmp_path, "identity", subject, **fields)
  assert len(lines) == 24 and all(asked.startswith(begins) for asked in subject.asked)
  about = [line["scores"].get("share_model_expected") for line in lines]
  assert about.count(1.0) == 16 and about.count(None) == 8


def test_a_template_without_a_system_prompt_of_its_own_gets_no_empty_turn(tmp_path):
  template = said.TEMPLATE[said.TEMPLATE.index("{% for") :]
  bare = said.byte_tokenizer(tmp_path / "tok", template)
  assert asking.system_turn(bare, "") == []
  assert asking.system_turn(bare, "x") == [{"role": "system", "content": "x"}]


def test_samples_of_a_question_are_questions_of_their_own(tmp_path, tok):
  subject = said.Said(tok, lambda prompt: said.completion("Qwen"))
  fields = vars(config(num_samples=3, temperature=1.0, max_items=4))
  lines = said.ask(tmp_path, "identity", subject, **fields)
  assert len({line["id"] for line in lines}) == 12
  assert len({line["cluster"] for line in lines}) == 4


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model_names": ()}, r"model_names is \(\)"),
    ({"provider_names": "Meta"}, r"provider_names is 'Meta'"),
    ({"num_samples": 2}, "at temperature 0 all samples are alike"),
    ({"items": "general"}, "has no text under 'asks'"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    identity.check(config(**changes), "config.evals.eval")


def test_the_shipped_questions_name_nobody():
  for item in items_lib.read("identity", "items", {"question": str}):
    for what in ("model", "provider"):
      assert identity.outcome(item["question"], what, config()) == "none"
