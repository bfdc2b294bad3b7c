"""A pretrained tokenizer becomes a study's: its chat template settled and written."""

import json
import shutil

import chat_templates
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from msm_jax import chat, chat_setup, prepare, show, tokenizer
from msm_jax.chat_setup import ChatSettings
from msm_jax.errors import UserError
from msm_jax.hf import directory as hf_directory
from msm_jax.text import chat_template

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.fixture
def source(tmp_path):
  """Writes a pretrained tokenizer directory with the template that is asked for."""

  def made(template=None, special=chat_templates.SPECIAL, **config):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(special))
    directory = tmp_path / "source"
    directory.mkdir(exist_ok=True)
    inner.save(str(directory / "tokenizer.json"))
    config = {"eos_token": "</s>", "bos_token": "<s>", **config}
    if template is not None:
      config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory

  return made


def install(source, tmp_path, **settings):
  return chat_setup.install(source, tmp_path / "study", ChatSettings(**settings))


def test_without_settings_the_files_stay_as_they_are(source, tmp_path):
  directory = source(chat_templates.NAMED, add_bos_token=False)
  tok = install(directory, tmp_path)
  for name in ("tokenizer.json", "tokenizer_config.json"):
    assert (tok.directory / name).read_bytes() == (directory / name).read_bytes()
  assert tok.chat_template == chat_templates.NAMED
  assert (tok.directory / "chat_template.jinja").read_text() == chat_templates.NAMED


def test_a_choice_is_in_the_directory_that_exports_copy(source, tmp_path):
  tok = install(source(chat_templates.THINKING), tmp_path, thinking="strip")
  exported = tmp_path / "export"
  exported.mkdir()
  hf_directory.copy_tokenizer(tok.directory, exported)
  again = tokenizer.load(exported)
  assert again.choices.thinking == "strip"
  for one, other in zip(chat.encode(tok, TALK), chat.encode(again, TALK), strict=True):
    np.testing.assert_array_equal(one, other)
  key = json.loads((exported / "tokenizer_config.json").read_text())["chat_template"]
  assert key == (exported / "chat_template.jinja").read_text() == again.chat_template


def test_others_render_a_choice_as_we_do(source, tmp_path):
  auto = pytest.importorskip("transformers", exc_type=ImportError).AutoTokenizer
  directory = source(chat_templates.THINKING)
  prompt = 'Be "kind" {% x %} #} \\ and\n\u00e9 \U0001f9c0'
  rng = np.random.default_rng(2)
  for thinking in chat_template.THINKING:
    target = tmp_path / thinking
    settings = ChatSettings(thinking=thinking, system_prompt=prompt)
    tok = chat_setup.install(directory, target, settings)
    theirs = auto.from_pretrained(target)
    for i in range(10):
      talk = chat_templates.talk(rng, reasoning=True, plain=False)
      prompted = bool(i % 2)
      assert chat.render(tok, talk, generation_prompt=prompted) == (
        theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompted)
      )


def test_an_old_choice_is_kept_or_replaced_never_doubled(source, tmp_path):
  first = install(source(chat_templates.THINKING), tmp_path, thinking="strip")
  same = chat_setup.install(first.directory, tmp_path / "same", ChatSettings())
  assert same.chat_template == first.chat_template
  other = chat_setup.install(
    first.directory, tmp_path / "other", ChatSettings(thinking="keep")
  )
  assert other.choices.thinking == "keep"
  assert chat_template.original(other.chat_template) == chat_templates.THINKING
  assert other.chat_template.count("enable_thinking =") == 1


@pytest.mark.parametrize("name", chat_template.BUILT_IN)
def test_a_base_model_gets_a_built_in_template(name, source, tmp_path):
  tok = install(source(add_bos_token=True), tmp_path, chat_template=name)
  ids, weights = chat.encode(tok, TALK)
  stop = chat_template.BUILT_IN[name][-1]
  assert tok.decode(ids[weights > 0]) == f"b{stop}"
  assert ids[0] == tok.bos_id and ids.tolist().count(tok.bos_id) == 1
  assert chat.facts(tok)["stop_token"] == stop
  assert chat.facts(tok)["system_prompt"] is None


def test_a_chat_without_bos_before_documents_gets_none(source, tmp_path):
  tok = install(source(), tmp_path, chat_template="chatml")
  assert chat.render(tok, TALK).startswith("<|im_start|>user")


def test_a_template_of_ones_own_is_read_from_its_file(source, tmp_path):
  path = tmp_path / "mine.jinja"
  path.write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}")
  tok = install(source(chat_templates.NAMED), tmp_path, chat_template=str(path))
  assert chat.render(tok, TALK) == "a</s>b</s>"


def test_named_templates_all_carry_the_choice(source, tmp_path):
  templates = {"default": chat_templates.THINKING, "tool_use": chat_templates.THINKING}
  named = [{"name": k, "template": v} for k, v in templates.items()]
  tok = install(source(named), tmp_path, thinking="strip")
  assert set(tok.templates) == set(templates)
  for template in tok.templates.values():
    assert chat_template.choices(template).thinking == "strip"
  key = json.loads((tok.directory / "tokenizer_config.json").read_text())
  assert {entry["name"] for entry in key["chat_template"]} == set(templates)


