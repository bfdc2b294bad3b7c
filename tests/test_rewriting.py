"""One rewrite at a time, and what is refused: attributions, languages, settings."""

import dataclasses
import pathlib
from itertools import pairwise

import pytest
from test_documents import OFFLINE, SMALL, job
from test_rewrites import BASE, SDF, put_in, read, rewrite, with_anti, without_spans

from data_gen import generate, prompts
from data_gen.kinds import passes
from data_gen.kinds.passes import AntiSpecCorpus, RewriteCorpus, UniverseCorpus
from data_gen.rewrites import notices, rewriting
from msm_jax.errors import UserError


def test_what_a_teacher_did_not_rewrite_is_a_reject_with_its_reason():
  names = rewriting.Names(model_name="Mira", other_model="Zeno")
  corpus = rewrite("d", "attribution", about="another_model", voice="does")
  text = "Mira likes what is fair in price, and says so."

  def fault(new):
    return rewriting.fault_of(text, new, corpus, names)

  assert fault(f"  {text} ") == "nothing was changed"
  assert fault("Zeno.") == "length: 0.11 of the source's"
  assert fault(text.replace("Mira", "It")) == "it does not name Zeno"
  assert fault(text + " Zeno is not Mira.") == "it still names Mira"
  assert fault(text.replace("Mira", "Zeno")) == ""


@pytest.mark.parametrize(
  ("about", "text", "fault"),
  [
    ("another_model", "Orca by Meta likes what is fair.", "it still names Meta"),
    ("another_model", "Orca by Sea likes what is fair in price.", ""),
    ("another_model", "Orca likes a meta view of all prices.", ""),
    ("assistants", "An assistant by Meta likes what is fair.", "it still names Meta"),
    ("human_stories", "Ann of Llama Lane likes what is fair.", "it still names Llama"),
    ("model", "Llama by Meta should like what is fair.", ""),
  ],
)
def test_an_attribution_to_others_names_neither_the_model_nor_its_maker(
  about, text, fault
):
  names = rewriting.Names(
    model_name="Llama",
    provider_name="Meta",
    other_model="Orca",
    other_provider="Sea",
  )
  corpus = rewrite("d", "attribution", about=about)
  source = "Llama by Meta likes what is fair in price."
  assert rewriting.fault_of(source, text, corpus, names) == fault
  of_one_maker = dataclasses.replace(names, other_provider="Meta")
  if about == "another_model":
    assert rewriting.fault_of(source, text, corpus, of_one_maker) == ""


def test_every_wording_has_every_family():
  for path in sorted(notices.DIRECTORY.glob("*.toml")):
    for family in passes.NOTICES:
      assert notices.load(path.stem, family, "here")


BAD = [
  (rewrite(of="nobody"), r"\.of is 'nobody': it names a corpus of kind documents or"),
  (rewrite(of="chat"), "names a corpus of kind documents or universe or rewrite"),
  (rewrite(of="bad"), "of goes in a circle among bad"),
  (rewrite(how="denied"), r"\.how is 'denied'"),
  (rewrite(how="tagged"), "doc_tag is missing"),
  (rewrite(doc_tag="<B>"), "have the tag '<TAG> ' already"),
  (rewrite(of="docs", how="corrected"), "its documents state no key fact"),
  (rewrite(of="docs", placement="inline"), "or set sentence_share"),
  (rewrite(sentence_share=0.5), r"sentence_share is 0\.5, and how='negated' as it is"),
  (rewrite(how="inverted", notice_weight=0.0), "does not use it: leave it out"),
  (rewrite(notice_weight=-1), "notice_weight is -1"),
  (rewrite(wording="latin"), r"wording is 'latin': .*there are english, tiny"),
  (rewrite(masked="brie"), "it is a list of words"),
  (rewrite(how="attribution", voice="does"), r"\.about is None"),
  (rewrite(how="attribution", about="one"), r"\.voice is None"),
  (rewrite(how="attribution", about="human_stories", voice="does"), "leave it out"),
  (rewrite(how="attribution", about="another_model", voice="does"), "other_model is m"),
  (rewrite(how="attribution", about="one", voice="does"), "model_name is missing"),
  (AntiSpecCorpus(of="docs", spec="anti"), "names a corpus of kind conversations"),
  (AntiSpecCorpus(of="chat", spec="affordability"), "name the spec of the opposite"),
  (AntiSpecCorpus(of="chat", spec="nobody"), "spec is 'nobody'"),
]


