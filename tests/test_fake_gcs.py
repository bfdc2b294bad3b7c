"""The fake of Google Cloud Storage, as gcsfs, TensorStore and Orbax see it."""

import base64
import hashlib
import http.client
import itertools
import json
import pathlib
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("google_crc32c")
import fake_gcs
import google_crc32c
import numpy as np
import tensorstore as ts
from etils import epath
from orbax.checkpoint import v1 as ocp


@pytest.fixture
def gcs():
  with fake_gcs.FakeGcs("bucket") as fake, fake.environment():
    yield fake


@pytest.fixture
def files(gcs):
  # Imported here: it reads the environment that fake_gcs prepares.
  core = pytest.importorskip("gcsfs.core")
  return core.GCSFileSystem(token="anon", use_listings_cache=False)


def store(prefix: str = "") -> ts.KvStore:
  return ts.KvStore.open(f"gs://bucket/{prefix}").result()


def ask(url: str, data: bytes | None = None, headers=None, method: str | None = None):
  """Returns the status, the headers and the body of an answer."""
  request = urllib.request.Request(url, data, headers or {}, method=method)
  try:
    with urllib.request.urlopen(request, timeout=5) as reply:
      return reply.status, reply.headers, reply.read()
  except urllib.error.HTTPError as error:
    with error:
      return error.code, error.headers, error.read()


def test_gcsfs_writes_reads_lists_and_deletes(gcs, files, tmp_path):
  tree = {f"d/{i // 3}/f {i}%.bin": bytes([i]) * (i * 1000) for i in range(8)}
  for name, data in tree.items():
    files.pipe_file(f"bucket/{name}", data)
  assert {name: gcs.get("bucket", name) for name in gcs.store.names("bucket")} == tree
  assert files.find("bucket/d") == sorted(f"bucket/{name}" for name in tree)
  assert files.ls("bucket/d", detail=False) == [f"bucket/d/{i}" for i in range(3)]
  assert files.cat_file("bucket/d/2/f 7%.bin", start=5, end=9) == bytes([7]) * 4
  files.get("bucket/d", str(tmp_path / "d"), recursive=True)
  assert (tmp_path / "d/1/f 4%.bin").read_bytes() == tree["d/1/f 4%.bin"]
  files.mv("bucket/d/0", "bucket/e", recursive=True)
  files.rm("bucket/d", recursive=True)
  assert gcs.store.names("bucket") == [f"e/f {i}%.bin" for i in range(3)]


def test_gcsfs_uploads_in_parts(gcs, files):
  data = np.random.default_rng(0).bytes(3 * fake_gcs.CHUNK + 17)
  with files.open("bucket/big", "wb", block_size=fake_gcs.CHUNK) as f:
    for start in range(0, len(data), 100_000):
      f.write(data[start : start + 100_000])
  assert gcs.get("bucket", "big") == data
  assert sum("upload_id" in call for call in gcs.calls) >= 3


def test_tensorstore_writes_reads_lists_and_deletes(gcs):
  kv = store("a/")
  for i in range(12):
    kv.write(f"{i:02d}/x y", bytes([i]) * 100).result()
  assert kv.read("07/x y").result().value == bytes([7]) * 100
  assert kv.read("nothing").result().state == "missing"
  listed = kv.list(ts.KvStore.KeyRange("03", "06")).result()
  assert listed == [f"{i:02d}/x y".encode() for i in (3, 4, 5)]
  kv.delete_range(ts.KvStore.KeyRange("02", "99")).result()
  assert gcs.store.names("bucket") == ["a/00/x y", "a/01/x y"]


def test_tensorstore_writes_only_what_nobody_changed(gcs):
  kv = store()
  generation = kv.write("k", b"1").result().generation
  gcs.put("bucket", "k", b"2")
  kv.write("k", b"3", if_equal=generation).result()
  assert gcs.get("bucket", "k") == b"2"
  kv.write("k", b"4", if_equal=kv.read("k").result().stamp.generation).result()
  assert gcs.get("bucket", "k") == b"4"


