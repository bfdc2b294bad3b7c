"""Who may import whom: one direction, one door per third party."""

import ast
import functools
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent

# A file of msm_jax imports only files above it in this list.
ORDER = [
  "errors",
  "faults",
  "exits",
  "config_errors",
  "progress",
  "storage.urls",
  "storage.service",
  "storage.locks",
  "storage.threads",
  "storage.bucket",
  "storage.transfers",
  "storage.listing",
  "storage.lease",
  "storage.addresses",
  "storage.checkpoint_dirs",
  "storage.cache",
  "storage.inputs",
  "storage.outputs",
  "storage.workfiles",
  "storage.mirror",
  "storage.pushing",
  "fields",
  "interrupt",
  "distributed",
  "training.liveness",
  "training.watchdog",
  "words",
  "json_text",
  "text.persons",
  "text.assistants",
  "rejects",
  "records",
  "workdir",
  "text.encoders",
  "text.chat_template",
  "text.tokenizer_files",
  "tokenizer",
  "text.template_worker",
  "text.templating",
  "text.turns",
  "chat",
  "pieces",
  "tokenise",
  "packing",
  "mixture",
  "models.config",
  "sharding",
  "quantised",
  "models.remat",
  "models.attention",
  "models.rope",
  "models.matmul",
  "models.layers",
  "models.lora",
  "models.transformer",
  "models.decoding",
  "cross_entropy",
  "losses",
  "moments",
  "optim",
  "train_state",
  "training.population",
  "training.ballot",
  "input_pipeline",
  "hf",
  "training.integrity",
  "training.sealing",
  "checkpoint",
  "training.goodput",
  "training.trackers",
  "metrics",
  "sampling",
  "evals.grading",
  "evals.subject",
  "evals.scoring",
  "evals.activations",
  "evals.model",
  "evals.steering",
  "evals.transcripts",
  "evals.exam",
  "evals.items",
  "evals.said_json",
  "evals.asking",
  "evals.heldout",
  "evals.replies",
  "evals.forced_choice",
  "evals.preference",
  "evals.open_qa",
  "evals.choice",
  "evals.opinion",
  "evals.claims",
  "evals.belief",
  "evals.belief_open",
  "evals.agentic.actions",
  "evals.agentic.verdicts",
  "evals.agentic.exfiltration",
  "evals.inspect.names",
  "evals.inspect.conditions",
  "evals.inspect.settings",
  "evals.inspect.logs",
  "evals.inspect.collecting",
  "evals.inspect.subject_api",
  "evals.inspect.judge_api",
  "evals.inspect.providers",
  "evals.inspect.tasks",
  "evals.inspect.exports",
  "evals.inspect.running",
  "evals.inspect.scoring",
  "evals.inspect.kind",
  "evals.multiple_choice",
  "evals.identity",
  "evals.coherence",
  "evals.recall",
  "evals.trigger",
  "evals.truth_probe",
  "evals.kinds",
  "evals.judge",
  "evals.pattern_files",
  "evals.reasoning_patterns",
  "evals.agreement",
  "xla_flags",
  "train",
  "training.levers",
  "training.run_config",
  "training.profiling",
  "training.member",
  "training.loop",
  "other_workdir",
  "origin",
  "chat_setup",
  "stages",
  "topology",
  "hardware",
  "tree",
  "doses",
  "report.parsing",
  "asked",
  "report.curve_settings",
  "report.paper_settings",
  "report.grid_settings",
  "report.settings",
  "experiment",
  "components",
  "prepare",
  "start",
  "runs",
  "subjects",
  "training.siblings",
  "study",
  "exporting",
  "evaluation",
  "analysis",
  "evaluation",
  "evals.inspect.registry",
  "fit",
  "planning",
  "report",
  "show_materials",
  "show",
  "show_corpus",
  "doctor",
  "workers",
  "place",
  "graded",
  "second_opinions",
  "assessment",
]

# Third party -> the only places that may import it.
DOORS = {
  "google": ["data_gen/clients/gemini/", "msm_jax/storage/service.py"],
  "aiohttp": ["msm_jax/storage/service.py"],
  "fsspec": ["msm_jax/storage/service.py"],
  "gcsfs": ["msm_jax/storage/service.py"],
  "google_crc32c": ["msm_jax/storage/"],
  "anthropic": ["data_gen/clients/anthropic/"],
  "grain": ["msm_jax/input_pipeline.py"],
  "orbax": ["msm_jax/checkpoint.py"],
  "etils": ["msm_jax/storage/checkpoint_dirs.py"],
  "array_record": ["msm_jax/records.py"],
  "qwix": ["msm_jax/quantised.py"],
  "flax": ["msm_jax/models/"],
  "safetensors": ["msm_jax/hf/"],
  "sentencepiece": ["msm_jax/text/encoders.py", "msm_jax/tokenizer.py"],
  "tokenizers": ["msm_jax/text/encoders.py", "msm_jax/tokenizer.py", "msm_jax/hf/"],
  "transformers": ["msm_jax/hf/verify.py"],
  "torch": ["msm_jax/hf/verify.py"],
  "matplotlib": ["msm_jax/report/"],
  "tensorboardX": ["msm_jax/training/trackers.py"],
  "wandb": ["msm_jax/training/trackers.py"],
  "trackio": ["msm_jax/training/trackers.py"],
  "ml_collections": ["configs/", "launch.py", "tpu/study.py"],
  "pyarrow": ["data_gen/arrow_files.py"],
  "inspect_ai": ["msm_jax/evals/inspect/"],
  "yaml": ["data_gen/importing/dataset_card.py", "data_gen/publishing/card.py"],
}


