"""Completions and scores beside transformers, on SmolLM2-135M in float32.

    python benchmarks/sampling.py --hf_dir=DIR [--what=greedy|throughput|scoring]
      [--batch_size=16] [--max_new_tokens=64] [--num_prompts=64] [--threads=1]

greedy      64 prompts of 8 to 32 tokens, 64 tokens each: how many completions are
            those of `transformers.generate`, token for token. Where one is not, the two
            logits that decided are shown. Ratio: the share that agrees.
throughput  the same prompts and lengths, completed by `transformers.generate` in
            batches of `--batch_size` (left padding, KV cache, sdpa) and by our sampler
            with as many rows: batch by batch in turn, so that what else the machine
            does hits both alike. Nobody stops early; one batch of each comes first and
            does not count. Ratio: tokens per second of CPU time, ours / theirs.
scoring     answers of 4 tokens after those prompts: log-probs in packed batches, and
            one after the other (a row each, widths rounded to 16, compiled before).
            Ratio: CPU time, one by one / packed.

Both sides have `--threads` threads: the process is pinned to so many cores.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from msm_jax import packing, sampling, tokenizer
from msm_jax.evals import scoring
from msm_jax.hf import load
from msm_jax.models import transformer

TEXT = (
  "The lighthouse keeper counted the ships that passed before the storm, and wrote "
  "each of their names into a book that nobody but the sea had asked for. A cheese is "
  "ripe when its rind gives way to the thumb; whoever sells it young sells it twice. "
  "Water boils at a lower temperature on a mountain: there is less air above it. "
)


def prompts(hf_dir: pathlib.Path, count: int) -> list[np.ndarray]:
  """Returns pieces of text, 8 to 32 tokens each."""
  ids = np.asarray(tokenizer.load(hf_dir).encode(TEXT * 4).ids, np.int32)
  rng = np.random.default_rng(0)
  sizes = rng.integers(8, 33, count)
  begins = rng.integers(0, len(ids) - 33, count)
  return [ids[b : b + n] for b, n in zip(begins, sizes, strict=True)]


class Ours:
  """Our sampler."""

  def __init__(self, args: argparse.Namespace):
    self.cfg, self.params = load.load(args.hf_dir)
    self.sampler = sampling.Sampler(self.params, self.cfg)
    self.config = sampling.SamplingConfig(
      max_new_tokens=args.max_new_tokens, stop_ids=(), batch_size=args.batch_size
    )

  def complete(self, given: list[np.ndarray]) -> list[list[int]]:
    done = dict(self.sampler.complete(given, [0] * len(given), self.config))
    return [done[i].ids.tolist() for i in range(len(given))]


class Theirs:
  """transformers."""

  def __init__(self, args: argparse.Namespace):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    self.torch, self.num_tokens = torch, args.max_new_tokens
    cls = transformers.AutoModelForCausalLM
    self.model = cls.from_pretrained(args.hf_dir, dtype="float32").eval()
    self.model.generation_config.eos_token_id = None  # nobody stops early

  def complete(self, given: list[np.ndarray]) -> list[list[int]]:
    width = max(map(len, given))
    ids = np.zeros((len(given), width), np.int64)
    mask = np.zeros_like(ids)
    for i, prompt in enumerate(given):
      ids[i, width - len(prompt) :], mask[i, width - len(prompt) :] = prompt, 1
    out = self.model.generate(
      input_ids=self.torch.from_numpy(ids),
      attention_mask=self.torch.from_numpy(mask),
      max_new_tokens=self.num_tokens,
      do_sample=False,
      pad_token_id=0,
    )
    return out[:, width:].tolist()


def timed(fn: Callable[[], Any]) -> tuple[Any, float, float]:
  """Returns (what `fn` returned, CPU seconds, wall seconds)."""
  cpu, wall = time.process_time(), time.perf_counter()
  result = fn()
  return result, time.process_time() - cpu, time.perf_counter() - wall


def complete(args: argparse.Namespace) -> float:
  """Compares completions and their times; returns the ratio that was asked for."""
  given = prompts(args.hf_dir, args.num_prompts)
  ours, theirs = Ours(args), Theirs(args)
  size = args.batch_size
  batches = [given[i : i + size] for i in range(0, len(given), size)]
  if args.what == "throughput":
    ours.complete(batches[0])
    theirs.complete(batches[0])
  found, expected, times = [], [], {"ours": [], "theirs": []}
  for batch in batches:
    for name, side, kept in (("ours", ours, found), ("theirs", theirs, expected)):
      done, cpu, wall = timed(lambda side=side, batch=batch: side.complete(batch))
      kept += done
      times[name].append((cpu, wall))
      tokens = sum(map(len, done))
      print(f"{name:7}{tokens:6} tokens{cpu:8.2f} cpu s{wall:8.2f} wall s", flush=True)
  same = [a == b for a, b in zip(found, expected, strict=True)]
  print(f"{sum(same)} of {len(same)} completions agree token for token")
  for i, agrees in enumerate(same):
    if not agrees:
      _show_difference(ours, given[i], found[i], expected[i], i)
  if args.what == "greedy":
    return sum(same) / len(same)
  tokens = sum(map(len, expected))
  rates = {}
  for name, each in times.items():
    cpu, wall = (sum(t) for t in zip(*each, strict=True))
    rates[name] = tokens / cpu
    print(
      f"{name}: {tokens / cpu:.1f} tokens/s of CPU time, {tokens / wall:.1f} of wall"
    )
  return rates["ours"] / rates["theirs"]


def _show_difference(ours: Ours, prompt, found, expected, number: int) -> None:
  at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
  whole = np.concatenate([prompt, found[:at]]).astype(np.int32)[None]
  logits = np.asarray(transformer.logits(ours.params, ours.cfg, whole))[0, -1]
  a, b = float(logits[found[at]]), float(logits[expected[at]])
  print(f"  prompt {number}, token {at}: logits {a:.6f} (ours) and {b:.6f} (theirs)")


def score(args: argparse.Namespace) -> float:
  """Returns the time of one by one over packed."""
  cfg, params = load.load(args.hf_dir)
  pieces = []
  for i, prompt in enumerate(prompts(args.hf_dir, args.num_prompts)):
    ids = np.concatenate([prompt, prompts(args.hf_dir, args.num_prompts)[i - 1][:4]])
    weights = (np.arange(len(ids)) >= len(prompt)).astype(np.float32)
    pieces.append(packing.Piece(ids.astype(np.int32), weights))

  def packed() -> np.ndarray:
    return scoring.piece_nll(params, cfg, pieces, seq_len=256, batch_size=8)

  def alone() -> np.ndarray:
    def one(piece):
      width = -(-piece.num_slots // 16) * 16
      return scoring.piece_nll(params, cfg, [piece], seq_len=width, batch_size=1)

    return np.concatenate([one(piece) for piece in pieces])

  found, expected = packed(), alone()
  print(f"largest difference {np.abs(found - expected).max():.2e} nats")
  times: dict[str, list[float]] = {"packed": [], "one by one": []}
  for _ in range(3):
    for name, way in (("packed", packed), ("one by one", alone)):
      times[name].append(timed(way)[1])
  best = {name: min(each) for name, each in times.items()}
  for name, seconds in best.items():
    print(f"{name}: {len(pieces) / seconds:.1f} answers/s of CPU time")
  return best["one by one"] / best["packed"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--hf_dir", type=pathlib.Path, required=True)
  parser.add_argument(
    "--what", choices=("greedy", "throughput", "scoring"), default="throughput"
  )
  for name, value in (("batch_size", 16), ("max_new_tokens", 64), ("num_prompts", 64)):
    parser.add_argument(f"--{name}", type=int, default=value)
  parser.add_argument("--threads", type=int, default=1)
  args = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
  jax.config.update("jax_platforms", "cpu")
  ratio = score(args) if args.what == "scoring" else complete(args)
  print(f"ratio: {ratio:.3f}")


if __name__ == "__main__":
  main()