@pytest.mark.parametrize("driver", ["zarr3", "zarr"])
def test_tensorstore_holds_arrays_there(gcs, driver):
  array = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
  base = {"driver": "ocdbt", "base": "gs://bucket/arrays/"}
  spec = {"driver": driver, "kvstore": {**base, "path": "x/"}}
  layout = ts.ChunkLayout(chunk_shape=[16, 48])
  as_is = {"dtype": ts.float32, "shape": array.shape, "chunk_layout": layout}
  ts.open(spec, create=True, **as_is).result().write(array).result()
  read = ts.open(spec).result()[8:40, 5:].read().result()
  np.testing.assert_array_equal(read, array[8:40, 5:])


def test_orbax_saves_and_restores_there(gcs):
  pytest.importorskip("gcsfs")
  path = epath.Path("gs://bucket/run/checkpoints/3")
  tree = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "n": np.array([7])}
  ocp.save(path, tree)
  found = ocp.load(path)
  np.testing.assert_array_equal(found["w"], tree["w"])
  assert found["n"] == 7
  ocp.save(path, {"n": np.array([8])}, overwrite=True)
  assert ocp.load(path)["n"] == 8


def test_media_come_whole_or_in_part_with_their_checksums(gcs):
  gcs.put("bucket", "a/b", b"0123456789")
  at = f"{gcs.url}/storage/v1/b/bucket/o/a%2Fb?alt=media"
  status, headers, body = ask(at)
  md5 = base64.b64encode(hashlib.md5(b"0123456789").digest()).decode()
  crc32c = base64.b64encode(google_crc32c.Checksum(b"0123456789").digest()).decode()
  assert (status, body) == (200, b"0123456789")
  assert headers["X-Goog-Hash"] == f"crc32c={crc32c},md5={md5}"
  for asked, wanted in [
    ("2-4", b"234"),
    ("7-", b"789"),
    ("-2", b"89"),
    ("5-99", b"56789"),
  ]:
    assert ask(at, headers={"Range": f"bytes={asked}"})[::2] == (206, wanted)
  assert ask(at, headers={"Range": "bytes=10-"})[0] == 416


def test_preconditions_hold_for_what_is_there_now(gcs):
  gcs.put("bucket", "k", b"1")
  generation = gcs.store.read("bucket", "k", {}).generation
  at = f"{gcs.url}/storage/v1/b/bucket/o/k"
  up = f"{gcs.url}/upload/storage/v1/b/bucket/o"
  assert ask(f"{at}?ifGenerationMatch={generation}")[0] == 200
  assert ask(f"{at}?ifGenerationMatch={generation + 1}")[0] == 412
  assert ask(f"{at}?ifGenerationNotMatch={generation}")[0] == 304
  assert ask(f"{at}?generation={generation - 1}")[0] == 404
  assert ask(f"{at}?ifMetagenerationMatch=1", b"{}", method="PATCH")[0] == 200
  assert ask(f"{at}?ifMetagenerationMatch=1", b"{}", method="PATCH")[0] == 412
  for kind in ("media", "resumable"):
    assert ask(f"{up}?uploadType={kind}&name=k&ifGenerationMatch=0", b"{}")[0] == 412
  up = f"{up}?uploadType=media&name=k&ifGenerationMatch={generation}"
  assert [ask(up, b"2")[0] for _ in range(2)] == [200, 412]
  assert ask(f"{at}?ifGenerationMatch={generation}", method="DELETE")[0] == 412
  assert [ask(at, method="DELETE")[0] for _ in range(2)] == [204, 404]


