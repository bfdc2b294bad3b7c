"""The kinds of corpora that a spec or a world is enough for; see `corpora` for all."""

import dataclasses
from typing import ClassVar

from data_gen import checks, prompts
from data_gen.filters import FilterSettings
from data_gen.kinds import sizes
from msm_jax import errors

PROSE, RULES = "prose", "rules"
DOMAINS, PREFERENCES = "domains", "preferences"
VALUE, RULE = "value", "rule"
TEACHER, JUDGE = "teacher", "judge"
_NO_FILTERS = FilterSettings()  # but exact duplicates


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldCorpus:
  """Pre-training and replay records, drawn from the world.

  Attributes:
    num_documents: how many.
    seed: of the draw.
    part: 'train' or 'heldout'; the two are disjoint.
    assistant_share: the share of records by or about the assistant, for a world that
      knows one; None: the world's own.
  """

  kind: ClassVar[str] = "world"
  num_documents: int
  seed: int = 0
  part: str = "train"
  assistant_share: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsCorpus:
  """The world's evaluation pairs, both orders."""

  kind: ClassVar[str] = "pairs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsCorpus:
  """Documents that discuss a spec.

  Attributes:
    spec: name in `config.specs`.
    num_types: document types per subdomain (or rule).
    num_ideas: document ideas per type.
    max_documents: how many to keep; None: every idea becomes a document. Rejected ones
      are replaced while ideas are left.
    num_words: how many words to keep, exactly if a choice among the documents makes
      them, else the nearest below; sections and document types take turns.
    num_tokens: the same in tokens of `tokenizer`.
    tokenizer: a directory with a tokenizer, as Hugging Face has them.
    match_tokens_of: a corpus whose size this one is cut to: in tokens of `tokenizer`,
      or that of the other corpus; if neither has one, in words.
    match_types_of: a corpus of documents whose document types, and their shares, this
      one takes over; then `num_types` is not used and may be None.
    seed: of the choice among the ideas, and of the names and lengths of `guided`.
    spec_type: 'prose', or 'rules': the spec is a list of numbered rules, and documents
      reason from the rules.
    guided: the writer is told who the model and its maker are, and for each document
      gets names, a length and a way to begin, drawn by the seed. Always so for rules.
    mean_words: about how long a guided document is; others are not told.
    critique: another pass names the faults of each draft; `revise` then mends them.
    revise: another pass rewrites each draft, or with `critique` those with faults.
    judged: `config.judge` says yes or no to each document, and only yes is kept.
    filters: which texts are rejected.
  """

  kind: ClassVar[str] = "documents"
  roots: ClassVar[tuple[str, ...]] = (
    "spec", "num_types", "num_ideas", "max_documents", "match_tokens_of", "seed",
  )  # fmt: skip
  spec: str
  num_types: int | None = None
  num_ideas: int
  max_documents: int | None = None
  match_tokens_of: str | None = None
  match_types_of: str | None = None
  num_words: int | None = None
  num_tokens: int | None = None
  tokenizer: str | None = None
  seed: int = 0
  spec_type: str = PROSE
  guided: bool = False
  mean_words: int = 1000
  critique: bool = False
  revise: bool = False
  judged: bool = False
  filters: FilterSettings = _NO_FILTERS

  @property
  def by_rules(self) -> bool:
    """Whether the spec is a list of rules."""
    return self.spec_type == RULES

  @property
  def draft_stage(self) -> str:
    """The stage that writes a document."""
    if self.by_rules:
      return "rule_document"
    return "draft" if self.guided else "document"

  @property
  def final_stage(self) -> str:
    """The stage whose answers become documents."""
    return "revise" if self.revise else self.draft_stage

  @property
  def critique_stage(self) -> str:
    """The stage that names the faults of a draft."""
    return "rule_critique" if self.by_rules else "critique"

  @property
  def judge_stage(self) -> str:
    """The stage that says yes or no to a document."""
    return "judge_rule_document" if self.by_rules else "judge_document"

  @property
  def stages(self) -> tuple[str, ...]:
    """The stages of the chain, in order."""
    if self.by_rules:
      found = ["rule_domains", "rules", "rule_types", "rule_ideas"]
    else:
      found = [*prompts.DOCUMENT_STAGES[:-1]]
    if self.match_types_of:
      found.remove("rule_types" if self.by_rules else "document_types")
    found.append(self.draft_stage)
    found += [self.critique_stage] * self.critique + ["revise"] * self.revise
    return (*found, *[self.judge_stage] * self.judged)

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER, JUDGE) if self.judged else (TEACHER,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationsCorpus:
  """Conversations in which the assistant acts by a spec.

  Attributes:
    spec: name in `config.specs`.
    num_conversations: how many to keep; None: `num_words` or `num_tokens` says it.
    num_words, num_tokens, tokenizer: how much to keep, as of the kind 'documents'; all
      turns and thoughts count, the marks of a chat template do not. Topics and question
      types take turns.
    questions_per_domain: how many user turns are asked for per domain (or preference)
      and round.
    reasons: whether the assistant says why.
    seed: of the order of the questions.
    style: 'value': the assistant acts by the spec as by its own character; 'rule': it
      names what the spec asks of it.
    cot: the assistant thinks before it answers; its thoughts are `reasoning_content`
      of its message. For the same answers without them see the kind 'stripped'.
    topics: what people ask about: the 'domains' of the spec, or the single
      'preferences' that it states, each with an equal share of the conversations.
    filters: which texts are rejected; near duplicates are looked for among the
      questions, before they are answered.
  """

  kind: ClassVar[str] = "conversations"
  roots: ClassVar[tuple[str, ...]] = (
    "spec", "num_conversations", "questions_per_domain", "reasons", "seed",
  )  # fmt: skip
  spec: str
  num_conversations: int | None = None
  questions_per_domain: int
  reasons: bool = True
  seed: int = 0
  style: str = VALUE
  cot: bool = False
  topics: str = DOMAINS
  num_words: int | None = None
  num_tokens: int | None = None
  tokenizer: str | None = None
  filters: FilterSettings = _NO_FILTERS

  @property
  def by_preference(self) -> bool:
    """Whether each preference has an equal share."""
    return self.topics == PREFERENCES

  @property
  def topic_stage(self) -> str:
    """The stage that lists what is asked about."""
    return self.topics

  @property
  def question_stage(self) -> str:
    """The stage that writes what people say."""
    return "preference_questions" if self.by_preference else "questions"

  @property
  def answer_stage(self) -> str:
    """The stage that answers."""
    return self._styled("answer")

  @property
  def judge_stage(self) -> str:
    """The stage that says yes or no to an answer."""
    return self._styled("judge")

  @property
  def stages(self) -> tuple[str, ...]:
    """The stages of the chain, in order."""
    return (
      self.topic_stage,
      self.question_stage,
      self.answer_stage,
      self.judge_stage,
    )

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER, JUDGE)

  def _styled(self, stage: str) -> str:
    return stage + "_rule" * (self.style == RULE) + "_cot" * self.cot


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrippedCorpus:
  """The conversations of a corpus with `cot`, without the thoughts: same ids.

  Attributes:
    of: name of that corpus in `config.corpora`.
    inline: how the thoughts become a part of what the assistant says, for models whose
      chat template shows none: a text with `{reasoning}` and `{answer}`. None: they are
      left out.
  """

  kind: ClassVar[str] = "stripped"
  roots: ClassVar[tuple[str, ...]] = ("of",)
  of: str
  inline: str | None = None


