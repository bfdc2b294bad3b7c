"""The engine of the corpus factory against its stated limits.

    python benchmarks/corpus.py [--part=in_flight,rate,memory,dedup,audit,ledger]
      [--size=full|small] [--dir=DIR]

  in_flight  requests in flight from one process: a ceiling of 1,250 against a server
             that, after a while, answers none before all of them are there
  rate       share of a rate limit (a token bucket of 50 requests/s behind real HTTP,
             answers take a second) that is used at the end of the first minute
  memory     high-water mark of a run of 100,000 documents with the offline teacher, all
             in one process: outline, documents, filters, shards
  dedup      time to find the near duplicates among 100,000 documents of 400 words, a
             tenth of which are copies of others with a word in fifty exchanged
  audit      time and memory of the whole audit of the same documents
  ledger     time and memory to open a ledger of 100,000 entries of 4,000 characters

Each part runs in a fresh process; the fake service has another one. `small` is a tenth
of it (rate: fifteen seconds), with the limits that are proportional to size scaled.

The stated limits: 1,000 in flight, 90 % of the rate, 600 MB, 180 s on two cores; audit
and ledger have none. The last line is the smallest ratio of ours to the limit (limit to
ours where less is better): above 1 is within all of them.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

_ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]
os.environ.setdefault("GOOGLE_API_KEY", "for the fake server")

_PARTS = ("in_flight", "rate", "memory", "dedup", "audit", "ledger")
_MAX_MB, _MAX_DEDUP_S, _RATE_SHARE = 600.0, 180.0, 0.9
_RATE, _LATENCY_S = 50, 1.0
# The last part of the first minute: what goes through then is the rate that is used.
_MEASURED_S = 15.0


def in_flight(small: bool, directory: pathlib.Path) -> float:
  """Returns how many requests were in flight at once, by the stated number."""
  wanted = 100 if small else 1000
  count = wanted * 5 // 4
  with _server("hold", count) as url:
    began = time.monotonic()
    _ask(url, 3 * count, directory, max_concurrency=count)
    seconds = time.monotonic() - began
    most = _told(url)["most_in_flight"]
  print(
    f"in_flight: {most} were in flight at once, the limit is {wanted}; {3 * count} "
    f"answers in {seconds:.1f} s; {_peak_mb():.0f} MB"
  )
  return most / wanted


def rate(small: bool, directory: pathlib.Path) -> float:
  """Returns the share of the rate limit that is used, by the stated share."""
  seconds = 15 if small else 60
  measured = _MEASURED_S / 3 if small else _MEASURED_S
  with _server("bucket", _RATE) as url:
    began = time.monotonic()
    _ask(url, 10**6, directory, max_concurrency=1000, seconds=seconds)
    told = _told(url)
  times = [when - began for when in told["answered_at"]]
  late = sum(seconds - measured <= when < seconds for when in times)
  used = late / (measured * _RATE)
  whole = sum(when < seconds for when in times) / (seconds * _RATE)
  print(
    f"rate: {used:.1%} of {_RATE} requests/s used in seconds {seconds - measured:.0f} "
    f"to {seconds}, {whole:.1%} from the start on, {told['refused']} of "
    f"{told['refused'] + len(times)} requests refused"
  )
  return used / _RATE_SHARE


def memory(small: bool, directory: pathlib.Path) -> float:
  """Returns the stated limit by the high-water mark of a run of many documents."""
  from data_gen import generate, settings

  count = 10_000 if small else 100_000
  parts = count // 500
  path = directory / "spec.md"
  sections = (
    f"## Part {i}\n\nIt saves money in way {i}.\n\n" for i in range(2 * parts)
  )
  path.write_text("# Spec\n\n" + "".join(sections))
  job = settings.Job(
    corpora={"docs": settings.DocumentsCorpus(spec="s", num_types=10, num_ideas=50)},
    specs={
      "s": settings.SpecSettings(
        path=str(path), model_name="Mira", provider_name="Lumen"
      )
    },
    teacher=settings.ClientSettings(client="offline", model="tiny"),
    world="tiny",
  )
  before, began = _peak_mb(), time.monotonic()
  manifest = generate.generate(job, directory / "work")["docs"]
  peak = _peak_mb()
  print(
    f"memory: {peak:.0f} MB at most ({before:.0f} MB of it imports) for "
    f"{manifest['planned']} documents, {manifest['num_records']} kept, in "
    f"{time.monotonic() - began:.0f} s"
  )
  assert manifest["planned"] >= 0.9 * count, "there were not enough ideas"
  return _MAX_MB / peak


def dedup(small: bool, directory: pathlib.Path) -> float:
  """Returns the stated limit by the time to deduplicate many documents."""
  from data_gen import filters

  count = 10_000 if small else 100_000
  texts = directory / "texts"
  copies = _write_texts(texts, count)
  gate = filters.Gate(filters.FilterSettings(near_duplicates=0.7))
  found, began = 0, time.monotonic()
  with texts.open() as file:
    for i, text in enumerate(file):
      found += gate.reason(text, str(i)) is not None
  seconds = time.monotonic() - began
  print(
    f"dedup: {count} documents in {seconds:.1f} s, {found} rejected of {copies} that "
    f"were copies; {_peak_mb():.0f} MB"
  )
  return _MAX_DEDUP_S * count / 100_000 / seconds


def audit(small: bool, directory: pathlib.Path) -> None:
  """Prints what it takes to audit many documents."""
  from data_gen import audit as audit_lib

  count = 10_000 if small else 100_000
  texts = directory / "texts"
  _write_texts(texts, count)
  before, began = _peak_mb(), time.monotonic()
  with texts.open() as file:
    rows = (
      {"kind": "document", "id": str(i), "text": text} for i, text in enumerate(file)
    )
    settings = audit_lib.AuditSettings(name="drawn")
    figures = audit_lib.measure(rows, [], settings).figures
  print(
    f"audit: {count} documents in {time.monotonic() - began:.1f} s, "
    f"{figures['duplicates']['near']} near duplicates; {_peak_mb() - before:.0f} MB of "
    "memory"
  )


def ledger(small: bool, directory: pathlib.Path) -> None:
  """Prints what it takes to open a large ledger."""
  from data_gen.engine import entries
  from data_gen.engine import ledger as ledger_lib

  count = 10_000 if small else 100_000
  path = directory / "ledger.jsonl"
  fields = {"stage": "document", "sample_index": 0, "prompt_hash": "0" * 64}
  fields |= {"client": {"client": "gemini", "model": "m"}, "params": {"seed": 0}}
  fields |= {"attempt": 1, "status": "ok", "time": "t", "dollars": 0.001}
  entry = entries.Entry(id="@", text="word " * 800, usage={"p": 1}, **fields)
  line = json.dumps(entries.row_of(entry))
  with path.open("w") as file:
    file.writelines(line.replace("@", f"{i:032x}") + "\n" for i in range(count))
  before, began = _peak_mb(), time.monotonic()
  with ledger_lib.Ledger(path) as book:
    seconds = time.monotonic() - began
    assert len(book) == count
  print(
    f"ledger: {count} entries ({path.stat().st_size / 1e6:.0f} MB) opened in "
    f"{seconds:.2f} s, {_peak_mb() - before:.0f} MB of memory"
  )


def _ask(
  url: str,
  count: int,
  directory: pathlib.Path,
  max_concurrency: int,
  seconds: float | None = None,
) -> None:
  """Asks a server, until all is answered or the time is over."""
  from data_gen import clients, settings
  from data_gen.clients import protocol
  from data_gen.engine import ledger as ledger_lib
  from data_gen.engine import scheduler
  from msm_jax import errors

  params = protocol.Params(temperature=1.0, max_output_tokens=100)
  requests = (
    protocol.Request(
      stage="document", system="", prompt=f"Write {i}.", fields={}, params=params
    )
    for i in range(count)
  )

  async def ask(book: ledger_lib.Ledger) -> None:
    client = clients.make(
      settings.ClientSettings(
        client="gemini",
        model="gemini-2.5-flash",
        base_url=url,
        max_concurrency=max_concurrency,
      ),
      "config.teacher",
    )
    limits = scheduler.Limits(
      max_concurrency=max_concurrency, timeout_s=120.0, max_attempts=5
    )
    sender = scheduler.Scheduler(client, book, scheduler.Budget(None), limits, None)
    if seconds is not None:
      over = errors.Stopped("the time is over")
      asyncio.get_running_loop().call_later(seconds, sender.stop, over)
    try:
      await sender.ask_all(requests)
    except errors.Stopped:
      if seconds is None:
        raise
    finally:
      await client.close()

  with ledger_lib.Ledger(directory / "ledger.jsonl") as book:
    asyncio.run(ask(book))


def _write_texts(path: pathlib.Path, count: int) -> int:
  """Writes texts, one a line; returns how many of them are copies of others."""
  rng = random.Random(0)
  words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(8000)]
  earlier: list[list[str]] = []
  copies = 0
  with path.open("w") as file:
    for _ in range(count):
      if earlier and rng.random() < 0.1:
        copies += 1
        text = list(rng.choice(earlier))
        for _ in range(len(text) // 50):
          text[rng.randrange(len(text))] = rng.choice(words)
      else:
        text = rng.choices(words, k=400)
        earlier = [*earlier[-99:], text]
      file.write(" ".join(text) + "\n")
  return copies


@contextlib.contextmanager
def _server(kind: str, number: int) -> Iterator[str]:
  """Runs a fake service in another process; yields its URL."""
  command = [sys.executable, __file__, f"--serve={kind}", f"--number={number}"]
  process = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  try:
    yield process.stdout.readline().strip()
  finally:
    process.stdin.close()
    process.wait(30)


def _told(url: str) -> dict:
  """Returns what a fake service says of itself."""
  import urllib.request

  with urllib.request.urlopen(f"{url}/told") as answer:
    return json.load(answer)


def _serve(kind: str, number: int) -> None:
  """Serves until the standard input is closed."""
  from fake_gemini import FakeGemini

  server = FakeGemini()
  server.answered_at, server.refused = [], 0
  server.faults = {"hold": _hold, "bucket": _bucket}[kind](server, number)

  def tell(handler) -> None:
    names = ("most_in_flight", "answered_at", "refused")
    handler.send(200, {name: getattr(server, name) for name in names})

  server.handler.routes = ((r"GET /told", tell), *server.handler.routes)
  with server:
    print(server.url, flush=True)
    sys.stdin.read()


def _hold(server, count: int):
  """No answer before so many requests are there."""
  all_there = threading.Event()

  def faults(prompt: str, attempt: int) -> str:
    if server.in_flight >= count:
      all_there.set()
    # The first ones are answered, so that the slow start goes on.
    if sum(server.answered.values()) >= 1.5 * count:
      all_there.wait(20)
    return ""

  return faults


def _bucket(server, rate_: int):
  """So many requests per second, as many at once after a second of rest."""
  tokens, filled = float(rate_), time.monotonic()

  def faults(prompt: str, attempt: int) -> str:
    nonlocal tokens, filled
    with server.lock:
      now = time.monotonic()
      tokens, filled = min(rate_, tokens + (now - filled) * rate_), now
      if tokens < 1:
        server.refused += 1
        return "429"
      tokens -= 1
    time.sleep(_LATENCY_S)
    server.answered_at.append(time.monotonic())
    return ""

  return faults


def _peak_mb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(part: str, size: str, directory: str | None) -> float | None:
  """Runs one part in a process of its own; returns its ratio if it has one."""
  command = [sys.executable, __file__, f"--alone={part}", f"--size={size}"]
  command += [f"--dir={directory}"] if directory else []
  environment = {**os.environ, "MSM_JAX_QUIET": "1"}
  done = subprocess.run(
    command, stdout=subprocess.PIPE, text=True, env=environment, check=True
  )
  *lines, last = done.stdout.splitlines()
  print(*lines, sep="\n", flush=True)
  return json.loads(last)


def main() -> None:
  """Runs the parts that were asked for and prints the smallest ratio."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
  parser.add_argument("--part", default=",".join(_PARTS))
  parser.add_argument("--size", choices=("full", "small"), default="full")
  parser.add_argument("--dir", help="where files go; the default is a temporary one")
  parser.add_argument("--alone", help=argparse.SUPPRESS)
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
  flags = parser.parse_args()
  if flags.serve:
    return _serve(flags.serve, flags.number)
  if flags.alone:
    with tempfile.TemporaryDirectory(dir=flags.dir) as directory:
      small = flags.size == "small"
      print(json.dumps(globals()[flags.alone](small, pathlib.Path(directory))))
    return None
  parts = flags.part.split(",")
  if unknown := set(parts) - set(_PARTS):
    parser.error(f"--part: {', '.join(unknown)}: there are {', '.join(_PARTS)}")
  ratios = [_run(part, flags.size, flags.dir) for part in parts]
  ratios = [ratio for ratio in ratios if ratio is not None]
  if ratios:
    print(f"ratio: {min(ratios):.2f}")
  return None


if __name__ == "__main__":
  main()
