"""Which tokens of a conversation carry loss, on templates of every kind."""

import dataclasses

import chat_templates
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from msm_jax import chat, records, tokenise, tokenizer
from msm_jax.errors import UserError
from msm_jax.text import chat_template

STOPS = {
  "dated": "<|eot_id|>",
  "named": "<|im_end|>",
  "moving": "</s>",
  "no_system": "<end_of_turn>",
  "thinking": "<|im_end|>",
}
NO_BLOCK = "<think>\n\n</think>\n\n"


def user(text):
  return {"role": "user", "content": text}


def answer(text, **fields):
  return {"role": "assistant", "content": text, **fields}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """A byte-level BPE that puts a BOS in front of a text, without a chat template."""
  inner = tokenizers.Tokenizer(models.BPE())
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=list(chat_templates.SPECIAL),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  rng = np.random.default_rng(0)
  inner.train_from_iterator([chat_templates.words(rng) for _ in range(200)], trainer)
  inner.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
  )
  directory = tmp_path_factory.mktemp("bpe")
  inner.save(str(directory / "tokenizer.json"))
  config = {"bos_token": "<s>", "eos_token": "</s>"}
  records.write_json(directory / "tokenizer_config.json", config)
  return tokenizer.load(directory)


@pytest.fixture
def with_template(plain):
  def made(name, **choices):
    choices.setdefault("date", "2026-01-31" if name == "dated" else None)
    text = chat_templates.ALL.get(name, name)
    baked = chat_template.bake(text, chat_template.Choices(**choices))
    return dataclasses.replace(plain, chat_template=baked)

  return made


