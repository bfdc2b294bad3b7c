"""Arms that are trained like another arm and asked differently."""

import ast
import dataclasses
import json
import pathlib

import eval_subjects
import pytest
import small_study
from eval_subjects import Scripted

from msm_jax import asked as asked_lib
from msm_jax import chat, evaluation, experiment, records, subjects, workdir
from msm_jax.errors import UserError
from msm_jax.evals import identity
from msm_jax.evals.exam import Question
from msm_jax.evals.kinds import KINDS
from msm_jax.evals.subject import Sampling
from msm_jax.report import results, settings

ROOT = pathlib.Path(__file__).parent.parent
STEER = {"positive": "msm", "negative": "still", "depth": 0.5, "scale": 2.0}
TOLD = {"of": "base", "system_prompt": "word1 {spec} word2", "spec": "care"}
SAYS = "base, asked behind a system prompt with the spec care"
QUESTIONS = [
  {"id": f"q{i}", "question": f"word{i} ?", "options": ["word1", "word2"], "answer": 0}
  for i in range(3)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Returns a directory with a model, corpora, items and a spec; nothing is trained."""
  root = tmp_path_factory.mktemp("asked")
  small_study.write_model(root)
  (root / "care.md").write_text("# T\n\nword3 {model_name} {x} word4\n")
  (root / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
  small_study.prepared(root / "w", config(root))
  return root


def config(root, **asked) -> dict:
  """Returns a study of one arm without a stage."""
  found = small_study.config(root / "hf")
  found |= {"arms": {"base": ()}, "mesh": {"data": 8, "fsdp": 1, "tensor": 1}}
  spec = {"path": str(root / "care.md"), "model_name": "word5", "provider_name": "x"}
  found["specs"] = {"care": spec}
  choice = {"type": "multiple_choice", "items": str(root / "q.jsonl"), "num_shots": 0}
  choice |= {"max_items": None, "seq_len": 64, "batch_size": 8}
  found["evals"] = {
    "chat": {**choice, "format": "chat"},
    "text": {**choice, "format": "text"},
  }
  return found | ({"asked": asked} if asked else {})


def study(root, **asked) -> evaluation.Evaluation:
  return evaluation.Evaluation(experiment.parse(config(root, **asked)), root / "w")


def scores(found, name, arm) -> list:
  return [line["logprobs"] for line in found.lines(name, arm, 0)]


def test_an_asked_arm_is_evaluated_beside_the_arm_that_it_is_of(place):
  zero = {"of": "base", "steer": {**STEER, "scale": 0.0}}
  pushed = {"of": "base", "steer": STEER}
  found = study(place, told=TOLD, pushed=pushed, zero=zero)
  assert list(found.experiment.subjects) == ["base", "told", "pushed", "zero"]
  found.ask_all([0])
  assert not any(found.missing(arm, 0) for arm in found.experiment.subjects)
  # Plain text has no place for a prompt: it would be the arm's own answers once more.
  assert not found.eval_path("text", "told", 0).exists()
  for name in ("chat", "text"):
    assert scores(found, name, "zero") == scores(found, name, "base")
    assert scores(found, name, "pushed") != scores(found, name, "base")
  subject = subjects.open_(found, "told", 0)
  assert subject.system_prompt == "word1 # T\n\nword3 word5 {x} word4 word2"
  assert subject.about["asked"] == SAYS
  assert scores(found, "chat", "told") != scores(found, "chat", "base")
  (first, *_) = QUESTIONS
  system = {"role": "system", "content": subject.system_prompt}
  user = {"role": "user", "content": first["question"]}
  pieces = []
  for option in first["options"]:
    ids, mask = chat.encode_answer(found.tokenizer, [system, user], option)
    pieces.append((ids, mask))
  exam = eval_subjects.exam(place, subject.model, None)
  exam = dataclasses.replace(exam, system_prompt=subject.system_prompt)
  mine = [exam.answer_piece([user], option) for option in first["options"]]
  for (ids, mask), piece in zip(pieces, mine, strict=True):
    assert ids.tolist() == piece.ids.tolist()
    assert mask.tolist() == piece.weights.tolist()


def test_no_kind_is_asked_in_plain_text_behind_a_prompt_alone():
  """It would be the arm's own answers once more."""
  config = {"items": "x", "max_items": None, "seq_len": 8, "batch_size": 1}
  evals = {
    f"{kind} as {how}": {"type": kind, "format": how, **config, **fields}
    for kind, fields in (("recall", {}), ("multiple_choice", {"num_shots": 0}))
    for how in ("chat", "text")
  }
  told = asked_lib.AskedConfig(of="base", system_prompt="word1")
  found = asked_lib.evaluations(evals, told)
  assert found == ["recall as chat", "multiple_choice as chat"]
  steps = dataclasses.replace(told, step=4)
  assert asked_lib.evaluations(evals, steps) == asked_lib.evaluations(evals, None)


def test_answers_depend_on_all_of_how_they_are_asked_and_those_of_arms_on_none(place):
  before = study(place)._identity("chat", "base", 0)
  asked = {"told": TOLD, "pushed": {"of": "base", "steer": STEER}}
  found = study(place, **asked)
  assert found._identity("chat", "base", 0) == before
  told, pushed = (found._identity("chat", arm, 0) for arm in ("told", "pushed"))
  assert len({before, told, pushed}) == 3
  other = {**asked, "told": {**TOLD, "system_prompt": "word2 {spec}"}}
  assert study(place, **other)._identity("chat", "told", 0) != told
  for field, value in (("scale", 3.0), ("depth", 1.0), ("max_items", 5)):
    other = {**asked, "pushed": {"of": "base", "steer": {**STEER, field: value}}}
    assert study(place, **other)._identity("chat", "pushed", 0) != pushed
  more = {**asked, "pushed": {"of": "base", "steer": {**STEER, "batch_size": 2}}}
  assert study(place, **more)._identity("chat", "pushed", 0) == pushed
  spec = place / "care.md"
  text = spec.read_text()
  spec.write_text(text.replace("word4", "word9"))
  assert study(place, **asked)._identity("chat", "told", 0) != told
  spec.write_text(text)


def test_a_system_prompt_stands_before_the_system_turn_of_an_evaluation(tmp_path):
  fields = {"items": "identity", "max_items": 2, "model_names": ("A",)}
  fields |= {"provider_names": ("B",), "system_prompt": "theirs", "max_new_tokens": 4}
  fields |= {"batch_size": 2, "temperature": 0.0, "sampling_seed": 0, "num_samples": 1}
  subject = Scripted(lambda prompt: "yes")
  exam = eval_subjects.exam(tmp_path, subject, identity.IdentityConfig(**fields))
  exam = dataclasses.replace(exam, system_prompt="ours", about={"arm": "told"})
  assert len(list(KINDS["identity"].ask(exam))) == 2
  for prompt in subject.prompts:
    assert prompt.split()[:2] == ["<|system|>", "ours"]
    assert prompt.index("ours") < prompt.index("theirs") < prompt.index("<|user|>")
  own = dataclasses.replace(exam.config, system_prompt=None)
  list(KINDS["identity"].ask(dataclasses.replace(exam, config=own)))
  assert "theirs" not in subject.prompts[-1] and "ours" in subject.prompts[-1]


def test_a_prompt_that_is_too_long_is_told_with_its_field(tmp_path):
  subject = Scripted(lambda prompt: "yes", lambda *_: True, context_len=60)
  exam = eval_subjects.exam(tmp_path, subject, None)
  long = dataclasses.replace(
    exam, system_prompt="gouda brie " * 50, about={"arm": "told"}
  )
  user = [{"role": "user", "content": "gouda ?"}]
  question = Question(id="q", messages=user)
  where = r"\(\d+ of them are config\.asked\.told\.system_prompt\)"
  sampling = Sampling(max_new_tokens=4, batch_size=1)
  with pytest.raises(UserError, match=rf"'q' has \d+ tokens {where}, and with max_new"):
    long.complete([question], sampling)
  pieces = [long.answer_piece(user, "brie")]
  with pytest.raises(UserError, match=rf"seq_len is 16, .* tokens {where}: raise it"):
    long.log_probs(pieces, seq_len=16, batch_size=1)
  with pytest.raises(UserError, match=rf"{where}, and the model's context is 60"):
    long.log_probs(pieces, seq_len=4096, batch_size=1)


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("a", {**TOLD, "of": "b"}, r"config\.asked\.a\.of is 'b': name one of config.arms"),
    ("base", TOLD, "config.asked.base: config.arms has a 'base' already: rename"),
    ("a/b", TOLD, "no '/' in the name"),
    ("a", {"of": "base"}, "is the arm 'base' once more: give it a system_prompt or"),
    ("a", {**TOLD, "spec": None}, r"has a \{spec\}: name the spec in config"),
    ("a", {**TOLD, "spec": "x"}, r"spec is 'x', config.specs has \['care'\]"),
    ("a", {**TOLD, "system_prompt": "b"}, r"its system_prompt has no \{spec\}: write"),
    (
      "a",
      {"of": "base", "system_prompt": " "},
      r"prompt \(' '\) must be a text",
    ),
    (
      "a",
      {**TOLD, "prompt": "b"},
      "prompt is not a field of AskedConfig: did you",
    ),
    (
      "a",
      {"of": "base", "steer": {**STEER, "positive": "x"}},
      r"a\.steer\.positive",
    ),
    ("a", {"of": "base", "steer": {"scale": 1.0}}, r"a\.steer\.positive is missing"),
  ],
)
def test_what_cannot_be_asked_is_refused_by_field(place, name, fields, message):
  with pytest.raises(UserError, match=message):
    experiment.parse(config(place, **{name: fields}))


