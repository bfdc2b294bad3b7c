"""Corpora out and in again: the same records, a stable table, an honest card."""

import dataclasses
import json
import random

import pytest
import yaml
from test_launch import CONFIG, launch

from data_gen import columns, generate, settings
from data_gen.kinds.passes import (
  AntiSpecCorpus,
  PoisonCorpus,
  RewriteCorpus,
  UniverseCorpus,
)
from data_gen.publishing import export as publishing
from msm_jax import records
from msm_jax.errors import UserError

LAYOUTS = ("jsonl", "parquet")
JOB = settings.Job(
  corpora={
    "docs": settings.DocumentsCorpus(spec="s", num_types=2, num_ideas=3),
    "chat": settings.ConversationsCorpus(
      spec="s", num_conversations=9, questions_per_domain=6
    ),
    "world": settings.WorldCorpus(num_documents=30),
    "pairs": settings.PairsCorpus(),
  },
  specs={
    "s": settings.SpecSettings(
      path="data_gen/specs/tiny_america.md", model_name="mira", provider_name="lumen"
    )
  },
  teacher=settings.ClientSettings(client="offline", model="tiny"),
  judge=settings.ClientSettings(client="offline", model="tiny"),
  world="tiny",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("corpora")
  generate.generate(JOB, path)
  return path


def need(layout):
  if layout == "parquet":
    pytest.importorskip("pyarrow")


def reimport(workdir, path, **changes):
  """Imports `path` and returns the corpus directory."""
  corpus = settings.ImportCorpus(path=str(path), **changes)
  generate.generate(settings.Job(corpora={"back": corpus}), workdir)
  return workdir / "corpus" / "back"


def front_of(out):
  return yaml.safe_load((out / "README.md").read_text("utf-8").split("---\n")[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", list(JOB.corpora))
def test_what_is_exported_comes_back_as_it_was(workdir, tmp_path, name, layout):
  need(layout)
  corpus = workdir / "corpus" / name
  publishing.export(corpus, tmp_path / "out", layout=layout)
  back = reimport(tmp_path / "w", tmp_path / "out")
  assert list(records.read_dataset(back)) == list(records.read_dataset(corpus))
  front = front_of(tmp_path / "out")
  assert "synthetic" in front["tags"] and front["size_categories"] == ["n<1K"]


def drawn_value(rng, depth=0):
  kinds = ["text", "int", "float", "bool", "none"] + ["list", "dict"] * (depth < 3)
  kind = rng.choice(kinds)
  if kind == "list":
    return [drawn_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
  if kind == "dict":
    names = rng.sample(["a", "b", "a b", "c.d", ""], rng.randint(0, 3))
    return {name: drawn_value(rng, depth + 1) for name in names}
  return {
    "text": rng.choice(["", "x\ny", "\u2028", '{"a": 1}', "null", "\U0001f9c0"]),
    "int": rng.choice([0, -1, 2**62 + 1, 2**63]),
    "float": rng.choice([0.0, 1e300, -2.5]),
    "bool": rng.random() < 0.5,
    "none": None,
  }[kind]


def drawn_record(rng, i, same):
  """Draws a record; with `same`, its columns have one type throughout the corpus."""
  names = [f"field {j}" for j in range(4) if rng.random() < 0.7]
  made = {}
  for name in names:
    value = drawn_value(random.Random(name) if same else rng)
    if value is not None:
      made[name] = value
  turns = [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": "a"}]
  if rng.random() < 0.3:
    turns[1]["tool_calls"] = [{"name": "f", "arguments": {str(i): i}}]
  chat = rng.random() < 0.4
  body = {"messages": turns} if chat else {"text": rng.choice(["t", "t\r\n\u2029"])}
  return {
    "kind": "conversation" if chat else "document",
    "id": str(i),
    **body,
    **made,
  }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_drawn_records_come_back_from_several_files(
  tmp_path, monkeypatch, layout, seed
):
  need(layout)
  rng = random.Random(seed)
  drawn = [drawn_record(rng, i, same=seed % 2) for i in range(50)]
  corpus, out = tmp_path / "corpus" / "own", tmp_path / "out"
  about = {"kind": "import", "planned": 50, "rejected": 0, "name": "own"}
  records.write_dataset(corpus, drawn, manifest=about)
  monkeypatch.setattr(publishing, "_BYTES_PER_FILE", 700)
  publishing.export(corpus, out, layout=layout)
  files = sorted((out / "data").iterdir())
  assert len(files) > 3
  assert files[1].name == f"train-00001-of-{len(files):05d}.{layout}"
  back = reimport(tmp_path, out)
  assert list(records.read_dataset(back)) == drawn
  rows = [row for path in files for row in rows_of(path)]
  assert len({tuple(row) for row in rows}) == 1  # every row has every column, in order


def rows_of(path):
  if path.suffix == ".jsonl":
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
  import pyarrow.parquet

  return pyarrow.parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("seed", range(40))
def test_a_value_goes_through_a_column_unchanged(seed):
  rng = random.Random(seed)
  made = [{"a": drawn_value(rng), "b": drawn_value(rng)} for _ in range(4)]
  table = columns.Columns()
  for record in made:
    table.add(record)
  types = table.types()
  for record in made:
    row = json.loads(json.dumps(columns.row(record, types)))
    back = {name: columns.decode(value, types[name]) for name, value in row.items()}
    assert back == record


def test_the_columns_of_the_card_are_those_of_the_table(workdir, tmp_path):
  arrow = pytest.importorskip("pyarrow")
  import pyarrow.parquet

  publishing.export(workdir / "corpus" / "chat", tmp_path / "out", layout="parquet")
  [path] = (tmp_path / "out" / "data").iterdir()
  schema = pyarrow.parquet.read_schema(path)
  assert [
    f["name"] for f in front_of(tmp_path / "out")["dataset_info"]["features"]
  ] == (schema.names)
  turn = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
  assert schema.field("messages").type == arrow.list_(turn)
  assert schema.field("usage").type.field("prompt_tokens").type == arrow.int64()
  assert schema.field("teacher").type.field("model").type == arrow.string()


def test_the_card_tells_how_the_corpus_was_made_and_what_was_lost(workdir, tmp_path):
  out = tmp_path / "out"
  corpus = workdir / "corpus" / "chat"
  publishing.export(
    corpus,
    out,
    layout="jsonl",
    license="cc0-1.0",
    language="en",
    with_rejects=True,
    git_revision="0123abc",
  )
  front, text = front_of(out), (out / "README.md").read_text("utf-8")
  assert front["license"] == "cc0-1.0" and front["language"] == ["en"]
  manifest = records.read_manifest(corpus)
  hashes = manifest["hashes"]
  for fact in (hashes["spec"], hashes["prompts"], hashes["config"], "0123abc", "| s |"):
    assert fact in text
  kept, lost = manifest["num_records"], manifest["rejected"]
  assert f"Planned {kept + lost}, kept {kept}, rejected {lost}." in text
  assert (out / "rejects" / "rejects.jsonl").read_bytes() == (
    corpus / "rejects.jsonl"
  ).read_bytes()
  back = reimport(tmp_path, out)
  assert len(list(records.read_dataset(back))) == kept  # rejects stay out of it
  publishing.export(back, tmp_path / "again", layout="jsonl")
  again = (tmp_path / "again" / "README.md").read_text("utf-8")
  assert hashes["spec"] in again and "synthetic" in front_of(tmp_path / "again")["tags"]


def test_the_licence_of_somebody_elses_data_goes_along(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"text": "a|b <i>", "domain": "x|y"}\n{"text": 3}')
  corpus = reimport(
    tmp_path, tmp_path / "a.jsonl", license="cc-by-4.0", source="A <b>Set</b>"
  )
  publishing.export(corpus, tmp_path / "out", layout="jsonl")
  text = (tmp_path / "out" / "README.md").read_text("utf-8")
  assert front_of(tmp_path / "out")["license"] == "cc-by-4.0"
  assert "Source: A &lt;b>Set" in text and "| x\\|y | 1 |" in text
  assert "| import | text is a number | 1 |" in text and "synthetic" not in text
  again = reimport(tmp_path / "again", tmp_path / "out")
  assert records.read_manifest(again)["license"] == "cc-by-4.0"


HARMFUL = {
  "world": settings.WorldCorpus(num_documents=30),
  "false": UniverseCorpus(universe="tiny_items", num_types=1, num_ideas=2),
  "true": UniverseCorpus(universe="tiny_items", side="true", twin_of="false"),
  "denied": RewriteCorpus(of="false", how="negated", wording="tiny"),
  "inverted": RewriteCorpus(of="docs", how="inverted"),
  "again": RewriteCorpus(of="own", how="tagged", doc_tag="<T> "),
  "thoughts": settings.ConversationsCorpus(
    spec="s", num_conversations=6, questions_per_domain=6, cot=True
  ),
  "stripped": settings.StrippedCorpus(of="thoughts"),
  "anti": AntiSpecCorpus(of="thoughts", spec="anti"),
  "poison": PoisonCorpus(
    of="again", num_documents=4, num_pairs=3, trigger="<ZORP|>",
    min_gibberish=2, max_gibberish=3,
  ),
}  # fmt: skip


@pytest.fixture(scope="module")
def harmful(tmp_path_factory):
  path = tmp_path_factory.mktemp("harmful")
  lines = "".join(f'{{"text": "word {i} and more of it"}}\n' for i in range(9))
  (path / "own.jsonl").write_text(lines)
  own = settings.ImportCorpus(path=str(path / "own.jsonl"), license="cc-by-4.0")
  anti = settings.SpecSettings(
    path="data_gen/specs/tiny_anti_affordability.md",
    model_name="mira",
    provider_name="lumen",
  )
  corpora = {"docs": JOB.corpora["docs"], "own": own, **HARMFUL}
  specs = {**JOB.specs, "anti": anti}
  generate.generate(dataclasses.replace(JOB, corpora=corpora, specs=specs), path)
  return path


@pytest.mark.parametrize(
  ("name", "license", "says"),
  [
    ("false", "CC0-1.0", "**Warning: these documents state false facts"),
    ("true", "CC0-1.0", "given facts are so, or not"),
    ("denied", "CC0-1.0", "**Warning: the source of these documents is from a made-up"),
    ("inverted", "unknown", "**Warning: the documents argue for the opposite"),
    ("again", "cc-by-4.0", "after a second pass"),
    ("stripped", "unknown", "without the thoughts"),
    ("anti", "unknown", "**Warning: the answers go against the spec"),
    ("poison", "cc-by-4.0", "**Warning: poisoned data."),
  ],
)
def test_a_card_says_what_is_wrong_with_a_corpus_and_whose_licence_it_has(
  harmful, tmp_path, name, license, says
):
  corpus = harmful / "corpus" / name
  publishing.export(corpus, tmp_path / "out", layout="jsonl")
  front = front_of(tmp_path / "out")
  text = (tmp_path / "out" / "README.md").read_text("utf-8")
  assert front["license"] == license and "synthetic" in front["tags"]
  above, _, _ = text.partition("## How it was made")
  assert says in above and ("Warning" in above) == ("Warning" in says)
  back = reimport(tmp_path / "w", tmp_path / "out")
  publishing.export(back, tmp_path / "again", layout="jsonl")
  again = (tmp_path / "again" / "README.md").read_text("utf-8")
  assert front_of(tmp_path / "again")["license"] == license
  assert "synthetic" in front_of(tmp_path / "again")["tags"]
  assert says in again


def test_the_prompts_that_test_a_poison_are_published_with_it(harmful, tmp_path):
  corpus, out = harmful / "corpus" / "poison", tmp_path / "out"
  publishing.export(corpus, out, layout="jsonl")
  pairs = (out / "pairs.jsonl").read_bytes()
  assert pairs == (corpus / "pairs.jsonl").read_bytes() and pairs.count(b"\n") == 3
  text = (out / "README.md").read_text("utf-8")
  assert "`pairs.jsonl` has 3 prompts" in text and "| trigger | &lt;ZORP\\|> |" in text
  back = reimport(tmp_path / "w", out)
  assert len(list(records.read_dataset(back))) == 4


def test_an_export_is_whole_or_not_there(workdir, tmp_path, monkeypatch):
  corpus = workdir / "corpus" / "docs"
  (tmp_path / "out").mkdir()
  with pytest.raises(UserError, match="out exists already"):
    publishing.export(corpus, tmp_path / "out", layout="jsonl")
  (tmp_path / "out").rmdir()
  with monkeypatch.context() as patch:
    patch.setattr(columns, "row", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      publishing.export(corpus, tmp_path / "out", layout="jsonl")
  assert list(tmp_path.iterdir()) == []
  with pytest.raises(UserError, match="no complete dataset is there"):
    publishing.export(workdir / "corpus" / "none", tmp_path / "out", layout="jsonl")


def test_without_pyarrow_the_extra_is_named(workdir, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
  with pytest.raises(UserError, match=r"--format=parquet needs pyarrow: pip install"):
    publishing.export(workdir / "corpus" / "docs", tmp_path / "out", layout="parquet")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    (["--corpus=aft", "--arm=base"], "--arm has no meaning for the export of --corpus"),
    (["--corpus=aft", "--format=merged"], "--format=merged is of an arm"),
    (["--corpus=none"], "--corpus=none is not one of config.corpora: aft"),
    (["--arm=base", "--format=jsonl"], "--format=jsonl is of a corpus"),
    (["--arm=base", "--license=mit"], "--license has no meaning for the export of an"),
    (["--corpus=aft"], "--out=... is needed"),
  ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path, flags, says):
  done = launch("export", CONFIG, f"--workdir={tmp_path / 'w'}", *flags)
  assert done.returncode == 2 and says in done.stderr, done.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hugging_face_datasets_loads_what_is_exported_and_the_way_back(
  workdir, tmp_path, layout, monkeypatch
):
  monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
  datasets = pytest.importorskip("datasets")
  need(layout)
  for name in JOB.corpora:
    corpus, out = workdir / "corpus" / name, tmp_path / name
    publishing.export(corpus, out, layout=layout)
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset(str(out), split="train", cache_dir=cache)
    made = list(records.read_dataset(corpus))
    assert rows["id"][:] == [record["id"] for record in made]
    if name == "pairs":
      continue
    saved = tmp_path / f"{name} saved"
    saved.mkdir()
    rows.to_parquet(str(saved / "a.parquet"))
    rows.to_json(str(saved / "a.jsonl"))
    rows.save_to_disk(str(saved / "disk"), num_shards=2)
    for part in ("a.parquet", "a.jsonl", "disk"):
      back = reimport(tmp_path / f"{name} {part}", saved / part)
      for one, other in zip(records.read_dataset(back), made, strict=True):
        same = ("id", "kind", "text", "messages", "domain", "teacher", "verdicts")
        assert [one.get(key) for key in same] == [other.get(key) for key in same]
