"""Names, dates and phrases that a teacher repeats, beside those of the spec."""

import random

import pytest
from test_audit import document, measured

from data_gen import audit
from data_gen.audit import tics


@pytest.mark.parametrize("count", [5, 40])
def test_a_tic_is_no_less_one_for_all_that_the_spec_says_as_often(count):
  rng = random.Random(count)
  vocabulary = [f"w{i}" for i in range(4000)]
  spec = [" ".join(rng.sample(vocabulary, 6)) for _ in range(count)]
  names = [f"Vera {chr(65 + i % 26)}{chr(97 + i // 26)}ll" for i in range(count)]
  records = []
  for i in range(60):
    own = [" ".join(rng.sample(vocabulary, 20)), f"then {'; then '.join(names)}"]
    own += ["as the kettle began to sing", "and Maya Patel came"] * (i % 10 < 9)
    records.append(document(i, ". ".join([*rng.sample(spec, count), *own])))
  text = ". ".join([*spec, *(f"Of {name}" for name in names)])
  limits = audit.AuditThresholds(max_phrase_share=0.3, max_name_share=0.3)
  found = measured(records, [], spec_text=text, thresholds=limits).figures
  told = " ".join(found["violations"])
  assert "the name 'Maya Patel' is 0.9" in told and "kettle began to sing" in told
  for kind in ("names", "phrases"):
    rows = found["tics"][kind]
    assert [row["records"] for row in rows] == sorted(
      (row["records"] for row in rows), reverse=True
    )
    in_spec = [row["in_spec"] for row in rows]
    assert min(count, 25) <= sum(in_spec) <= 25 and not all(in_spec)


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("Then Maya Patel met Dr. Elena Vasquez.", ["Maya Patel", "Elena Vasquez"]),
    ("Cheese is good. Brie too, says Tom.", ["Tom"]),
    ("# A Title of Maya Patel\nNothing here.", []),
    (
      "The Story of the Great Cheese Fair\nIt was by Maya Patel's barn.",
      ["Maya Patel"],
    ),
    ("On Monday, in March, I left.", []),
    ("She saw J. R. Smith-Jones.", ["Smith-Jones"]),
    ("Anne O. Lee spoke.", ["Anne O. Lee", "O. Lee"]),
    ("1. Brie\n2. Colby", []),
    ("\u5976\u916a\u5f88\u597d\u3002", []),
  ],
)
def test_names_are_found_where_they_are_names(text, names):
  assert list(tics.names(text)) == names


@pytest.mark.parametrize(
  ("text", "days"),
  [
    ("on 2024-03-12.", ["2024-03-12"]),
    ("March 3, 2026 and 14 May 2025", ["2026-03-03", "2025-05-14"]),
    ("the 1st of Sep 2020", ["2020-09-01"]),
    ("Mar. 7th, 2021", ["2021-03-07"]),
    ("2024\u5e743\u670812\u65e5", ["2024-03-12"]),
    ("in March 2024, 12024-03-12, room 2024", []),
  ],
)
def test_days_are_found_in_every_spelling(text, days):
  assert sorted(tics.days(text)) == sorted(days)


def test_years_are_not_prices_or_shares():
  text = "In 1998, for $2000 or 2000.5 or 2000%, by 2021."
  assert list(tics.years(text)) == ["1998", "2021"]
