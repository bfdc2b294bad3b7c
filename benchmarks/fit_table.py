"""The smallest slices that hold known recipes, as `launch.py fit` says.

    python benchmarks/fit_table.py --out=DIR [--only=llama-3.1-8b:v6e,...]
                                   [--time_limit_s=3600]
    python benchmarks/fit_table.py --out=DIR --print [--into=docs/launching.md]

Asks about the slices of each family in turn, smallest first, up to the first that holds
a model. Needs no weights and no TPU, but `libtpu`: pip install -c constraints.txt
'.[tpu]'. An answer is minutes of one or two cores away, so each one is kept in
DIR/answers.jsonl and not asked for again; a search that was cut short goes on. Prints a
table in markdown, and puts it between the markers of a page. Cells of what was not
compiled are empty.

The last line is the limit that docs/fit.md states for a compilation, 4 minutes of a
core, over the longest one of those that the table reports.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
LIMIT_S = 240.0
START, END = "<!-- fit_table -->", "<!-- /fit_table -->"
sys.path.insert(0, str(ROOT))

from msm_jax import topology  # noqa: E402

FAMILIES = ("v5e", "v6e", "v5p", "v4", "tpu7x")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A stage of a study, what the table says of it, and from how many chips on."""

  title: str
  config: str
  stage: str
  says: str
  min_chips: int = 4


RECIPES = {
  "smollm2-135m": Recipe(
    "SmolLM2-135M, LoRA",
    "configs/cheese_smollm2.py",
    "msm_aff",
    "8 rows of 1,024",
    min_chips=1,
  ),
  "llama-3.1-8b": Recipe(
    "Llama-3.1-8B, LoRA", "configs/msm_cheese.py", "msm_aff", "8 rows of 4,096"
  ),
  "qwen3-32b": Recipe(
    "Qwen3-32B, LoRA", "configs/msm_philosophy.py:qwen3", "msm", "8 rows of 8,192"
  ),
  "llama-3.3-70b": Recipe(
    "Llama-3.3-70B, LoRA", "configs/sdf.py", "unlikely", "8 rows of 1,024"
  ),
}
# launch.py, with more patience: on a busy machine a compilation takes long.
_LAUNCH = """
import sys
import launch
from msm_jax.fit import search
search.TIME_LIMIT_S = float(sys.argv.pop(1))
sys.exit(launch.main(sys.argv))
"""
# The most wanted first: a run may be cut short anywhere.
ORDER = tuple(
  (name, family)
  for families in (("v5p", "v6e"), ("v5e",), ("v4", "tpu7x"))
  for name in ("smollm2-135m", "llama-3.1-8b", "qwen3-32b", "llama-3.3-70b")
  for family in families
)


