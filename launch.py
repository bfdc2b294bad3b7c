"""The one command: python launch.py MODE --config=configs/NAME.py --workdir=DIR

Modes, flags, exit codes; nothing else. Exit codes: 0 done, 2 the user can fix it, 75
stopped on purpose (run again to go on).
"""

import os
import pathlib
import sys
from collections.abc import Callable, Iterable

from absl import flags, logging
from ml_collections import config_flags

from msm_jax import config_errors, distributed, exits, interrupt, place, progress
from msm_jax.errors import UserError
from msm_jax.training import liveness

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:ARG]")
flags.DEFINE_string("workdir", None, "where everything of this study lies")
flags.DEFINE_string("arm", None, "only this arm (or, for export and sample, which one)")
flags.DEFINE_string("stage", None, "train only paths that end with this stage")
flags.DEFINE_list("seed", None, "only these seeds, separated by commas")
flags.DEFINE_integer("step", None, "export this step instead of the last")
flags.DEFINE_enum(
  "format",
  None,
  ["merged", "adapter", "jsonl", "parquet"],
  "what export writes: of an arm merged (default) or adapter, of a corpus jsonl "
  "(default) or parquet",
)
flags.DEFINE_string("corpus", None, "export this corpus, with a dataset card")
flags.DEFINE_string("license", None, "export --corpus: the licence on the card")
flags.DEFINE_string("language", None, "export --corpus: the language on the card")
flags.DEFINE_bool("with_rejects", False, "export --corpus: also what was not kept")
flags.DEFINE_string("out", None, "where export writes")
flags.DEFINE_string("hf_dir", None, "a Hugging Face directory (verify, sample)")
flags.DEFINE_string("tokens", None, "verify: int32 [B, T] token ids, .npy")
flags.DEFINE_string("logits_out", None, "verify: where to write float32 logits, .npy")
flags.DEFINE_multi_string("prompt", [], "sample: a user turn (or text); may repeat")
flags.DEFINE_bool("raw", False, "sample: the prompt is text to go on with, not a chat")
flags.DEFINE_float("temperature", 0.0, "sample: 0 is greedy")
flags.DEFINE_integer("max_new_tokens", 64, "sample: at most so many", lower_bound=1)
flags.DEFINE_integer("limit", 5, "show: how many records or rows", lower_bound=1)
flags.DEFINE_bool("sample", False, "show: draw --limit records of a corpus (--seed)")
flags.DEFINE_bool("stats", False, "show: figures of a corpus or a shard")
flags.DEFINE_string("row", None, "show: the record (or row) with this id or number")
flags.DEFINE_bool("verify", False, "show: compare a corpus with its manifest")
flags.DEFINE_string("topology", None, "fit: a TPU slice (v5e:4x4) or family (v5e)")
flags.DEFINE_integer("num_slices", 1, "fit: so many slices of it", lower_bound=1)

_POSITIONAL: list[str] = []  # what follows MODE and is no flag


def run() -> None:
  """Does every step that is not done yet, then the report."""
  # Refuse what is not there before anything is paid.
  _experiment().paths(FLAGS.arm, FLAGS.stage), _seeds()
  if _job().pilot is None:
    _assessment().check()
  generate()
  if _job().pilot is not None:
    return progress.say("run: the pilot is done; run again without --config.pilot")
  for step in _STEPS[1:]:
    step()
  return None


def plan() -> None:
  """Prints what the study will cost; writes nothing."""
  from data_gen.planning import estimates, tree
  from msm_jax import graded, planning

  workdir, experiment, job = _workdir(make=False), _experiment(), _job()
  corpora = estimates.plan(job, workdir)
  asked, unknown = graded.plan(experiment, _config(), workdir, corpora)
  costs = tree.whole(job, workdir, corpora, asked)
  _print([*tree.lines(job, costs), *unknown])
  _print(planning.lines(experiment, workdir, corpora, costs))


def generate() -> None:
  """Makes the corpora; with config.pilot tries a few documents of each."""
  from data_gen import generate as generate_lib
  from data_gen import piloting

  job, workdir = _job(), _workdir()
  if job.pilot is None:
    return _once(lambda: generate_lib.generate(job, workdir))
  return _once(lambda: _print(piloting.pilot(job, workdir), at_once=True))


def prepare() -> None:
  """Makes the tokenizer and the packed rows."""
  from msm_jax import prepare as prepare_lib

  workdir = _workdir()
  _once(lambda: prepare_lib.prepare(_experiment(), workdir))


def train() -> None:
  """Trains the tree of stages, seeds dealt to worker processes."""
  from msm_jax import workers

  experiment, seeds = _experiment(), _seeds()
  paths = experiment.paths(FLAGS.arm, FLAGS.stage)
  study = _study(experiment)
  if all([study.is_done(path, seed) for path in paths for seed in seeds]):
    return progress.say("train: done")
  if not workers.deal("train", seeds, experiment.num_workers):
    study.train_all(seeds, paths)


