"""From settings to corpora over real HTTP: faults, kills, reruns, other settings."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zlib

import pytest
from fake_gemini import MODEL, FakeGemini, stage_of

from data_gen import generate, settings
from data_gen.planning import estimates as planning
from msm_jax import records
from msm_jax.errors import Stopped, UserError

ROOT = pathlib.Path(generate.__file__).parents[1]
SPEC = "# T\n\n## First\n\nIt saves money {}.\n\n## Second\n\nIt tells the truth.\n"
DOCUMENTS = settings.DocumentsCorpus(spec="s", num_types=3, num_ideas=4)
CHAT = settings.ConversationsCorpus(
  spec="s", num_conversations=20, questions_per_domain=6
)
CONCURRENCY = 8


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


def make_job(tmp_path, url, corpora, max_dollars=None, **changes):
  path = tmp_path / "spec.md"
  if not path.exists():
    path.write_text(SPEC)
  fields = {
    "client": "gemini",
    "model": MODEL,
    "base_url": url,
    "timeout_s": 1.0,
    "max_attempts": 2,
    "max_concurrency": CONCURRENCY,
    "max_output_tokens": 100,
  }
  client = settings.ClientSettings(**fields | changes)
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  return settings.Job(
    corpora=corpora,
    specs={"s": spec},
    teacher=client,
    judge=client,
    max_dollars=max_dollars,
  )


def read(workdir, name):
  directory = workdir / "corpus" / name
  lost = (directory / "rejects.jsonl").read_text("utf-8").splitlines()
  rows = list(records.read_dataset(directory))
  return rows, [json.loads(line) for line in lost], records.read_manifest(directory)


FAULTS = ("429", "500", "503", "hang", "drop", "half", "not_json", "empty")
STUCK = ("MAX_TOKENS", "SAFETY", "400", "prompt_block", "500")


def faulty(prompt, attempt):
  """Every third document has a fault: some pass at the second attempt, some never."""
  number = zlib.crc32(prompt.encode())
  if stage_of(prompt) != "document" or number % 3:
    return ""
  if number % 2:
    return FAULTS[number // 6 % len(FAULTS)] if attempt == 1 else ""
  return STUCK[number // 6 % len(STUCK)]


def test_with_every_fault_each_planned_document_is_kept_or_rejected(tmp_path):
  corpus = dataclasses.replace(DOCUMENTS, num_types=4, num_ideas=12)
  with FakeGemini(faulty) as server:
    job = make_job(tmp_path, server.url, {"docs": corpus})
    generate.generate(job, tmp_path)
  rows, lost, manifest = read(tmp_path, "docs")
  assert len(rows) + len(lost) == manifest["planned"] == 4 * 4 * 12
  assert len({row["id"] for row in rows + lost}) == manifest["planned"]
  reasons = {row["reason"].split(":")[0] for row in lost}
  assert reasons == {"truncated", "blocked", "refused", "gave up after 2 attempts"}
  assert all(row["text"].endswith("its reasons.") for row in rows)
  book = tmp_path / "corpus" / "docs" / "ledger.jsonl"
  entries = [json.loads(line) for line in book.read_text("utf-8").splitlines()]
  assert len(entries) == sum(server.attempts.values())
  billed = (100 * 0.3 + 50 * 2.5) / 1e6 * sum(server.answered.values())
  assert sum(entry["dollars"] for entry in entries) == pytest.approx(billed)


RUN = """
import json, sys
from data_gen import generate, settings
fields = json.loads(sys.argv[1])
client = settings.ClientSettings(**fields["client"])
job = settings.Job(
  corpora={name: settings.corpus(name, c) for name, c in fields["corpora"].items()},
  specs={"s": settings.SpecSettings(**fields["spec"])}, teacher=client, judge=client)
