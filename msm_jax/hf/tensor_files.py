"""Reading and writing safetensors files without holding them in memory.

A file is 8 bytes little-endian header length, a JSON header (tensor name to dtype,
shape and byte range), then the bytes of the tensors. The reader maps tensors into
memory, so that a slice reads only its own pages; the writer knows every offset before
the first tensor is computed. bfloat16 is `ml_dtypes.bfloat16`; no torch.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from msm_jax import records
from msm_jax.errors import UserError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference reader
_DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
Plan = Mapping[str, Sequence[int]]  # tensor name to shape, in the order of writing


def dtype_of(name: str) -> np.dtype:
  """Returns the NumPy dtype called `name` (`float32`, `bfloat16`, `float16`)."""
  try:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
  except TypeError:
    dtype = None
  if dtype not in _NAMES:
    raise UserError(f"dtype {name!r} is not 'float32', 'bfloat16' or 'float16'")
  return dtype


class TensorFile:
  """One safetensors file, checked as a whole when it is opened."""

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the header.

    Raises:
      UserError: the file is missing, truncated, damaged, or holds what is no float.
    """
    self.file = pathlib.Path(path)
    try:
      size = self.file.stat().st_size
      with open(self.file, "rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if length is None or length > min(_MAX_HEADER_BYTES, size - 8):
          raise self._damaged("its header is cut off")
        header = json.loads(file.read(length))
    except OSError as error:
      raise UserError(f"{self.file} cannot be read ({error.strerror})") from None
    except ValueError as error:
      if isinstance(error, UserError):
        raise
      raise self._damaged("its header is no JSON") from None
    if not isinstance(header, dict):
      raise self._damaged("its header is no JSON object")
    self.start = 8 + length
    header.pop("__metadata__", None)
    self.entries = {name: self._entry(name, entry) for name, entry in header.items()}
    self._check_ranges(size)

  def names(self) -> list[str]:
    """Returns the names of the tensors in the file."""
    return list(self.entries)

  def path(self, name: str) -> pathlib.Path:
    """Returns the file that a tensor is in."""
    del name
    return self.file

  def dtype(self, name: str) -> np.dtype:
    """Returns the dtype of a tensor."""
    return self.entries[name][0]

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a tensor."""
    return self.entries[name][1]

  def tensor(self, name: str) -> np.ndarray:
    """Returns a read-only map of a tensor; its pages leave memory with the array."""
    dtype, shape, begin, _ = self.entries[name]
    if not math.prod(shape):
      return np.zeros(shape, dtype)
    return np.memmap(self.file, dtype, "r", self.start + begin, shape)

  def _entry(self, name: str, entry) -> tuple[np.dtype, tuple[int, ...], int, int]:
    try:
      kind, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
      begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
      raise self._damaged(f"tensor {name} has no dtype, shape or offsets") from None
    if kind not in _DTYPES:
      raise UserError(
        f"{self.file}: tensor {name} has dtype {kind}, which is not one of "
        f"{', '.join(_DTYPES)}: quantised weights are not supported, dequantise first"
      )
    if min(shape, default=0) < 0:
      raise self._damaged(f"tensor {name} has shape {list(shape)}")
    if end - begin != math.prod(shape) * _DTYPES[kind].itemsize:
      raise self._damaged(f"tensor {name} {list(shape)} has {end - begin} bytes")
    return _DTYPES[kind], shape, begin, end

  def _check_ranges(self, size: int) -> None:
    ranges = sorted((begin, end) for _, _, begin, end in self.entries.values())
    reached = 0
    for begin, end in ranges:
      if begin != reached:
        raise self._damaged("its tensors overlap or leave gaps")
      reached = end
    if self.start + reached != size:
      wanted = self.start + reached
      raise self._damaged(f"it has {size} bytes where {wanted} are expected")

  def _damaged(self, why: str) -> UserError:
    return UserError(
      f"{self.file} is no whole safetensors file: {why}; copy or download it again"
    )


class TensorFiles:
  """The tensors of a Hugging Face directory, whichever file each is in."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens `model.safetensors` or the files that the index names.

    Raises:
      UserError: no weights, only pickled ones, an index that does not fit its files, or
        one that points outside the directory.
    """
    self.directory = pathlib.Path(directory)
    if (self.directory / INDEX_FILE).exists():
      self.files = self._from_index(self.directory / INDEX_FILE)
    elif (self.directory / SINGLE_FILE).exists():
      file = TensorFile(self.directory / SINGLE_FILE)
      self.files = {name: file for name in file.names()}
    else:
      raise self._no_weights()

  def names(self) -> set[str]:
    """Returns the names of all tensors."""
    return set(self.files)

  def path(self, name: str) -> pathlib.Path:
    """Returns the file that a tensor is in."""
    return self.files[name].file

  def dtype(self, name: str) -> np.dtype:
    """Returns the dtype of a tensor."""
    return self.files[name].dtype(name)

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a tensor."""
    return self.files[name].shape(name)

  def tensor(self, name: str) -> np.ndarray:
    """Returns a read-only map of a tensor."""
    return self.files[name].tensor(name)

  def _from_index(self, index: pathlib.Path) -> dict[str, TensorFile]:
    content = records.read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
      raise UserError(f"{index}: field weight_map is missing: download the index again")
    opened = {
      name: TensorFile(self._inside(index, name)) for name in set(weight_map.values())
    }
    for tensor, name in weight_map.items():
      if tensor not in opened[name].entries:
        raise UserError(f"{index}: tensor {tensor} is not in {name}, which it names")
    for name, file in opened.items():
      extra = sorted(t for t in file.entries if weight_map.get(t) != name)
      if extra:
        raise UserError(f"{file.file}: tensor {extra[0]} is not in the index {index}")
    return {tensor: opened[name] for tensor, name in weight_map.items()}

  def _inside(self, index: pathlib.Path, name) -> pathlib.Path:
    plain = isinstance(name, str) and name == os.path.basename(name)
    if not plain or "\\" in name or not name.endswith(".safetensors"):
      raise UserError(
        f"{index}: file {name!r} is not the plain name of a .safetensors file in this "
        "directory: it will not be opened"
      )
    if not (self.directory / name).exists():
      raise UserError(f"{self.directory / name} is missing, but {index} names it")
    return self.directory / name

  def _no_weights(self) -> UserError:
    pickled = sorted(
      path.name
      for pattern in ("*.bin", "*.pt", "*.pth")
      for path in self.directory.glob(pattern)
    )
    if pickled:
      return UserError(
        f"{self.directory} holds pickled weights ({pickled[0]}), which can run code "
        "when read and are never loaded: save the model as safetensors"
      )
    return UserError(
      f"{self.directory} holds no {SINGLE_FILE} and no {INDEX_FILE}: name a Hugging "
      "Face model directory"
    )


def check_finite(values: np.ndarray, what: str) -> None:
  """Raises a UserError that names `what` if any value is NaN or infinite."""
  if values.dtype == ml_dtypes.bfloat16:  # all exponent bits set; no conversion needed
    bad = np.bitwise_and(values.view(np.uint16), 0x7F80) == 0x7F80
  else:
    bad = ~np.isfinite(values)
  if bad.any():
    raise UserError(
      f"{what} holds {int(bad.sum())} values that are NaN or infinite: the weights are "
      "damaged; download or export them again"
    )


def write_file(
  path: str | os.PathLike[str],
  shapes: Plan,
  dtype: np.dtype,
  tensor: Callable[[str], np.ndarray],
) -> None:
  """Writes one file: the header first, then tensor by tensor.

  Args:
    path: of the new file.
    shapes: every tensor's shape, in the order of writing.
    dtype: of every tensor.
    tensor: returns a tensor by its name; called once for each, in order.
  """
  header: dict[str, object] = {"__metadata__": {"format": "pt"}}
  offset = 0
  for name, shape in shapes.items():
    end = offset + math.prod(shape) * dtype.itemsize
    header[name] = {
      "dtype": _NAMES[dtype],
      "shape": list(shape),
      "data_offsets": [offset, end],
    }
    offset = end
  text = json.dumps(header, separators=(",", ":")).encode("utf-8")
  text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
  with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for name, shape in shapes.items():
      values = np.ascontiguousarray(tensor(name), dtype)
      assert values.shape == tuple(shape), f"{name}: {values.shape} is not {shape}"
      check_finite(values, f"tensor {name} of the export")
      file.write(values.reshape(-1).view(np.uint8).data)
    file.flush()
    os.fsync(file.fileno())


def write_files(
  directory: str | os.PathLike[str],
  shapes: Plan,
  dtype: np.dtype,
  tensor: Callable[[str], np.ndarray],
  max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
  """Writes a model's tensors as one file, or as shards with an index.

  A shard holds at most `max_shard_bytes`, or one tensor that is larger.
  """
  directory = pathlib.Path(directory)
  shards = list(_shards(shapes, dtype, max_shard_bytes))
  if len(shards) == 1:
    write_file(directory / SINGLE_FILE, shapes, dtype, tensor)
    return
  weight_map = {}
  for number, shard in enumerate(shards, 1):
    name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    write_file(directory / name, shard, dtype, tensor)
    weight_map.update(dict.fromkeys(shard, name))
  num_params = sum(math.prod(shape) for shape in shapes.values())
  size = {"total_parameters": num_params, "total_size": num_params * dtype.itemsize}
  index = {"metadata": size, "weight_map": weight_map}
  records.write_json(directory / INDEX_FILE, index)


def _shards(shapes: Plan, dtype: np.dtype, max_bytes: int) -> Iterator[Plan]:
  shard: dict[str, Sequence[int]] = {}
  filled = 0
  for name, shape in shapes.items():
    size = math.prod(shape) * dtype.itemsize
    if shard and filled + size > max_bytes:
      yield shard
      shard, filled = {}, 0
    shard[name] = shape
    filled += size
  yield shard
