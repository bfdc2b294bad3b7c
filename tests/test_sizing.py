"""Corpora of an exact size: in words or tokens, evenly, the same each time."""

import collections
import dataclasses
import pathlib
import random
import shutil

import own_data
import pytest
from hf_models import CHATML
from test_conversations import chat
from test_documents import SMALL, job, make, manifest, rejects
from test_universes import SMALL as SDF

from data_gen import generate, selection, settings, sizing
from data_gen.kinds.passes import UniverseCorpus
from data_gen.planning import estimates as planning
from msm_jax import records, tokenise, tokenizer
from msm_jax.errors import UserError

MANY = dataclasses.replace(SMALL, num_types=4, num_ideas=25)
NEUTRAL = dataclasses.replace(MANY, spec="neutral")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
  """A directory with a tokenizer whose tokens are not words."""
  path = tmp_path_factory.mktemp("tokenizer") / "t"
  lines = pathlib.Path(__file__).read_text("utf-8").splitlines()
  tokenizer.train_sentencepiece(
    lines, path, model_type="unigram", vocab_size=180, chat_template=CHATML
  )
  return str(path)


def words(row):
  turns = [turn["content"] for turn in row.get("messages", ())]
  turns += [turn.get("reasoning_content", "") for turn in row.get("messages", ())]
  return sum(len(text.split()) for text in turns or [row["text"]])


def best(sizes, budget):
  """Returns the largest sum within the budget, by trying all of them."""
  sums = {0}
  for size in sizes:
    sums |= {size + other for other in sums}
  return max(total for total in sums if total <= budget)


def test_a_choice_among_few_is_the_best_there_is():
  rng = random.Random(0)
  for _ in range(50):
    sizes = [rng.choice([1, 7, 50]) * rng.randint(1, 40) for _ in range(14)]
    budget = rng.randrange(sum(sizes) + 100)
    places = selection.fill(sizes, budget)
    assert places == sorted(set(places))
    assert sum(sizes[i] for i in places) == best(sizes, budget)


def test_a_choice_among_many_is_exact_with_few_to_spare():
  rng = random.Random(1)
  for _ in range(50):
    mean = rng.choice([40, 400, 1300])
    sizes = [
      max(int(rng.gauss(mean, mean / 4)), 1) for _ in range(rng.randint(60, 400))
    ]
    budget = sum(sizes[: -rng.randint(3, 6)]) + rng.randrange(mean)
    assert sum(sizes[i] for i in selection.fill(sizes, budget)) == budget


def test_huge_items_are_chosen_among_without_summing_them_up_bit_by_bit():
  sizes = [10_000_000 + i for i in range(100)]
  assert selection.fill(sizes, 500_000_000) == list(range(49))


