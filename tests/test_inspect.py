"""Our models and graders behind Inspect: what they are asked, and what they answer.

Real runs of Inspect, with a model that answers by a rule: one import of Inspect takes
longer than all of them.
"""

import contextlib
import dataclasses

import graders
import hf_models
import jax
import pytest
import stand_ins
from fake_openai import FakeOpenAI

inspect_ai = pytest.importorskip("inspect_ai")

from inspect_ai.dataset import Sample  # noqa: E402 (only where it is installed)
from inspect_ai.model import (  # noqa: E402 (only where it is installed)
  ChatMessageSystem,
  ChatMessageUser,
  GenerateConfig,
  get_model,
)

from msm_jax import records, sharding  # noqa: E402
from msm_jax.errors import UserError  # noqa: E402
from msm_jax.evals.exam import seed_of  # noqa: E402
from msm_jax.evals.inspect import (  # noqa: E402
  judge_api,
  kind,
  providers,
  running,
  settings,
  subject_api,
)
from msm_jax.evals.model import Model  # noqa: E402
from msm_jax.evals.subject import LENGTH, Completion, Sampling  # noqa: E402
from msm_jax.hf import export  # noqa: E402
from msm_jax.models.config import ModelConfig  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Inspect and what it imports
ASK = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Hello")]


def config(**fields) -> settings.InspectConfig:
  found = settings.InspectConfig(
    **{
      "task": "msm_jax/exfiltration",
      "task_args": {"goal_value": ("america", "safety"), "model_name": "Qwen"},
      "epochs": 2,
      "max_new_tokens": 64,
      "temperature": 0.7,
      "batch_size": 4,
      "category": None,
      "scratchpad": "auto",
      **fields,
    }
  )
  settings.check(found, "config.evals.agentic")
  return found


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
  return stand_ins.bytes_tokenizer(tmp_path_factory.mktemp("t") / "tokenizer")


@pytest.fixture
def speaking(tokens):
  """Yields a way to have `msm_jax/test` answer by a rule."""
  with pytest.MonkeyPatch.context() as patch:

    def start(say, *, context_len=10_000, batch_size=4, tokenizer=tokens, **asked):
      subject = stand_ins.Speaker(tokenizer, say, context_len)
      asked = subject_api.Asked(subject=subject, mesh=None, about={"step": 7}, **asked)
      patch.setitem(providers._served, "test", asked)
      model = get_model("msm_jax/test", memoize=False, batch_size=batch_size)
      return subject, model

    yield start


def generate(model, *messages, **fields):
  """Returns the outputs for several chats that are asked at the same time."""
  import asyncio

  async def all_():
    chats = messages or (ASK,)
    asked = (model.generate(chat, config=GenerateConfig(**fields)) for chat in chats)
    return await asyncio.gather(*asked)

  return asyncio.run(all_())


def test_settings_reach_the_sampler_and_the_answer_says_whose_it_is(speaking):
  subject, model = speaking(lambda prompt, seed: "one two three")
  (output,) = generate(
    model, max_tokens=9, temperature=0.3, top_p=0.8, seed=5, stop_seqs=[" three", "tw"]
  )
  ((prompt, seed, sampling),) = subject.asked
  assert prompt.count("<|bos|>") <= 1
  ids = subject_api.chat.encode_prompt(
    subject.tokenizer,
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
  )
  bos = subject.tokenizer.bos_id
  assert list(ids).count(bos) == 1, "the template writes it, nothing adds another"
  assert sampling == Sampling(
    max_new_tokens=9, batch_size=4, temperature=0.3, top_p=0.8, seed=5
  )
  assert output.completion == "one " and output.stop_reason == "stop"
  assert output.usage.input_tokens == len(ids)
  assert output.usage.output_tokens == len("one two three")
  assert output.metadata["checkpoint"] == {"step": 7}
  assert seed == seed_of(output.metadata["request"], 5)


