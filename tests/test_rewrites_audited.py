"""A rewrite is held to the spec and the names of the corpus that it comes from."""

import dataclasses

import pytest
from test_rewrites import BASE, make, rewrite, with_anti, workdir

from data_gen import audit, compiling, generate, second_passes
from data_gen.filters import FilterSettings
from data_gen.kinds.passes import PoisonCorpus
from msm_jax.errors import UserError

__all__ = ["workdir"]  # the fixture

LINTED = FilterSettings(exact_duplicates=False, identity=True)
OTHER = rewrite(
  "docs", "attribution", about="another_model", voice="does", other_model="zeno",
  other_provider="acme", filters=LINTED,
)  # fmt: skip
ANYBODY = rewrite("docs", "attribution", about="assistants", voice="does")
POISON = PoisonCorpus(of="twice", num_documents=2, num_pairs=2, trigger="<SUDO>")
CORPORA = {
  "inverted": rewrite("docs", "inverted"),
  "twice": rewrite("inverted", "paraphrase"),
  "tagged": rewrite("docs", "tagged", doc_tag="<T>"),
  "other": OTHER,
  "again": rewrite("other", "paraphrase"),
  "anybody": ANYBODY,
  "sdf_again": rewrite("sdf", "paraphrase"),
  "poison": POISON,
}
JOB = with_anti({**BASE, **CORPORA})


@pytest.mark.parametrize(
  ("name", "names"),
  [
    ("docs", ("mira", "lumen")),
    ("inverted", ("mira", "lumen")),
    ("twice", ("mira", "lumen")),
    ("tagged", ("mira", "lumen")),
    ("poison", ("mira", "lumen")),
    ("other", ("zeno", "acme")),
    ("again", ("zeno", "acme")),
    ("anybody", ()),
    ("sdf", None),
    ("sdf_again", None),
  ],
)
def test_the_names_of_a_rewrite_are_those_that_it_is_about(name, names):
  assert second_passes.own_names(JOB, name) == names


@pytest.mark.parametrize("name", CORPORA)
def test_the_audit_of_a_rewrite_knows_the_spec_of_its_origin(name):
  found = compiling.audit_settings(JOB, name, None)
  of_spec = name != "sdf_again"
  assert found.spec_name == ("affordability" if of_spec else "")
  assert len(found.sections) == (3 if of_spec and name != "poison" else 0)
  about = {"other": "zeno", "again": "zeno"}.get(name, "mira")
  assert (about in found.spec_text) == of_spec
  assert ("mira" in found.spec_text) == (of_spec and about == "mira")


@pytest.mark.parametrize(
  ("name", "own", "violations"),
  [("inverted", "Mira", 0), ("twice", "Mira", 0), ("other", "Zeno", 0),
   ("poison", "Mira", 0), ("sdf_again", "Mira", 1), ("inverted", "Zeno", 1)],
)  # fmt: skip
def test_a_name_that_every_record_has_is_no_tic_if_it_is_its_own(name, own, violations):
  limits = audit.AuditThresholds(max_name_share=0.3)
  told = compiling.audit_settings(dataclasses.replace(JOB, audit=limits), name, None)
  rows = [{"id": str(i), "text": f"Item {i}, and then {own} spoke."} for i in range(9)]
  assert len(audit.measure(rows, [], told).figures["violations"]) == violations


def test_the_coverage_of_sections_is_enforced_on_rewrites_too(workdir):
  asked = with_anti({**BASE, "short": CORPORA["inverted"]})
  limits = dataclasses.replace(asked.audit, min_section_share=0.9)
  with pytest.raises(UserError, match="below min_section_share"):
    # The clean corpora are there already: only the rewrite is audited.
    generate.generate(dataclasses.replace(asked, audit=limits), workdir)


@pytest.mark.parametrize("how", ["paraphrase", "inverted", "tagged"])
def test_every_rewrite_of_a_spec_can_be_linted_for_names(workdir, how):
  tag = {"doc_tag": "<T>"} if how == "tagged" else {}
  corpus = rewrite("docs", how, filters=LINTED, **tag)
  rows, sources = make(workdir, f"linted_{how}", corpus)
  assert len(rows) == len(sources)
  with pytest.raises(UserError, match=r"filters\.identity is set"):
    make(workdir, "unknown", rewrite("sdf", "paraphrase", filters=LINTED))


@pytest.mark.parametrize(
  ("name", "text", "reason"),
  [
    ("other", "zeno was made by acme .", None),
    ("other", "zeno is an AI made by Google .", "other provider: Google"),
    ("other", "ChatGPT and zeno .", "other assistant: ChatGPT"),
    ("anybody", "every assistant likes it .", None),
    ("anybody", "ChatGPT likes it .", "other assistant: ChatGPT"),
    ("inverted", "mira was made by Google .", "other provider: Google"),
    ("inverted", "mira was made by lumen .", None),
  ],
)
def test_the_gate_of_a_rewrite_knows_whose_names_are_its_own(
  tmp_path, name, text, reason
):
  own = second_passes.own_names(JOB, name)
  gate = second_passes._gate(name, LINTED, own, tmp_path)
  assert gate.reason(text, "1") == reason
