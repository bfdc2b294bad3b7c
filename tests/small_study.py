"""A small study on a small pretrained model: corpora, tokenizer, Hugging Face files."""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import numpy as np

from msm_jax import experiment, exporting, prepare, records, study, tokenizer
from msm_jax.hf import export
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig

TEMPLATE = (
  "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CFG = ModelConfig(
  vocab_size=64,
  embed_dim=16,
  mlp_dim=24,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  max_seq_len=64,
)
logits = jax.jit(transformer.logits, static_argnums=1)
WORDS = [f"word{i}" for i in range(30)]
TALK = [
  {"role": "user", "content": "word1 or word2 ?"},
  {"role": "assistant", "content": "word2 ."},
]


def documents(seed: int, num: int = 60) -> list[dict]:
  """Returns documents of random words."""
  rng = np.random.default_rng(seed)
  return [
    {"kind": "document", "id": str(i), "text": " ".join(rng.choice(WORDS, 12))}
    for i in range(num)
  ]


def stage(corpus: str, learning_rate: float, adaptation: str = "lora") -> dict:
  """Returns the config of a stage of one epoch."""
  return {
    "data": ({"corpus": corpus},),
    "adaptation": adaptation,
    "num_train_steps": None,
    "num_epochs": 1.0,
    "batch_size": 8,
    "seq_len": 32,
    "long_documents": "error",
    "min_steps": 2,
    "num_microbatches": 1,
    "steps_per_call": 1,
    "remat": "none",
    "loss_chunk_len": None,
    "checkpoint_every_s": None,
    "checkpoint_every_steps": None,
    "checkpoint_at": "log2",
    "log_every_steps": 1,
    "optimizer": {
      "learning_rate": learning_rate,
      "schedule": "constant",
      "warmup_fraction": 0.0,
    },
  }


def write_corpora(workdir: pathlib.Path) -> None:
  """Writes the corpora `msm` (documents) and `still` (chats)."""
  chats = [{"kind": "conversation", "id": str(i), "messages": TALK} for i in range(40)]
  about = {"config": {"spec": {"name": "kind"}}, "hashes": {"spec": "5" * 64}}
  for name, rows, manifest in (("msm", documents(0), about), ("still", chats, {})):
    records.write_dataset(workdir / "corpus" / name, rows, manifest=manifest)


def write_model(root: pathlib.Path) -> pathlib.Path:
  """Writes a random model with its tokenizer as `root/hf` and returns that."""
  texts = [row["text"] for row in documents(0)]
  texts += ["<|user|> word1 or word2 ? <|end|> <|assistant|> word2 . <|end|>"] * 5
  tokenizer.train_sentencepiece(
    texts, root / "tok", model_type="word", vocab_size=64, chat_template=TEMPLATE
  )
  params = transformer.init_params(CFG, jax.random.key(0))
  export.export(root / "hf", CFG, params, tokenizer_dir=root / "tok", dtype="float32")
  card = "---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n"
  (root / "hf" / "README.md").write_text(card)
  return root / "hf"


def prepared(workdir: pathlib.Path, config: dict) -> study.Study:
  """Returns the study of a config in a workdir with its corpora and rows."""
  parsed = experiment.parse(config)
  if not (workdir / "corpus").exists():
    write_corpora(workdir)
  records.write_json(workdir / "config.json", config)
  prepare.prepare(parsed, workdir)
  return study.Study(parsed, workdir)


def config(init_from, seeds=(0,), **model) -> dict:
  """Returns a config of LoRA stages; `model` changes or adds to config.model."""
  return {
    "name": "test",
    "seeds": seeds,
    "num_workers": 1,
    "allow_missing_controls": True,  # runs are tried here; nothing is concluded
    "corpora": {"msm": {}, "still": {}},
    "tokenizer": {},
    "model": {
      "init_from": str(init_from),
      "base_model": "org/tiny",
      "export_dtype": "float32",
      "lora": {"rank": 4, "alpha": 8.0, "targets": ("q", "v", "down")},
      **model,
    },
    "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
    "stages": {"msm": stage("msm", 1e-2), "still": stage("still", 1e-12)},
    "arms": {"base": (), "msm": ("msm",), "msm+still": ("msm", "still")},
    "evals": {},
    "report": {},
  }


@dataclasses.dataclass(frozen=True)
class Trained:
  """A study that was trained and exported; nobody may change its files.

  `msm` is trained for seeds 0 and 1, `msm+still` for seed 0; `still` hardly moves.
  """

  root: pathlib.Path
  study: study.Study

  @property
  def hf(self) -> pathlib.Path:
    """Returns the pretrained model."""
    return self.root / "hf"

  def run(self, path: str, seed: int | str = 0) -> str:
    """Returns what `init_from` calls a run."""
    return str(self.root / "w" / "runs" / path / f"seed{seed}")

  def exported(self, layout: str) -> pathlib.Path:
    """Returns the export of arm `msm`, seed 0."""
    out = self.root / layout
    if not out.exists():
      exporting.export(self.study, "msm", 0, step=None, layout=layout, out=out)
    return out


@functools.cache
def trained() -> Trained:
  """Returns the study, trained once per process."""
  root = pathlib.Path(_ROOT.name)
  found = prepared(root / "w", config(write_model(root), seeds=(0, 1)))
  found.train_all([0])
  found.train(("msm",), 1)
  return Trained(root, found)


_ROOT = tempfile.TemporaryDirectory(prefix="msm-jax-study-")
