"""The safetensors format: 8 bytes of header length, a JSON header, the tensors' bytes.

The length is little-endian; the header maps a tensor's name to dtype, shape and byte
range. bfloat16 is `ml_dtypes.bfloat16`; no torch.
"""

import dataclasses
import json
import math
import os
import stat
import struct
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from msm_jax.errors import UserError

_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference reader
DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# As unsigned integers: all bits but the sign, and the smallest that is not finite.
_BITS = {
  np.dtype(np.float64): (np.uint64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
  np.dtype(np.float32): (np.uint32, 0x7FFF_FFFF, 0x7F80_0000),
  np.dtype(np.float16): (np.uint16, 0x7FFF, 0x7C00),
  np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7FFF, 0x7F80),
}
Entry = tuple[np.dtype, tuple[int, ...], int, int]  # dtype, shape, begin, end
Plan = Mapping[str, Sequence[int]]  # tensor name to shape, in the order of writing


def dtype_of(name: str) -> np.dtype:
  """Returns the NumPy dtype called `name` (`float32`, `bfloat16`, `float16`)."""
  try:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
  except TypeError:
    dtype = None
  if dtype not in NAMES:
    raise UserError(f"dtype {name!r} is not 'float32', 'bfloat16' or 'float16'")
  return dtype


def is_finite(values: np.ndarray) -> bool:
  """Returns whether no value of a contiguous array is NaN or infinite."""
  if not values.size:
    return True
  unsigned, mask, limit = _BITS[values.dtype]
  return bool(np.bitwise_and(values.view(unsigned), unsigned(mask)).max() < limit)


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says about itself: every tensor, and where their bytes start."""

  entries: dict[str, Entry]  # ranges count from `start`
  start: int


def read_header(handle: int, path: str | os.PathLike[str]) -> Header:
  """Reads and checks the header of an open file; `path` is for messages.

  Raises:
    UserError: the file is truncated, too long, damaged, or holds what is no float.
  """
  status = os.fstat(handle)
  if not stat.S_ISREG(status.st_mode):
    raise UserError(f"{path} is no regular file: name a model with .safetensors files")
  prefix = os.pread(handle, 8, 0)
  length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
  if length is None or length > min(_MAX_HEADER_BYTES, status.st_size - 8):
    raise damaged(path, "its header is cut off")
  entries = {}
  for name, entry in _parse(os.pread(handle, length, 8), path).items():
    if name != "__metadata__":
      entries[name] = _entry(name, entry, path)
  _check_ranges(entries, 8 + length, status.st_size, path)
  return Header(entries, 8 + length)


def header_bytes(shapes: Plan, dtype: np.dtype) -> bytes:
  """Returns what stands before the tensors, which follow in the order of `shapes`."""
  header: dict[str, object] = {"__metadata__": {"format": "pt"}}
  offset = 0
  for name, shape in shapes.items():
    end = offset + math.prod(shape) * dtype.itemsize
    header[name] = {
      "dtype": NAMES[dtype],
      "shape": list(shape),
      "data_offsets": [offset, end],
    }
    offset = end
  text = json.dumps(header, separators=(",", ":")).encode("utf-8")
  text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
  return struct.pack("<Q", len(text)) + text


def parse_json(text: bytes) -> object:
  """Returns the JSON value in `text`; a repeated key is a ValueError that names it."""
  try:
    return json.loads(text.decode("utf-8"), object_pairs_hook=_once)
  except RecursionError:
    raise ValueError("it is nested too deeply") from None


def damaged(path: str | os.PathLike[str], why: str) -> UserError:
  """Returns the error for a file that is not what its header promises."""
  return UserError(
    f"{path} is no whole safetensors file: {why}; copy or download it again"
  )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
  found = dict(pairs)
  if len(found) < len(pairs):
    keys = [key for key, _ in pairs]
    raise ValueError(f"it names {next(k for k in keys if keys.count(k) > 1)!r} twice")
  return found


def _parse(text: bytes, path: str | os.PathLike[str]) -> dict[str, object]:
  try:
    header = parse_json(text)
  except ValueError as error:
    twice = str(error).startswith("it ")
    raise damaged(path, f"its header is no JSON{f': {error}' * twice}") from None
  if not isinstance(header, dict):
    raise damaged(path, "its header is no JSON object")
  return header


def _entry(name: str, entry: object, path: str | os.PathLike[str]) -> Entry:
  fields = entry if isinstance(entry, dict) else {}
  kind, shape = fields.get("dtype"), fields.get("shape")
  offsets = fields.get("data_offsets")
  if not (isinstance(kind, str) and _is_sizes(shape) and _is_sizes(offsets, 2)):
    raise damaged(path, f"tensor {name} has no dtype, shape or offsets")
  if kind not in DTYPES:
    raise UserError(
      f"{path}: tensor {name} has dtype {kind}, which is not one of "
      f"{', '.join(DTYPES)}: quantised weights are not supported, dequantise first"
    )
  begin, end = offsets
  if end - begin != math.prod(shape) * DTYPES[kind].itemsize:
    raise damaged(path, f"tensor {name} {list(shape)} has {end - begin} bytes")
  return DTYPES[kind], tuple(shape), begin, end


def _is_sizes(values: object, length: int | None = None) -> bool:
  if not isinstance(values, list) or length not in (None, len(values)):
    return False
  return all(type(value) is int and value >= 0 for value in values)


def _check_ranges(
  entries: Mapping[str, Entry], start: int, size: int, path: str | os.PathLike[str]
) -> None:
  reached = 0
  for begin, end in sorted((begin, end) for _, _, begin, end in entries.values()):
    if begin != reached:
      raise damaged(path, "its tensors overlap or leave gaps")
    reached = end
  if start + reached != size:
    raise damaged(path, f"it has {size} bytes where {start + reached} are expected")
