"""Reading safetensors files: which tensor is where, and its bytes on demand.

Bytes are read into buffers, not mapped: mapped pages would count as this process's
memory, and a file that shrinks under a map kills the process instead of raising.
"""

import errno
import math
import os
import pathlib
import threading
import weakref

import numpy as np

from msm_jax.errors import UserError
from msm_jax.hf import links, tensor_format

# What callers need of the neighbours, so that they have one door.
from msm_jax.hf.tensor_format import dtype_of as dtype_of
from msm_jax.hf.tensor_writer import INDEX_FILE as INDEX_FILE
from msm_jax.hf.tensor_writer import MAX_SHARD_BYTES as MAX_SHARD_BYTES
from msm_jax.hf.tensor_writer import SINGLE_FILE as SINGLE_FILE
from msm_jax.hf.tensor_writer import write_file as write_file
from msm_jax.hf.tensor_writer import write_files as write_files

PAGE = 4096  # bytes; the disk reads no less
Interval = tuple[int, int]  # from, to (excluded)


class TensorFile:
  """One safetensors file, checked as a whole when it is opened."""

  def __init__(self, path: str | os.PathLike[str]):
    """Reads the header.

    Raises:
      UserError: the file is missing, truncated, damaged, or holds what is no float.
    """
    self.file = pathlib.Path(path)
    self.num_bytes_read = 0
    self._lock = threading.Lock()
    try:
      # A pipe in the place of a file must not make the opening wait for a writer.
      self._handle = os.open(self.file, os.O_RDONLY | os.O_NONBLOCK)
      weakref.finalize(self, os.close, self._handle)
      header = tensor_format.read_header(self._handle, self.file)
    except OSError as error:
      raise self._unreadable(error) from None
    self.entries, self.start = header.entries, header.start

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
    """Returns a tensor, read into memory."""
    dtype, shape, _, _ = self.entries[name]
    values = np.empty((1, math.prod(shape)), dtype)
    self.read(name, values.shape[1], (0, 1), (0, values.shape[1]), values)
    return values.reshape(shape)

  def read(
    self,
    name: str,
    num_columns: int,
    rows: Interval,
    columns: Interval,
    out: np.ndarray,
  ) -> None:
    """Reads a part of a tensor, seen as a matrix with `num_columns`, into `out`.

    Args:
      name: of the tensor, [R * C] in any shape.
      num_columns: C.
      rows: within R.
      columns: within C.
      out: [rows, columns] of the tensor's dtype, each row contiguous. Columns that lie
        less than a page from the next row's are read through a whole block of rows.

    Raises:
      UserError: the disk fails, or the file was truncated meanwhile.
    """
    dtype, _, begin, _ = self.entries[name]
    width = columns[1] - columns[0]
    if not out.size:
      return
    first = self.start + begin + (rows[0] * num_columns + columns[0]) * dtype.itemsize
    step = num_columns * dtype.itemsize
    if (num_columns - width) * dtype.itemsize >= PAGE:
      for i in range(out.shape[0]):
        self._read_at(first + i * step, out[i])
    elif out.flags.c_contiguous and width == num_columns:
      self._read_at(first, out)
    else:
      block = np.empty(out.shape[0] * num_columns, dtype)
      count = block.size - num_columns + width
      self._read_at(first, block[:count])
      np.copyto(out, block.reshape(-1, num_columns)[:, :width])

  def _read_at(self, offset: int, out: np.ndarray) -> None:
    view = memoryview(out.reshape(-1).view(np.uint8))
    done = 0
    try:
      while done < len(view):
        count = os.preadv(self._handle, [view[done:]], offset + done)
        if not count:
          raise tensor_format.damaged(self.file, "it became shorter while it was read")
        done += count
    except OSError as error:
      raise self._unreadable(error) from None
    with self._lock:
      self.num_bytes_read += done

  def _unreadable(self, error: OSError) -> UserError:
    if error.errno == errno.ENOENT:
      return UserError(f"{self.file} is missing: name a directory that has it")
    return UserError(
      f"{self.file} cannot be read ({error.strerror}): mend the file or its permissions"
    )


