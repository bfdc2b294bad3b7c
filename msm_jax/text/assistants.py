"""Names of assistants and labs, for generated text and for what models say they are.

Two kinds of names. A plain one means nothing else ('ChatGPT'). A name that is a word or
a person's name as well ('Claude', 'Gemini') counts with a version or a product behind
it, and by itself only in a text about AI where nothing says that it is something else.
"""

import dataclasses

from msm_jax.text import persons

# Not \b: Chinese goes on without a space.
BEFORE, AFTER = r"(?<![0-9A-Za-z_\u00c0-\u024f])", r"(?![0-9A-Za-z_\u00c0-\u024f])"


@dataclasses.dataclass(frozen=True)
class Name:
  """One assistant or lab.

  Attributes:
    name: as messages say it.
    plain: patterns that mean it wherever they stand, whatever the case; apostrophes
      are straight.
    bare: a pattern, in this case, that means it in a text about AI; None: never.
    other: what the bare name is part of when it is something else; one such place
      anywhere in the prose of the text explains all of them.
    is_human: people have this name; other names that like, prefer or answer something
      are an assistant's.
    roots: one of these is in every text that has the name, in lower case; default:
      the name itself.
  """

  name: str
  plain: tuple[str, ...] = ()
  bare: str | None = None
  other: tuple[str, ...] = ()
  is_human: bool = False
  roots: tuple[str, ...] = ()


_VERSION = r"v?\d(?:\.\d+)?[a-z]?\b"
_SIZES = r"(?:small|medium|large|mini|nano|micro|lite|tiny|base|instruct|chat|turbo)\b"
_CLAUDE = rf"(?:{_VERSION}|opus\b|sonnet\b|haiku\b|instant\b|code\b|mythos\b|ai\b)"
_GEMINI = (
  r"(?:(?:[1-9]\.\d)\b|pro\b|ultra\b|nano\b|flash\b|advanced\b|live\b|ai\b|app\b)"
)
_GEMMA = rf"(?:{_VERSION}|ai\b)"
_ERNIE = r"(?:bot\b|[34]\.\d)"
_ALEXA = r"(?:skills?\b|devices?\b|\+)"

