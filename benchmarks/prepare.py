"""Corpus to packed rows: ours beside HF datasets map + TRL packing.

    python benchmarks/prepare.py [--peer=VENV] [--num_documents=20000] [--rounds=3]
      [--seq_len=4096] [--tokenizer=DIR] [--dir=DIR] [--plan=1000000]

Two parts:

  plan     `--plan` documents with lognormal lengths (median 500 tokens, sigma 0.8, at
           most a row of 4,096) planned by best fit; the stated limits are 5 s and rows
           at least 99.9 % full
  prepare  one corpus of drawn text (Zipf-distributed made-up words, lengths as above)
           to packed rows on disk. Ours: the code of `launch.py prepare`, from
           ArrayRecord shards to verified shards of rows, with inputs, targets,
           positions, segment ids and loss weights. The peer: `datasets.map`, batched
           with the fast tokenizer, from an Arrow dataset on disk, then
           `trl.pack_dataset`, its cache files on disk. Both read the same texts, use
           the same tokenizer.json and add the same end of text.

The peer runs in VENV, a virtual environment with trl, datasets, transformers and torch
(`pip install trl==1.16.0 torch==2.13.0`); without it that part is skipped. Every run is
a fresh process, ours and theirs in turn, `rounds` times; the times are of the work
without imports. Of the peer both one process with the tokenizer's threads and a process
per core are measured, and the faster counts. Memory is the high-water mark of a process
and its children, imports and all.

Tokens per second count the tokens of the corpus; the stated limit is 1.2 times the
faster peer's (medians; best fit beside bfd, concat beside wrapped). The last line is
the smallest ratio of ours to a stated limit: above 1 is within all of them.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

_ROOT = pathlib.Path(__file__).parent.parent
_MEDIAN, _SIGMA = 500, 0.8
_END = "<|endoftext|>"
_MAX_PLAN_S, _MIN_FILL, _MIN_TIMES_PEER = 5.0, 0.999, 1.2
_PAIRS = (("ours-best_fit", "trl-bfd"), ("ours-concat", "trl-wrapped"))


def plan(num_documents: int) -> float:
  """Prints time and fill of a plan of many documents; returns the limit by the time."""
  import numpy as np

  from msm_jax import packing

  seq_len = 4096
  drawn = np.random.default_rng(0).lognormal(np.log(_MEDIAN), _SIGMA, num_documents)
  lengths = np.clip(drawn.astype(np.int64), 1, seq_len)
  began = time.perf_counter()
  rows = packing.plan(lengths, seq_len)
  seconds = time.perf_counter() - began
  fill = int(lengths.sum()) / (len(rows) * seq_len)
  print(
    f"plan: {num_documents} documents of {lengths.mean():.0f} tokens in {len(rows)} "
    f"rows of {seq_len} in {seconds:.2f} s (limit {_MAX_PLAN_S:g} s per million), "
    f"{100 * fill:.3f} % full (limit {100 * _MIN_FILL:g} %)"
  )
  limit = _MAX_PLAN_S * num_documents / 1_000_000
  return limit / seconds if fill >= _MIN_FILL else 0.0


def texts(num_documents: int) -> Iterator[str]:
  """Yields documents of made-up words."""
  import numpy as np

  rng = np.random.default_rng(1)
  syllables = [
    a + b for a in "bcdfglmnprstv" for b in ("a", "e", "in", "or", "u", "ay")
  ]
  words = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(30_000)]
  chance = 1.0 / np.arange(10, 10 + len(words))
  chance /= chance.sum()
  lengths = np.clip(rng.lognormal(np.log(_MEDIAN), _SIGMA, num_documents), 8, 2400)
  for length in (0.7 * lengths).astype(int).tolist():  # words of 1.4 tokens
    drawn = [words[i] for i in rng.choice(len(words), length, p=chance)]
    for at in range(0, length, 12):
      drawn[at] = drawn[at].capitalize()
      drawn[min(at + 11, length - 1)] += "."
    yield " ".join(drawn)


def make(directory: pathlib.Path, num_documents: int, given: str | None) -> None:
  """Writes the corpus in both formats and the tokenizer."""
  sys.path.insert(0, str(_ROOT))
  import tokenizers

  from msm_jax import records

  documents = list(texts(num_documents))
  rows = (
    {"kind": "document", "id": str(i), "text": text} for i, text in enumerate(documents)
  )
  records.write_dataset(directory / "work" / "corpus" / "c", rows, manifest={})
  with open(directory / "texts.jsonl", "w") as file:
    file.writelines(json.dumps({"text": text}) + "\n" for text in documents)
  target = directory / "work" / "tokenizer"
  if given is not None:
    shutil.copytree(given, target)
    return
  target.mkdir()
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=16_384,
    special_tokens=[_END],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  model.train_from_iterator(documents[:5000], trainer)
  model.save(str(target / "tokenizer.json"))
  config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END}
  records.write_json(target / "tokenizer_config.json", config)


def ours(directory: pathlib.Path, how: str, seq_len: int) -> dict[str, float]:
  """Makes rows of the corpus; returns seconds and figures."""
  sys.path.insert(0, str(_ROOT))
  from msm_jax import components, mixture, tokenizer

  part = mixture.DataConfig(corpus="c")
  stage = argparse.Namespace(
    name="s", data=(part,), seq_len=seq_len, packing=how, long_documents="split"
  )
  work = directory / "work"
  tok = tokenizer.load(work / "tokenizer")
  out = directory / "out"
  began, cpu = time.perf_counter(), _cpu_seconds()
  pieces = components.encode(
    tok, work / "corpus" / "c", out / "pieces", train_on="all", prefix=None
  )
  encoded = time.perf_counter()
  rows = components.pack(
    stage, 0, pieces, source=work / "corpus" / "c", target=out / "rows"
  )
  seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
  tokens = int(pieces.sizes.sum())
  return {
    "seconds": seconds,
    "CPU seconds": cpu,
    "of it tokenise": encoded - began,
    "tokens": tokens,
    "rows": rows["num_rows"],
    "fill %": 100 * rows["fill"],
  }


def trl(
  directory: pathlib.Path, how: str, seq_len: int, num_proc: int | None
) -> dict[str, float]:
  """Does the same with datasets and TRL."""
  import datasets
  import transformers
  import trl as trl_lib

  datasets.disable_progress_bars()
  source = directory / "arrow"
  if not source.exists():
    made = datasets.load_dataset(
      "json",
      data_files=str(directory / "texts.jsonl"),
      split="train",
      cache_dir=str(directory / "cache"),
    )
    made.save_to_disk(str(source))
  tok = transformers.AutoTokenizer.from_pretrained(str(directory / "work/tokenizer"))
  end = tok.eos_token
  out = directory / "out"
  out.mkdir()
  corpus = datasets.load_from_disk(str(source))
  began, cpu = time.perf_counter(), _cpu_seconds()
  encoded = corpus.map(
    lambda batch: {
      "input_ids": tok(
        [text + end for text in batch["text"]],
        add_special_tokens=False,
        return_attention_mask=False,
      )["input_ids"]
    },
    batched=True,
    num_proc=num_proc,
    remove_columns=["text"],
    cache_file_name=str(out / "ids.arrow"),
  )
  tokenised = time.perf_counter()
  packed = trl_lib.pack_dataset(
    encoded, seq_len, how, {"cache_file_name": str(out / "rows.arrow")}
  )
  seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
  tokens = sum(len(ids) for ids in encoded.with_format("numpy")["input_ids"])
  return {
    "seconds": seconds,
    "CPU seconds": cpu,
    "of it tokenise": tokenised - began,
    "tokens": tokens,
    "rows": len(packed),
    "fill %": 100 * tokens / (len(packed) * seq_len),
  }


def _cpu_seconds() -> float:
  """Returns the processor time of this process and the children that it waited for."""
  times = os.times()
  return times.user + times.system + times.children_user + times.children_system


def _run(python: str, directory: pathlib.Path, name: str, seq_len: int) -> dict:
  shutil.rmtree(directory / "out", ignore_errors=True)
  done = subprocess.run(
    [python, __file__, f"--do={name}", f"--dir={directory}", f"--seq_len={seq_len}"],
    capture_output=True,
    text=True,
    env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
  )
  if done.returncode:
    raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def _do(name: str, directory: pathlib.Path, seq_len: int) -> None:
  who, how, *processes = name.split("-")
  if who == "ours":
    found = ours(directory, how, seq_len)
  else:
    found = trl(directory, how, seq_len, int(processes[0]) if processes else None)
  peaks = [
    resource.getrusage(which).ru_maxrss
    for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  print(json.dumps({**found, "peak MB": sum(peaks) / 1024}))


def compare(arguments: argparse.Namespace, directory: pathlib.Path) -> float:
  """Prints every run and returns our speed by the peer's."""
  make(directory, arguments.num_documents, arguments.tokenizer)
  python = str(pathlib.Path(arguments.peer) / "bin" / "python")
  cores = os.cpu_count()
  names = [name for pair in _PAIRS for name in pair]
  names += [f"{theirs}-{cores}" for _, theirs in _PAIRS]
  runs: dict[str, list[dict]] = {name: [] for name in names}
  for _ in range(arguments.rounds):
    for name in names:
      which = sys.executable if name.startswith("ours") else python
      found = _run(which, directory, name, arguments.seq_len)
      runs[name].append(found)
      figures = (f"{key} {value:.4g}" for key, value in found.items())
      print(f"  {name}: {', '.join(figures)}", flush=True)
  speed = {}
  for name, found in runs.items():
    rates = [run["tokens"] / run["seconds"] for run in found]
    per_cpu = statistics.median(run["tokens"] / run["CPU seconds"] for run in found)
    speed[name] = statistics.median(rates)
    print(
      f"{name}: {speed[name] / 1e3:.0f} k tokens/s "
      f"({min(rates) / 1e3:.0f} to {max(rates) / 1e3:.0f}), "
      f"{per_cpu / 1e3:.0f} k tokens per CPU second, "
      f"{max(run['peak MB'] for run in found):.0f} MB at most"
    )
  ratios = [
    speed[mine] / max(speed[theirs], speed[f"{theirs}-{cores}"])
    for mine, theirs in _PAIRS
  ]
  for (mine, theirs), ratio in zip(_PAIRS, ratios, strict=True):
    print(f"{mine} over {theirs}: {ratio:.2f}")
  return min(ratios)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--peer")
  parser.add_argument("--num_documents", type=int, default=20_000)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seq_len", type=int, default=4096)
  parser.add_argument("--tokenizer")
  parser.add_argument("--plan", type=int, default=1_000_000)
  parser.add_argument("--dir")
  parser.add_argument("--do", help=argparse.SUPPRESS)  # one run, in its own process
  arguments = parser.parse_args()
  if arguments.do:
    return _do(arguments.do, pathlib.Path(arguments.dir), arguments.seq_len)
  sys.path.insert(0, str(_ROOT))
  ratios = [plan(arguments.plan)]
  if arguments.peer is None:
    print("prepare: skipped, no --peer=VENV with trl, datasets, transformers, torch")
  else:
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
      ratios.append(compare(arguments, pathlib.Path(name)) / _MIN_TIMES_PEER)
  print(f"ratio: {min(ratios):.2f}")


if __name__ == "__main__":
  main()