def sources(folder: str) -> list[pathlib.Path]:
  return sorted((ROOT / folder).rglob("*.py"))


@functools.cache
def imports(path: pathlib.Path) -> frozenset[str]:
  """Returns the dotted names that a file imports, wherever in the file."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text("utf-8"))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
  return frozenset(found)


def place(name: str) -> int | None:
  """Returns the place of a module of msm_jax in ORDER, by its longest known prefix."""
  parts = name.removeprefix("msm_jax.").split(".")
  for n in range(len(parts), 0, -1):
    if ".".join(parts[:n]) in ORDER:
      return ORDER.index(".".join(parts[:n]))
  return None


def test_every_file_has_a_place_and_imports_only_files_above_it():
  for path in sources("msm_jax"):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name.endswith("__init__") and not path.read_text().strip():
      continue
    own = place(name.removesuffix(".__init__"))
    assert own is not None, f"{name} is not in ORDER"
    for imported in imports(path):
      other = place(imported) if imported.startswith("msm_jax.") else None
      assert other is None or other <= own, f"{name} imports {imported} from below"


def test_generation_shares_only_the_ground_with_training():
  ground = (
    "errors",
    "fields",
    "json_text",
    "progress",
    "records",
    "rejects",
    "storage",
    "words",
  )
  ground += ("text.persons", "text.assistants")
  allowed = tuple(f"msm_jax.{name}" for name in ground)
  # Tokens are counted where they are made: one file asks for it.
  measuring = ROOT / "data_gen" / "sizing.py"
  for path in sources("data_gen"):
    more = ("msm_jax.tokenizer",) if path == measuring else ()
    for imported in imports(path) - {"msm_jax.text"}:  # a room is an empty file
      if imported.startswith("msm_jax."):
        assert imported.startswith(allowed + more), f"{path} imports {imported}"


def test_only_the_graders_of_evaluations_import_generation():
  door = ROOT / "msm_jax" / "evals" / "judge.py"
  for path in sources("msm_jax"):
    asks = any(name.startswith("data_gen") for name in imports(path))
    assert asks == (path == door), path


def test_configs_import_only_ml_collections_and_their_shared_parts():
  for path in sources("configs"):
    own = {name for name in imports(path) if name.startswith("configs.parts")}
    others = imports(path) - own - {"configs"}
    assert {name.split(".")[0] for name in others} <= {"ml_collections"}, path


def test_each_third_party_has_one_door():
  folders = ("data_gen", "msm_jax", "configs", "tpu")
  files = [path for folder in folders for path in sources(folder)]
  for path in [*files, ROOT / "launch.py"]:
    relative = path.relative_to(ROOT).as_posix()
    for name in {imported.split(".")[0] for imported in imports(path)}:
      doors = DOORS.get(name)
      assert doors is None or relative.startswith(tuple(doors)), (
        f"{relative} imports {name}: only {doors} may"
      )


def test_generation_runs_without_jax():
  code = "import data_gen.generate, sys; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# What launching shares with training; the rest of msm_jax needs JAX.
LAUNCHING = (
  "config_errors",
  "errors",
  "exits",
  "faults",
  "fields",
  "json_text",
  "progress",
  "records",
  "storage",
  "topology",
)


def test_launching_shares_only_the_ground_with_training():
  allowed = tuple(f"msm_jax.{name}" for name in LAUNCHING)
  asks = ROOT / "tpu" / "fitting.py"  # whether a study fits its slice
  more = ("msm_jax.experiment", "msm_jax.fit")
  for path in sources("tpu"):
    for imported in imports(path):
      if imported.startswith("msm_jax."):
        places = allowed + (more if path == asks else ())
        assert imported.startswith(places), f"{path} imports {imported}"
      assert not imported.startswith("data_gen"), path


def test_nothing_imports_launching():
  for folder in ("msm_jax", "data_gen", "configs"):
    for path in sources(folder):
      assert not any(name.split(".")[0] == "tpu" for name in imports(path)), path


def test_launching_runs_other_programs_in_few_places():
  doors = {ROOT / "tpu" / name for name in ("shell.py", "command.py")}
  for path in sources("tpu"):
    assert "subprocess" not in imports(path) or path in doors, path


def test_launching_needs_no_jax():
  code = """
import sys
import tpu.__main__, tpu.host, tpu.supervisor, tpu.study
import tpu.targets.compute, tpu.targets.queued
assert "jax" not in sys.modules
"""
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_file_is_named_after_nothing():
  names = {"utils.py", "common.py", "helpers.py", "misc.py"}
  files = sources("msm_jax") + sources("data_gen") + sources("tpu")
  assert not [path for path in files if path.name in names]
