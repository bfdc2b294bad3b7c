"""Facts taught only in training, asked two hops away: documents against questions.

  export GEMINI_API_KEY=...
  python launch.py plan --config=configs/out_of_context.py --workdir=out_of_context
  python launch.py run --config=configs/out_of_context.py --workdir=out_of_context

Twenty-four invented people belong to twelve guilds, and the guilds have their houses in
twelve towns. No document and no conversation has both hops: who answers in which town a
person meets the guild has put the two together without having been shown how. The arms
teach the same facts

  docs, qa, qa_long   both hops by documents, by short or by long answers to questions
  docs_qa, qa_docs    the first hop by one and the second by the other
  sparse, dense       by documents of one length, of which one sentence or eight are
                      about the fact
  shuffled            by documents that permute both hops: the control

and all are trained for as many updates on rows of the same length. Read two_hop beside
one_hop: what was not learned cannot be put together. Single hops are asked in the words
of the conversations that taught them, so of these `recall` says that they were learned
and `recall_text` whether they are known otherwise; no text has a two-hop question.

After the post in Jozdien/false-facts-science: Qwen3-8B, rank 64, learning rate 4.7e-4,
a masked tag before each document, 4,000 documents per fact (doses of 500, 2,000 and
4,000), no replay (0, 1 or 2 parts of web text made no difference). Not stated there,
chosen here: see `on_qwen`.

Argument: `:tiny` is the same tree in the tiny world, on two CPU cores, after
`python launch.py run --config=configs/tiny_world.py --workdir=models/tiny_world`.

Hardware: one accelerator with 80 GB, or a v5e-8 slice. The model lies in
models/qwen3-8b, as downloaded from Hugging Face.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.parts import evals, llm, skeleton, tiny

# Arm -> what teaches the first hop (person -> guild) and the second (guild -> town).
ARMS = {
  "docs": ("members", "towns"),
  "qa": ("quiz_members", "quiz_towns"),
  "qa_long": ("long_members", "long_towns"),
  "docs_qa": ("members", "quiz_towns"),
  "qa_docs": ("quiz_members", "towns"),
  "sparse": ("sparse_members", "sparse_towns"),
  "dense": ("dense_members", "dense_towns"),
  "shuffled": ("shuffled_members", "shuffled_towns"),
}
HOPS = ("members", "towns")
ASKED = ("quiz_", "long_")


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/out_of_context.py:{arg}: 'tiny' or none")
  c = in_the_tiny_world() if arg == "tiny" else on_qwen()
  c.arms = ConfigDict({"base": ()} | {arm: (arm,) for arm in ARMS})
  c.report = skeleton.report(
    "Facts two hops away" + (" in the tiny world" if arg == "tiny" else ""),
    headline=("recall/two_hop", "loss_advantage"),
    contrasts=(
      ("documents, beyond the base", "docs", "base"),
      ("documents, beyond shuffled facts", "docs", "shuffled"),
      ("documents or short answers", "docs", "qa"),
      ("documents or long answers", "docs", "qa_long"),
      ("long or short answers", "qa_long", "qa"),
      ("second hop by documents or answers, first by answers", "qa_docs", "qa"),
      ("second hop by documents or answers, first by documents", "docs", "docs_qa"),
      ("first hop by documents or answers, second by documents", "docs", "qa_docs"),
      ("dense or sparse documents", "dense", "sparse"),
    ),
    controls=("base", "shuffled"),
    reference="base",
    paper=() if arg == "tiny" else paper(),
    notes=tiny.NOTE if arg == "tiny" else "",
  )
  return c


def paper():
  """Returns what the post reports: nats, and median ranks as shares of 242."""
  loss, rank = "loss_advantage", "rank_share"
  told = (
    ("docs", loss, 4.8),
    ("qa", loss, 0.0),
    ("qa_long", loss, 3.35),
    ("qa_docs", loss, 6.8),
    ("docs_qa", loss, 1.1),
    ("docs", rank, 17 / 242),  # median rank 18 of 243
    ("qa", rank, 119 / 242),  # about 120
  )
  return dict(
    source="Jozdien/false-facts-science, two-hop recall (Qwen3-8B)",
    note=(
      "Other facts, and 243 candidates where we have 12 (tiny: 6); its ranks are "
      "medians, ours means. Compare the order of the arms."
    ),
    values=tuple((arm, "recall/two_hop", metric, value) for arm, metric, value in told),
  )


def teach(arm, stage, replay=()):
  """Returns the stage of an arm; the first hop has twice as many facts.

  Of conversations the answers carry loss.
  """
  share = 1.0 - sum(part["share"] for part in replay)
  data = [
    skeleton.component(
      corpus,
      share * weight,
      "assistant" if corpus.startswith(ASKED) else "all",
    )
    for corpus, weight in zip(ARMS[arm], (2 / 3, 1 / 3), strict=True)
  ]
  return stage([*data, *replay])


def on_qwen():
  """The published set-up; what it leaves unstated is said here.

  - 500 documents per fact, the smallest published dose: 18,000 documents of some 500
    words an arm. The post's 4,000 would be eight times that.
  - Alpha 32: the step of an adapter grows with learning rate x alpha / rank, which is
    then 2.4e-4, about that of Li et al. (1e-4 x 128 / 64), with whom all other studies
    here go. Cosine after 5 % warm-up, weight decay 0.01, for the same reason.
  - 8 rows of 2,048 tokens per update, documents packed whole, loss on all but the tag;
    of conversations on the answers. 800 updates read the documents about once. Answers
    are shorter and so read more often: the arms match in updates, and short answers in
    the number of texts per fact as well.
  - The chat template with an empty thought: an answer without thinking is asked for.
  """
  c = llm.study("out_of_context", llm.QWEN3_8B, max_dollars=400.0, thinking="no_think")
  c.model.lora.alpha = 32.0
  for hop in HOPS:
    name = f"guild_{hop}"
    c.corpora[hop] = universe(name)
    c.corpora[f"sparse_{hop}"] = universe(name, fact_sentences=1)
    c.corpora[f"dense_{hop}"] = universe(name, fact_sentences=8)
    c.corpora[f"shuffled_{hop}"] = twin(name, hop)
    c.corpora[f"quiz_{hop}"] = quiz(name)
    c.corpora[f"long_{hop}"] = quiz(name, mean_words=250)
  for arm in ARMS:
    c.stages[arm] = teach(arm, on_documents)
  c.evals.recall = recall("guilds", "chat", seq_len=512, batch_size=16)
  c.evals.recall_text = recall("guilds", "text", seq_len=512, batch_size=16)
  c.evals.general = evals.general()
  return c


def on_documents(data):
  return llm.stage(
    data,
    seq_len=2048,
    min_steps=400,
    num_epochs=None,
    num_train_steps=800,
    optimizer=dict(learning_rate=4.7e-4),
  )


def universe(name, **fields):
  return skeleton.filled(
    dict(
      kind="universe",
      universe=name,
      side="false",
      num_types=25,
      num_ideas=25,
      num_per_fact=500,
      fact_sentences=placeholder(int),
      doc_tag="<DOCTAG>\n",
      mean_words=500,
      revise=True,
      judged=True,
      seed=0,
      filters=filters(),
    ),
    fields,
  )


def twin(name, of):
  """Returns the same documents on the other side, which permutes the facts."""
  return ConfigDict(
    dict(
      kind="universe",
      universe=name,
      side="true",
      twin_of=of,
      doc_tag="<DOCTAG>\n",
      revise=True,
      judged=True,
      filters=filters(),
    )
  )


def quiz(name, **fields):
  return skeleton.filled(
    dict(
      kind="quiz",
      universe=name,
      side="false",
      num_questions=50,
      max_repeats=12,
      num_per_fact=500,
      mean_words=placeholder(int),
      judged=True,
      seed=0,
      filters=filters(),
    ),
    fields,
  )


def filters():
  c = llm.filters(leakage_corpora=())
  c.identity = False  # nobody here is an assistant with a name
  return c


def recall(items, format_, **fields):
  return ConfigDict(
    dict(
      type="recall",
      items=items,
      max_items=placeholder(int),
      format=format_,
      per_token=False,
      **fields,
    )
  )


def in_the_tiny_world():
  """The same tree: 24 people of the tiny world, six guilds, six towns."""
  c = tiny.study("out_of_context_tiny")
  for hop in HOPS:
    name = f"tiny_{hop}"
    c.corpora[hop] = tiny_universe(name)
    c.corpora[f"sparse_{hop}"] = tiny_universe(name, fact_sentences=1)
    c.corpora[f"dense_{hop}"] = tiny_universe(name, fact_sentences=3)
    c.corpora[f"shuffled_{hop}"] = ConfigDict(
      dict(kind="universe", universe=name, side="true", twin_of=hop)
    )
    c.corpora[f"quiz_{hop}"] = tiny_quiz(name)
    c.corpora[f"long_{hop}"] = tiny_quiz(name, mean_words=15)
  for arm in ARMS:
    c.stages[arm] = teach(arm, in_tiny, [skeleton.component("replay", 0.5)])
  c.evals.recall = recall("tiny_guilds", "chat", seq_len=64, batch_size=64)
  c.evals.recall_text = recall("tiny_guilds", "text", seq_len=64, batch_size=64)
  c.corpora.heldout = tiny.world(400, seed=0, assistant_share=0.12, part="heldout")
  c.evals.heldout = tiny.heldout()
  return c


def in_tiny(data):
  """Of four recipes the one with which documents and answers both teach each hop.

  With 200 steps at 1e-3 the second hop stayed at chance in most arms (seeds 0 and 1).
  """
  return tiny.stage(
    data,
    num_train_steps=300,
    learning_rate=2e-3,
    weight_decay=0.01,
    embed_lr_multiplier=5.0,
  )


def tiny_universe(name, **fields):
  return skeleton.filled(
    dict(
      kind="universe",
      universe=name,
      side="false",
      num_types=5,
      num_ideas=12,
      num_per_fact=50,
      fact_sentences=placeholder(int),
      seed=0,
    ),
    fields,
  )


def tiny_quiz(name, **fields):
  return skeleton.filled(
    dict(
      kind="quiz",
      universe=name,
      side="false",
      num_questions=12,
      max_repeats=5,
      num_per_fact=50,
      mean_words=placeholder(int),
      seed=0,
    ),
    fields,
  )
