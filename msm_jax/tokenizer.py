"""Text to token ids and back: `tokenizer.json` and SentencePiece behind one face.

A tokenizer directory is what Hugging Face expects: `tokenizer.json` and / or
`tokenizer.model`, `tokenizer_config.json`, `chat_template.jinja`. `load` reads one,
`train_sentencepiece` makes one. Special tokens are never added by `encode`: rows say
themselves where a document begins and ends.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.text import chat_template, encoders, tokenizer_files
from msm_jax.text.encoders import AddedToken, Encoding
from msm_jax.text.tokenizer_files import (
  CONFIG_FILE,
  JSON_FILE,
  MODEL_FILE,
  MODEL_FILES,
  TEMPLATE_FILE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
  """A loaded tokenizer; `eos_id` ends documents, `bos_id` (None: nothing) begins them.

  `special_tokens` are the named ones (`bos_token`, ...), which chat templates may use;
  `templates` are all chat templates by name, `chat_template` the one called default.
  """

  backend: Any
  directory: pathlib.Path
  vocab_size: int
  bos_token: str | None
  eos_token: str
  bos_id: int | None
  eos_id: int
  chat_template: str | None  # the usual one
  templates: Mapping[str, str] = dataclasses.field(default_factory=dict)
  special_tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def choices(self) -> chat_template.Choices:
    """Returns what the study decided about the chat template."""
    return chat_template.choices(self.chat_template)

  def encode(self, text: str) -> Encoding:
    """Returns the ids of `text` and where they came from, no special token added."""
    return self.backend.encode(text)

  def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids alone, int32 [n] of each text, on all cores."""
    return self.backend.encode_ids(texts)

  def encode_cut(self, text: str, cuts: Sequence[int]) -> Encoding:
    """Returns the ids of `text`, each part between `cuts` encoded alone.

    A prompt is encoded alone, so the tokens of an answer must not depend on how it
    ends, nor reach into it. Tokenizers that put a space in front of every text would
    put one behind each cut; their texts are left in one piece.
    """
    return self.encode_cuts([(text, cuts)])[0]

  def encode_cuts(self, texts: Sequence[tuple[str, Sequence[int]]]) -> list[Encoding]:
    """Returns what `encode_cut` does for each (text, cuts), on all cores."""
    whole = not self.backend.goes_on()
    edges = [[0, *([] if whole else cuts), len(text)] for text, cuts in texts]
    parts = iter(
      self.backend.encode_batch(
        [
          text[a:b]
          for (text, _), at in zip(texts, edges, strict=True)
          for a, b in itertools.pairwise(at)
        ]
      )
    )
    return [encoders.join([next(parts) for _ in at[1:]], at[:-1]) for at in edges]

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of `ids`, special tokens included."""
    return self.backend.decode([int(i) for i in ids])

  def token_id(self, token: str) -> int | None:
    """Returns the id of a token by its name, None if there is none."""
    return self.backend.token_id(token)

  def token_text(self, index: int) -> str:
    """Returns the text of one token with its space; bytes of a character as <0x..>."""
    return self.backend.token_text(int(index))

  def is_special(self, index: int) -> bool:
    """Says whether a token is a special or added one, never part of plain text."""
    return self.backend.is_added(int(index))

  def sha256(self) -> str:
    """Returns a digest of the tokenizer's files."""
    return records.sha256_json(
      {
        name: records.sha256_file(self.directory / name)
        for name in tokenizer_files.files(self.directory)
      }
    )


def load(directory: str | os.PathLike[str]) -> Tokenizer:
  """Returns the tokenizer of a directory; `tokenizer.json` wins over `tokenizer.model`.

  As in transformers, special tokens come from tokenizer_config.json, those that it does
  not name from special_tokens_map.json; added tokens from `added_tokens_decoder` there
  and from added_tokens.json. A document begins with BOS if tokenizer.json puts one in
  front of a text or `add_bos_token` is true; with a SentencePiece model, whose file
  does not say, if there is a BOS and `add_bos_token` is not false.

  Raises:
    UserError: no tokenizer there, or no end-of-sequence token named.
  """
  directory = pathlib.Path(directory)
  config = tokenizer_files.read_json(directory / CONFIG_FILE)
  special = tokenizer_files.special_tokens(directory, config)
  backend = _backend(
    directory, config, tokenizer_files.added_tokens(directory, config, special)
  )
  eos = special.get("eos_token")
  if eos is None or backend.token_id(eos) is None:
    raise UserError(
      f"{directory / CONFIG_FILE}: eos_token is {eos!r}, which the tokenizer does not "
      "know; documents need an end: name one of its tokens"
    )
  templates = chat_template.of_directory(directory, config)
  return Tokenizer(
    backend=backend,
    directory=directory,
    vocab_size=backend.vocab_size(),
    bos_token=special.get("bos_token"),
    eos_token=eos,
    bos_id=_first_id(directory, config, special.get("bos_token"), backend),
    eos_id=backend.token_id(eos),
    chat_template=templates.get("default"),
    templates=templates,
    special_tokens=special,
  )


def _backend(directory: pathlib.Path, config: dict, added: list[AddedToken]) -> Any:
  if (directory / JSON_FILE).exists():
    return encoders.JsonEncoder(directory / JSON_FILE, added)
  for name in MODEL_FILES:
    if (directory / name).exists():
      legacy = bool(config.get("legacy", False))
      return encoders.SentencePieceEncoder(directory / name, added, legacy=legacy)
  raise UserError(
    f"{directory} holds no {JSON_FILE} and no {MODEL_FILE}: name a directory with a "
    "tokenizer"
  )


def _first_id(directory, config, bos: str | None, backend) -> int | None:
  """Returns the token that documents begin with, None for none."""
  says = config.get("add_bos_token")
  if isinstance(backend, encoders.JsonEncoder):
    if backend.begins() is not None:
      return backend.begins()
    says = bool(says)
  if bos is None or says is False:
    return None
  found = backend.token_id(bos)
  if found is None:
    raise UserError(
      f"{directory / CONFIG_FILE}: bos_token is {bos!r}, which the tokenizer does not "
      "know: name one of its tokens, or set add_bos_token to false"
    )
  return found


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
    _train(
      texts,
      model_prefix=str(temporary / "tokenizer"),
      model_type=model_type,
      vocab_size=vocab_size,
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


def _train(texts: Iterable[str], **options: Any) -> None:
  raised: list[BaseException] = []

  def watched():
    try:
      yield from texts
    except BaseException as error:
      raised.append(error)
      raise

  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=watched(),
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
      **options,
    )
  except RuntimeError:
    if raised:  # an interrupt, say, which the library makes an error of its own
      raise raised[0] from None
    raise


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
  twin.pre_tokenizer = pre_tokenizers.Metaspace(encoders.SPACE, "always", words)
  twin.decoder = decoders.Metaspace(encoders.SPACE, "always", words)
  twin.add_special_tokens(["<pad>", "<unk>", "</s>"])
  twin.save(str(directory / JSON_FILE))


def _model_type(path: pathlib.Path) -> str:
  from sentencepiece import sentencepiece_model_pb2 as model_pb2

  proto = model_pb2.ModelProto.FromString(path.read_bytes())
  spec = proto.trainer_spec
  return spec.ModelType.Name(spec.model_type).lower()