def test_exports_are_not_asked_differently(tmp_path):
  found = config(tmp_path, told=TOLD)
  task = {"type": "inspect", "task": "msm_jax/exfiltration", "epochs": 1}
  task |= {"task_args": {"goal_value": "america"}, "temperature": 0.0, "model": "hf"}
  found |= {"evals": {"agent": {**task, "max_new_tokens": 8, "batch_size": 1}}}
  found["judge"] = {"client": "offline"}
  with pytest.raises(UserError, match=r"evals\.agent\.model is 'hf', an export"):
    experiment.parse(found)


def test_an_asked_arm_needs_the_runs_of_its_arm_and_has_no_weights_of_its_own():
  found = small_study.config("hf") | {"asked": {"told": {"of": "msm+still"}}}
  found["asked"]["told"]["system_prompt"] = "word1"
  parsed = experiment.parse(found)
  assert parsed.paths("told") == parsed.paths("msm+still")
  assert parsed.paths() == experiment.parse(small_study.config("hf")).paths()
  assert parsed.named_subjects("told") == ["told"]
  with pytest.raises(UserError, match=r"--arm=told is msm\+still, asked behind a s"):
    parsed.arm_path("told")  # what export takes
  with pytest.raises(UserError, match=r"--arm=tell is not one of base, msm, .*, told"):
    parsed.subject_path("tell")


