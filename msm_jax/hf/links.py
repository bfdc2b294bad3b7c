"""Links in a directory that somebody else made: where they may lead."""

import pathlib

from msm_jax.errors import UserError


def inside(path: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
  """Returns `path`, which exists, if it lies in `directory`, links followed.

  Links into the blobs of a Hugging Face cache are what its snapshots are made of.

  Raises:
    UserError: it leads elsewhere, say to a private file that a copy would publish.
  """
  home, real = directory.resolve(), path.resolve()
  cached = real.parent.name == "blobs" and real.parent.parent in home.parents
  if not real.is_relative_to(home) and not cached:
    raise UserError(
      f"{path} is a link to {real}, outside its directory: it will not be opened; "
      "name the directory that holds the file, or copy it"
    )
  return path