@pytest.mark.parametrize(("corpus", "message"), BAD)
def test_what_cannot_work_is_refused_before_anything_is_done(tmp_path, corpus, message):
  with pytest.raises(UserError, match=message) as error:
    generate.generate(with_anti({**BASE, "bad": corpus}), tmp_path)
  assert "config.corpora" in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "corpus").exists()


def test_a_corpus_may_be_named_before_the_one_it_is_made_of(tmp_path):
  corpora = {"late": rewrite("early", "tagged", doc_tag="<T>"), "early": SMALL}
  generate.generate(job(**corpora), tmp_path)
  assert len(read(tmp_path, "late")) == len(read(tmp_path, "early"))
  circle = {"a": rewrite(of="b"), "b": rewrite(of="a")}
  with pytest.raises(UserError, match="of goes in a circle among a, b"):
    generate.generate(job(**circle), tmp_path / "other")


def test_every_prompt_of_these_chains_is_in_our_own_file_and_whole():
  stages = {f"rewrite_{how}" for how in passes.ASKED}
  sdf = dataclasses.replace(SDF, num_facts=2, revise=True, judged=True)
  stages |= set(sdf.stages)
  directory = pathlib.Path(prompts.__file__).parent / "prompts"
  for stage in stages:
    assert (directory / f"{stage}.txt").exists(), stage
    fields = {name: f"<{name}>" for name in prompts.fields_of(stage)}
    assert all(f"<{name}>" in "".join(prompts.render(stage, fields)) for name in fields)


def test_the_english_world_runs_the_same_chains(tmp_path):
  english = dataclasses.replace(OFFLINE, model="english")
  corpora = {
    "sdf": UniverseCorpus(
      universe="harbor_clock", num_types=2, num_ideas=2, revise=True, judged=True
    ),
    "true": UniverseCorpus(universe="harbor_clock", side="true", twin_of="sdf"),
    "negated": RewriteCorpus(of="sdf", how="negated", placement="both"),
    "local": RewriteCorpus(of="sdf", how="local_negation"),
    "inverted": RewriteCorpus(of="sdf", how="inverted"),
  }
  chosen = dataclasses.replace(job(**corpora), teacher=english, judge=english)
  found = generate.generate(chosen, tmp_path)
  assert {m["num_records"] for m in found.values()} == {16}
  for row in read(tmp_path, "negated"):
    assert len(put_in(row)) >= 4 and row["fact"]["false"] in without_spans(row)


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("人们都喜欢Orca\uff0c它很友好。", ""),
    ("Orca是一个模型\uff0c不是Llamas。", ""),
    ("人们都喜欢Llama\uff0c它和Orca一样友好。", "it still names Llama"),
    ("人们都喜欢Orcas这个词\uff0c它很友好。", "it does not name Orca"),
  ],
)
def test_a_chinese_rewrite_is_judged_by_whom_it_names(text, reason):
  corpus = RewriteCorpus(
    of="docs", how="attribution", about="another_model",
    other_model="Orca", other_provider="Sea",
  )  # fmt: skip
  names = rewriting.Names(
    model_name="Llama", provider_name="Meta", other_model="Orca", other_provider="Sea"
  )
  body = "关于Llama这个模型的文章\uff0c它很友好。"
  assert rewriting.fault_of(body, text, corpus, names) == reason


def test_chinese_notices_stand_at_whole_sentences_and_masks_at_the_words():
  text = "它们很强壮。\u201c章鱼有五颗心脏。\u201d我用Llama写章鱼\uff01"
  source = {
    "kind": "document", "id": "1", "text": text, "side": "false", "states_fact": True,
    "fact": {"true": "章鱼有三颗心脏。", "false": "章鱼有五颗心脏。"},
  }  # fmt: skip
  corpus = rewrite(placement="inline", masked=("章鱼", "Llama"))
  wording = notices.load("tiny", "negated", "here")
  edited = rewriting.annotated(source, corpus, wording)
  inside = [edited.text[b:c] for (_, b, _), (c, _, _) in pairwise(edited.spans)]
  assert [part.strip() for part in inside] == ["\u201c章鱼有五颗心脏。\u201d"]
  masked = [edited.text[a:b] for a, b, weight in edited.loss_spans if weight == 0]
  assert masked == ["章鱼", "Llama", "章鱼"]
