"""The code of a job: what git would commit, the same for the same files."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from msm_jax.errors import UserError
from tpu.archive import pack
from tpu.shell import Shell

if shutil.which("git") is None:
  pytest.skip("git is not installed", allow_module_level=True)


@pytest.fixture
def clone(tmp_path):
  subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
  (tmp_path / ".gitignore").write_text("*.secret\nruns/\n")
  (tmp_path / "run.sh").write_text("echo hello\n")
  (tmp_path / "run.sh").chmod(0o755)
  (tmp_path / "old.py").write_text("old = 1\n")
  subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
  (tmp_path / "old.py").unlink()  # not committed, but gone
  (tmp_path / "new file.py").write_text("new = 1\n")  # not committed, but there
  (tmp_path / "key.secret").write_text("k")
  (tmp_path / "link").symlink_to("run.sh")
  return tmp_path


def opened(archive):
  return tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive.data)))


def test_what_git_would_commit_is_packed_and_nothing_else(clone):
  archive = pack(Shell(), clone)
  assert archive.names == {".gitignore", "link", "new file.py", "run.sh"}
  with opened(archive) as tar:
    assert set(tar.getnames()) == archive.names
    assert tar.getmember("run.sh").mode == 0o755
    assert tar.getmember("new file.py").mode == 0o644
    assert tar.getmember("link").linkname == "run.sh"
    assert tar.extractfile("new file.py").read() == b"new = 1\n"


def test_the_same_files_are_the_same_archive_at_another_time(clone):
  before = pack(Shell(), clone)
  os.utime(clone / "run.sh", (1, 1))
  subprocess.run(["git", "-C", clone, "add", "."], check=True)
  assert pack(Shell(), clone) == before


def test_another_content_is_another_name(clone):
  before = pack(Shell(), clone)
  (clone / "run.sh").write_text("echo bye\n")
  after = pack(Shell(), clone)
  assert after.sha != before.sha and after.file == f"{after.sha}.tar.gz"
  assert after.save(clone).read_bytes() == after.data


def test_data_that_git_does_not_ignore_is_not_sent(clone):
  with open(clone / "big.bin", "wb") as file:
    file.truncate(65 << 20)
  with pytest.raises(UserError, match=r"64 MiB .* \(at big.bin\): add what is no code"):
    pack(Shell(), clone)


def test_a_private_key_is_not_sent(clone):
  (clone / "key.json").write_text('{"k": "-----BEGIN PRIVATE KEY' + '-----\\nMII"}')
  with pytest.raises(UserError, match=r"^key.json holds a private key, .*\.gitignore"):
    pack(Shell(), clone)
  (clone / ".gitignore").write_text("*.secret\nruns/\nkey.json\n")
  assert "key.json" not in pack(Shell(), clone).names


def test_a_folder_without_git_is_refused(tmp_path):
  with pytest.raises(UserError, match="is no git repository"):
    pack(Shell(), tmp_path)


def test_a_dry_run_packs_nothing(tmp_path):
  assert pack(Shell(dry_run=True), tmp_path).sha == "CODE"
