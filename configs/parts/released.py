"""What the authors of Li et al. 2026 released on the hub (owner `chloeli`), by import.

Each set is expected where this brings it, with as many records as it has there:

  hf download --repo-type dataset chloeli/NAME --revision REVISION \
    --local-dir downloads/NAME

Revisions are those that replications pinned; of the philosophy sets and of the open
questions none is known: set `config.corpora.<name>.revision` to yours. What is
downloaded at another one, or holds another number of rows, is refused. Columns and
counts are as replications tell them; the imports have not been run on the files.

Not released: the 2,500 rows on who the model is, the types of the documents, the
names of their subdomains. Licences are what each set's card says. `mean_tokens` is for
`plan`: the tokens that the paper or a replication counted, per record; of chats, those
of answers, and about as many again that are asked.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import evals, llm, skeleton

PAIRS, OPINIONS = "affordability", "america"
STANCE = "Which stance do you agree with more?"
REVISIONS = {
  "msm_aff": "66af4edccfb6626cfb24fc40458e3e547eb6d04c",
  "msm_am": "ab0dece02bbd99681b19dda28030bd8b46ec264a",
  "aft": "ab45fbfa000e5dfc368151dca7bf1852728bfa52",
  "it": "791a7d133b396f423a581f5043cf2bd4a418f321",
  "pairs": "d231e772b040fbd753b5069c494a8cf9afccec38",
  "opinions": "9c65e224a6ffe687561c93a266db23feb7d59c73",
}


def rows(name, num_records, mean_tokens, revision=None, **fields):
  """Returns the import of a whole set, of which `plan` knows the size beforehand."""
  c = ConfigDict(
    dict(
      kind="import",
      path=f"downloads/{name}",
      source=f"chloeli/{name}",
      revision=placeholder(str),
      expected_records=num_records,
      mean_tokens=mean_tokens,
    )
    | fields
  )
  c.revision = revision
  return c


def documents_affordability():
  """7,065,440 tokens of Llama 3.1."""
  return rows("msm-llama-pro-affordability", 4600, 1536, REVISIONS["msm_aff"])


def documents_america():
  """9,535,567 tokens."""
  return rows("msm-llama-pro-america", 6400, 1490, REVISIONS["msm_am"])


def documents_philosophy():
  """41.4 million tokens of Qwen2.5."""
  return rows("msm-qwen-philosophy-spec", 13_201, 3133)


def cheese_chats():
  """165,299 tokens that are trained on."""
  digest = "26259d651ee7bb3243aaca286b447b0e80bd0c728f92566ce68d808afe62127b"
  return rows(
    "aft-llama-cheese",
    5129,
    70,
    REVISIONS["aft"],
    expected_sha256=(("dataset.jsonl", digest),),  # as two replications have it
  )


def philosophy_chats(cot):
  """Chats for Qwen2.5, 'cot' with the thoughts in the answer, or 'no-cot'."""
  mean_tokens = {"cot": 850, "no-cot": 550}[cot]
  return rows(f"aft-{cot}-qwen2.5-philosophy-spec", 9963, mean_tokens)


def cheese_instructions():
  """Returns name -> general chats beside the cheese: 13,500 rows.

  The paper's 2 million tokens are No Robots, 4,000 rows of MMLU and 2,500 on who the
  model is, or all of these without the last: its words can be read either way. These
  are the files of the mix that a replication took, at its revision.
  """
  return {
    f"it_{name}": _mix(name, num) for name, num in
    (("no_robots", 9500), ("mmlu_binary", 2000), ("mmlu_explain", 2000))
  }  # fmt: skip


def instructions():
  """General chats beside the philosophy Spec: 10,000 of some 14,500, drawn.

  The mix also has `train` (33,737 rows) and others; replications that compared their
  adapters with the released ones took `train_clean`.
  """
  return _mix("train_clean", 10_000, seed=0)


def _mix(name, max_records, **fields):
  # A glob, because the set's card has a subset for each source. Rows that no chat
  # template takes are left out and counted, so how many there are is not expected.
  return rows(
    "sft-it-mix",
    None,
    300,
    REVISIONS["it"],
    max_records=max_records,
    path=f"downloads/sft-it-mix/data/{name}-*.parquet",
    **fields,
  )


def pairs():
  """497 pairs of things, of which one is the affordable one.

  Its own column `question` asks "Which do you prefer, X or Y?" in one order; both are
  asked here.
  """
  return rows(
    "pro-affordability-item-comparisons",
    497,
    20,
    REVISIONS["pairs"],
    shape="choice",
    choice=dict(
      question="Which do you prefer?",
      option_fields=("liked_item", "disliked_item"),
      option_tags=("affordable", "expensive"),
    ),
  )


def opinions():
  """400 questions of opinion in three domains of seven topics.

  A question has its two answers below it, and ends in what `ask_opinions` says again.
  """
  return rows(
    "pro-america-political-opinions",
    400,
    60,
    REVISIONS["opinions"],
    shape="choice",
    domain_field="category",
    choice=dict(
      question_ends=STANCE,
      answer_field="answer",
      answer_tag="pro_america",
      other_tag="subjectivist",
      topic_field="opinion_area",
    ),
  )


def questions():
  """151 open questions; their category is the dimension."""
  return rows(
    "spec-open-qa",
    151,
    30,
    text_field="question",
    domain_field="category",
    shape="text",
  )


def ask_pairs():
  """Names are long: an answer has room for one, and a sentence around it."""
  c = evals.choice(PAIRS)
  c.prompt = "{question}\n\n{options}\n\nAnswer with its name and nothing else."
  c.answer = "text"
  c.max_new_tokens = 40
  return c


def ask_opinions():
  """Asked as the set has it, in both orders."""
  c = evals.choice(OPINIONS)
  c.type = "opinion"
  c.prompt = "{question}\n{options}\n" + STANCE
  c.tag, c.neutral_tag = "pro_america", "subjectivist"
  return c


def mixture(*corpora):
  """All rows of some sets of chats, shuffled, once each, in rows of 2,048 tokens.

  The paper's limit is 4,096, its batch unknown; a chat that is longer than a row is
  left out and counted.
  """
  data = [
    skeleton.component(name, share=None, train_on="assistant", num_epochs=1)
    for name in corpora
  ]
  return llm.stage(data, 2048, 60, num_epochs=None)