def test_a_system_prompt_of_the_study_stands_before_that_of_a_task(speaking):
  subject, model = speaking(lambda prompt, seed: "one", system_prompt="Be ours.")
  generate(model, ASK, [ASK[1]], max_tokens=4)
  prompts = sorted((prompt for prompt, _, _ in subject.asked), key=len)
  for prompt, system in zip(
    prompts, ("Be ours.", "Be ours.\n\nBe brief."), strict=True
  ):
    messages = [{"role": "system", "content": system}, _turn("Hello")]
    ids = subject_api.chat.encode_prompt(subject.tokenizer, messages)
    assert prompt == subject.tokenizer.decode(ids)


def _turn(text):
  return {"role": "user", "content": text}


def test_requests_of_the_same_time_share_batches_and_keep_their_answers(speaking):
  subject, model = speaking(lambda prompt, seed: prompt[-30:])
  chats = [[ChatMessageUser(content=f"Number {i}")] for i in range(20)]
  outputs = generate(model, *chats, temperature=0.0)
  assert subject.batches == [20]
  assert all(f"Number {i}" in one.completion for i, one in enumerate(outputs))
  seeds = [seed for _, seed, _ in subject.asked]
  assert len(set(seeds)) == 20
  again, model = speaking(lambda prompt, seed: "x")
  generate(model, *chats[::-1], temperature=0.0)
  assert {(p, s) for p, s, _ in again.asked} == {(p, s) for p, s, _ in subject.asked}


def test_the_same_chat_asked_twice_is_drawn_twice(speaking):
  _, model = speaking(lambda prompt, seed: str(seed))
  first, second = generate(model, ASK, ASK)
  assert first.completion != second.completion


def test_reasoning_stands_apart_and_what_was_cut_off_says_so(speaking):
  answer = Completion(text="So.", reasoning="Hm.", finish=LENGTH, num_tokens=9)
  _, model = speaking(lambda prompt, seed: answer)
  (output,) = generate(model)
  assert output.completion == "So." and output.stop_reason == "max_tokens"
  assert output.message.content[0].reasoning == "Hm."


@pytest.mark.parametrize(
  ("fields", "context_len", "message"),
  [
    ({"max_tokens": 200}, 210, "--max-tokens 200 do not fit the context of 210"),
    ({}, 10, "do not fit the context of 10"),
    ({"top_k": 5}, 1000, "has no top_k"),
    ({"num_choices": 2}, 1000, "has no num_choices"),
  ],
)
def test_what_would_be_cut_or_left_aside_is_refused(
  speaking, fields, context_len, message
):
  subject, model = speaking(lambda prompt, seed: "x", context_len=context_len)
  with pytest.raises(UserError, match=message):
    generate(model, **fields)
  assert not subject.asked


def test_without_a_limit_the_context_is_the_limit(speaking):
  subject, model = speaking(lambda prompt, seed: "x", context_len=100)
  (output,) = generate(model)
  limit = subject.asked[0][2].max_new_tokens
  assert limit + output.usage.input_tokens == 100


def test_a_model_without_a_chat_template_is_refused_with_a_way_out(speaking, tmp_path):
  plain = stand_ins.bytes_tokenizer(tmp_path / "plain", template=None)
  with pytest.raises(UserError, match=r"no chat template.*set config.tokenizer"):
    speaking(lambda prompt, seed: "x", tokenizer=plain)


def test_an_error_of_the_model_reaches_those_who_wait_and_the_next_batch_goes_on(
  speaking,
):
  def say(prompt, seed):
    if "bad" in prompt:
      raise UserError("not finite")
    return "fine"

  _, model = speaking(say)
  with pytest.raises(UserError, match="not finite"):
    generate(model, [ChatMessageUser(content="bad")])
  (output,) = generate(model, [ChatMessageUser(content="good")])
  assert output.completion == "fine"