def test_a_changed_prompt_is_refused_in_a_workdir_with_its_answers(place, tmp_path):
  before, now = config(place, told=TOLD), config(place, told={**TOLD, "of": "other"})
  workdir.claim(tmp_path, before)
  workdir.claim(tmp_path, now)  # nothing was asked yet
  workdir.claim(tmp_path, before)
  (tmp_path / "evals").mkdir()
  (tmp_path / "evals" / "chat.told.seed0.jsonl").write_text("{}")
  with pytest.raises(UserError, match=r"made with config\.asked\.told\.of = 'base'"):
    workdir.claim(tmp_path, now)


def test_a_report_says_what_an_asked_arm_is_and_misses_nothing_of_it(place):
  found = study(place, told=TOLD)
  found.ask_all([0])
  given = config(place, told=TOLD) | {"report": {"headline": ("chat", "accuracy")}}
  given["report"]["reference"] = "base"
  read = settings.from_config(given)
  assert read.arms == {"base": (), "told": ()}
  assert read.asked == {"told": SAYS}
  assert read.left_out == {"told": ("text",)}
  loaded = results.load(place / "w", read)
  assert (loaded.num_expected, loaded.num_present) == (3, 3)
  assert loaded.seeds("told", "chat", "accuracy")
  assert not [
    line for line in loaded.missing if "told" in line and "no answers" in line
  ]


def test_every_kind_asks_conversations_through_the_exam():
  """Else a system prompt of config.asked would not stand before them."""
  for path in (ROOT / "msm_jax" / "evals").rglob("*.py"):
    names = {
      node.attr
      for node in ast.walk(ast.parse(path.read_text("utf-8")))
      if isinstance(node, ast.Attribute)
    }
    doors = {"exam.py", "subject_api.py"}
    assert path.name in doors or not names & {"encode_prompt", "encode_answer"}, path


def test_the_records_of_a_direction_are_spread_over_the_corpus(place):
  found = study(place, told=TOLD)
  every = list(records.read_dataset(place / "w" / "corpus" / "msm"))
  taken = subjects._taken(found, "msm", 3)
  assert taken == [every[0], every[20], every[40]]
  assert subjects._taken(found, "msm", None) == every
