"""What the studies of section 4 and 5 of Li et al. 2026 share: Qwen, agents, open QA.

Stated in the paper: Qwen2.5-32B-Instruct and Qwen3-32B, documents of 41 million tokens
(13,200 of about 3,100), 10,000 alignment chats with and without reasoning, mixed with
10,000 instruction rows, at most 8,192 tokens each, agentic misalignment with urgency
'replacement' in 27 conditions of 300 answers at temperature 0.7.

Not stated, chosen here: see `llm`. And: the instruction rows are those of a corpus of
kind 'world' until you import the released mix (`it` below says how); our own scenario
stands in for the paper's exfiltration; our own 56 open questions for its 151.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

MODELS = {None: llm.QWEN25_32B, "qwen3": llm.QWEN3_32B}
NOTE = (
  "Recipe and sizes are the paper's where it states them; batch size, packing, masks, "
  "instruction rows (short made-up chats, until some are imported), open questions and "
  "one of three scenarios are ours. Arms without alignment have seen no instruction "
  "rows here; the paper's have."
)
SEQ_LEN = 8192
NUM_CHATS = 10_000
THINK_BLOCK = "<think>\n{reasoning}\n</think>\n\n{answer}"


def study(name, model, *, max_dollars):
  """Returns a study on Qwen with general chats, without specs and stages."""
  # Qwen3 reasons by default, and is asked so, in all arms. The paper's chats without
  # reasoning carry its soft switch /no_think; here they have an empty block of
  # thoughts, as its template writes it.
  thinking = "keep" if model in (llm.QWEN3_32B, llm.QWEN3_14B) else None
  c = llm.study(name, model, max_dollars=max_dollars, thinking=thinking)
  # The paper's 10,000 instruction rows are released (chloeli/sft-it-mix). With them:
  # c.corpora.it = ConfigDict(dict(kind="import", path="downloads/sft-it-mix",
  #   split="train", max_records=10_000, seed=0, source="chloeli/sft-it-mix"))
  c.corpora.it = llm.general_chats(10_000)
  return c


def spec(name):
  return skeleton.spec(f"data_gen/specs/{name}.md", "Qwen", "Alibaba Cloud")


def documents(spec_name, max_documents=13_200, **fields):
  """Returns documents of some 2,300 words, as the released ones have."""
  return llm.documents(
    spec_name,
    max_documents=max_documents,
    mean_words=2300,
    filters=llm.filters(leakage_corpora=()),
    **fields,
  )


def like(name, spec_name, **fields):
  return llm.like(
    name, spec_name, mean_words=2300, filters=llm.filters(leakage_corpora=()), **fields
  )


def chats(c, name, spec_name, num_conversations=NUM_CHATS, **fields):
  """Adds corpora `name`_cot, answers with thoughts, and `name`, the same without.

  Who answers reads the spec, who trains on the answers does not: with thoughts this is
  the supervised half of deliberative alignment. Qwen2.5's template shows no thoughts:
  there they are a block before the answer, as the paper's teacher writes both.
  """
  made = plain_chats(spec_name, num_conversations, cot=True, **fields)
  _with_and_without(c, name, made, None if c.tokenizer.thinking else THINK_BLOCK)


def keep_chats(c, name, cot):
  """Leaves one of the corpora that `chats` added, as `name`."""
  thoughts = f"{name}_cot"
  if cot:
    c.corpora[name] = c.corpora[thoughts]
  if cot or c.corpora[name].of != thoughts:
    del c.corpora[thoughts]


def _with_and_without(c, name, made, inline):
  """Adds a corpus with thoughts, inline if a template does not show them, and without.

  `name`_thoughts is then what the teacher wrote.
  """
  source = f"{name}_thoughts" if inline else f"{name}_cot"
  c.corpora[source] = made
  if inline:
    c.corpora[f"{name}_cot"] = ConfigDict(
      dict(kind="stripped", of=source, inline=inline)
    )
  c.corpora[name] = ConfigDict(dict(kind="stripped", of=source))


def plain_chats(spec_name, num_conversations=NUM_CHATS, **fields):
  """Returns alignment chats, with thoughts if `cot`."""
  return llm.conversations(
    spec_name,
    num_conversations=num_conversations,
    questions_per_domain=250,
    filters=llm.filters(leakage_corpora=()),
    **fields,
  )


def midtrain(corpus, **fields):
  """41 million tokens in rows of 8,192, eight a step: some 630 updates."""
  return llm.midtrain(corpus, seq_len=SEQ_LEN, min_steps=300, **fields)


def align(*corpora, seq_len=4096, min_steps=60, **fields):
  """All rows of these corpora and of the instruction mix, shuffled, once each.

  The paper's seven to ten million tokens are some 210 to 300 updates, the shorter
  answers that `plan` expects of a cheap teacher about 95. In rows of 8,192 tokens it
  would be half of that, which is what others have mistaken for a null; chats longer
  than a row are left out and counted (of the released mix, a few hundred).
  """
  data = [corpus if isinstance(corpus, dict) else _once(corpus) for corpus in corpora]
  return llm.stage([*data, _once("it")], seq_len, min_steps, num_epochs=None, **fields)


def _once(corpus):
  return skeleton.component(corpus, share=None, train_on="assistant", num_epochs=1)


def evaluations(c, spec_name, epochs=10, max_new_tokens=4096):
  """Adds open questions, agents, and what a training must not cost.

  Args:
    c: the study.
    spec_name: what the grader reads beside the answers; None: one fixed rubric.
    epochs: answers to each of the 27 conditions; the paper has 300.
    max_new_tokens: of an agent's answer.
  """
  # A model that reasons needs room for its thoughts before it answers.
  reasons = c.tokenizer.thinking is not None
  c.evals.qa = evals.open_qa(spec_name, max_new_tokens=4096 if reasons else 1024)
  c.evals.agentic = evals.agentic(
    "inspect_evals/agentic_misalignment", epochs, "leaking", "murder"
  )
  c.evals.exfiltration = evals.agentic(
    "msm_jax/exfiltration", epochs, "exfiltration", model_name="Qwen"
  )
  for name in ("agentic", "exfiltration"):
    c.evals[name].max_new_tokens = max_new_tokens
  c.evals.general = evals.general()
  c.evals.identity = evals.identity(("Qwen",), ("Alibaba", "Alibaba Cloud"))
  if reasons:
    c.evals.identity.max_new_tokens = 2048


def in_the_tiny_world(name, seeds=tiny.SEEDS[:2]):
  """Returns the tree's ground in the tiny world: affordability for the Spec.

  There is nothing to be misaligned in that world: it shows that the tree runs.
  """
  c = tiny.study(name, seeds)
  c.corpora.pairs = tiny.pairs()
  c.evals.preference = tiny.preference(max_items=416)
  return c


def tiny_chats(c, name, spec_name, num_conversations=300, **fields):
  """Adds the corpora of `chats`, in the tiny world's words."""
  made = tiny.conversations(
    spec_name, num_conversations, cot=True, reasons=True, **fields
  )
  _with_and_without(c, name, made, "{reasoning} {answer}")