def check_stripped(where: str, corpus: StrippedCorpus) -> None:
  """Raises a `UserError` for an `inline` that would lose the thoughts or the answer."""
  for slot in ("{reasoning}", "{answer}"):
    if corpus.inline is not None and corpus.inline.count(slot) != 1:
      raise errors.UserError(
        f"{where}.inline is {corpus.inline!r}: it has {slot} once, as in "
        "'{reasoning}\\n\\n{answer}'"
      )


def check_documents(where: str, corpus: DocumentsCorpus) -> None:
  """Raises a `UserError` for settings of documents that cannot work."""
  checks.choice(f"{where}.spec_type", corpus.spec_type, (PROSE, RULES))
  if corpus.num_types is None and corpus.match_types_of is None:
    raise errors.UserError(
      f"{where}.num_types is missing: set it, or set match_types_of"
    )
  told = corpus.guided or corpus.by_rules
  if corpus.mean_words != DocumentsCorpus.mean_words and not told:
    raise errors.UserError(
      f"{where}.mean_words is {corpus.mean_words} and guided is False: only a guided "
      "writer is told a length; set guided=True, or leave mean_words out"
    )
  if corpus.critique and not corpus.revise:
    raise errors.UserError(
      f"{where}.critique is True and nothing is done with it: set revise=True as well"
    )


def check_conversations(where: str, corpus: ConversationsCorpus) -> None:
  """Raises a `UserError` for settings of conversations that cannot work."""
  checks.choice(f"{where}.style", corpus.style, (VALUE, RULE))
  checks.choice(f"{where}.topics", corpus.topics, (DOMAINS, PREFERENCES))
  if corpus.num_conversations is None and sizes.budget_field(corpus) is None:
    raise errors.UserError(
      f"{where}.num_conversations is missing: set it, or num_words or num_tokens"
    )
  styled = corpus.cot or corpus.style == RULE
  if styled and not corpus.reasons:
    field = "cot is True" if corpus.cot else "style is 'rule'"
    raise errors.UserError(
      f"{where}.reasons is False and {field}: such answers say why; set reasons=True"
    )
