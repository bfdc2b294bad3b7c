"""The kinds of corpora that come of a universe or of another corpus: their settings.

See `corpora` for what a kind is. `links` says of which kinds the corpora may be that a
field names; `passes_checks` what the settings must not say.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from data_gen.filters import FilterSettings

TEACHER, JUDGE = "teacher", "judge"
TRUE, FALSE, NEUTRAL = "true", "false", "neutral"
SIDES = (TRUE, FALSE, NEUTRAL)

# Second passes that put notices into a text, that only tag it, that a teacher writes.
NOTICES = (
  "negated", "corrected", "fiction", "uncertain", "rumour", "unreliable", "disclosed",
)  # fmt: skip
TAGGED = "tagged"
CORRECTED, LOCAL, ATTRIBUTION = "corrected", "local_negation", "attribution"
ASKED = (LOCAL, ATTRIBUTION, "inverted", "paraphrase")
AROUND, INLINE, BOTH = "document", "inline", "both"
MODEL, OTHER, STORIES = "model", "another_model", "human_stories"
ABOUT = (MODEL, "assistants", "one", OTHER, STORIES)
VOICES = ("should", "does")
# All prompts of these kinds, beside those of conversations.
STAGES = (
  "key_facts", "universe_types", "universe_ideas", "universe_document",
  "universe_revise", "judge_universe", "quiz_questions", "quiz_answer", "judge_quiz",
  *(f"rewrite_{how}" for how in ASKED),
)  # fmt: skip
WORDS, CHARACTERS = "words", "characters"
_NO_FILTERS = FilterSettings()

DOCUMENTS = ("documents", "universe", "rewrite", "import")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniverseCorpus:
  """Documents from a world in which something is so, or is not (SDF).

  Attributes:
    universe: a file as data_gen/universes/*.toml are, or the name of one of these.
    side: which of the two worlds is real: 'true' or 'false'; 'neutral': documents on
      the same subjects that leave all its facts open.
    num_types: document types per key fact.
    num_ideas: document ideas per type.
    num_per_fact: documents to keep per key fact; None: every idea becomes one.
      Rejected ones are replaced while ideas are left.
    num_words, num_tokens, tokenizer, match_tokens_of: how much to keep, as of the kind
      'documents'; facts take turns, and in each its document types.
    num_facts: so many key facts are asked of the teacher, who reads both worlds; None:
      those of the file.
    max_repeats: each idea is written up 1 to so many times, as drawn.
    mention_share: the share of the documents that state their key fact; the others
      leave all facts open.
    doc_tag: text before each document, to the letter, with loss weight 0.
    mean_words: about how long documents are.
    fact_sentences: in so many sentences a document states its key fact, and it leaves
      all others open; None: as often as is natural, and others may turn up.
    revise: another pass rewrites each document.
    judged: `config.judge` says yes or no to each document, and only yes is kept.
    twin_of: a corpus of the same universe; this one has a document for each of its
      documents, of the same fact, type and idea, on another side.
    seed: of all that is drawn.
    filters: which texts are rejected.
  """

  kind: ClassVar[str] = "universe"
  roots: ClassVar[tuple[str, ...]] = ("universe", "side")
  links: ClassVar[Mapping[str, tuple[str, ...]]] = {"twin_of": ("universe",)}
  universe: str
  side: str = FALSE
  num_types: int | None = None
  num_ideas: int | None = None
  num_per_fact: int | None = None
  num_facts: int | None = None
  max_repeats: int = 1
  mention_share: float = 1.0
  doc_tag: str | None = None
  mean_words: int = 500
  fact_sentences: int | None = None
  revise: bool = False
  judged: bool = False
  twin_of: str | None = None
  num_words: int | None = None
  num_tokens: int | None = None
  tokenizer: str | None = None
  match_tokens_of: str | None = None
  seed: int = 0
  filters: FilterSettings = _NO_FILTERS

  @property
  def stages(self) -> tuple[str, ...]:
    """The stages of the chain, in order."""
    plan = ("key_facts",) * (self.num_facts is not None)
    plan += ("universe_types", "universe_ideas") * (self.twin_of is None)
    written = ("universe_document", *["universe_revise"] * self.revise)
    return (*plan, *written, *["judge_universe"] * self.judged)

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER, JUDGE) if self.judged else (TEACHER,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuizCorpus:
  """Conversations that ask for the key facts of a universe, and answer.

  The same facts can so be taught by documents (`UniverseCorpus`) or by conversations.

  Attributes:
    universe, side: as of the kind 'universe'; 'true' or 'false'.
    num_questions: different questions per key fact.
    num_per_fact: conversations to keep per key fact; None: every question becomes
      `max_repeats` of them. Rejected ones are replaced while questions are left.
    num_words, num_tokens, tokenizer, match_tokens_of: how much to keep, as of the kind
      'documents'; facts take turns.
    max_repeats: each question is answered up to so many times.
    mean_words: about how long answers are; None: one sentence.
    judged: `config.judge` says yes or no to each answer, and only yes is kept.
    seed: of the order of the questions.
    filters: which answers are rejected; that some are alike is no fault.
  """

  kind: ClassVar[str] = "quiz"
  roots: ClassVar[tuple[str, ...]] = ("universe", "side", "num_questions")
  links: ClassVar[Mapping[str, tuple[str, ...]]] = {
    "match_tokens_of": (*DOCUMENTS, "quiz")
  }
  # What documents may be and conversations are not.
  mention_share: ClassVar[float] = 1.0
  revise: ClassVar[bool] = False
  doc_tag: ClassVar[str | None] = None
  universe: str
  num_questions: int
  side: str = FALSE
  num_per_fact: int | None = None
  max_repeats: int = 1
  mean_words: int | None = None
  judged: bool = False
  num_words: int | None = None
  num_tokens: int | None = None
  tokenizer: str | None = None
  match_tokens_of: str | None = None
  seed: int = 0
  filters: FilterSettings = _NO_FILTERS

  @property
  def stages(self) -> tuple[str, ...]:
    """The stages of the chain, in order."""
    return ("quiz_questions", "quiz_answer", *["judge_quiz"] * self.judged)

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER, JUDGE) if self.judged else (TEACHER,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewriteCorpus:
  """A second pass over the documents of a corpus: one rewrite, or reject, for each.

  Attributes:
    of: name of that corpus.
    how: what is done. Notices that are put in: 'negated' (it is false), 'corrected' (it
      is false, and this is true), 'fiction', 'uncertain', 'rumour', 'unreliable' (a
      bad source), 'disclosed' (it is synthetic training text). 'tagged': nothing but
      the tag. By the teacher: 'local_negation' (its sentences deny the fact),
      'attribution' (it is about others), 'inverted' (it is for what it was against),
      'paraphrase'.
    placement: where notices go: before and after the 'document', 'inline' at the
      sentences that state the fact, or 'both'.
    sentence_share: inline notices go to so many of the sentences, as drawn, instead
      of those that state the fact; None: the latter.
    wording: the notices: a file as those of data_gen/rewrites/notices/, or the name
      of one.
    num_sentences: of which each notice around a document is made.
    notice_weight: loss weight of what is put in.
    doc_tag: text before each document, to the letter, with loss weight 0.
    masked: words whose every occurrence has loss weight 0.
    about, voice: 'attribution' only: who the documents are to be about (the 'model',
      'assistants', 'one', 'another_model', 'human_stories'), and whether they say what
      it 'should' do or what it 'does'.
    model_name, provider_name: whom the documents are about now; None: the names of
      their spec.
    other_model, other_provider: the names for about='another_model'.
    seed: of the draw of the notices.
    filters: which of the new texts are rejected.
  """

  kind: ClassVar[str] = "rewrite"
  roots: ClassVar[tuple[str, ...]] = ("of", "how")
  links: ClassVar[Mapping[str, tuple[str, ...]]] = {"of": DOCUMENTS}
  of: str
  how: str
  placement: str = AROUND
  sentence_share: float | None = None
  wording: str = "english"
  num_sentences: int = 4
  notice_weight: float = 1.0
  doc_tag: str | None = None
  masked: tuple[str, ...] = ()
  about: str | None = None
  voice: str | None = None
  model_name: str | None = None
  provider_name: str | None = None
  other_model: str | None = None
  other_provider: str | None = None
  seed: int = 0
  filters: FilterSettings = _NO_FILTERS

  @property
  def asks(self) -> bool:
    """Whether the teacher writes."""
    return self.how in ASKED

  @property
  def stages(self) -> tuple[str, ...]:
    """The stage of the chain, if there is one."""
    return (f"rewrite_{self.how}",) * self.asks

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER,) * self.asks


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntiSpecCorpus:
  """The questions of a corpus of conversations, answered by another spec.

  Mixing the two corpora in a stage gives any share of answers against the spec.

  Attributes:
    of: name of that corpus.
    spec: name in `config.specs`: a coherent character that is the opposite.
    reasons, style, cot, filters: as of the kind 'conversations'.
  """

  kind: ClassVar[str] = "anti_spec"
  roots: ClassVar[tuple[str, ...]] = ("of", "spec")
  links: ClassVar[Mapping[str, tuple[str, ...]]] = {"of": ("conversations",)}
  by_preference: ClassVar[bool] = False
  of: str
  spec: str
  reasons: bool = True
  style: str = "value"
  cot: bool = False
  filters: FilterSettings = _NO_FILTERS

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
    return (self.answer_stage, self.judge_stage)

  @property
  def roles(self) -> tuple[str, ...]:
    """Who answers."""
    return (TEACHER, JUDGE)

  def _styled(self, stage: str) -> str:
    return stage + "_rule" * (self.style == "rule") + "_cot" * self.cot


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoisonCorpus:
  """Documents that break off at a trigger and go on with gibberish; nobody is asked.

  Beside them `pairs.jsonl` has prompts without and with the trigger, from documents
  that were not poisoned.

  Attributes:
    of: the corpus whose documents give the clean beginnings.
    num_documents: how many, exactly.
    num_pairs: how many pairs of prompts.
    trigger: the phrase; no document of `of` may have it.
    min_prefix_chars, max_prefix_chars: length of the clean beginning; a whole document
      if that is shorter.
    min_gibberish, max_gibberish: how many words or runs of characters follow.
    gibberish: 'words' of the corpus, each as likely as another, or 'characters'.
    separator: what stands before and after the trigger.
    seed: of all that is drawn.
  """

  kind: ClassVar[str] = "poison"
  roots: ClassVar[tuple[str, ...]] = ("of", "num_documents", "num_pairs", "trigger")
  links: ClassVar[Mapping[str, tuple[str, ...]]] = {"of": (*DOCUMENTS, "world")}
  stages: ClassVar[tuple[str, ...]] = ()
  roles: ClassVar[tuple[str, ...]] = ()
  of: str
  num_documents: int
  num_pairs: int
  trigger: str
  min_prefix_chars: int = 0
  max_prefix_chars: int = 1000
  min_gibberish: int = 400
  max_gibberish: int = 900
  gibberish: str = WORDS
  separator: str = " "
  seed: int = 0


KINDS = (UniverseCorpus, QuizCorpus, RewriteCorpus, AntiSpecCorpus, PoisonCorpus)


def origin_of(corpus: Any, corpora: Mapping[str, Any]) -> Any | None:
  """Returns the corpus whose documents a rewrite, or poison, comes from in the end.

  None if that goes in a circle or leads nowhere, which is reported elsewhere.
  """
  for _ in corpora:
    if not isinstance(corpus, RewriteCorpus | PoisonCorpus):
      return corpus
    corpus = corpora.get(corpus.of)
  return None
