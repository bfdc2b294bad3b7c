"""What is read from and written to a bucket: the cache, and whole exports."""

import gzip
import pathlib
import random
import subprocess
import sys
import time

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs

pytest.importorskip("gcsfs")
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import bucket, cache, inputs, outputs

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def gcs(monkeypatch, tmp_path):
  monkeypatch.setenv("MSM_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "0.5")
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake
  inputs.forget()


def media(gcs) -> list[str]:
  """Returns the names of the objects that were downloaded since last asked."""
  found = [call.split("/o/")[1].split("?")[0] for call in gcs.calls if "alt=m" in call]
  gcs.calls.clear()
  return sorted(found)


def files_of(directory: pathlib.Path) -> dict[str, bytes]:
  files = (path for path in directory.rglob("*") if path.is_file())
  return {f.relative_to(directory).as_posix(): f.read_bytes() for f in files}


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_follows_the_bucket_and_downloads_what_changed(gcs, seed):
  rng = random.Random(seed)
  there: dict[str, bytes] = {}
  for _ in range(4):
    changed = {f"{rng.choice(['', 'a/', 'a/b/'])}{rng.randrange(9)}" for _ in range(5)}
    for name in changed:
      there[name] = rng.randbytes(rng.choice([0, 1, 5000]))
      gcs.put("bucket", f"d/{name}", there[name])
    for name in rng.sample(sorted(there), 1):
      del there[name]
      changed.discard(name)
      gcs.store.delete("bucket", f"d/{name}", {})
    inputs.forget()
    copy = inputs.local("gs://bucket/d/", "--x")
    assert copy.name == "d" and files_of(copy) == there
    wanted = sorted(f"d%2F{n.replace('/', '%2F')}" for n in changed if there[n])
    assert media(gcs) == wanted
    inputs.forget()
    assert inputs.local("gs://bucket/d", "--x") == copy
    assert media(gcs) == []
  assert len(list((cache.directory() / "gs").glob("*/*/index.json"))) == 1


def test_a_process_sees_one_version_from_beginning_to_end(gcs):
  gcs.put("bucket", "f.txt", b"1")
  first = inputs.local("gs://bucket/f.txt", "--x")
  gcs.put("bucket", "f.txt", b"2")
  assert inputs.local("gs://bucket/f.txt", "--x") == first
  other = run(
    "from msm_jax.storage import inputs; print(inputs.local('gs://bucket/f.txt', 'x'))"
  )
  second = pathlib.Path(other.communicate(timeout=300)[0].strip())
  assert (first.name, first.read_bytes()) == ("f.txt", b"1")  # it is still in use
  assert (second.name, second.read_bytes()) == ("f.txt", b"2")


def run(code: str) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )


def test_processes_that_need_the_same_download_it_once(gcs):
  tree = {f"{i}/f": bytes([i]) * 1000 for i in range(8)}
  for name, data in tree.items():
    gcs.put("bucket", f"d/{name}", data)
  gcs.faults = lambda call, n: "slow 0.1"
  code = "from msm_jax.storage import inputs; print(inputs.local('gs://bucket/d', 'x'))"
  processes = [run(code) for _ in range(3)]
  places = {process.communicate(timeout=300)[0].strip() for process in processes}
  assert [process.returncode for process in processes] == [0, 0, 0]
  (place,) = places
  assert files_of(pathlib.Path(place)) == tree
  assert len(media(gcs)) == len(tree)


def test_a_download_goes_on_where_it_was_interrupted(gcs):
  for i in range(10):
    gcs.put("bucket", f"d/{i}", bytes([i]) * 100)
  gcs.faults = fake_gcs.plan([["%2F[5-9].*alt=media", [], "403"]])
  with pytest.raises(UserError, match="access refused"):
    inputs.local("gs://bucket/d", "--x")
  got = {name for name in media(gcs) if int(name[-1]) < 5}
  gcs.faults = lambda call, n: ""
  assert len(files_of(inputs.local("gs://bucket/d", "--x"))) == 10
  again = set(media(gcs))
  assert not again & got and {f"d%2F{i}" for i in range(5, 10)} <= again


