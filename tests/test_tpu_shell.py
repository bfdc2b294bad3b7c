"""The door to command-line tools: what fails is told on one line, whatever it said."""

import pytest

from msm_jax.errors import UserError
from tpu import shell
from tpu.shell import Failed, Shell


def test_what_a_tool_said_is_one_line_that_can_be_read():
  said = "Traceback\n" + "  frame\n" * 500 + "ERROR: no room\n"
  error = Failed(["tool", "--command=" + "echo; " * 500, "--last"], 3, said)
  line = str(error)
  assert error.said == said and "\n" not in line and len(line) < 900
  for words in ("tool '--command=echo", "--last: exit 3: Traceback", "ERROR: no room"):
    assert words in line
  assert str(Failed(["a", "b c"], 1, " no\n room ")) == "a 'b c': exit 1: no room"


def test_a_long_command_that_fails_is_no_success():
  read = []
  with pytest.raises(Failed, match="exit 3"):
    read.extend(Shell().lines(["sh", "-c", "echo one; echo two; exit 3"]))
  assert read == ["one", "two"]
  endless = Shell().lines(["sh", "-c", "while echo on; do :; done"])
  assert next(endless) == "on"
  endless.close()  # who reads no further ended it


def test_a_tool_that_is_not_there_comes_with_where_to_get_it():
  nothing = Shell(environment={"PATH": ""})
  with pytest.raises(UserError, match="kubectl is not on PATH: gcloud components inst"):
    nothing.ask(["kubectl", "version"])


def test_a_deed_of_a_dry_run_can_be_pasted():
  said = []
  assert Shell(dry_run=True, say=said.append).do(["a", "b c"], "EOF\nx\n") == ""
  assert said == ["a 'b c' <<'EOF_'\nEOF\nx\nEOF_"]
  assert shell.shown(["a", "b c"]) == "a 'b c'"
