"""The code of a job: one archive of what git would commit, the same for the same files.

Tracked files as they are now, and untracked ones that git does not ignore; so what is
tried out need not be committed. Times and owners are left out, so that the hash names
the content alone.
"""

import dataclasses
import gzip
import hashlib
import io
import pathlib
import stat
import tarfile

from msm_jax.errors import UserError
from tpu.shell import Failed, Shell

ROOT = pathlib.Path(__file__).parent.parent  # of the repository
_MAX_BYTES = 64 << 20
_PRIVATE = b"PRIVATE KEY" + b"-----"  # PEM, and keys of service accounts
_LIST = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
  """What is pushed.

  Attributes:
    sha: 12 hexadecimal digits of the content's hash.
    data: a compressed tar; empty in a dry run.
    names: of its files.
  """

  sha: str
  data: bytes = dataclasses.field(repr=False)
  names: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)

  @property
  def file(self) -> str:
    """Returns its name in the bucket."""
    return f"{self.sha}.tar.gz"

  def save(self, folder: pathlib.Path) -> pathlib.Path:
    """Writes the archive, for tools that upload files."""
    path = folder / self.file
    path.write_bytes(self.data)
    return path


def pack(shell: Shell, root: pathlib.Path = ROOT) -> Archive:
  """Returns the archive of a working tree; a placeholder in a dry run.

  Raises:
    UserError: git is not there, `root` is no working tree of it, there are more than
      64 MiB, or a private key is among them.
  """
  if shell.dry_run:
    return Archive(sha="CODE", data=b"")
  names = _names(shell, root)
  tar = io.BytesIO()
  with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
    for name in names:
      size = (root / name).lstat().st_size  # before it is read: it may be huge
      if tar.tell() + size > _MAX_BYTES:
        raise UserError(
          f"{root}: more than {_MAX_BYTES >> 20} MiB of files that git does not ignore "
          f"(at {name}): add what is no code to .gitignore"
        )
      _add(archive, root / name, name)
  data = tar.getvalue()
  sha = hashlib.sha256(data).hexdigest()[:12]
  packed = gzip.compress(data, compresslevel=2, mtime=0)
  return Archive(sha=sha, data=packed, names=frozenset(names))


def _names(shell: Shell, root: pathlib.Path) -> list[str]:
  try:
    listed = shell.ask([*_LIST[:1], "-C", str(root), *_LIST[1:]])
  except Failed as error:
    raise UserError(
      f"{root} is no git repository ({error.said.strip()}): run from a clone, "
      "or `git init` and `git add` the code"
    ) from None
  # Deleted, but not yet from the index; or submodules, which are folders.
  found = {name for name in listed.split("\0") if name}
  return sorted(n for n in found if (root / n).is_symlink() or (root / n).is_file())


def _add(archive: tarfile.TarFile, path: pathlib.Path, name: str) -> None:
  info = tarfile.TarInfo(name)
  if path.is_symlink():
    info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    return archive.addfile(info)
  data = path.read_bytes()
  if _PRIVATE in data:
    raise UserError(
      f"{name} holds a private key, and would be sent with the code: move it "
      "elsewhere, or add it to .gitignore"
    )
  info.size = len(data)
  info.mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
  return archive.addfile(info, io.BytesIO(data))