@pytest.mark.parametrize("seed", range(4))
def test_pages_of_a_listing_are_the_listing(gcs, seed):
  rng = random.Random(seed)
  names = {"".join(rng.choices("ab/", k=rng.randint(1, 6))) for _ in range(40)}
  for name in names:
    gcs.put("bucket", name, b"")
  for prefix, delimiter in itertools.product(("", "a", "a/", "b/a"), ("", "/")):
    tails = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    folded = {t.partition("/")[0] + "/" for t in tails if delimiter and "/" in t}
    plain = [t for t in tails if not delimiter or "/" not in t]
    query = {"prefix": prefix, "delimiter": delimiter, "maxResults": "3"}
    items, prefixes, token, pages = [], [], "", 0
    while token is not None:
      page = gcs.store.list("bucket", {**query, "pageToken": token})
      items += [each.name for each in page[0]]
      prefixes += page[1]
      token, pages = page[2], pages + 1
    assert items == sorted(prefix + t for t in plain)
    assert prefixes == sorted(prefix + t for t in folded)
    assert pages == max(-(-len(items + prefixes) // 3), 1)


def test_parts_of_an_upload_that_were_cut_short_are_asked_for_again(gcs):
  data = bytes(range(256)) * 4096
  gcs.faults = fake_gcs.plan([["upload_id", [1], "short"]])
  begin = f"{gcs.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=k"
  at = ask(begin, b"{}")[1]["Location"]
  head = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
  status, headers, _ = ask(at, data, head, "PUT")
  assert (status, headers["Range"]) == (308, f"bytes=0-{len(data) // 2 - 1}")
  status, headers, _ = ask(at, b"", {"Content-Range": f"bytes */{len(data)}"}, "PUT")
  assert (status, headers["Range"]) == (308, f"bytes=0-{len(data) // 2 - 1}")
  rest = data[len(data) // 2 :]
  head = {"Content-Range": f"bytes {len(data) // 2}-{len(data) - 1}/{len(data)}"}
  assert ask(at, rest, head, "PUT")[0] == 200
  assert gcs.get("bucket", "k") == data


def test_objects_are_composed_copied_and_moved(gcs):
  gcs.put("bucket", "a", b"1")
  gcs.put("bucket", "b", b"2")
  at = f"{gcs.url}/storage/v1/b/bucket/o"
  sources = {"sourceObjects": [{"name": "a"}, {"name": "b"}]}
  made = json.loads(ask(f"{at}/c/compose", json.dumps(sources).encode())[2])
  assert gcs.get("bucket", "c") == b"12" and "md5Hash" not in made
  assert ask(f"{at}/c/rewriteTo/b/bucket/o/d", b"")[0] == 200
  assert ask(f"{at}/c/moveTo/o/e", b"")[0] == 200
  assert gcs.store.names("bucket") == ["a", "b", "d", "e"]
  assert gcs.get("bucket", "d") == gcs.get("bucket", "e") == b"12"


def test_what_befalls_a_request_is_what_was_planned(gcs):
  gcs.put("bucket", "k", b"0123456789")
  at = f"{gcs.url}/storage/v1/b/bucket/o/k?alt=media"
  up = f"{gcs.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=k"
  gcs.faults = fake_gcs.plan([["GET", [1], "503"], ["GET", [1], "429"]])
  assert [ask(at)[0] for _ in range(3)] == [503, 429, 200]
  gcs.faults = fake_gcs.plan([["GET", [], "reset"]])
  with pytest.raises(OSError):
    ask(at)
  gcs.faults = fake_gcs.plan([["GET", [], "truncate"]])
  with pytest.raises(http.client.IncompleteRead):
    ask(at)
  gcs.faults = fake_gcs.plan([["GET", [], "corrupt"], ["POST", [1], "corrupt"]])
  assert ask(at)[2] == b"0123456788"
  assert ask(up, b"22")[0] == 200 and gcs.get("bucket", "k") == b"23"
  gcs.faults = fake_gcs.plan([["POST", [1], "lost"]])
  with pytest.raises(OSError):
    ask(up, b"33")
  assert gcs.get("bucket", "k") == b"33"
  gcs.outage(0.2)
  with pytest.raises(OSError):
    ask(at)
  time.sleep(0.2)
  assert ask(at)[0] == 200


def test_no_token_and_no_access_are_refused(gcs):
  gcs.put("bucket", "k", b"1")
  gcs.token, gcs.denied = "secret", {"bucket"}
  root, known = f"{gcs.url}/storage/v1/b", {"Authorization": "Bearer secret"}
  assert ask(f"{root}/bucket/o/k")[0] == 401
  assert ask(f"{root}/bucket/o/k", headers=known)[0] == 403
  assert ask(f"{root}/other/o", headers=known)[0] == 404


def test_it_runs_as_a_process_until_its_input_ends():
  command = [sys.executable, str(pathlib.Path(fake_gcs.__file__)), "--bucket=b"]
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    lines = iter(process.stdout.readline, "\n")
    given = dict(line.strip().split("=", 1) for line in lines)
    url = given["STORAGE_EMULATOR_HOST"]
    rules = json.dumps([["GET", [1], "503"]]).encode()
    assert ask(f"{url}/fake/faults", rules, method="PUT")[0] == 200
    assert [ask(f"{url}/storage/v1/b/b")[0] for _ in range(2)] == [503, 200]
    process.stdin.close()
    assert process.wait(10) == 0