def evaluate() -> None:
  """Evaluates every arm and seed."""
  _assessment().run()


def report() -> None:
  """Writes tables, plots and the page, and says what they say."""
  from msm_jax import records
  from msm_jax import report as report_lib

  workdir = _workdir()
  if not distributed.is_first():
    return
  page = report_lib.build(workdir)
  summary = records.read_json(page.with_name("summary.json"))
  print("\n".join(summary["headline"]["sentences"]))
  print(f"report: {page}")


def export() -> None:
  """Writes a checkpoint as a Hugging Face directory, or a corpus as a dataset."""
  if FLAGS.corpus is not None:
    return _export_corpus(FLAGS.corpus)
  _refuse("an arm", "license", "language", "with_rejects", "stage")
  if FLAGS.format in ("jsonl", "parquet"):
    raise UserError(f"--format={FLAGS.format} is of a corpus: add --corpus=NAME")
  from msm_jax import exporting

  experiment, out = _experiment(), _needed("out")
  arm, seed = _needed("arm"), _one_seed(experiment)
  layout, runs = FLAGS.format or "merged", _study(experiment)
  exporting.export(runs, arm, seed, step=FLAGS.step, layout=layout, out=out)
  print(f"export: {out}")


def _export_corpus(name: str) -> None:
  from data_gen.publishing import export as publishing
  from msm_jax import workdir as workdir_lib

  _refuse("--corpus", "arm", "stage", "seed", "step")
  if FLAGS.format in ("merged", "adapter"):
    raise UserError(
      f"--format={FLAGS.format} is of an arm: --corpus has jsonl, parquet"
    )
  if name not in _config()["corpora"]:
    known = ", ".join(_config()["corpora"])
    raise UserError(f"--corpus={name} is not one of config.corpora: {known}")
  publishing.export(
    _workdir() / "corpus" / name,
    out := _needed("out"),
    layout=FLAGS.format or "jsonl",
    license=FLAGS.license,
    language=FLAGS.language,
    with_rejects=FLAGS.with_rejects,
    git_revision=workdir_lib.git_revision(),
  )
  print(f"export: {out}")


def _print(lines: Iterable[str], at_once: bool = False) -> None:
  """Prints lines; `at_once` where the next one may take its time."""
  for line in lines:
    print(line, flush=at_once)


def _once(work: Callable[[], object]) -> None:
  """Does something on process 0 while the others, if any, wait for it."""
  with distributed.together():
    if distributed.is_first():
      work()


def _refuse(what: str, *names: str) -> None:
  """Raises a UserError for a flag that contradicts what is exported."""
  for name in names:
    if FLAGS[name].present:
      raise UserError(f"--{name} has no meaning for the export of {what}: leave it out")


def verify() -> None:
  """Compares our forward pass on a Hugging Face directory with transformers."""
  from msm_jax.hf import verify as verify_lib

  hf_dir = _needed("hf_dir")
  try:
    print(verify_lib.verify(hf_dir, tokens=FLAGS.tokens, logits_out=FLAGS.logits_out))
  except verify_lib.Mismatch as mismatch:  # our bug, or a damaged peer: neither 0 nor 2
    print(mismatch)
    sys.exit(1)


def sample() -> None:
  """Prints a completion of every --prompt."""
  from msm_jax import sampling, subjects

  if not FLAGS.prompt:
    raise UserError("sample needs at least one --prompt='...'")
  if FLAGS.hf_dir:
    asked = subjects.of_directory(FLAGS.hf_dir)
  else:
    experiment = _experiment()
    asked = subjects.open_(_study(experiment), _needed("arm"), _one_seed(experiment))
  cfg, params, tok = asked.model.cfg, asked.model.params, asked.model.tokenizer
  names = ("raw", "temperature", "max_new_tokens")
  settings = {name: FLAGS[name].value for name in names}
  settings["system_prompt"] = asked.system_prompt
  completions = sampling.complete_texts(params, cfg, tok, FLAGS.prompt, **settings)
  for prompt, completion in zip(FLAGS.prompt, completions, strict=True):
    print(f"> {prompt}\n{completion}")


def show() -> None:
  """Prints what lies at a path."""
  from data_gen import showing
  from msm_jax import show as show_lib
  from msm_jax import show_corpus

  if len(_POSITIONAL) != 1:
    raise UserError("show needs one PATH: python launch.py show PATH [--limit=N]")
  path = show_lib.find(_POSITIONAL[0])
  ways = ("sample", "stats", "row", "verify")
  asked = {name: FLAGS[name].value for name in ways if FLAGS[name].value}
  settings = {"limit": FLAGS.limit, "colour": sys.stdout.isatty()}
  if not asked and showing.knows(path):
    _print(showing.lines(path))
  else:
    _print(show_corpus.show(path, asked, seed=_draw_seed(), **settings))


