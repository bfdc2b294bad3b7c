"""What `show` says of a corpus and its shards when it is asked more closely."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_launch import ROOT, launch

from msm_jax import exits, packing, records, show, show_corpus, tokenizer
from msm_jax.errors import UserError
from msm_jax.packing import Piece

NUM_RECORDS = 25


@pytest.fixture
def corpus(tmp_path):
  rows = [
    {
      "kind": "document",
      "id": f"{'ab' if i < 2 else 'c'}{i:03}",
      "text": f"text number {i}" + " more" * i,
      "domain": f"domain {i % 3}",
      "teacher": {"client": "offline", "model": "tiny", "model_version": "tiny@1"},
    }
    for i in range(NUM_RECORDS)
  ]
  rejects = [{"id": "r1", "reason": "near duplicate of ab000 (0.90)", "text": "lost"}]
  lines = "".join(json.dumps(row) + "\n" for row in rejects)
  records.write_dataset(
    tmp_path / "docs",
    rows,
    manifest={"name": "docs", "hashes": {"spec": "5pec", "source": None}},
    records_per_shard=10,
    extra_files={"rejects.jsonl": lines.encode()},
  )
  return tmp_path / "docs"


def test_a_draw_is_the_same_each_time_and_in_order(corpus):
  lines = list(show_corpus.sample(corpus, limit=5, seed=0))
  numbers = [int(line.split()[1]) for line in lines if line.startswith("---")]
  assert len(numbers) == 5 and numbers == sorted(numbers)
  assert lines == list(show_corpus.sample(corpus, limit=5, seed=0))
  assert lines != list(show_corpus.sample(corpus, limit=5, seed=1))
  everything = list(show_corpus.sample(corpus, limit=99, seed=0))
  assert sum(line.startswith("---") for line in everything) == NUM_RECORDS


@pytest.mark.parametrize("which", ["13", "c013"])
def test_a_record_is_found_by_number_and_by_id_with_its_provenance(corpus, which):
  text = "\n".join(show_corpus.row(corpus, which))
  assert "record 13 of 25, in data-00001-of-00003.array_record" in text
  assert "tiny@1" in text and "text number 13" in text
  assert "sha256 of spec" in text and "5pec" in text and "source" not in text


def test_the_beginning_of_an_id_is_enough_if_it_is_one(corpus):
  assert "text number 24" in "\n".join(show_corpus.row(corpus, "c024"))
  with pytest.raises(UserError, match=r"several ids begin like that \(ab000, ab001\)"):
    list(show_corpus.row(corpus, "ab"))


def test_a_reject_is_shown_with_its_reason_and_nothing_is_an_error(corpus):
  lines = list(show_corpus.row(corpus, "r1"))
  assert lines[0] == "rejected: near duplicate of ab000 (0.90)" and "lost" in lines
  with pytest.raises(UserError, match="--row=999: neither a record nor a reject"):
    list(show_corpus.row(corpus, "999"))


def test_the_figures_are_those_of_the_records(corpus):
  text = "\n".join(show_corpus.stats(corpus))
  words = [3 + i for i in range(NUM_RECORDS)]
  assert f"25 records, {sum(words)} words" in text
  assert "least 3, median 15, mean 15.0, most 27" in text
  assert "domain: 3" in text and "9  domain 0" in text
  assert "offline: tiny@1" in text and "1  near duplicate" in text
  shard = corpus / "data-00002-of-00003.array_record"
  assert "5 records" in "\n".join(show_corpus.stats(shard))


def test_words_are_counted_as_in_the_manifest_whatever_the_script(tmp_path):
  chinese = "\u5976\u916a\u5f88\u597d\uff0c\u6211\u4eec\u90fd\u559c\u6b22\u3002"
  rows = [
    {"kind": "document", "id": "d", "text": chinese},
    {"kind": "conversation", "id": "c", "messages": [
      {"role": "user", "content": "Brie or Colby?"},
      {"role": "assistant", "content": "Colby.", "reasoning_content": "It is cheap."},
    ]},
    {"kind": "pair", "id": "p", "messages": [{"role": "user", "content": "A or B?"}],
     "options": [{"text": "A", "american": True}, {"text": "B", "american": False}]},
  ]  # fmt: skip
  records.write_dataset(tmp_path / "docs", rows, manifest={})
  assert "3 records, 16 words" in list(show_corpus.stats(tmp_path / "docs"))


def test_what_a_judge_denied_and_what_it_left_open_are_counted_apart(tmp_path):
  reasons = ["judge: no: price", "judge: no: too long", "judge: unparsed: blocked"]
  lines = "".join(json.dumps({"id": r, "reason": r}) + "\n" for r in reasons)
  files = {"rejects.jsonl": lines.encode()}
  records.write_dataset(tmp_path / "docs", [], manifest={}, extra_files=files)
  found = list(show_corpus.stats(tmp_path / "docs"))
  assert "         2  judge: no" in found and "         1  judge: unparsed" in found


def test_a_whole_corpus_is_verified_and_so_is_a_shard(corpus):
  lines = list(show_corpus.verify(corpus))
  assert len(lines) == 4 and lines[-1] == "verified: 3 shards, 25 records"
  shard = corpus / "data-00001-of-00003.array_record"
  assert list(show_corpus.verify(shard))[-1] == "verified: 1 shards, 10 records"


def damage(corpus, how):
  first = corpus / "data-00000-of-00003.array_record"
  if how == "changed":
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
  elif how == "missing":
    first.unlink()
  elif how == "stray":
    shutil.copy(first, corpus / "data-00009-of-00003.array_record")
  else:
    manifest = records.read_json(corpus / records.MANIFEST)
    records.write_json(corpus / records.MANIFEST, {**manifest, "num_records": 7})


@pytest.mark.parametrize(
  ("how", "message"),
  [
    ("changed", "data-00000-of-00003.array_record is truncated or was changed"),
    ("missing", "data-00000-of-00003.array_record is missing"),
    ("stray", "data-00009-of-00003.array_record is not listed"),
    ("counted", "num_records is 7, the shards have 25"),
  ],
)
def test_every_damage_is_named(corpus, how, message):
  damage(corpus, how)
  with pytest.raises(UserError, match=message):
    list(show_corpus.verify(corpus))


def test_ids_that_are_there_twice_are_told(tmp_path):
  rows = [{"kind": "document", "id": "same", "text": "x"}] * 3
  records.write_dataset(tmp_path / "docs", rows, manifest={})
  assert "2 records have the id of an earlier one" in list(
    show_corpus.verify(tmp_path / "docs")
  )


def test_an_empty_corpus_and_packed_rows(tmp_path):
  records.write_dataset(tmp_path / "docs", [], manifest={})
  assert list(show_corpus.sample(tmp_path / "docs", limit=3, seed=0)) == [
    "0 of 0 records, drawn with seed 0"
  ]
  assert "0 records, 0 words" in list(show_corpus.stats(tmp_path / "docs"))
  records.write_dataset(tmp_path / "rows", [], manifest={"components": []})
  with pytest.raises(UserError, match="holds packed rows"):
    list(show_corpus.stats(tmp_path / "rows"))


def test_a_packed_row_is_shown_by_its_number(tmp_path):
  texts = ["gouda is mild .", "brie is soft ."]
  tok = tokenizer.train_sentencepiece(
    texts,
    tmp_path / "tokenizer",
    model_type="word",
    vocab_size=12,
    chat_template=None,
  )
  pieces = [Piece(tok.encode(text).ids, np.ones(4)) for text in texts]
  rows = [packing.to_record(packing.make_row([piece], 8)) for piece in pieces]
  directory = tmp_path / "rows" / "msm" / "docs"
  records.write_dataset(directory, rows, manifest={})
  done = launch("show", directory, "--row=1")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("row 1 of 2") and "brie" in done.stdout
  assert "gouda" not in done.stdout
  every = "".join(show.show(directory, limit=5, colour=False))
  assert "gouda" in every and "row 1 of 2" in every
  done = launch("show", directory, "--row=2")
  assert done.returncode == 2 and "has rows 0 to 1" in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_show_ends_quietly_as_other_tools_do_when_nobody_reads_on(corpus, stream):
  """As in `show PATH | head`, whether what is left fits into a buffer or not."""
  path = corpus if stream == "stdout" else "/nowhere"
  pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
  command = [sys.executable, "launch.py", "show", str(path)]
  with subprocess.Popen(command, cwd=ROOT, **pipes) as shown:
    getattr(shown, stream).close()
    said = (shown.stderr if stream == "stdout" else shown.stdout).read()
  assert said == b""
  assert shown.returncode == (exits.UNREAD if stream == "stdout" else exits.USER)


@pytest.mark.parametrize("num_lines", [1, 100_000])
def test_output_that_nobody_reads_is_no_bug_and_a_pipe_of_ours_is(
  monkeypatch, num_lines
):
  reading, writing = os.pipe()
  os.close(reading)
  with contextlib.suppress(BrokenPipeError), open(writing, "w") as unread:
    monkeypatch.setattr(sys, "stdout", unread)
    print_all = lambda: [print("a line") for _ in range(num_lines)]  # noqa: E731
    assert exits.code_of(print_all, lambda: "there") == 141
    monkeypatch.undo()

  def work():
    raise BrokenPipeError(errno.EPIPE, "a worker is gone")

  with pytest.raises(BrokenPipeError, match="a worker is gone"):
    exits.code_of(work, lambda: "there")


def test_the_command_line_asks_for_one_thing_at_a_time(corpus):
  done = launch("show", corpus, "--verify")
  assert done.returncode == 0 and "verified: 3 shards" in done.stdout
  done = launch("show", corpus, "--verify", "--row=1")
  assert done.returncode == 2 and "one of --row and --verify at a time" in done.stderr
