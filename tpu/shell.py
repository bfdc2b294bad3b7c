"""The one door to command-line tools: gcloud, kubectl, ssh, docker, sbatch.

Tools are found on PATH. Deeds (`do`) are printed in a dry run and not done; questions
(`ask`) change nothing, and a dry run, which works offline, does not put them.
"""

import dataclasses
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from msm_jax.errors import UserError

_INSTALL = {
  "gcloud": "install the Google Cloud CLI (cloud.google.com/sdk/docs/install)",
  "kubectl": "gcloud components install kubectl",
  "docker": "install Docker, or name an image that exists in tpu.toml",
  "sbatch": "run this on a login node of the cluster, or set slurm.login in tpu.toml",
  "ssh": "install an OpenSSH client",
}

_HALF = 200  # letters of a command, or of its words, at either end of a message


class Failed(Exception):
  """A command ended with an error; `code` and all that it `said` on stderr.

  The message is one line for people; of what is long the middle is left out.
  """

  def __init__(self, argv: Sequence[str], code: int, said: str):
    super().__init__(f"{_short(shlex.join(argv))}: exit {code}: {_short(said)}")
    self.argv, self.code, self.said = tuple(argv), code, said


def _short(text: str) -> str:
  line = " ".join(text.split())
  if len(line) <= 2 * _HALF:
    return line
  return f"{line[:_HALF]} ... {line[-_HALF:]}"


@dataclasses.dataclass(frozen=True)
class Shell:
  """Runs commands.

  Attributes:
    dry_run: print deeds instead of doing them.
    say: where commands of a dry run go, a line each.
    environment: of the commands; None: this process's.
    timeout_s: a command that takes longer counts as failed.
  """

  dry_run: bool = False
  say: Callable[[str], None] = print
  environment: Mapping[str, str] | None = None
  timeout_s: float = 900.0

  def need(self, tool: str) -> None:
    """Raises a UserError if a tool is not installed; asks nothing in a dry run."""
    path = None if self.environment is None else self.environment.get("PATH")
    if not self.dry_run and shutil.which(tool, path=path) is None:
      way_out = _INSTALL.get(tool, f"install {tool}")
      raise UserError(f"{tool} is not on PATH: {way_out}; --dry_run works without it")

  def do(self, argv: Sequence[str], stdin: str | None = None) -> str:
    """Runs a command that changes something and returns what it printed.

    Raises:
      Failed: it ended with an error, or took too long.
    """
    if self.dry_run:
      self.say(shown(argv, stdin))
      return ""
    return self._run(argv, stdin)

  def ask(self, argv: Sequence[str]) -> str:
    """Runs a command that changes nothing and returns what it printed.

    Raises:
      Failed: it ended with an error, or took too long.
    """
    return self._run(argv, None)

  def lines(self, argv: Sequence[str]) -> Iterator[str]:
    """Yields what a long command prints, line by line; its stderr is this process's.

    Raises:
      Failed: it ended with an error, of which it told people itself.
    """
    with subprocess.Popen(
      argv, stdout=subprocess.PIPE, text=True, env=self.environment
    ) as process:
      try:
        yield from (line.rstrip("\n") for line in process.stdout)
        code = process.wait()
      finally:
        process.terminate()
    if code:
      raise Failed(argv, code, "see above")

  def _run(self, argv: Sequence[str], stdin: str | None) -> str:
    self.need(argv[0])
    try:
      done = subprocess.run(
        argv,
        input=stdin or "",  # so that no tool waits for a person
        capture_output=True,
        text=True,
        env=self.environment,
        timeout=self.timeout_s,
      )
    except subprocess.TimeoutExpired:
      said = f"no answer within {self.timeout_s:.0f} s"
      raise Failed(argv, 124, said) from None
    if done.returncode:
      raise Failed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def shown(argv: Sequence[str], stdin: str | None = None) -> str:
  """Returns a command as it can be pasted, its standard input as a here-document."""
  line = shlex.join(argv)
  if stdin is None:
    return line
  end = "EOF"
  while re.search(rf"^{end}$", stdin, re.MULTILINE):
    end += "_"
  return f"{line} <<'{end}'\n{stdin.rstrip(chr(10))}\n{end}"