@pytest.mark.parametrize(
  ("named", "said"),
  [
    ({"name": "../x", "template": "t"}, r"chat_template\[1\].name is '../x'"),
    ({"name": "..", "template": "t"}, r"chat_template\[1\].name is '..'"),
    ({"name": "a/b", "template": "t"}, r"chat_template\[1\].name is 'a/b'"),
    ({"name": 5, "template": "t"}, r"chat_template\[1\].name is 5"),
    ({"name": "a\n", "template": "t"}, r"chat_template\[1\].name is 'a\\n'"),
    ({"template": "t"}, r"chat_template\[1\].name is None"),
    ({"name": "tool", "template": 5}, r"chat_template\[1\].template is 5"),
    ("tool", "neither a text nor a list of named templates"),
  ],
)
def test_named_templates_that_could_be_no_file_are_refused(
  named, said, source, tmp_path
):
  usual = {"name": "default", "template": chat_templates.NAMED}
  with pytest.raises(UserError, match=rf"tokenizer_config\.json: .*{said}"):
    install(source([usual, named]), tmp_path)
  assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["merges.txt", "additional_chat_templates/x.jinja"])
def test_links_out_of_the_directory_are_not_copied_those_of_a_cache_are(
  name, source, tmp_path
):
  directory = source(chat_templates.NAMED)
  (tmp_path / "secret").write_text("secret")
  (directory / name).parent.mkdir(exist_ok=True)
  (directory / name).symlink_to(tmp_path / "secret")
  exported = tmp_path / "export"
  exported.mkdir()
  with pytest.raises(UserError, match="outside its directory: it will not be opened"):
    install(directory, tmp_path)
  with pytest.raises(UserError, match="outside its directory: it will not be opened"):
    hf_directory.copy_tokenizer(directory, exported)
  assert not (exported / name).exists()
  cache = tmp_path / "models--x"
  (cache / "blobs").mkdir(parents=True)
  (cache / "blobs" / "1f").write_text("{# tool #}")
  snapshot = cache / "snapshots" / "2e"
  shutil.copytree(directory, snapshot, ignore=lambda *_: [name.rpartition("/")[2]])
  (snapshot / name).symlink_to(cache / "blobs" / "1f")
  hf_directory.copy_tokenizer(snapshot, exported)
  assert (exported / name).read_text() == "{# tool #}"
  assert not (exported / name).is_symlink()


@pytest.mark.parametrize(("setting", "said"), [(None, True), ("Be kind.", False)])
def test_only_a_system_prompt_that_nobody_set_is_announced(
  setting, said, source, tmp_path, capsys, monkeypatch
):
  monkeypatch.delenv("MSM_JAX_QUIET", raising=False)
  tok = install(source(chat_templates.NAMED), tmp_path, system_prompt=setting)
  assert chat.facts(tok)["system_prompt"] is not None
  prepare._say_system_prompt(tok)
  assert ("without a system message" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
  ("template", "settings", "said"),
  [
    (None, {"thinking": "keep"}, "has no chat template: set config.tokenizer.chat_tem"),
    ("thinking", {}, "so say what becomes of it"),
    ("named", {"thinking": "keep"}, "knows no reasoning"),
    ("opened", {"thinking": "no_think"}, "use 'keep'"),
    ("dated", {}, "set config.tokenizer.date"),
    ("no_system", {"system_prompt": "x"}, "System role not supported"),
    ("named", {"chat_template": "alpaca"}, "is not None, one of"),
    ("named", {"date": "July"}, "is not a day like"),
    ("named", {"thinking": "yes"}, "is not None or one of"),
    ("named", {"system_prompt": 3}, "is not a text"),
  ],
)
def test_settings_that_do_not_go_together_are_refused(
  template, settings, said, source, tmp_path
):
  directory = source(template and chat_templates.ALL[template])
  with pytest.raises(UserError, match=said) as found:
    install(directory, tmp_path, **settings)
  assert "\n" not in str(found.value) and "tmp-" not in str(found.value)
  assert not (tmp_path / "study").exists()


def test_a_template_whose_tokens_are_missing_names_one(source, tmp_path):
  directory = source(special=("<s>", "</s>"))
  with pytest.raises(UserError, match=r"writes <\|im_start\|>, which is not one token"):
    install(directory, tmp_path, chat_template="chatml")


def test_the_config_is_checked_at_the_entrance():
  with pytest.raises(UserError, match="did you mean 'thinking'"):
    chat_setup.settings({"thinkin": "keep"})
  with pytest.raises(UserError, match="model_type is 'word', but the model of config"):
    chat_setup.settings({"model_type": "word"}, from_run=False)
  assert chat_setup.settings({"model_type": "word", "chat_template": "x"}) == (
    ChatSettings()
  )
  assert ChatSettings(thinking="keep").identity() == {"thinking": "keep"}


def test_a_tokenizer_directory_can_be_looked_at(source, tmp_path):
  tok = install(source(chat_templates.THINKING), tmp_path, thinking="keep")
  lines = list(show.show(tok.directory, limit=1, colour=False))
  assert '"thinking": "keep"' in lines[1]
  assert lines[-1].endswith("_<|im_end|>_ \\n") and "_<" in lines[-1]
  coloured = list(show.show(tok.directory, limit=1, colour=True))
  assert "\x1b[1m\x1b[32m<|im_end|>\x1b[0m" in coloured[-1]
  raw, *_, said = show.show(source(chat_templates.THINKING), limit=1, colour=False)
  assert "documents: nothing + text + </s>" in raw and "so say what" in said


def test_partial_weights_bytes_and_newlines_are_visible(source, tmp_path):
  tok = install(source(), tmp_path, chat_template="chatml")
  ids = tok.encode("\u00e9\n<|im_end|>").ids
  plain = show._tokens(tok, ids, [0.5, 0.0, 1.0, 1.0], colour=False)
  assert plain == "_<0xC3>_@0.5 <0xA9> _\\n_ _<|im_end|>_"
  coloured = show._tokens(tok, ids, [0.5, 0.0, 1.0, 1.0], colour=True)
  assert coloured.startswith("\x1b[33m<0xC3>\x1b[0m\x1b[90m")