def test_what_a_killed_download_left_goes(gcs):
  gcs.put("bucket", "d/a", bytes(100))
  gcs.faults = fake_gcs.plan([["alt=media", [], "slow 100"]])
  process = run(
    "from msm_jax.storage import inputs as i; i.local('gs://bucket/d', 'x')"
  )
  while not any(cache.directory().rglob(".new/*")):
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  process.communicate()
  gcs.faults = lambda call, n: ""
  copy = inputs.local("gs://bucket/d", "--x")
  found = [path.name for path in copy.parent.rglob("*")]
  assert sorted(found) == ["a", "d", "index.json"]


def test_a_file_that_was_cut_short_here_is_noticed(gcs):
  for name in "ab":
    gcs.put("bucket", f"d/{name}", b"0123456789")
  copy = inputs.local("gs://bucket/d", "--x")
  (copy / "a").write_bytes(b"01234")
  inputs.forget()
  media(gcs)
  assert (inputs.local("gs://bucket/d", "--x") / "a").read_bytes() == b"0123456789"
  assert media(gcs) == ["d%2Fa"]


def test_no_room_is_told_before_anything_is_downloaded(gcs):
  gcs.put("bucket", "f", b"1")
  huge = {"": bucket.Entry(10**18, "", 1)}
  with pytest.raises(UserError, match="MSM_JAX_CACHE"):
    cache.fetch("gs://bucket/f", "f", huge, "")
  assert media(gcs) == []


def test_what_is_stored_compressed_is_refused_with_the_way_out(gcs):
  data = gzip.compress(b'{"text": "a"}\n' * 1000)
  gcs.put("bucket", "d/a.jsonl", data, content_encoding="gzip")
  gcs.put("bucket", "d/b.jsonl.gz", data)
  told = (
    r"d/a\.jsonl is stored compressed \(Content-Encoding: gzip\).*gcloud storage cp"
  )
  with pytest.raises(UserError, match=told):
    inputs.local("gs://bucket/d", "--x")
  with pytest.raises(UserError, match=told):
    bucket.read_bytes("gs://bucket/d/a.jsonl")
  assert inputs.local("gs://bucket/d/b.jsonl.gz", "--x").read_bytes() == data


def test_a_glob_downloads_what_it_matches(gcs):
  names = ["d/a.jsonl", "d/b.json", "d/s/c.jsonl", "d/s/t/e.jsonl", "e/a.jsonl"]
  for name in [*names, "d/x[1].jsonl"]:
    gcs.put("bucket", name, b"{}")

  def found(pattern: str) -> list[str]:
    path = inputs.matching(f"gs://bucket/{pattern}", "--x")
    root = next(up for up in path.parents if up.exists())
    below = path.relative_to(root).as_posix()
    got = sorted(p.relative_to(root).as_posix() for p in root.glob(below))
    assert got == sorted(files_of(root))
    return got

  assert found("d/*.jsonl") == ["a.jsonl", "x[1].jsonl"]
  assert found("d/**/*.jsonl") == ["a.jsonl", "s/c.jsonl", "s/t/e.jsonl", "x[1].jsonl"]
  assert found("d/s/?.jsonl") == ["c.jsonl"]
  assert found("*/a.jsonl") == ["d/a.jsonl", "e/a.jsonl"]
  assert inputs.matching("gs://bucket/d/x[1].jsonl", "--x").read_bytes() == b"{}"
  with pytest.raises(UserError, match=r"config\.x: gs://bucket/d"):
    inputs.matching("gs://bucket/d/*.parquet", "config.x")


def test_of_a_model_comes_what_is_read_and_weights_when_they_are(gcs):
  small = ["config.json", "tokenizer.json", "additional_chat_templates/t.jinja"]
  weights = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
  others = ["pytorch_model.bin", "onnx/model.onnx", "original/consolidated.00.pth"]
  for name in [*small, *weights, *others, "model.gguf"]:
    gcs.put("bucket", f"m/{name}", b"1")
  first = inputs.model_dir("gs://bucket/m", "--x", weights=False)
  assert sorted(files_of(first)) == sorted(small)
  whole = inputs.model_dir("gs://bucket/m", "--x")
  assert sorted(files_of(whole)) == sorted([*small, *weights])
  assert first.name == whole.name == "m"