def fit() -> None:
  """Compiles the training steps for a TPU that is not here, and says what fits."""
  from msm_jax import fit as fit_lib

  workdir = pathlib.Path(FLAGS.workdir) if FLAGS.workdir else None
  _needed("topology")
  names = ("topology", "num_slices", "arm", "stage")
  question = fit_lib.Question(**{name: FLAGS[name].value for name in names})
  _print(fit_lib.run(_experiment(), workdir, question), at_once=True)


def doctor() -> None:
  """Prints versions, devices, keys present, disk."""
  from msm_jax import doctor as doctor_lib

  _print(doctor_lib.report(FLAGS.workdir))


_STEPS = (generate, prepare, train, evaluate, report)
_OTHERS = (export, verify, sample, fit, show, doctor)
MODES = {mode.__name__: mode for mode in (run, plan, *_STEPS, *_OTHERS)}


def _config() -> dict:
  """Returns the config as a plain dict."""
  if CONFIG.value is None:
    raise UserError("--config=configs/NAME.py is needed: see configs/")
  try:
    return config_errors.plain(CONFIG.value)
  except OSError as error:  # the library loads the file lazily
    raise UserError(f"--config: {config_errors.told(error)}") from None


def _experiment():
  from msm_jax import experiment as experiment_lib

  return experiment_lib.parse(_config())


def _job():
  from data_gen import settings

  return settings.job(_config())


def _workdir(make: bool = True) -> pathlib.Path:
  """Returns the workdir, claimed for this config."""
  from msm_jax import workdir as workdir_lib

  path = pathlib.Path(_needed("workdir"))
  if make:
    _experiment()  # a config that contradicts itself claims nothing
    _once(lambda: workdir_lib.claim(path, _config()))
  return path


def _study(experiment):
  from msm_jax import study as study_lib

  return study_lib.Study(experiment, _workdir())


def _assessment():
  from msm_jax import assessment

  arms = _experiment().named_subjects(FLAGS.arm)
  return assessment.Assessment(_experiment(), _workdir(), _config(), _seeds(), arms)


def _needed(flag: str) -> str:
  value = FLAGS[flag].value
  if value is None:
    raise UserError(f"--{flag}=... is needed for this mode")
  return value


def _seeds() -> list[int]:
  """Returns the seeds asked for, all of the config's by default."""
  known = _experiment().seeds
  if FLAGS.seed is None:
    return list(known)
  try:
    seeds = [int(seed) for seed in FLAGS.seed]
  except ValueError:
    raise UserError(f"--seed={','.join(FLAGS.seed)} is not a list of numbers") from None
  unknown = [seed for seed in seeds if seed not in known]
  if unknown:
    raise UserError(f"--seed={unknown[0]} is not one of config.seeds {known}")
  return seeds


def _one_seed(experiment) -> int:
  seeds = _seeds()
  if len(seeds) > 1 and FLAGS.seed is not None:
    raise UserError(f"--seed={','.join(FLAGS.seed)}: one seed is needed here")
  return seeds[0]


def _draw_seed() -> int:
  """Returns the seed of what `show --sample` draws."""
  seed = FLAGS.seed[0] if FLAGS.seed else "0"
  if not seed.isdigit():
    raise UserError(f"--seed={seed} is not a whole number")
  return int(seed)


def _set_up() -> None:
  """Signals, logging and the compilation cache, before JAX is imported."""
  interrupt.listen()
  # Libraries log what they raise as well; errors are told once, by `main`.
  logging.set_verbosity(logging.FATAL)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  if FLAGS.workdir:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", place.cache_dir(FLAGS.workdir))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _parse_flags(arguments: list[str]) -> Callable[[], None]:
  """Returns the mode; what cannot be understood is the user's to mend."""
  if len(arguments) < 2 or arguments[1] not in MODES:
    given = arguments[1] if len(arguments) > 1 else "nothing"
    raise UserError(
      f"MODE is one of {', '.join(MODES)} (given: {given}): "
      "python launch.py MODE --config=configs/NAME.py --workdir=DIR"
    )
  try:
    positional = FLAGS([arguments[0], *arguments[2:]])[1:]
  except Exception as error:
    said = config_errors.told(error)
    if said is None:
      raise
    raise UserError(said) from None
  if positional and arguments[1] != "show":
    raise UserError(f"{positional[0]!r} is not understood: flags begin with --")
  _POSITIONAL[:] = positional
  return MODES[arguments[1]]


def main(arguments: list[str]) -> int:
  """Runs one mode and returns the exit code."""

  def work():
    mode = _parse_flags(arguments)
    _set_up()
    distributed.initialize()
    liveness.pulse()  # the others may watch from now on
    with place.opened(FLAGS.workdir, mode.__name__) as FLAGS.workdir:
      mode()

  return exits.code_of(work, lambda: f"--workdir={FLAGS.workdir}")


if __name__ == "__main__":
  distributed.leave(main(sys.argv))
