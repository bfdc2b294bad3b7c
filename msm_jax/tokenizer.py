"""Text to token ids and back: `tokenizer.json` and SentencePiece behind one face.

A tokenizer directory is what Hugging Face expects: `tokenizer.json` and / or
`tokenizer.model`, `tokenizer_config.json`, `chat_template.jinja`. `load` reads one,
`train_sentencepiece` makes one. Special tokens are never added by `encode`: rows say
themselves where a document begins and ends.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from msm_jax import records
from msm_jax.errors import UserError

CONFIG_FILE = "tokenizer_config.json"
JSON_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
TEMPLATE_FILE = "chat_template.jinja"
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's mark for a space


@dataclasses.dataclass(frozen=True)
class Encoding:
  """Token ids with the half-open span of characters that each came from."""

  ids: np.ndarray  # int32 [n]
  starts: np.ndarray  # int32 [n], characters
  ends: np.ndarray  # int32 [n], characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
  """A loaded tokenizer; `eos_id` ends documents, `bos_id` (None: nothing) begins
  them.
  """

  backend: Any
  directory: pathlib.Path
  vocab_size: int
  bos_token: str | None
  eos_token: str
  bos_id: int | None
  eos_id: int
  chat_template: str | None

  def encode(self, text: str) -> Encoding:
    """Returns the ids of `text` and where they came from, no special token added."""
    return self.backend.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of `ids`, special tokens included."""
    return self.backend.decode([int(i) for i in ids])

  def token_id(self, token: str) -> int | None:
    """Returns the id of a token by its name, None if there is none."""
    return self.backend.token_id(token)

  def sha256(self) -> str:
    """Returns a digest of the tokenizer's files."""
    names = (JSON_FILE, MODEL_FILE, CONFIG_FILE, TEMPLATE_FILE)
    files = {
      name: records.sha256_file(self.directory / name)
      for name in names
      if (self.directory / name).exists()
    }
    return records.sha256_json(files)


class _JsonBackend:
  """The Rust library behind `tokenizer.json`."""

  def __init__(self, path: pathlib.Path):
    try:
      self.inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
      raise UserError(f"{path} is not a tokenizer.json ({error})") from None
    self.inner.no_truncation()
    self.inner.no_padding()

  def vocab_size(self) -> int:
    return max(self.inner.get_vocab(with_added_tokens=True).values()) + 1

  def encode(self, text: str) -> Encoding:
    encoding = self.inner.encode(text, add_special_tokens=False)
    spans = np.asarray(encoding.offsets, np.int32).reshape(-1, 2)
    return Encoding(np.asarray(encoding.ids, np.int32), spans[:, 0], spans[:, 1])

  def decode(self, ids: list[int]) -> str:
    return self.inner.decode(ids, skip_special_tokens=False)

  def token_id(self, token: str) -> int | None:
    return self.inner.token_to_id(token)


class _SentencePieceBackend:
  """The library behind `tokenizer.model`."""

  def __init__(self, path: pathlib.Path):
    try:
      self.inner = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
      raise UserError(f"{path} is not a SentencePiece model ({error})") from None

  def vocab_size(self) -> int:
    return self.inner.vocab_size()

  def encode(self, text: str) -> Encoding:
    pieces = self.inner.encode(text, return_type="proto").pieces
    columns = [(piece.id, piece.begin, piece.end) for piece in pieces]
    table = np.asarray(columns, np.int32).reshape(-1, 3)
    # The library counts bytes of UTF-8; spans are in characters.
    sizes = [len(character.encode("utf-8")) for character in text]
    character_at = np.repeat(np.arange(len(text), dtype=np.int32), sizes)
    character_at = np.append(character_at, np.int32(len(text)))
    return Encoding(table[:, 0], character_at[table[:, 1]], character_at[table[:, 2]])

  def decode(self, ids: list[int]) -> str:
    # Piece by piece: control pieces such as </s> would vanish otherwise.
    text = "".join(self.inner.id_to_piece(i) for i in ids)
    return text.replace(_SPACE, " ").removeprefix(" ")

  def token_id(self, token: str) -> int | None:
    found = self.inner.piece_to_id(token)
    if found == self.inner.unk_id() and token != self.inner.id_to_piece(found):
      return None
    return found