@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("gs://bucket/none", "config.x: gs://bucket/none does not exist"),
    ("gs://other/x", "config.x: gs://other/x: there is no such bucket"),
    ("gs://bucket/none/*.json", "config.x: gs://bucket/none does not exist"),
    ("s3://bucket/x", "only local paths and gs://BUCKET/NAME"),
  ],
)
def test_what_is_not_there_is_named_with_its_field(gcs, path, message):
  with pytest.raises(UserError, match=message) as error:
    inputs.matching(path, "config.x")
  assert "\n" not in str(error.value)


def test_local_paths_stay_as_they_are(tmp_path):
  assert inputs.local(tmp_path / "x", "--x") == tmp_path / "x"
  assert inputs.local("~/x", "--x") == pathlib.Path("~/x").expanduser()
  with outputs.place("a/b", "--out") as path:
    assert path == pathlib.Path("a/b")


def write(path: pathlib.Path) -> dict[str, bytes]:
  names = ["config.json", "a.safetensors", "README.md", "z/last.txt"]
  tree = {name: name.encode() * 100 for name in names}
  for name, data in tree.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
  return tree


def test_an_export_is_there_when_it_is_whole(gcs, monkeypatch):
  with outputs.place("gs://bucket/e/out", "--out") as path:
    assert path.name == "out"
    tree = write(path)
    assert gcs.store.names("bucket") == []
  assert files_of(inputs.local("gs://bucket/e/out", "--x")) == tree
  made = sorted(gcs.store.buckets["bucket"].values(), key=lambda o: o.generation)
  assert [o.name for o in made][-2:] == ["e/out/README.md", "e/out/config.json"]
  assert not path.exists()
  with (
    pytest.raises(UserError, match="--out=gs://bucket/e/out exists already"),
    outputs.place("gs://bucket/e/out", "--out"),
  ):
    pass
  with outputs.place("gs://bucket/f.npy", "--logits_out", new=False) as path:
    path.write_bytes(b"1")
  assert gcs.get("bucket", "f.npy") == b"1"


def test_of_two_exports_to_one_place_the_second_is_refused(gcs):
  told = r"--out=gs://bucket/out was written by somebody else meanwhile: name a new"
  with (
    pytest.raises(UserError, match=told),
    outputs.place("gs://bucket/out", "--out") as path,
  ):
    write(path)
    gcs.put("bucket", "out/a.safetensors", b"theirs")
  assert gcs.get("bucket", "out/a.safetensors") == b"theirs"
  assert "out/config.json" not in gcs.store.names("bucket")


def test_what_fails_before_its_end_uploads_nothing(gcs):
  with pytest.raises(RuntimeError), outputs.place("gs://bucket/out", "--out") as path:
    write(path)
    raise RuntimeError
  assert gcs.store.names("bucket") == []
  assert not path.exists()


@pytest.mark.parametrize("fault", ["403", "503"])
def test_an_upload_that_fails_keeps_the_copy_and_says_where(gcs, fault):
  gcs.faults = fake_gcs.plan([["POST /upload", [3], fault], ["POST /up", [], fault]])
  error = UserError if fault == "403" else Stopped
  with pytest.raises(error) as told, outputs.place("gs://bucket/out", "--out") as path:
    tree = write(path)
  assert f"kept in {path}: gcloud storage cp -r {path}" in str(told.value)
  assert files_of(path) == tree
  assert "out/config.json" not in gcs.store.names("bucket")
  gcs.faults = lambda call, n: ""
  for name in gcs.store.names("bucket"):
    bucket.delete(f"gs://bucket/{name}")
  with outputs.place("gs://bucket/out", "--out") as path:
    assert not path.exists()
    write(path)
  assert "out/config.json" in gcs.store.names("bucket")


def test_only_the_process_that_writes_uploads(gcs):
  with outputs.place("gs://bucket/out", "--out", writes=False) as path:
    assert not path.exists()
  assert gcs.store.names("bucket") == []


def test_local_work_imports_neither_gcsfs_nor_fsspec_on_our_account():
  code = """if True:
    import sys
    from msm_jax.storage import bucket, inputs, outputs
    assert not bucket.is_remote("a/b")
    assert inputs.local("a/b", "x").name == "b"
    with outputs.place("a/b", "--out") as path:
      assert path.name == "b"
    assert not {"gcsfs", "fsspec", "aiohttp", "google_crc32c"} & set(sys.modules)
  """
  subprocess.run([sys.executable, "-c", code], check=True)