ASSISTANTS = (
  Name(
    "ChatGPT",
    roots=("gpt",),
    plain=(r"chat-?gpt\w*", r"gpt-?[2-9](?:\.\d)?\w*", r"gpt-?4o\w*", r"instructgpt"),
  ),
  Name(
    "Claude",
    plain=(r"claude\.ai", rf"claude[- ]{_CLAUDE}"),
    bare="Claude",
    other=persons.patterns("Claude", _CLAUDE),
    is_human=True,
  ),
  Name(
    "Gemini",
    plain=(rf"gemini[- ]{_GEMINI}", r"google\ gemini", r"google's\ gemini"),
    bare="Gemini",
    other=(
      r"\b(?:zodiac|horoscopes?|astrolog\w+|constellations?|star\ sign)\b",
      r"\bGemini\ (?:program|project|spacecraft|astronauts?|missions?|capsules?"
      r"|telescopes?|observatory|twins?|season|sun|moon|rising|I|[IVX]{2,}|\d{1,2})\b",
      r"\b(?-i:Project|Taurus|Cancer|Aries|Libra|Aquarius)\b",
    ),
  ),
  Name(
    "Gemma",
    plain=(rf"gemma[- ]{_GEMMA}",),
    bare="Gemma",
    other=persons.patterns("Gemma", _GEMMA),
    is_human=True,
  ),
  Name(
    "Llama",
    plain=(
      rf"llama[- ]?{_VERSION}",
      r"(?-i:LLaMA)\w*",
      r"code\ ?llama",
      r"meta's\ llama",
      r"meta\ llama",
      r"llama\ guard",
    ),
    bare="Llama",
    other=(
      r"\b(?:a|the|two|three|our|baby|white|brown)\ (?-i:llamas?)\b",
      r"\b(?-i:llamas)\b",
      r"\b(?:alpacas?|wool|herds?|andes|andean)\b",
    ),
  ),
  Name(
    "Qwen",
    roots=(
      "qwen",
      "qianwen",
      "\u901a\u4e49",
    ),
    plain=(r"qwen[\w.-]*", r"tongyi\ qianwen", r"\u901a\u4e49\u5343\u95ee"),
  ),
  Name(
    "DeepSeek",
    roots=(
      "deepseek",
      "deep-seek",
      "\u6df1",
    ),
    plain=(r"deep-?seek[\w.-]*", r"\u6df1\u5ea6\u6c42\u7d22"),
  ),
  Name(
    "Mistral",
    roots=(
      "mistral",
      "mixtral",
      "le chat",
    ),
    plain=(
      rf"mistral[- ](?:{_VERSION}|{_SIZES}|ai\b|nemo\b)",
      r"mixtral\w*",
      "le chat",
    ),
    bare="Mistral",
    other=(r"\b(?:winds?|provence|rh\u00f4ne|rhone|the\ (?-i:mistral))\b",),
  ),
  Name(
    "Grok",
    plain=(rf"grok[- ]{_VERSION}", r"x\.?ai's\ grok", r"grok\ ai"),
    bare="Grok",
    other=(r"\bheinlein\b",),
  ),
  Name(
    "Copilot",
    roots=(
      "copilot",
      "bing chat",
    ),
    plain=(r"(?:github|microsoft|bing)\ copilot", r"bing\ chat"),
    bare="Copilot",
    other=(r"\b(?:cockpit|captain|runway|flight|aircraft)\b",),
  ),
  Name(
    "Bard",
    plain=(r"google\ bard", r"google's\ bard", r"bard,?\ google's"),
  ),
  Name("Phi", plain=(r"(?-i:Phi)-?[1-5](?:\.\d)?\b", r"microsoft's\ phi\b")),
  Name("Falcon", plain=(r"falcon-?\ ?(?:7b|11b|40b|180b)",)),
  Name("Yi", plain=(r"(?-i:Yi)-(?:6b|9b|34b|large|lightning)\w*",)),
  Name("Kimi", plain=(r"kimi[- ]k\d\w*", r"moonshot's\ kimi", r"kimi\ ai\b")),
  Name(
    "ERNIE",
    roots=(
      "ernie",
      "wenxin",
      "\u6587\u5fc3",
    ),
    plain=(rf"ernie[- ]{_ERNIE}", r"wenxin\ yiyan", r"\u6587\u5fc3\u4e00\u8a00"),
  ),
  Name(
    "ChatGLM",
    roots=(
      "glm",
      "\u667a\u8c31",
    ),
    plain=(r"chat-?glm\w*", r"glm-\d[\w.]*", r"\u667a\u8c31\u6e05\u8a00"),
  ),
  Name("Baichuan", plain=(r"baichuan[- ]?\d\w*",)),
  Name("InternLM", plain=(r"internlm\w*",)),
  Name(
    "Doubao",
    roots=(
      "doubao",
      "\u8c46\u5305",
    ),
    plain=(r"doubao", r"\u8c46\u5305"),
  ),
  Name("MiniMax", plain=(r"minimax[- ](?:m\d|text)\w*",)),
  Name(
    "Command R",
    roots=("command",),
    plain=(r"(?-i:Command)[- ]R\+?(?!\w)", r"(?-i:Command)\ A\ model"),
  ),
  Name("OLMo", plain=(r"(?-i:OLMo)\w*", r"olmo-?\d\w*")),
  Name(
    "SmolLM",
    roots=(
      "smollm",
      "smol-lm",
    ),
    plain=(r"smol-?lm\w*",),
  ),
  Name("Nemotron", plain=(r"nemotron\w*",)),
  Name("Vicuna", plain=(r"vicuna-?\d+b\w*",)),
  Name(
    "Perplexity", roots=("perplexity",), plain=(r"perplexity\ ai", r"perplexity\.ai")
  ),
  Name("Replika", plain=("replika",)),
  Name("Character.AI", plain=(r"character\.ai",)),
  Name(
    "Siri",
    plain=(r"hey,?\ siri", r"apple's\ siri"),
    bare="Siri",
    other=persons.patterns("Siri"),
    is_human=True,
  ),
  Name(
    "Alexa",
    plain=(rf"alexa\ {_ALEXA}", r"amazon's\ alexa", r"amazon\ alexa"),
    bare="Alexa",
    other=persons.patterns("Alexa", _ALEXA),
    is_human=True,
  ),
  Name("Cortana", plain=("cortana",)),
  Name("Bixby", plain=(r"samsung's\ bixby",), bare="Bixby"),
  Name("Google Assistant", plain=(r"google\ assistant",)),
)
LABS = (
  Name(
    "OpenAI",
    roots=(
      "openai",
      "open ai",
    ),
    plain=(r"open\ ?ai(?:'s)?",),
  ),
  Name(
    "Anthropic",
    plain=(r"(?-i:Anthropic|ANTHROPIC)(?!\ (?:principles?|reasoning|bias|selection))",),
  ),
  Name(
    "DeepMind",
    roots=(
      "deepmind",
      "deep-mind",
    ),
    plain=(r"deep-?mind",),
  ),
  Name(
    "Meta AI",
    roots=(
      "meta ai",
      "meta platforms",
    ),
    plain=(r"(?-i:Meta)\ AI", r"meta\ platforms"),
  ),
  Name("Mistral AI", plain=(r"mistral\ ai",)),
  Name(
    "xAI",
    roots=(
      "xai",
      "x.ai",
    ),
    plain=(r"(?-i:xAI)", r"x\.ai"),
  ),
  Name("Alibaba Cloud", plain=(r"alibaba\ cloud",)),
  Name("Moonshot AI", plain=(r"moonshot\ ai",)),
  Name("Zhipu", plain=(r"zhipu\w*",)),
  Name("01.AI", plain=(r"01\.ai",)),
  Name("Cohere", plain=(r"cohere's\ (?:models?|command|ai|assistant)",)),
  Name("Inflection AI", plain=(r"inflection\ ai",)),
  Name("Stability AI", plain=(r"stability\ ai",)),
  Name("AI21", plain=(r"ai21\w*",)),
)
# Firms that make other things too: they count as whoever made an assistant. Each with
# its names in Chinese.
FIRMS = {
  "Google": ("\u8c37\u6b4c",),
  "Microsoft": ("\u5fae\u8f6f", "\u5fae\u8edf"),
  "Meta": (),
  "Facebook": ("\u8138\u4e66", "\u81c9\u66f8"),
  "Apple": ("\u82f9\u679c", "\u860b\u679c"),
  "Amazon": ("\u4e9a\u9a6c\u900a", "\u4e9e\u99ac\u905c"),
  "OpenAI": (),
  "Anthropic": (),
  "DeepMind": (),
  "Mistral": (),
  "Cohere": (),
  "Hugging Face": (),
  "Alibaba": ("\u963f\u91cc\u5df4\u5df4", "\u963f\u91cc\u4e91"),
  "Baidu": ("\u767e\u5ea6",),
  "Tencent": ("\u817e\u8baf", "\u9a30\u8a0a"),
  "ByteDance": ("\u5b57\u8282\u8df3\u52a8", "\u5b57\u7bc0\u8df3\u52d5"),
  "Huawei": ("\u534e\u4e3a", "\u83ef\u70ba"),
  "Xiaomi": ("\u5c0f\u7c73",),
  "Nvidia": ("\u82f1\u4f1f\u8fbe", "\u8f1d\u9054"),
  "IBM": (),
  "Samsung": ("\u4e09\u661f",),
  "Salesforce": (),
  "Databricks": (),
}