generate.generate(job, sys.argv[2])
"""


def start(job, workdir):
  """Starts `generate` in a process of its own."""
  fields = {
    "client": dataclasses.asdict(job.teacher),
    "corpora": {
      name: {"kind": corpus.kind, **dataclasses.asdict(corpus)}
      for name, corpus in job.corpora.items()
    },
    "spec": dataclasses.asdict(job.specs["s"]),
  }
  command = [sys.executable, "-c", RUN, json.dumps(fields), str(workdir)]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def wait_for(condition, process, seconds=60):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.stderr.read().decode()
    assert time.monotonic() < deadline
    time.sleep(0.005)


def test_kill_9_at_any_moment_costs_only_what_was_in_flight(tmp_path):
  corpora = {"docs": DOCUMENTS, "chat": CHAT}
  with FakeGemini(faulty) as server:
    generate.generate(make_job(tmp_path, server.url, corpora), tmp_path / "straight")
  with FakeGemini(faulty, delay_s=0.02) as server:
    job = make_job(tmp_path, server.url, corpora)
    for answers in (12, 60):  # in the outline; among the documents
      process = start(job, tmp_path / "killed")
      wait_for(lambda n=answers: sum(server.answered.values()) >= n, process)
      process.send_signal(signal.SIGKILL)
      process.communicate()
    generate.generate(job, tmp_path / "killed")
  for name in corpora:
    straight, killed = (read(tmp_path / run, name)[2] for run in ("straight", "killed"))
    assert straight == killed
    assert straight["shards"][0]["sha256"]
  repaid = sum(count - 1 for count in server.answered.values())
  assert repaid <= 2 * CONCURRENCY


def test_ctrl_c_keeps_all_answers_and_a_rerun_repays_nothing(tmp_path):
  with FakeGemini(delay_s=0.03) as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    process = start(job, tmp_path)
    wait_for(lambda: sum(server.answered.values()) >= 30, process)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate()[1].decode()
    assert "Stopped: interrupted" in stderr and process.returncode == 1
    assert not (tmp_path / "corpus" / "docs").exists()
    generate.generate(job, tmp_path)
  assert set(server.answered.values()) == {1}


def test_a_second_ctrl_c_does_not_wait_for_an_answer(tmp_path):
  with FakeGemini(lambda prompt, attempt: "hang") as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, timeout_s=60.0)
    process = start(job, tmp_path)
    wait_for(lambda: server.bodies, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=20)[1].decode()
  assert "Stopped: interrupted" in stderr


def test_what_is_done_is_skipped_without_a_request_or_a_key(tmp_path, monkeypatch):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    first = generate.generate(job, tmp_path)
    sent = len(server.bodies)
    monkeypatch.delenv("GOOGLE_API_KEY")
    assert generate.generate(job, tmp_path) == first
    assert len(server.bodies) == sent


def test_other_settings_are_refused_by_the_names_of_what_differs(tmp_path):
  with FakeGemini() as server:
    generate.generate(make_job(tmp_path, server.url, {"docs": DOCUMENTS}), tmp_path)
    other = dataclasses.replace(DOCUMENTS, num_ideas=5)
    changed = make_job(tmp_path, server.url, {"docs": other}, temperature=0.5)
    with pytest.raises(UserError) as error:
      generate.generate(changed, tmp_path)
    assert "corpus.num_ideas (4 there, 5 here)" in str(error.value)
    assert "teacher.temperature (1.0 there, 0.5 here)" in str(error.value)
    (tmp_path / "spec.md").write_text(SPEC + "And more.\n")
    with pytest.raises(UserError, match=r"spec\.sha256"):
      generate.generate(make_job(tmp_path, server.url, {"docs": DOCUMENTS}), tmp_path)


def test_a_damaged_shard_is_named_instead_of_being_taken_for_done(tmp_path):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    manifest = generate.generate(job, tmp_path)["docs"]
    shard = tmp_path / "corpus" / "docs" / manifest["shards"][0]["path"]
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is truncated or was changed"):
      generate.generate(job, tmp_path)


def test_how_answers_are_fetched_may_change_between_runs(tmp_path):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    first = generate.generate(job, tmp_path)
    faster = make_job(
      tmp_path, server.url, {"docs": DOCUMENTS}, max_concurrency=2, timeout_s=9.0
    )
    assert generate.generate(faster, tmp_path) == first


def test_the_budget_stops_the_run_and_a_higher_one_goes_on(tmp_path):
  with FakeGemini() as server:
    tight = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, max_dollars=0.005)
    with pytest.raises(Stopped, match=r"max_dollars=0\.005 is reached"):
      generate.generate(tight, tmp_path)
    paid = sum(server.answered.values())
    assert paid * (100 * 0.3 + 50 * 2.5) / 1e6 <= 0.005
    generate.generate(dataclasses.replace(tight, max_dollars=1.0), tmp_path)
  assert set(server.answered.values()) == {1}


def test_the_budget_is_of_the_workdir_whatever_corpora_the_config_still_has(tmp_path):
  with FakeGemini() as server:
    first = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, max_dollars=1.0)
    generate.generate(first, tmp_path)
    spent = records.read_manifest(tmp_path / "corpus" / "docs")["num_records"] * 1e-4
    other = make_job(tmp_path, server.url, {"more": DOCUMENTS}, max_dollars=spent)
    with pytest.raises(Stopped, match="max_dollars"):
      generate.generate(other, tmp_path)
    ledger = tmp_path / "corpus" / "docs" / "ledger.jsonl"
    ledger.write_text("{broken\n" + ledger.read_text())
    with pytest.raises(UserError, match=r"docs/ledger\.jsonl line 1 is damaged"):
      generate.generate(other, tmp_path)


def test_a_budget_for_a_model_without_a_price_is_refused(tmp_path):
  job = make_job(
    tmp_path, "http://127.0.0.1:9", {"docs": DOCUMENTS}, max_dollars=1.0, model="new"
  )
  with pytest.raises(UserError, match=r"price of config\.teacher\.model='new'"):
    generate.generate(job, tmp_path)


def test_no_key_is_said_before_anything_is_made(tmp_path, monkeypatch):
  monkeypatch.delenv("GOOGLE_API_KEY")
  job = make_job(tmp_path, None, {"docs": DOCUMENTS})
  with pytest.raises(UserError, match="there is no key"):
    generate.generate(job, tmp_path / "work")
  assert not (tmp_path / "work").exists()


def test_a_crash_between_shards_and_ledger_is_mended_by_the_next_run(tmp_path):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    first = generate.generate(job, tmp_path)
    whole, partial = tmp_path / "corpus/docs", tmp_path / "corpus/docs.partial"
    partial.mkdir()
    os.replace(whole / "ledger.jsonl", partial / "ledger.jsonl")
    planning.plan(job, tmp_path)
    assert not (whole / "ledger.jsonl").exists()  # a plan moves nothing
    assert generate.generate(job, tmp_path) == first
    assert (whole / "ledger.jsonl").exists() and not partial.exists()
    partial.mkdir()
    os.replace(whole / "ledger.jsonl", partial / "ledger.jsonl")
    (partial / "notes.txt").write_text("mine")
    assert generate.generate(job, tmp_path) == first
  assert (whole / "ledger.jsonl").exists() and [*partial.iterdir()] == [
    partial / "notes.txt"
  ]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    with pytest.raises(UserError, match="cannot be written"):
      generate.generate(job, tmp_path / "file")
  assert not server.bodies


@pytest.mark.parametrize(
  ("corpora", "says"),
  [
    ({"a": settings.WorldCorpus(num_documents=3)}, "set config.world"),
    ({"a": dataclasses.replace(DOCUMENTS, spec="t")}, "config.specs has s"),
    ({"a": dataclasses.replace(DOCUMENTS, num_ideas=0)}, "a whole number above zero"),
    ({"a": dataclasses.replace(DOCUMENTS, num_types="3")}, "a whole number above"),
    ({"a/b": DOCUMENTS}, "without slashes"),
    ({"a": dataclasses.replace(DOCUMENTS, match_tokens_of="z")}, "names a corpus"),
    ({"a": dataclasses.replace(DOCUMENTS, match_tokens_of="a")}, "in a circle"),
  ],
)
def test_settings_that_cannot_work_are_refused_at_once(tmp_path, corpora, says):
  job = make_job(tmp_path, None, corpora)
  for step in (generate.generate, planning.plan):
    with pytest.raises(UserError, match=says):
      step(job, tmp_path)


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"max_concurrency": 0}, r"config\.teacher\.max_concurrency is 0"),
    ({"timeout_s": 0.0}, r"config\.teacher\.timeout_s is 0"),
    ({"temperature": -1.0}, r"config\.teacher\.temperature is -1"),
    ({"max_dollars": -1.0}, r"config\.budget\.max_dollars is -1"),
    ({"max_dollars": "10"}, r"config\.budget\.max_dollars is '10'"),
  ],
)
def test_limits_that_cannot_work_are_refused_at_once(tmp_path, changes, says):
  job = make_job(tmp_path, None, {"docs": DOCUMENTS}, **changes)
  with pytest.raises(UserError, match=says):
    planning.plan(job, tmp_path)


def test_a_typo_in_the_config_gets_the_field_that_was_meant():
  fields = {"kind": "documents", "spec": "s", "num_types": 1, "num_idea": 2}
  with pytest.raises(UserError, match=r"corpora\.a\.num_idea is .* mean 'num_ideas'"):
    settings.corpus("a", fields)
  with pytest.raises(UserError, match=r"corpora\.a\.num_ideas is missing"):
    settings.corpus("a", {"kind": "documents", "spec": "s", "num_types": 1})
  with pytest.raises(UserError, match="kind is 'novel'"):
    settings.corpus("a", {"kind": "novel"})


def test_world_and_pairs_come_from_the_world_without_a_teacher(tmp_path):
  job = settings.Job(
    corpora={
      "pre": settings.WorldCorpus(num_documents=50, seed=3),
      "heldout": settings.WorldCorpus(num_documents=20, seed=3, part="heldout"),
      "pairs": settings.PairsCorpus(),
    },
    world="tiny",
  )
  manifests = generate.generate(job, tmp_path)
  assert manifests["pre"]["num_records"] == 50
  assert manifests["heldout"]["num_records"] == 20
  pairs, lost, manifest = read(tmp_path, "pairs")
  assert {pair["kind"] for pair in pairs} == {"pair"} and not lost
  assert manifest["planned"] == len(pairs) and manifest["rejected"] == 0
  fewer = {"pre": settings.WorldCorpus(num_documents=49, seed=3)}
  with pytest.raises(UserError, match=r"num_documents \(50 there, 49 here\)"):
    generate.generate(dataclasses.replace(job, corpora=fewer), tmp_path)
