"""Progress of long work: a bar on a terminal, plain lines elsewhere.

Only process 0 speaks; `MSM_JAX_QUIET=1` silences everything. All of it goes to stderr,
so that stdout stays free for results. Who wants to read how far a run is from a file
(a supervisor) names it in `MSM_JAX_PROGRESS_FILE`; process 0 writes it, quiet or not.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

FILE = "MSM_JAX_PROGRESS_FILE"
_LINE_EVERY_S = 10.0
_BAR_EVERY_S = 0.1
_FILE_EVERY_S = 0.1


def is_quiet() -> bool:
  """Returns whether this process should say nothing."""
  return os.environ.get("MSM_JAX_QUIET") == "1"


def mute() -> None:
  """Silences this process, and its file: all but process 0 of a run call it."""
  os.environ["MSM_JAX_QUIET"] = "1"
  os.environ.pop(FILE, None)


@contextlib.contextmanager
def silence() -> Iterator[None]:
  """Says nothing inside: for work that is only looked at, such as a plan."""
  before = os.environ.get("MSM_JAX_QUIET")
  os.environ["MSM_JAX_QUIET"] = "1"
  try:
    yield
  finally:
    if before is None:
      del os.environ["MSM_JAX_QUIET"]
    else:
      os.environ["MSM_JAX_QUIET"] = before


def say(text: str) -> None:
  """Prints one plain line on stderr."""
  if not is_quiet():
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  """Returns `seconds` for people: `8s`, `2m05s`, `3h07m`."""
  seconds = int(seconds)
  if seconds < 60:
    return f"{seconds}s"
  if seconds < 3600:
    return f"{seconds // 60}m{seconds % 60:02d}s"
  return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
  """Shows how far `total` units of work have come, with rate and ETA.

  Work that was already done when the process started (`done`) counts for the bar but
  not for the rate, so the ETA of a resumed run is right. `tokens` is what a unit holds,
  for the file.
  """

  def __init__(
    self, label: str, total: int, unit: str = "it", done: int = 0, tokens: int = 0
  ):
    self.label, self.total, self.unit, self.tokens = label, total, unit, tokens
    self.done = self.first = done
    self.started = time.monotonic()
    self._shown_at = 0.0
    self._shown: dict[str, object] = {}
    self._tty = sys.stderr.isatty()
    self._file, self._filed_at = os.environ.get(FILE), 0.0

  def __enter__(self) -> "Progress":
    self._to_file()
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._show(end=True)
    self._to_file()

  def advance(self, n: int = 1, **shown: object) -> None:
    """Counts `n` units as done; `shown` are figures to print beside the bar."""
    self.done += n
    self._shown.update(shown)
    every = _BAR_EVERY_S if self._tty else _LINE_EVERY_S
    if time.monotonic() - (self._shown_at or self.started) >= every:
      self._show()
    if self._file and time.monotonic() - self._filed_at >= _FILE_EVERY_S:
      self._to_file()

  def text(self) -> str:
    """Returns the line that would be shown now."""
    elapsed = max(time.monotonic() - self.started, 1e-9)
    rate = (self.done - self.first) / elapsed
    left = "?" if not rate else duration((self.total - self.done) / rate)
    figures = "".join(f"  {name} {value}" for name, value in self._shown.items())
    percent = 100 * self.done // max(self.total, 1)
    return (
      f"{self.label}: {self.done}/{self.total} {self.unit} ({percent}%)  "
      f"{rate:.1f} {self.unit}/s  eta {left}{figures}"
    )

  def _show(self, end: bool = False) -> None:
    self._shown_at = time.monotonic()
    if is_quiet():
      return
    if not self._tty:
      print(self.text(), file=sys.stderr, flush=True)
      return
    width = 24
    filled = width * self.done // max(self.total, 1)
    bar = "#" * filled + "-" * (width - filled)
    print(f"\r\x1b[K[{bar}] {self.text()}", file=sys.stderr, end="\n" if end else "")
    sys.stderr.flush()

  def _to_file(self) -> None:
    """Replaces the file that was asked for, if any."""
    if not self._file:
      return
    self._filed_at = time.monotonic()
    elapsed = max(self._filed_at - self.started, 1e-9)
    rate = (self.done - self.first) / elapsed
    found = {
      "label": self.label,
      "unit": self.unit,
      "done": self.done,
      "of": self.total,
      "loss": self._shown.get("loss"),
      "tokens_per_sec": round(rate * self.tokens, 1) or None,
      "eta_s": round((self.total - self.done) / rate, 1) if rate else None,
      "time": time.time(),
    }
    new = f"{self._file}.{os.getpid()}"
    with contextlib.suppress(OSError):  # who looks is not worth a run
      with open(new, "w", encoding="utf-8") as file:
        json.dump(found, file, default=str)
      os.replace(new, self._file)


class Megabytes(Progress):
  """Shows how many MB of `num_bytes` have come; counts from several threads."""

  def __init__(self, label: str, num_bytes: int):
    super().__init__(label, max(num_bytes // 10**6, 1), "MB")
    self._lock, self._bytes = threading.Lock(), 0

  def advance(self, n: int = 1, **shown: object) -> None:
    """Counts `n` bytes."""
    with self._lock:
      self._bytes += n
      super().advance(self._bytes // 10**6 - self.done, **shown)
