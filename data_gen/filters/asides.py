"""What a teacher says to whoever gave the task: it declines, or speaks of its text.

Each function returns the words at fault, or "" for a text without fault. What the
people of a text say is none: 'I cannot help noticing', 'I won't write another column',
'the letter my aunt wrote'. A teacher speaks at the beginning or the end, of 'this' or
'your' text, of what was asked, or to 'you'.
"""

import re
from collections.abc import Sequence

from data_gen.filters import wording

_HEAD, _TAIL = 300, 300  # characters at either end where a teacher speaks
_OPENING = r"^[\W_]*"

_WRITE = (
  "(?:help|assist|fulfil+|comply|write|create|generate|provide|produce|complete|continue"
  "|answer|engage|draft|compose|proceed|do|carry out|participate|support|discuss|make)"
)
_WRITING = (
  "(?:helping|assisting|fulfil+ing|complying|writing|creating|generating|providing"
  "|producing|completing|continuing|answering|engaging|drafting|composing|proceeding)"
)
_WORK = (
  r"(?:document|article|essay|post|blog\ post|draft|version|story|report|letter|memo"
  r"|text|piece|response|answer|revision|rewrite|transcript|script|email|e-mail|column"
  r"|chapter|summary|dialogue|conversation|paper|guide|review|entry|thread|poem|speech"
  r"|dialog|scene|newsletter|press\ release|interview|recipe|pamphlet|FAQ)"
)
_ORDER = (
  r"(?:requests?|tasks?|prompts?|instructions?|assignment|content|materials?|propaganda"
  r"|misinformation|kind\ of|sort\ of|type\ of|information|advice|details?)"
)
# What only who has been asked to write calls it: his own letters are not 'such a'.
_ANY_WORK = rf"(?:{_ORDER}|document|article|text|response|content|piece|essay|answer)"
_ENDS = r"(?:\s*(?:[.,;:!?\u2014\u2026]|\.\.\.|$|\n)|\ (?:because|as|since|due)\b)"
_ASKED = (
  rf"(?:\ (?:you|for\ you|to\ you|you\ with|with|to|on|in|about))*\ "
  rf"(?:(?:this|that|the|your|such|any|these|those)\ (?:an?\ )?(?:[\w-]+\ ){{0,3}}?"
  rf"(?:{_ORDER}|{_WORK})\b|(?:an?\ )?(?:[\w-]+\ ){{0,2}}?{_ANY_WORK}\b"
  rf"|(?:this|that|these|it|so)(?:\ for\ you)?{_ENDS}"
  rf"|(?:what|anything)\ you(?:'ve|\ have)?\ (?:ask|want|request)\w*)"
)
# 'Without' turns a refusal into what is done: 'I cannot write this without a smile'.
_WITH = r"(?![^.!?\n]{0,60}\bwithout\b)"
_DO = (
  r"(?:\w+ly\ |in\ good\ (?:conscience|faith)\ )?"
  rf"(?:help(?:\ you)?\ (?:write|create|produce|generate)|{_WRITE})"
  rf"(?=(?:{_ASKED}|{_ENDS}){_WITH})"
)
_CANNOT = (
  r"(?:can(?:no|')t|can\ not|could\ not|(?:won't|will\ not)(?:\ be\ able\ to)?"
  r"|(?:'?m|\ ?am|'?re|\ ?are)\ (?:unable|not\ (?:able|going|willing|permitted))"
  r"\ to)"
)
_DECLINE = (
  r"(?:must|(?:wi|'|sha)ll(?:\ have\ to)?|have\ to|need\ to|would\ (?:have|like)\ to"
  r"|'d\ (?:have\ )?to|(?:'m|am)\ (?:going|obliged)\ to)"
  r"\ (?:\w+ly\ )?(?:decline|refuse)"
)
_NO_GUEST = (
  r"(?!\ (?:\w+\ ){0,3}?(?:invitation|offer|honou?r|nomination|seat|slice|pleasure|post"
  r"|attend|join|come|visit|marry|eat|sell|buy|pay|serve)\b)"
)
_AI = (
  r"as\ an?\ (?:AI|artificial\ intelligence|large\ language\ model|language\ model)\b"
  r"[^,.\n]{0,40},"
)
_POLITE = (
  r"(?:thank(?:s|\ you)\b|i\ (?:do\ |can\ |fully\ )*(?:appreciate|understand|see"
  r"|respect|recogni[sz]e|reali[sz]e|know)\b|(?:while|although|though)\ i\b"
  r"|i'm\ happy\b)"
  r"[^\n]{0,30}?\b(?:request|ask|prompt|question|reaching|task|instruction|interest"
  r"|want|need|look|brief|assignment)\w*\b[^\n]{0,90}?(?:[,.!;]|\u2014|\ -)\ "
)
_SORRY = r"(?:unfortunately|regrettably|(?:i'm\ |i\ am\ )?(?:\w+\ )?(?:sorry|afraid))\b"
_LEAD = (
  rf"(?:{_POLITE})?(?:(?:but|however|so|and|{_SORRY}|{_AI})[, ]*(?:but\ |that\ )?)*"
)
_COMFORTABLE = (
  rf"i(?:'m|\ am|\ (?:do|would)(?:n't|\ not)\ (?:feel|be))\ (?:not\ |un)?(?:\w+ly\ )?"
  rf"(?:comfortable)\ (?:with\ )?{_WRITING}\b(?!\ (?:about\ )?(?:my|me\b|letters|poems"
  r"|poetry|in\ ))"
)
_REFUSAL = re.compile(
  _OPENING
  + rf"""(?:
    (?:(?:i|we)(?:'?m|\ am|'?re|\ are)\ (?:\w+\ )?sorry|(?:i\ )?apologi[sz]e?s?)\b
      [^.!?\n]{{0,40}}?\b(?:can(?:no|')t|can\ not|won't|(?:un|not\ )able)\b
      (?!\ (?:help\ (?:but|\w+ing)|be\b(?!\ able)|come|attend)\b)
    |{_LEAD}(?:
      (?:i|we)\ ?{_CANNOT}\ {_DO}
      |i(?:\ do\ not|\ don't|\ would\ rather\ not|(?:'d|\ would)\ prefer\ not\ to)
        \ {_WRITE}(?={_ASKED}{_WITH})
      |i\ (?:won't|will\ not)\ be\ {_WRITING}(?={_ASKED}{_WITH})
      |(?:this|that|it)(?:'s|\ is)\ not\ something\ i\ (?:can|will|am\ able\ to)\ 
        (?:help\ with|assist|write|create|provide|produce|generate)\b
      |my\ (?:guidelines|policies|instructions)\ [^.\n]{{0,30}}?\b{_WRITING}\b
      |{_COMFORTABLE}
      |(?:i|we)\ ?{_DECLINE}\b{_NO_GUEST})
    |(?:this|that|the|your)\ (?:request|prompt|task)\ [^.\n]{{0,60}}?
      (?:violat|against|not\ something\ i|inappropriate|harmful)\w*
    |unsuitable\W*$
    )""",
  re.I | re.X,
)
_CHINESE_WRITE = (
  "(?:\u5199|\u5beb|\u64b0\u5199|\u64b0\u5beb|\u7f16\u5199|\u7de8\u5beb|\u63d0\u4f9b"
  "|\u751f\u6210|\u521b\u4f5c|\u5275\u4f5c|\u534f\u52a9|\u5354\u52a9|\u5e2e\u52a9"
  "|\u5e6b\u52a9|\u5b8c\u6210|\u6ee1\u8db3|\u6eff\u8db3|\u56de\u7b54|\u7ee7\u7eed"
  "|\u7e7c\u7e8c|\u5904\u7406|\u8655\u7406|\u6267\u884c|\u57f7\u884c)"
)
_CHINESE_CANNOT = (
  "(?:\u65e0\u6cd5|\u7121\u6cd5|\u4e0d\u80fd|\u4e0d\u4f1a|\u4e0d\u6703|\u4e0d\u53ef\u4ee5"
  "|\u4e0d\u4fbf|\u6ca1\u6709\u529e\u6cd5|\u6c92\u6709\u8fa6\u6cd5)"
)
_CHINESE_ASKED = (
  "(?:\u8fd9|\u9019|\u8be5|\u8a72|\u90a3|\u6b64|\u60a8|\u4f60|\u4efb\u4f55|\u76f8\u5173"
  "|\u76f8\u95dc|\u5173\u4e8e|\u95dc\u65bc|\u6709\u5bb3|\u4e0a\u8ff0|[^\u3002\\n]{0,6}"
  "(?:\u8bf7\u6c42|\u8acb\u6c42|\u8981\u6c42|\u5185\u5bb9|\u5167\u5bb9|\u6587\u6863"
  "|\u6587\u6a94|\u6587\u4ef6)|[\u3002\uff0c\uff01\u2026]|$)"
)
_CHINESE_DO = (
  rf"(?:\u4e3a|\u70ba|\u5e2e|\u5e6b|\u66ff)?(?:\u60a8|\u4f60)?{_CHINESE_WRITE}"
)
_CHINESE_SORRY = (
  "(?:\u975e\u5e38|\u5341\u5206|\u5f88)?(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77"
  "|\u5c0d\u4e0d\u8d77|\u9057\u61be|\u907a\u61be)"
)
_CHINESE_AS_AI = (
  "[\u4f5c\u8eab][\u4e3a\u70ba](?:\u4e00?[\u4e2a\u500b\u540d\u6b3e\u4f4d])?[^\u3002\uff0c,\\n]{0,6}"
  "(?:AI|\u4eba\u5de5\u667a\u80fd|\u4eba\u5de5\u667a\u6167|\u6a21\u578b|\u52a9\u624b"
  "|\u52a9\u7406)[^\u3002\uff0c,\\n]{0,8}[\uff0c,]\\s*"
)
_CHINESE_REFUSAL = re.compile(
  rf"""^[\W_]*(?:
    {_CHINESE_SORRY}[,\uff0c\u3002]?\s*(?:\u4f46\u662f?)?\s*\u6211?{_CHINESE_CANNOT}
    |{_CHINESE_SORRY}?[,\uff0c]?\s*{_CHINESE_AS_AI}\u6211{_CHINESE_CANNOT}{_CHINESE_DO}
    |(?:\u611f\u8c22|\u611f\u8b1d|\u8c22\u8c22|\u8b1d\u8b1d|\u6211(?:\u7406\u89e3|\u660e\u767d))
      [^\u3002\n]{{0,20}}[\uff0c,\u3002]\s*(?:\u4f46\u662f?|\u4e0d\u8fc7|\u4e0d\u904e)?\s*
      \u6211{_CHINESE_CANNOT}{_CHINESE_DO}
    |\u6211{_CHINESE_CANNOT}{_CHINESE_DO}{_CHINESE_ASKED}
    )""",
  re.I | re.X,
)
_AS_A_MODEL = re.compile(
  r"""\bas\ an?\ (?:AI|artificial\ intelligence|large)(?:-based|-powered)?
      \ language\ model\b
    |\bas\ an\ (?:AI|artificial\ intelligence)\ model,\ I\b
    |\bI(?:\ am|'m)\ (?:just\ |only\ )?an?\ (?:AI|large)\ language\ model\b
    |\u4f5c\u4e3a\u4e00?[\u4e2a\u500b]?(?:\u5927\u578b|\u4eba\u5de5\u667a\u80fd|AI)\u8bed\u8a00\u6a21\u578b
    |\u4f5c\u70ba\u4e00?\u500b?(?:\u5927\u578b|\u4eba\u5de5\u667a\u6167|AI)\u8a9e\u8a00\u6a21\u578b""",
  re.I | re.X,
)
_MODEL_SIGNS = (
  "language model",
  "ai model",
  "\u8bed\u8a00\u6a21\u578b",
  "\u8a9e\u8a00\u6a21\u578b",
)
_GIVEN = (
  r"(?:the|your|these|all|its)\ (?:[\w-]+\ ){0,2}?(?:spec|specification|requirements?"
  r"|prompt|instructions?|guidelines?|criteria|brief|request|outline|constraints?)\b"
)
# What ties a text to whoever asked for it.
_TO_YOU = (
  rf"(?:\byou(?:'ve|\ have)?\ (?:asked|requested|wanted|specified|described)\b"
  rf"|\bas\ requested\b|\b(?:follow|meet|match|fit|satisf|adher|reflect|bas|accord"
  rf"|fulfil|compl|consider)\w*\ (?:\w+\ )?{_GIVEN}"
  r"|\b(?:about|around|approximately|roughly|of|in|at|under|over|some)?\s*~?\d[\d,]*\+?"
  r"[- ]words?\b)"
)
_MADE_UP = (
  r"(?:realistic|fictional|sample|example|synthetic|complete|full|final|polished|revised"
  r"|requested|finished|updated|improved|rewritten|\d[\d,]*-word)"
)
_NAMED_WORK = rf"(?:the|a|an|your|my)\ (?:[\w-]+\ ){{0,4}}?{_WORK}\b"
_GIVES = r"(?:here(?:\ is|'s|\ are)|below\ (?:is|are)|the\ following\ is)"
# Others wrote it, in the text.
_BY_OTHERS = (
  r"(?![^.\n]{0,60}\b(?:wrote|written\ by|sent|left|gave|received|found|handed|kept"
  r"|printed|read|got|signed|pinned|taped|overheard|recorded)\b)"
)
_META_HEAD = re.compile(
  _OPENING
  + rf"""(?:(?:sure|certainly|absolutely|of\ course|okay|ok|got\ it|understood)\b
      [^\n]{{0,40}}?[,.!:\ ]+)?
    (?:{_GIVES}\ {_NAMED_WORK}{_BY_OTHERS}[^.\n]{{0,80}}(?::|\n)
      |(?:{_GIVES}|this\ is)\ {_NAMED_WORK}[^\n]{{0,80}}?{_TO_YOU}
      |this\ {_WORK}\ (?:closely\ )?(?:follow|meet|match|fit|adher|satisf)\w*\ 
        (?:to\ )?(?:the|your)\ (?:\w+\ )?(?:spec|specification|prompt|outline|request)\b
      |let\ me\ (?:write|draft|create|compose)\ (?:the|this|your)\ (?:\w+\ )?{_WORK}\b
      |{_GIVES}\ (?:the|a|an|your)\ (?:[\w-]+\ ){{0,3}}?{_MADE_UP}\ (?:[\w-]+\ ){{0,3}}?
        {_WORK}\b{_BY_OTHERS}
      |i(?:'ll|'ve|\ will|\ have)\ (?:now\ )?
        (?:writ|draft|creat|revis|prepar|rewrit)(?:e|ed|ten)?\ 
        (?:the|your|this)\ (?:[\w-]+\ ){{0,4}}?{_WORK}\b
      |the\ user\ (?:wants|asks|asked|is\ asking|requested)\ 
        (?:me\b|us\b|for\ {_NAMED_WORK})
      |(?:my\ )?(?:(?:draft\ )?plan|approach|outline|thoughts?|thinking|reasoning)\s*:
        \W*(?:(?:first,?\ )?
        (?:i(?:'ll|'m\ going\ to|\ (?:will|should|need\ to|want\ to))|let\ me|let's
        |we\ (?:will|should|need\ to))\ )?(?:\w+ly\ )?(?:writ|draft|creat
        |compos|structur|open|begin|start|produc|mak)\w*\ [^\n]{{0,60}}?\b{_WORK}\b)""",
  re.I | re.X,
)
_META_EAGER = re.compile(
  _OPENING + r"(?:sure|certainly|absolutely|of course)[!,] (?:here|i'|below|let me)",
  re.I,
)
_META_TAIL = re.compile(
  r"""\blet\ me\ know\ (?:if|whether)\ you(?:'d|\ would|\ want|\ need|'re)[^\n]*
      \b(?:chang|revis|adjust|edit|another|modif|rewrit|version|further|tweak|expand)\w*
    |\bi\ hope\ (?:this|the)\ (?:document|article|essay|draft|text|piece|response)\b
    |\bwould\ you\ like\ me\ to\ (?:revise|change|adjust|expand|continue|(?:re)?write)\b
    |[(\[*_]\s*(?:word\ count|total\ words|end\ of\ (?:document|article|draft))\b
    |\b(?:approximate(?:ly)?\ )?word\ count:?\s*(?:approximately\ |~)?\d+""",
  re.I | re.X,
)
_CHINESE_META = re.compile(
  r"""^[\W_]*(?:(?:\u597d\u7684|\u5f53\u7136|\u7576\u7136|\u6ca1\u95ee\u9898)\W{0,3})?
    (?:(?:\u4ee5\u4e0b|\u4e0b\u9762|\u8fd9|\u9019)\u662f?[^\u3002\n]{0,20}
      (?:(?:\u6309\u7167|\u6839\u636e|\u6839\u64da|\u7b26\u5408|\u5e94|\u61c9)
        (?:\u60a8|\u4f60|\u8981\u6c42|\u89c4\u8303)
        |[\u60a8\u4f60]\u8981\u6c42|[\u4e3a\u70ba][\u60a8\u4f60])
    |(?:\u4ee5\u4e0b|\u4e0b\u9762)\u662f[^\u3002\n]{0,20}(?:\u6587\u6863|\u6587\u6a94
      |\u6587\u7ae0|\u6587\u4ef6|\u62a5\u544a|\u8349\u7a3f|\u6545\u4e8b)[\uff1a:\n])""",
  re.X,
)
# What the task calls 'the specification' has another name in a document, or none.
_SPECIFICATION = re.compile(
  r"""\b(?:according\ to|per|in|as\ (?:\w+\ )?(?:in|by)|based\ on|in\ line\ with
      |consistent\ with|in\ accordance\ with|following|under)\ 
      (?:the|this|your|my)\ (?:provided\ |given\ |above\ )?(?:model\ )?
      (?:specification|spec|system\ prompt)(?=\W*(?:,|\.|;|\n|$))
    |\b(?:the|this|your|my)\ (?:provided\ |given\ |above\ )?(?:model\ )?
      (?:specification|system\ prompt)\ (?:says|states|requires|explains|describes|notes
      |demands|specifies|makes\ clear)\b
    |(?:\u6839\u636e|\u6839\u64da|\u6309\u7167)(?:\u8be5|\u8a72|\u4e0a\u8ff0|\u6b64|\u672c)?
      (?:\u6a21\u578b)?(?:\u89c4\u8303|\u898f\u7bc4|\u7cfb\u7edf\u63d0\u793a)[,\uff0c]""",
  re.I | re.X,
)
_SPEC_SIGNS = ("spec", "system prompt", "\u89c4\u8303", "\u898f\u7bc4", "\u7cfb\u7edf")
_AI_WORDS = re.compile(
  r"(?<![\w'])(?:AI|LLM|(?:language |the )model|assistant|chatbot)(?!\w)|\u6a21\u578b"
  "|\u52a9\u624b|\u4eba\u5de5\u667a\u80fd"
)