class TensorFiles:
  """The tensors of a Hugging Face directory, whichever file each is in."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens `model.safetensors` or the files that the index names.

    Raises:
      UserError: no weights, only pickled ones, an index that does not fit its files, or
        files that lie outside the directory.
    """
    self.directory = pathlib.Path(directory)
    single, index = self.directory / SINGLE_FILE, self.directory / INDEX_FILE
    if not os.path.lexists(index) and not os.path.lexists(single):
      raise self._no_weights()
    if os.path.lexists(index):
      self.files = self._from_index(self._inside(index))
      if os.path.lexists(single) and SINGLE_FILE not in self._opened:
        raise UserError(
          f"{self.directory} holds {SINGLE_FILE} and an index of other files: it is "
          "not clear which are the weights; remove those that are not"
        )
    else:
      file = TensorFile(self._inside(single))
      self._opened = {SINGLE_FILE: file}
      self.files = {name: file for name in file.names()}

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
    """Returns a tensor, read into memory."""
    return self.files[name].tensor(name)

  def read(
    self,
    name: str,
    num_columns: int,
    rows: Interval,
    columns: Interval,
    out: np.ndarray,
  ) -> None:
    """Reads a part of a tensor into `out`; see `TensorFile.read`."""
    self.files[name].read(name, num_columns, rows, columns, out)

  @property
  def num_bytes_read(self) -> int:
    """Returns how many bytes of tensors were read so far."""
    return sum(file.num_bytes_read for file in self._opened.values())

  def _from_index(self, index: pathlib.Path) -> dict[str, TensorFile]:
    weight_map = _weight_map(index)
    for name in weight_map.values():
      self._check_plain(index, name)
    self._opened = {
      name: TensorFile(self._inside(self.directory / name, index))
      for name in sorted(set(weight_map.values()))
    }
    for tensor, name in weight_map.items():
      if tensor not in self._opened[name].entries:
        raise UserError(f"{index}: tensor {tensor} is not in {name}, which it names")
    for name, file in self._opened.items():
      extra = sorted(t for t in file.entries if weight_map.get(t) != name)
      if extra:
        raise UserError(f"{file.file}: tensor {extra[0]} is not in the index {index}")
    return {tensor: self._opened[name] for tensor, name in weight_map.items()}

  def _check_plain(self, index: pathlib.Path, name: object) -> None:
    plain = isinstance(name, str) and name == os.path.basename(name)
    if not plain or set(name) & {"\\", "\0"} or not name.endswith(".safetensors"):
      raise UserError(
        f"{index}: file {name!r} is not the plain name of a .safetensors file in this "
        "directory: it will not be opened"
      )

  def _inside(
    self, path: pathlib.Path, index: pathlib.Path | None = None
  ) -> pathlib.Path:
    """Returns `path` if it is there and lies in the directory, links followed."""
    if not path.exists():
      named = f", but {index} names it" if index else ": its link leads nowhere"
      raise UserError(f"{path} is missing{named}: download it again")
    return links.inside(path, self.directory)

  def _no_weights(self) -> UserError:
    pickled = sorted(
      path.name
      for pattern in ("*.bin", "*.pt", "*.pth", "*.bin.index.json")
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


def _weight_map(index: pathlib.Path) -> dict[str, object]:
  try:
    content = tensor_format.parse_json(index.read_bytes())
  except (OSError, ValueError) as error:
    raise UserError(
      f"{index} is no valid index ({error}): download the index again"
    ) from None
  weight_map = content.get("weight_map") if isinstance(content, dict) else None
  if not isinstance(weight_map, dict) or not weight_map:
    raise UserError(f"{index}: field weight_map is missing: download the index again")
  return weight_map