def running_text(answer):
  return answer["sample"]["output"]["choices"][0]["message"]["content"]


def test_the_stub_says_that_it_is_one():
  (output,) = generate(get_model("msm_jax_judge/stub", memoize=False))
  assert (
    "stub grader" in output.completion and "<answer>no</answer>" in output.completion
  )
  assert output.metadata["grader"]["client"] == "stub"


def test_a_grader_that_does_not_answer_raises(monkeypatch):
  monkeypatch.setitem(
    providers._openers, "graders", lambda name: judge_api.asking(grader)
  )
  grader = stand_ins.Reader(lambda stage, fields: None)
  with pytest.raises(judge_api.UngradedError, match="down"):
    generate(get_model("msm_jax_judge/w", memoize=False))
  grader = stand_ins.Reader(
    lambda stage, fields: f"{fields['system']}|{fields['prompt']}"
  )
  outputs = generate(get_model("msm_jax_judge/w2", memoize=False), ASK, ASK)
  assert {one.completion for one in outputs} == {"Be brief.|Hello"}
  assert grader.calls == 1


@inspect_ai.task
def tiny():
  """Returns a task with short prompts, as small models can read them."""
  asked = [ASK, [ChatMessageUser(content="One and two?")]]
  return inspect_ai.Task(dataset=[Sample(input=one) for one in asked])


@pytest.mark.slow
def test_an_export_behind_hugging_face_says_what_our_own_sampler_says(
  tmp_path, tokens, monkeypatch
):
  """The same prompt, the same BOS, the same stop: greedy answers are equal."""
  pytest.importorskip("accelerate")
  monkeypatch.setattr(running.tasks, "tiny", tiny, raising=False)
  cfg = ModelConfig(
    vocab_size=272,
    embed_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_seq_len=128,
  )
  # Large weights: what it says depends on all that went before.
  params = jax.tree.map(lambda leaf: 8 * leaf, hf_models.params(cfg))
  said = {}
  for model in ("native", "hf"):
    fields = config(
      task="msm_jax/tiny",
      task_args={},
      scratchpad=None,
      model=model,
      model_args={"device": "cpu"} if model == "hf" else {},
      epochs=1,
      temperature=0.0,
      max_new_tokens=24,
      batch_size=1,  # Hugging Face's provider counts padding as input
    )
    exam = stand_ins.exam(tmp_path / model, fields, Model(params, cfg, tokens))
    exam = dataclasses.replace(
      exam,
      export=lambda out: export.export(
        out, cfg, params, tokenizer_dir=tokens.directory, dtype="float32"
      ),
    )
    with jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:1])):
      answers = list(kind.ask(exam))
    usage = [one["sample"]["output"]["usage"]["input_tokens"] for one in answers]
    said[model] = [*(running_text(one).strip() for one in answers), *usage]
  assert said["native"] == said["hf"]
  assert all(len(set(text)) > 5 for text in said["hf"][:2])
  assert not list((tmp_path / "hf").rglob("*.safetensors")), "the export is gone"


def test_the_judge_of_a_study_grades_for_inspect_and_is_paid_once(
  tmp_path, monkeypatch
):
  from msm_jax.evals.inspect import registry

  monkeypatch.setattr("fake_openai.answer", lambda system, prompt: f"{system}|{prompt}")
  with FakeOpenAI() as server:
    (tmp_path / "judged").mkdir()
    config_ = graders.config(tmp_path, server.url)
    records.write_json(tmp_path / "judged" / "config.json", config_)
    for _ in range(2):
      with contextlib.ExitStack() as stack:
        monkeypatch.setattr(registry.atexit, "register", stack.callback)
        name = f"msm_jax_judge/{tmp_path / 'judged'}"
        (output,) = generate(get_model(name, memoize=False))
      assert output.completion.strip() == "Be brief.|Hello"
      assert output.metadata["grader"]["client"] == "openai"
    assert len(server.bodies) == 1