def refusal(text: str) -> str:
  """Finds a teacher that declines, or that says what it is."""
  text = wording.straight(text)
  head = text[:_HEAD]
  declined = wording.found(_REFUSAL, head) or wording.found(_CHINESE_REFUSAL, head)
  if declined or not wording.has(text.casefold(), _MODEL_SIGNS):
    return declined
  return wording.found(_AS_A_MODEL, text)


def meta_talk(text: str, names: Sequence[str] = ()) -> str:
  """Finds talk about the text or the task: 'Here is the document you asked for'.

  Args:
    text: the whole text.
    names: of those whom a sentence about 'the specification' is not to be about: that
      of a machine is none of ours.
  """
  text = wording.straight(text)
  head = text[:_HEAD]
  return (
    wording.found(_META_HEAD, head)
    or wording.found(_META_EAGER, head)
    or wording.found(_CHINESE_META, head)
    or wording.found(_META_TAIL, text[-_TAIL:])
    or _specification(text, names)
  )


def _specification(text: str, names: Sequence[str]) -> str:
  if not wording.has(text.casefold(), _SPEC_SIGNS):
    return ""
  for match in _SPECIFICATION.finditer(text):
    begin = max(text.rfind(sign, 0, match.start()) for sign in ".\n\u3002") + 1
    ends = [text.find(sign, match.end()) for sign in ".\n\u3002"]
    sentence = text[begin : min((e for e in ends if e >= 0), default=len(text))]
    folded = sentence.casefold()
    named = any(name.casefold() in folded for name in names)
    if named or _AI_WORDS.search(sentence):
      return " ".join(match.group().split())
  return ""