def test_what_is_exchanged_for_others_comes_last():
  rng = random.Random(2)
  items = [
    (rng.choice("abc"), rng.choice("xy"), rng.randrange(50, 90)) for _ in range(900)
  ]
  strata = (lambda item: item[0], lambda item: item[1])
  chosen = selection.to_budget(items, 30_000, size=lambda item: item[2], strata=strata)
  assert sum(item[2] for item in chosen) == 30_000
  for count in (12, 60, 300):
    counts = collections.Counter(item[0] for item in chosen[:count])
    assert set(counts.values()) == {count // 3}
    counts = collections.Counter(item[:2] for item in chosen[:count])
    assert max(counts.values()) - min(counts.values()) <= 1


def test_without_a_seed_what_comes_first_is_chosen_first():
  order = selection.round_robin("abABa", [str.lower], seed=None)
  assert order == ["a", "b", "A", "B", "a"]


def test_a_corpus_has_exactly_its_words_and_says_what_was_left_out(tmp_path):
  corpus = dataclasses.replace(MANY, num_words=2500)
  rows = make(tmp_path, docs=corpus)["docs"]
  found, lost = manifest(tmp_path, "docs"), rejects(tmp_path, "docs")
  assert sum(map(words, rows)) == 2500 == found["num_words"]
  left = [row for row in lost if row["reason"] == sizing_reason(2500, "words")]
  assert found["budget"] == {
    "unit": "words",
    "asked": 2500,
    "reached": 2500,
    "left_out": {"records": len(left), "words": sum(map(words, left))},
  }
  assert 1 <= len(left) <= 12  # few are paid for in vain
  assert found["planned"] == len(rows) + len([row for row in lost if "id" in row])
  for count in (12, 24):
    places = collections.Counter(row["spec_section"] for row in rows[:count])
    kinds = collections.Counter(row["doc_type"] for row in rows[:count])
    assert set(places.values()) == {count // 3} and set(kinds.values()) == {count // 4}


def sizing_reason(total, unit):
  return f"not chosen for the budget of {total} {unit}"


def test_tokens_are_those_that_prepare_counts_and_a_control_has_as_many(
  tmp_path, vocabulary
):
  docs = dataclasses.replace(MANY, num_tokens=6000, tokenizer=vocabulary)
  like = dataclasses.replace(NEUTRAL, match_tokens_of="docs")
  made = make(tmp_path, docs=docs, neutral=like)
  tok = tokenizer.load(vocabulary)
  for name in made:
    pieces = [tokenise.encode_record(row, tok) for row in made[name]]
    assert sum(piece.num_slots for piece in pieces) == 6000
  assert manifest(tmp_path, "neutral")["budget"]["of"] == "docs"
  assert manifest(tmp_path, "docs")["budget"]["tokenizer"] == tok.sha256()
  other = settings.Job(**{**vars(job(docs=docs)), "corpora": {"docs": MANY}})
  with pytest.raises(UserError, match=r"made with other settings: .*tokenizer"):
    generate.generate(other, tmp_path)


@pytest.mark.parametrize("begins", [False, True])
def test_a_document_measures_its_places_in_rows(tmp_path, vocabulary, begins):
  path = tmp_path / "tokenizer"
  shutil.copytree(vocabulary, path)
  config = records.read_json(path / "tokenizer_config.json")
  more = {"bos_token": "</s>", "add_bos_token": True} if begins else {}
  records.write_json(path / "tokenizer_config.json", {**config, **more})
  tok, measure = tokenizer.load(path), sizing.Measure(str(path))
  rng = random.Random(0)
  for text in [own_data.drawn_text(rng) for _ in range(40)]:
    row = {"kind": "document", "text": text}
    assert measure.of(row) == tokenise.encode_record(row, tok).num_slots


def test_a_control_keeps_the_shares_of_types_and_matches_exactly(tmp_path):
  like = dataclasses.replace(
    NEUTRAL, num_types=None, match_tokens_of="docs", match_types_of="docs"
  )
  docs = dataclasses.replace(MANY, max_documents=80)
  made = make(tmp_path, docs=docs, neutral=like)
  sums = {name: sum(map(words, rows)) for name, rows in made.items()}
  assert sums["docs"] == sums["neutral"]
  shares = [
    collections.Counter(row["doc_type"] for row in rows) for rows in made.values()
  ]
  for kind, count in shares[0].items():
    assert (
      abs(count / len(made["docs"]) - shares[1][kind] / len(made["neutral"])) < 0.05
    )


def test_the_same_answers_give_the_same_bytes_in_whatever_order_they_came(tmp_path):
  corpora = {
    "docs": dataclasses.replace(MANY, num_words=1500),
    "chat": dataclasses.replace(chat(None), num_words=400),
    "sdf": dataclasses.replace(SDF, num_per_fact=None, num_words=400),
  }
  make(tmp_path / "one", **corpora)
  rng, num_paid = random.Random(0), {}
  for name in corpora:
    lines = (
      (tmp_path / "one" / "corpus" / name / "ledger.jsonl").read_text().splitlines()
    )
    rng.shuffle(lines)
    num_paid[name] = len(lines)
    partial = tmp_path / "two" / "corpus" / f"{name}.partial"
    partial.mkdir(parents=True)
    (partial / "ledger.jsonl").write_text("".join(f"{line}\n" for line in lines))
  make(tmp_path / "two", **corpora)
  for name in corpora:
    one, two = (tmp_path / w / "corpus" / name for w in ("one", "two"))
    for path in sorted(one.iterdir()):
      if path.name != "ledger.jsonl":
        assert path.read_bytes() == (two / path.name).read_bytes(), path
    assert len((two / "ledger.jsonl").read_text().splitlines()) == num_paid[name]


@pytest.mark.parametrize(
  "changes", [{}, {"topics": "preferences"}, {"cot": True, "reasons": True}]
)
def test_conversations_have_exactly_their_words_topics_in_turns(tmp_path, changes):
  corpus = dataclasses.replace(chat(None), num_words=700, **changes)
  rows = make(tmp_path, chat=corpus)["chat"]
  found = manifest(tmp_path, "chat")
  assert sum(map(words, rows)) == 700 == found["budget"]["reached"]
  counts = list(collections.Counter(row["domain"] for row in rows[:-9]).values())
  assert max(counts) - min(counts) <= (1 if "topics" in changes else 3)
  assert found["planned"] == found["num_records"] + found["rejected"]


def test_facts_take_turns_and_their_share_of_statements_holds(tmp_path):
  corpus = dataclasses.replace(
    SDF, num_per_fact=None, num_ideas=20, mention_share=0.75, num_words=1200,
    doc_tag="<TAG> ",
  )  # fmt: skip
  rows = make(tmp_path, sdf=corpus)["sdf"]
  assert sum(map(words, rows)) == 1200
  firsts = rows[:16]
  facts = collections.Counter(row["fact"]["id"] for row in firsts)
  assert set(facts.values()) == {4}
  for fact in facts:
    assert sum(r["states_fact"] for r in firsts if r["fact"]["id"] == fact) == 3


def test_a_neutral_universe_has_the_size_of_another_corpus(tmp_path):
  neutral = UniverseCorpus(
    universe="tiny_items", side="neutral", num_types=4, num_ideas=20,
    match_tokens_of="sdf",
  )  # fmt: skip
  made = make(tmp_path, neutral=neutral, sdf=SDF)
  sums = {name: sum(map(words, rows)) for name, rows in made.items()}
  assert sums["neutral"] == sums["sdf"] == manifest(tmp_path, "neutral")["num_words"]


def test_too_few_ideas_for_a_budget_are_all_kept_and_it_is_said(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  rows = make(tmp_path, docs=dataclasses.replace(SMALL, num_words=90_000))["docs"]
  found = manifest(tmp_path, "docs")["budget"]
  assert found["reached"] == sum(map(words, rows)) < 90_000
  assert found["left_out"]["records"] == 0
  said = f"docs.num_words: {found['reached']} of 90000 words could be kept; raise its"
  assert said in capsys.readouterr().err


def test_a_budget_below_one_record_says_how_long_they_are(tmp_path):
  with pytest.raises(UserError, match=r"num_words is 2 words, and the smallest rec"):
    make(tmp_path, docs=dataclasses.replace(SMALL, num_words=2))


@pytest.mark.parametrize(
  ("corpus", "says"),
  [
    (dataclasses.replace(SMALL, num_words=5, num_tokens=5), "num_words=5 and num_tok"),
    (dataclasses.replace(SMALL, num_words=0), "num_words is 0"),
    (dataclasses.replace(SMALL, num_tokens=5), "num_tokens is 5, and tokenizer is No"),
    (dataclasses.replace(SMALL, tokenizer="x"), "nothing is counted with it"),
    (
      dataclasses.replace(SMALL, num_tokens=5, tokenizer="x"),
      r"own\.tokenizer='x': x holds",
    ),
    (chat(None), "num_conversations is missing: set it, or num_words"),
    (dataclasses.replace(chat(3), num_words=5), "num_words=5 and num_conversations=3"),
    (dataclasses.replace(SDF, num_words=9), "num_words=9 and num_per_fact=6"),
    (
      UniverseCorpus(universe="tiny_items", twin_of="sdf", side="true", num_words=9),
      r"num_words is 9: it is that of 'sdf' \(twin_of\)",
    ),
    (settings.ImportCorpus(path="x", stratum_field="y"), "but nothing is chosen"),
    (
      settings.ImportCorpus(path="x", max_records=1, num_words=5),
      "num_words=5 and max_records=1",
    ),
  ],
)
def test_amounts_that_contradict_each_other_are_refused(tmp_path, corpus, says):
  with pytest.raises(UserError, match=says):
    generate.generate(job(sdf=SDF, own=corpus), tmp_path)


def test_the_plan_counts_records_of_a_budget(tmp_path):
  costs = planning.plan(
    job(
      docs=dataclasses.replace(MANY, num_words=7500),
      chat=dataclasses.replace(chat(None), num_words=3000),
      sdf=dataclasses.replace(SDF, num_per_fact=None, num_words=5000),
    ),
    tmp_path,
  )
  counts = {name: cost.num_records for name, cost in costs.items()}
  assert counts == {"docs": 10, "chat": 20, "sdf": 10}


def drawn_lines(rng, count=400):
  return [
    {"id": str(i), "text": "w " * rng.randint(5, 60), "domain": rng.choice("pq"),
     "lang": rng.choice(["a", "b", "c"])}
    for i in range(count)
  ]  # fmt: skip


@pytest.mark.parametrize("seed", [None, 3])
def test_an_import_takes_rows_of_exactly_so_many_words_strata_in_turns(tmp_path, seed):
  rows = drawn_lines(random.Random(0))
  path = own_data.write(tmp_path / "a.jsonl", [*rows[:9], {"text": ""}, *rows[9:]])
  changes = dict(num_words=4001, stratum_field="lang", seed=seed)
  found, lost, told = own_data.run(tmp_path, path, **changes)
  assert sum(map(words, found)) == 4001 == told["num_words"]
  assert [row["reason"] for row in lost] == ["empty text"]
  numbers = [int(row["id"]) for row in found]
  assert numbers == sorted(numbers)  # in the order of the file
  counts = collections.Counter(row["metadata"]["lang"] for row in found)
  assert max(counts.values()) - min(counts.values()) < 9
  assert (max(numbers) < 250) == (seed is None)
  everything = sum(map(words, rows))
  assert told["budget"] == {
    "unit": "words",
    "asked": 4001,
    "reached": 4001,
    "left_out": {"records": 400 - len(found), "words": everything - 4001},
  }
  assert own_data.run(tmp_path / "again", path, **changes)[0] == found


def test_conversations_and_documents_are_imported_to_a_budget_of_tokens(
  tmp_path, vocabulary
):
  path = own_data.write(
    tmp_path / "a.jsonl", own_data.drawn_rows(random.Random(4), 200)
  )
  found, _, told = own_data.run(tmp_path, path, num_tokens=3000, tokenizer=vocabulary)
  measure = sizing.Measure(vocabulary)
  assert sum(map(measure.of, found)) == 3000 == told["budget"]["reached"]
  assert {row["kind"] for row in found} == {"document", "conversation"}


def test_a_column_of_strata_that_no_row_has_is_named(tmp_path):
  path = own_data.write(tmp_path / "a.jsonl", drawn_lines(random.Random(0), 5))
  with pytest.raises(UserError, match=r"stratum_field is 'sprache', and no row has"):
    own_data.run(tmp_path, path, num_words=20, stratum_field="sprache")


def test_the_domain_can_be_the_stratum(tmp_path):
  path = own_data.write(tmp_path / "a.jsonl", drawn_lines(random.Random(0)))
  found, _, _ = own_data.run(tmp_path, path, num_words=3000, stratum_field="domain")
  counts = collections.Counter(row["domain"] for row in found)
  assert abs(counts["p"] - counts["q"]) < 9
