"""What is wrong with a config file is told with its file and line."""

import pathlib
import re

import pytest
from absl import flags
from ml_collections import config_flags

from msm_jax import config_errors
from msm_jax.errors import UserError

# The library, on Python 3.11: load_module() is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def refusal(path, *words):
  """Returns what is told of a config with these flags, or None."""
  values, words = flags.FlagValues(), ["launch.py", f"--config={path}", *words]
  config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
  try:
    values(words)
    values["config"].value.to_dict()
  except Exception as error:
    return config_errors.told(error)
  raise AssertionError("nothing was refused")


RAISES = {
  "c.modle.dim = 1": "AttributeError: \"'modle'\"",
  "None.dim": "AttributeError: 'NoneType' object has no attribute 'dim'",
  "{}['key']": "KeyError: 'key'",
  "1 / 0": "ZeroDivisionError: division by zero",
  "int('x')": "ValueError: invalid literal for int() with base 10: 'x'",
  "c.a = 'text'": "TypeError: Could not override field 'a' (reference).",
  "import nothing_such": "ModuleNotFoundError: No module named 'nothing_such'",
  "open('/none')": "FileNotFoundError: [Errno 2] No such file or directory: '/none'",
  "import json; json.loads('{')": "JSONDecodeError: Expecting property name",
}


@pytest.mark.parametrize("line", RAISES)
def test_what_a_config_raises_is_told_with_file_and_line(line, tmp_path):
  path = tmp_path / "study.py"
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config(arg=None):\n"
    "  c = ConfigDict({'a': 1})\n"
    f"  {line}\n"
    "  return c\n"
  )
  assert refusal(path).startswith(f"{path}, line 4: {RAISES[line]}")


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("a = (", ", line 1: SyntaxError: '(' was never closed"),
    ("a = b", ", line 1: NameError: name 'b' is not defined"),
  ],
)
def test_a_file_that_is_no_python_is_told_likewise(text, said, tmp_path):
  path = tmp_path / "study.py"
  path.write_text(text)
  assert refusal(path) == f"{path}{said}"


def test_what_a_config_says_to_its_user_stands_alone():
  assert refusal(f"{CONFIGS}/cheese_tiny.py:x").endswith("is 'pulse' or none")


def test_flags_that_do_not_fit_the_config_are_no_fault_of_its_file(tmp_path):
  path = f"{CONFIGS}/cheese_tiny.py"
  assert refusal(path, "--config.x=1") == "the config has no field 'x'"
  assert 'instead of "sedes"' in refusal(path, "--config.sedes=(1,)")
  assert "num_workers" in refusal(path, "--config.num_workers=two")
  none = tmp_path / "none.py"
  for words in ((), ("--config.x=1",)):
    said = refusal(none, *words)
    assert re.fullmatch(rf"No such file or directory: '{none}'", said)


def test_a_bug_of_ours_is_told_by_nobody():
  assert config_errors.told(ZeroDivisionError("division by zero")) is None


def test_a_config_that_is_a_plain_dict_is_told_what_it_has_to_be(tmp_path):
  path = tmp_path / "study.py"
  path.write_text("def get_config():\n  return {'seeds': (0,)}\n")
  values, words = flags.FlagValues(), ["launch.py", f"--config={path}"]
  config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
  values(words)
  with pytest.raises(UserError, match=r"returns a dict: return an .*ConfigDict"):
    config_errors.plain(values["config"].value)