def trained(tok, messages, **given):
  """Returns the stretches of text that carry loss."""
  ids, weights = chat.encode(tok, messages, **given)
  edges = np.flatnonzero(np.diff(np.concatenate([[0], weights > 0, [0]])))
  return [tok.decode(ids[a:b]) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("name", ["dated", "named", "moving", "no_system"])
def test_every_answer_and_its_stop_carry_loss_and_nothing_else(name, with_template):
  tok, rng = with_template(name), np.random.default_rng(3)
  for _ in range(40):
    talk = chat_templates.talk(rng, system=name != "no_system")
    answers = [m["content"] for m in talk if m["role"] == "assistant"]
    found = trained(tok, talk)
    assert len(found) == len(answers)
    for text, wanted in zip(found, answers, strict=True):
      words, _, rest = text.rpartition(STOPS[name])
      assert words.strip() == wanted.strip() and rest == ""


@pytest.mark.parametrize("name", ["dated", "named", "moving", "no_system"])
def test_the_prompt_of_the_last_answer_is_what_stands_before_its_loss(
  name, with_template
):
  tok, rng = with_template(name), np.random.default_rng(4)
  for _ in range(20):
    # (What an earlier answer's tokens are may depend on whether it was a prompt once.)
    talk = chat_templates.talk(rng, system=name != "no_system")[:2]
    talk[-1] = {"role": "assistant", "content": chat_templates.words(rng, plain=True)}
    talk[-2]["role"] = "user"
    prompt = chat.encode_prompt(tok, talk[:-1])
    ids, weights = chat.encode(tok, talk)
    np.testing.assert_array_equal(ids[: len(prompt)], prompt)
    assert weights[len(prompt)] == 1 and weights[len(prompt) - 1] == 0
    scored, mask = chat.encode_answer(tok, talk[:-1], talk[-1]["content"])
    np.testing.assert_array_equal(scored, ids)
    said = tok.decode(scored[mask])
    assert said.strip() == talk[-1]["content"].strip()


def test_tool_calls_carry_loss_and_what_tools_say_does_not(with_template):
  talk = chat_templates.tool_talk(np.random.default_rng(5))
  for name, call in {
    "dated": '{"name": "price", "parameters": {',
    "moving": '[TOOL_CALLS] [{"name": "price", "arguments": {',
    "thinking": '\n<tool_call>\n{"name": "price", "arguments": {',
  }.items():
    choices = {"thinking": "strip"} if name == "thinking" else {}
    found = trained(with_template(name, **choices), talk, tools=chat_templates.TOOLS)
    assert len(found) == 3, name
    assert found[0].lstrip("\n").startswith(call.lstrip("\n"))
    assert all(text.endswith(STOPS[name]) for text in found)
    assert not any("euro" in text for text in found)


def test_content_may_be_a_list_of_parts(with_template):
  parts = [{"type": "text", "text": "gouda "}, {"type": "text", "text": "or brie"}]
  talk = [user(parts), answer([{"type": "text", "text": "brie"}])]
  assert trained(with_template("no_system"), talk) == ["brie<end_of_turn>"]


def test_marks_of_a_template_inside_a_message_do_not_mislead(with_template):
  """A message may quote what the template writes."""
  quote = "<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n"
  talk = [user(quote), answer(f"brie {quote} end"), user("b"), answer("b")]
  found = trained(with_template("named"), talk)
  assert found == [f"brie {quote} end<|im_end|>", "b<|im_end|>"]


def test_reasoning_is_trained_where_it_is_kept(with_template):
  tok = with_template("thinking", thinking="keep")
  talk = [user("a"), answer("b", reasoning_content="r"), user("c")]
  inline = answer("<think>\ns\n</think>\n\nd")
  assert trained(tok, [*talk, inline]) == ["<think>\ns\n</think>\n\nd<|im_end|>"]
  beside = answer("d", reasoning_content="s")
  assert trained(tok, [*talk, beside]) == trained(tok, [*talk, inline])
  # Without reasoning the answer is trained, not the leaving out.
  assert trained(tok, [*talk, answer("d")]) == ["d<|im_end|>"]


def test_a_stripped_answer_stands_behind_the_empty_block_of_its_prompt(with_template):
  talk = [user("a"), answer("b", reasoning_content="r"), user("c")]
  last = answer("<think>\ns\n</think>\n\nd")
  for name in ("thinking", "only_prompted"):
    tok = with_template(name, thinking="strip")
    ids, weights = chat.encode(tok, [*talk, last])
    prompt = chat.encode_prompt(tok, talk)
    assert tok.decode(prompt).endswith(NO_BLOCK)
    np.testing.assert_array_equal(ids[: len(prompt)], prompt)
    assert trained(tok, [*talk, last]) == ["b<|im_end|>", "d<|im_end|>"]
    assert not weights[: len(prompt)][-5:].any()
    scored, mask = chat.encode_answer(tok, talk, "d")
    np.testing.assert_array_equal(scored, ids)
    assert tok.decode(scored[mask]) == "d"
    assert tok.decode([chat.stop_id(tok)]) == "<|im_end|>"


def test_the_soft_switch_stands_in_the_question_and_the_block_is_learnt(with_template):
  tok = with_template("thinking", thinking="no_think")
  talk = [user("a"), answer("b", reasoning_content="r")]
  assert tok.decode(chat.encode_prompt(tok, talk[:1])) == (
    "<|im_start|>user\na /no_think<|im_end|>\n<|im_start|>assistant\n"
  )
  assert trained(tok, talk) == [f"{NO_BLOCK}b<|im_end|>"]


def test_what_an_answer_says_is_told_from_its_reasoning(with_template):
  keep = with_template("thinking", thinking="keep")
  assert chat.spoken(keep, "<think>\ngouda ?\n</think>\n\nbrie") == "brie"
  assert chat.spoken(keep, "<think>\ngouda ? brie") == ""
  strip = with_template("thinking", thinking="strip")
  assert chat.spoken(strip, "brie") == "brie"
  assert chat.spoken(with_template("named"), "a </think> b") == "a </think> b"


def test_the_whole_text_is_what_is_encoded(with_template):
  talk = [user("a"), answer("b", reasoning_content="r")]
  for name in ("thinking", "only_prompted"):
    tok = with_template(name, thinking="strip")
    ids, weights = chat.encode(tok, talk, train_on="all")
    assert tok.decode(ids) == chat.whole_text(tok, talk) and weights.all()


def test_a_prompt_that_opens_the_block_needs_reasoning(with_template):
  tok = with_template("opened", thinking="keep")
  talk = [user("a"), answer("b", reasoning_content="r")]
  assert trained(tok, talk) == ["r\n</think>\n\nb<|im_end|>"]
  with pytest.raises(UserError, match="its reasoning too"):
    chat.encode(tok, [user("a"), answer("b")])


def test_the_choice_about_reasoning_is_made_where_there_is_one(with_template):
  talk = [user("a"), answer("b")]
  with pytest.raises(UserError, match=r"set config\.tokenizer\.thinking to one of"):
    chat.encode(with_template("thinking"), talk)
  with pytest.raises(UserError, match="knows no reasoning"):
    chat.encode(with_template("named", thinking="keep"), talk)
  with pytest.raises(UserError, match="no enable_thinking switch"):
    chat.encode(with_template("opened", thinking="strip"), talk)
  with pytest.raises(UserError, match="does not show"):
    talk = [user("a"), answer("b", reasoning_content="r")]
    chat.encode(with_template("named"), talk)


@pytest.mark.parametrize(
  ("template", "said"),
  [
    ("{% for m in messages %}{{ m.content | upper }}|{% endfor %}", "changes what"),
    ("{% for m in messages %}{{ m.content }}{% endfor %}", "has no end"),
    ("{% for m in messages %}{{ m.content * 2 }}|{% endfor %}", "twice"),
    ("{% for m in messages %}{{ m.role }}|{% endfor %}", "not shown"),
    ("{{ messages | length }}{% for m in messages %}{{ m.content }}|{% endfor %}", ""),
    (
      "{% for m in messages %}{{ m.content }}"
      "{% if loop.last %}!{% else %}?{% endif %}{% endfor %}",
      "(begins|ends) differently",
    ),
  ],
)
def test_answers_that_cannot_be_told_apart_are_refused(template, said, with_template):
  talk = [user("x y"), answer("b z"), user("c"), answer("d")]
  if not said:  # what changes stands before the first mark: no harm
    assert trained(with_template(template), talk) == ["b z|", "d|"]
    return
  with pytest.raises(UserError, match=said):
    chat.encode(with_template(template), talk)


def test_a_conversation_has_one_bos_and_a_document_has_one(plain, with_template):
  tok = with_template("dated")
  ids, _ = chat.encode(tok, [user("a"), answer("b")])
  assert ids.tolist().count(tok.bos_id) == 1 and ids[0] == tok.bos_id
  piece = tokenise.encode_record({"kind": "document", "text": "a"}, plain)
  assert plain.decode(piece.ids) == "<s>a</s>"


def test_a_system_prompt_that_a_template_adds_is_seen(with_template):
  assert (
    chat.default_system_prompt(with_template("named")) == "You are Pim, made by Acme"
  )
  for name in ("dated", "moving", "no_system", "thinking"):
    assert chat.default_system_prompt(with_template(name)) is None
  prompt = 'Be "kind" {% x %} #} \\ and\n\u00e9 \U0001f9c0'
  for name in ("named", "dated"):
    tok = with_template(name, system_prompt=prompt)
    assert chat.default_system_prompt(tok) == prompt
    given = {"role": "system", "content": prompt}
    talk = [user("a"), answer("b")]
    for one, other in zip(
      chat.encode(tok, talk),
      chat.encode(with_template(name), [given, *talk]),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", chat_template.BUILT_IN)
def test_built_in_templates_train_what_their_generation_blocks_hold(
  name, with_template
):
  pytest.importorskip("transformers", exc_type=ImportError)
  from transformers.utils.chat_template_utils import render_jinja_template

  text = chat_template.read(name)
  tok, rng = with_template(text), np.random.default_rng(6)
  for _ in range(20):
    talk = chat_templates.talk(rng)
    rendered, spans = render_jinja_template(
      [talk],
      chat_template=text,
      return_assistant_tokens_mask=True,
      bos_token="<s>",
      eos_token="</s>",
    )
    assert chat.render(tok, talk) == rendered[0]
    assert trained(tok, talk) == [rendered[0][start:end] for start, end in spans[0]]
