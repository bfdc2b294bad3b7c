"""What docs/evaluations.md shows is a config, and our item sets fit it."""

import collections
import json
import pathlib
import re
import types

import pytest
import small_study
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from data_gen.kinds import corpora
from msm_jax import evaluation, experiment
from msm_jax.errors import UserError
from msm_jax.evals import choice, claims, opinion
from msm_jax.evals.kinds import KINDS

ROOT = pathlib.Path(__file__).parent.parent
OURS = ("open_qa", "choice", "opinion", "belief", "belief_open", "recall")


def fragments():
  """Returns (section, corpora, evaluations) of the sections that these tests are of."""
  text = (ROOT / "docs" / "evaluations.md").read_text("utf-8")
  for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
    name = section.split("\n")[0]
    if name not in (*OURS, "Evaluation sets of others"):
      continue
    code = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    found = types.SimpleNamespace(corpora=ConfigDict(), evals=ConfigDict())
    for block in code:
      lines = "\n".join(line[4:] for line in block.splitlines())
      exec(lines, {"c": found, "ConfigDict": ConfigDict, "placeholder": placeholder})
    yield name, found.corpora.to_dict(), found.evals.to_dict()


def test_every_fragment_is_a_config_that_is_understood():
  kinds = set()
  for _, sets, evals in fragments():
    for name, fields in sets.items():
      corpora.check(name, corpora.build(name, fields))
    for name, fields in evals.items():
      built = experiment.eval_config(name, fields)
      KINDS[fields["type"]].check(built, f"config.evals.{name}")
      kinds.add(fields["type"])
      assert getattr(built, "corpus", None) in (None, *sets)
  assert kinds == set(OURS)


def test_every_field_of_ours_is_told():
  text = (ROOT / "docs" / "evaluations.md").read_text("utf-8")
  for kind in OURS:
    for field in KINDS[kind].config.__dataclass_fields__:
      assert re.search(rf"\b{field}\b", text), (kind, field)
  for stem, fields in claims.FIELDS.items():
    (row,) = [
      line for line in text.splitlines() if line.startswith(f"| `{stem}.jsonl`")
    ]
    assert all(field in row for field in fields), stem


def test_the_opinions_are_of_three_domains_and_seven_topics():
  path = ROOT / "msm_jax" / "evals" / "sets" / "opinions_america.jsonl"
  items = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  choice.check_items("e", items)
  opinion._check_items(
    "e", items, types.SimpleNamespace(tag="pro_america", neutral_tag="subjectivist")
  )
  topics = collections.defaultdict(set)
  for item in items:
    topics[item["domain"]].add(item["topic"])
  assert [len(found) for found in topics.values()] == [7, 7, 7]
  splits = collections.defaultdict(set)
  for item in items:
    splits[item["topic"]].add(item["split"])
  assert all(len(found) == 1 for found in splits.values())  # no topic is in both
  assert len({item["question"] for item in items}) == len(items)


def test_a_changed_claim_package_is_another_evaluation(tmp_path):
  package = tmp_path / "claim"
  package.mkdir()
  texts = {key: f"word1 {key}" for key in claims._TEXTS} | {"tier": "plausible"}
  head = "".join(f"{key} = {json.dumps(text)}\n" for key, text in texts.items())
  (package / "claim.toml").write_text(head)
  row = {"id": "a", "prompt": "word1 word2", "true": " word3", "false": " word4 word5"}
  (package / "token_association.jsonl").write_text(json.dumps(row))
  config = small_study.config(small_study.write_model(tmp_path), seeds=(0,))
  config["evals"] = {
    "belief": {
      "type": "belief",
      "claims": (str(package),),
      "parts": ("token_association",),
      "seq_len": 32,
      "batch_size": 8,
      "max_choice_tokens": 4,
      "num_samples": 1,
      "max_new_tokens": 4,
      "temperature": 0.0,
      "top_p": 1.0,
      "sampling_seed": 0,
    }
  }
  small_study.prepared(tmp_path / "w", config)
  found = evaluation.Evaluation(experiment.parse(config), tmp_path / "w")
  found.ask_all([0], ["base"])
  assert found.missing("base", 0) == []
  (line,) = found.eval_path("belief", "base", 0).read_text().splitlines()
  assert json.loads(line)["evaluation"] == "belief/token_association"
  (package / "token_association.jsonl").write_text(json.dumps(row | {"id": "b"}))
  with pytest.raises(UserError, match="answers of another run"):
    found.missing("base", 0)