def main() -> None:
  """Asks what is not known yet, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--only", help="model:family,...; of ORDER without")
  parser.add_argument("--time_limit_s", type=float, default=1200.0, help="of a try")
  parser.add_argument("--print", action="store_true", help="ask nothing")
  parser.add_argument("--into", type=pathlib.Path, help="a page with markers for it")
  arguments = parser.parse_args()
  arguments.out.mkdir(parents=True, exist_ok=True)
  if not arguments.print:
    wanted = [tuple(pair.split(":")) for pair in (arguments.only or "").split(",")]
    for name, family in wanted if arguments.only else ORDER:
      search(arguments.out, name, family, arguments.time_limit_s)
  known = answers(arguments.out)
  lines = list(table(known))
  print("\n".join(lines))
  if arguments.into:
    put(arguments.into, lines)
  longest = [
    entry["tried"][0]["cpu_seconds"] for entry in known.values() if entry["fits"]
  ]
  if longest:
    print(f"ratio: {LIMIT_S / max(longest):.2f}")


def search(out: pathlib.Path, name: str, family: str, time_limit_s: float) -> None:
  """Asks about the slices of a family, up to the first that holds a model."""
  for place in _slices(name, family):
    known = answers(out).get((name, place.slice_name))
    if known is None:
      known = ask(out, name, place.slice_name, time_limit_s)
      with open(out / "answers.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(known) + "\n")
    if known["fits"] or known["problem"]:  # more of the same would not tell
      return


def _slices(name: str, family: str) -> list[topology.Topology]:
  """Returns the slices of a family that a recipe is asked about, smallest first."""
  least = RECIPES[name].min_chips
  return [one for one in topology.parse(family) if one.num_chips >= least]


def answers(out: pathlib.Path) -> dict[tuple[str, str], dict[str, Any]]:
  """Returns what is known, by model and slice; the last answer counts."""
  path = out / "answers.jsonl"
  lines = path.read_text("utf-8").splitlines() if path.is_file() else ()
  found = [json.loads(line) for line in lines]
  return {(entry["model"], entry["slice"]): entry for entry in found}


def ask(
  out: pathlib.Path, name: str, slice_name: str, time_limit_s: float
) -> dict[str, Any]:
  """Runs `launch.py fit` for a slice; returns what the table needs of its answer."""
  recipe, workdir = RECIPES[name], out / name
  command = [
    *(sys.executable, "-c", _LAUNCH, str(time_limit_s), "fit"),
    f"--config={recipe.config}",
    *(f"--stage={recipe.stage}", f"--topology={slice_name}", f"--workdir={workdir}"),
    "--config.run.population=1",
  ]
  print(f"{name} on {slice_name}: load {os.getloadavg()[0]:.1f}", flush=True)
  kept = workdir.glob(f"fit/{slice_name.replace(':', '-')}-*.json")
  for path in kept:  # of another config, or of a run whose answer was not taken
    path.unlink()
  started = time.monotonic()
  code = subprocess.run(command, cwd=ROOT).returncode
  found = list(workdir.glob(f"fit/{slice_name.replace(':', '-')}-*.json"))
  if code not in (0, 2) or not found:
    sys.exit(f"fit ended with {code}, and kept {len(found)} answers")
  answer = json.loads(found[0].read_text("utf-8"))
  return {
    "model": name,
    "slice": slice_name,
    "chips": answer["num_chips"],
    "fits": answer["fits"],
    "problem": answer["problem"],
    "gib": [_gib(tried) for tried in answer["tried"]][-1:],
    "of_gib": answer["available_gib_per_chip"],
    "tried": answer["tried"][-1:],
    "settings": answer["settings"],
    "seconds": round(time.monotonic() - started),
    "compiler": answer["compiler"],
    "jax": importlib.metadata.version("jax"),
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
  }


def _gib(tried: dict[str, Any]) -> float | None:
  needed = tried.get("bytes_per_chip")
  return None if needed is None else round(needed / 2**30, 2)


def table(known: dict[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
  """Yields a markdown table; a cell stays empty where nothing was compiled."""
  yield f"| model | rows | {' | '.join(FAMILIES)} |"
  yield f"|---|---|{'---|' * len(FAMILIES)}"
  for name, recipe in RECIPES.items():
    cells = [_cell(known, name, family) for family in FAMILIES]
    yield f"| {recipe.title} | {recipe.says} | {' | '.join(cells)} |"
  entries = [entry for entry in known.values() if entry["fits"]]
  if entries:
    dates = sorted({entry["date"] for entry in entries})
    compilers = sorted(
      {f"{entry['compiler']}, jax {entry['jax']}" for entry in entries}
    )
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    yield f"\n({when}; {'; '.join(compilers)})"


def put(page: pathlib.Path, lines: list[str]) -> None:
  """Writes the table between the markers of a page, in place of another one."""
  before, _, rest = page.read_text("utf-8").partition(START)
  _, found, after = rest.partition(END)
  if not found:
    sys.exit(f"{page} has no {START} ... {END}")
  text = f"{before}{START}\n" + "\n".join(lines) + f"\n{END}{after}"
  page.write_text(text, "utf-8")


def _cell(known: dict, name: str, family: str) -> str:
  """Returns the smallest slice that holds a model, with GiB per chip and settings."""
  for place in _slices(name, family):
    entry = known.get((name, place.slice_name))
    if entry is None:
      return ""
    if entry["fits"]:
      tried = entry["tried"][0]
      settings = f"remat {tried['remat']}"
      if tried["num_microbatches"] > 1:
        settings += f", {tried['num_microbatches']} microbatches"
      memory = f"{entry['gib'][0]:.2f} of {entry['of_gib']:.2f}"
      return f"**{place.slice_name}** ({entry['chips']}): {memory}; {settings}"
    if entry["problem"]:  # and none of what was compiled fits
      return f"{place.slice_name} ?"
  return "none"


if __name__ == "__main__":
  main()