def load(directory: str | os.PathLike[str]) -> Tokenizer:
  """Returns the tokenizer of a directory; `tokenizer.json` wins over `tokenizer.model`.

  Raises:
    UserError: no tokenizer there, or no end-of-sequence token named.
  """
  directory = pathlib.Path(directory)
  if (directory / JSON_FILE).exists():
    backend = _JsonBackend(directory / JSON_FILE)
  elif (directory / MODEL_FILE).exists():
    backend = _SentencePieceBackend(directory / MODEL_FILE)
  else:
    raise UserError(
      f"{directory} holds no {JSON_FILE} and no {MODEL_FILE}: name a directory with a "
      "tokenizer"
    )
  config_path = directory / CONFIG_FILE
  config = records.read_json(config_path) if config_path.exists() else {}
  bos, eos = _name(config.get("bos_token")), _name(config.get("eos_token"))
  if eos is None or backend.token_id(eos) is None:
    raise UserError(
      f"{config_path}: eos_token is {eos!r}, which the tokenizer does not know; "
      "documents need an end: name one of its tokens"
    )
  # Some tokenizers name a BOS that the model has never seen before a document.
  begins = bos is not None and config.get("add_bos_token", True)
  return Tokenizer(
    backend=backend,
    directory=directory,
    vocab_size=backend.vocab_size(),
    bos_token=bos,
    eos_token=eos,
    bos_id=backend.token_id(bos) if begins else None,
    eos_id=backend.token_id(eos),
    chat_template=_chat_template(directory, config),
  )


def train_sentencepiece(
  texts: Iterable[str],
  directory: str | os.PathLike[str],
  *,
  model_type: str,
  vocab_size: int,
  chat_template: str | None,
) -> Tokenizer:
  """Trains a SentencePiece model on `texts` and writes a tokenizer directory.

  Args:
    texts: streamed once; chats as they are rendered.
    directory: appears complete or not at all.
    model_type: `word` (whitespace-separated words, one token each) or `unigram`.
    vocab_size: at most this many pieces, `<pad>`, `<unk>` and `</s>` among them.
    chat_template: jinja, kept beside the tokenizer.
  """
  if model_type not in ("word", "unigram"):
    raise UserError(f"tokenizer.model_type {model_type!r} is not 'word' or 'unigram'")
  directory = pathlib.Path(directory)
  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".tokenizer-") as name:
    temporary = pathlib.Path(name) / "tokenizer"
    temporary.mkdir()
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_prefix=str(temporary / "tokenizer"),
      model_type=model_type,
      vocab_size=vocab_size,
      hard_vocab_limit=False,
      normalization_rule_name="identity",
      character_coverage=1.0,
      pad_id=0,
      unk_id=1,
      eos_id=2,
      bos_id=-1,
      pad_piece="<pad>",
      num_threads=1,  # the result must not depend on the machine
      minloglevel=2,
    )
    (temporary / "tokenizer.vocab").unlink()
    _write_json_twin(temporary)
    config = {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "eos_token": "</s>",
      "pad_token": "<pad>",
      "unk_token": "<unk>",
      "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
      config["chat_template"] = chat_template
      records.write_file(temporary / TEMPLATE_FILE, chat_template.encode("utf-8"))
    records.write_json(temporary / CONFIG_FILE, config)
    os.replace(temporary, directory)
  return load(directory)


def _write_json_twin(directory: pathlib.Path) -> None:
  """Writes the `tokenizer.json` that encodes as `tokenizer.model` does.

  One difference is left: SentencePiece joins a run of unknown words into one `<unk>`.
  """
  spm = sentencepiece.SentencePieceProcessor(model_file=str(directory / MODEL_FILE))
  pieces = [spm.id_to_piece(i) for i in range(spm.vocab_size())]
  words = "word" in _model_type(directory / MODEL_FILE)
  if words:
    model = models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>")
  else:
    scores = [spm.get_score(i) for i in range(len(pieces))]
    model = models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=spm.unk_id())
  twin = tokenizers.Tokenizer(model)
  twin.normalizer = normalizers.Sequence(  # SentencePiece removes extra whitespace
    [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
  )
  twin.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "always", words)
  twin.decoder = decoders.Metaspace(_SPACE, "always", words)
  twin.add_special_tokens(["<pad>", "<unk>", "</s>"])
  twin.save(str(directory / JSON_FILE))


def _model_type(path: pathlib.Path) -> str:
  from sentencepiece import sentencepiece_model_pb2 as model_pb2

  proto = model_pb2.ModelProto.FromString(path.read_bytes())
  spec = proto.trainer_spec
  return spec.ModelType.Name(spec.model_type).lower()


def _name(token: str | dict | None) -> str | None:
  return token["content"] if isinstance(token, dict) else token


def _chat_template(directory: pathlib.Path, config: dict) -> str | None:
  path = directory / TEMPLATE_FILE
  if path.exists():
    return path.read_text("utf-8")
  template = config.get("chat_template")
  if isinstance(template, list):  # named templates
    named = {entry["name"]: entry["template"] for entry in template}
    template = named.get("default")
  return template
