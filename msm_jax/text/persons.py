"""What shows that 'Claude' is somebody: a title, a family, a trade, a body.

An assistant has none of these. What people and assistants do alike (prefer, answer,
say, lean to) shows nothing.
"""


def _either(words: str) -> str:
  """Returns a pattern for one of the words; `_` is a space."""
  return rf"(?:{'|'.join(words.split())})".replace("_", r"\ ")


_TITLES = _either(
  "Mr Mrs Ms Miss Mme Mlle M Dr Prof Professor Uncle Aunt Saint St Sir Lady Chef Chief "
  "Captain President King Queen Prince Monsieur Madame Grandpa Grandma Granny Gran "
  "Nana Auntie Cousin Brother Sister Father Mother Farmer Nurse Judge Coach"
)
_KIN = _either(
  "aunt boyfriend brother cousin dad daughter father fianc[e\u00e9]e? girlfriend "
  "grandfather grandma grandmother grandpa grandson granddaughter husband kid mom "
  "mother mum nephew niece sister son uncle widow widower wife"
)
_TRADE = _either(
  "accountant actor actress apprentice baker barista bartender boss boy bus_driver "
  "butcher buyer carpenter cashier cheesemaker cheesemonger chef child clerk columnist "
  "cook co-?worker customer dairyman dentist doctor electrician engineer farmer "
  "firefighter fisherman gardener gentleman girl grocer guest journalist lady landlady "
  "landlord lawyer librarian man mayor mechanic musician neighbou?r novelist nurse "
  "owner painter pastor pensioner photographer pilot plumber poet priest professor "
  "pupil reporter retiree roommate flatmate sailor salesman saleswoman sculptor "
  "sheriff shepherd shopkeeper shopper singer sommelier stallholder student supplier "
  "tailor teacher teenager tenant trucker vendor vet veterinarian visitor volunteer "
  "waiter waitress woman"
)
_FRIEND = "(?:best\\ |old\\ )?friend"
# They work on AI; they are none.
_OF_AI = _either(
  "AI_engineer AI_ethicist AI_expert AI_journalist AI_professor AI_researcher "
  "AI_scientist AI_sceptic AI_skeptic AI_student"
)
# An assistant of a trade or rank is somebody.
_ASSISTED = (
  "shop sales store teaching research dental medical legal lab laboratory kitchen care "
  "library production nursing office classroom museum wardrobe editorial executive "
  "administrative physician archive bakery dairy deli parliamentary"
)
_RANKS = _either(
  "manager professor director editor coach chef cook cheesemaker secretary principal "
  "curator baker buyer librarian producer trainer referee superintendent attorney "
  "commissioner mayor dean"
)
_HUMAN = rf"(?:{_KIN}|{_TRADE}|{_FRIEND}|{_OF_AI}|{_either(_ASSISTED)}\ assistant)"
# Only what bodies do: an assistant may lean to one side and walk through a list.
_BODILY = (
  r"(?:(?:laugh|smil|nodd?|shrugg?|sigh|grinn?|frown|chuckl|blush|wink|chew|sipp?|cough"
  r"|sneez|yawn|gasp|limp|snor|giggl)(?:s|es|ed|d|e|ing)?|ate|eats|drank|drinks|sat"
  r"|slept|sleeps|woke|wept|wore|wears|tasted|died|married|grew\ up|was\ born)"
)
_OWNED = _either(
  "bakery beard birthday car childhood cow dairy farm funeral garden goats? grave "
  "house kitchen restaurant shop stall truck van wedding"
)
# What may stand before a noun: a preposition would begin another phrase.
_INNER = (
  r"(?:(?!(?:of|for|from|by|to|at|with|in|on|that|which|who|AI|assistants?|models?"
  r"|chatbots?)\b)[\w'-]+\ ){0,3}?"
)
_DETERMINER = r"(?:an?|the|my|our|his|her|their|your)\ "
_LIVES = (
  rf"(?:I'm|I\ am)\ {_DETERMINER}{_INNER}{_HUMAN}\b|I(?:'ve|\ have)?\ (?:worked|work"
  r"|run|own|live|lived|grew\ up|was\ born|bake|farm|married|retired|cook)\b"
)

# 'assistant', where it is neither. What is before it is looked at last: it takes long.
ASSISTANT = (
  r"\b(?=assistant)"
  + "".join(rf"(?<!\b{trade}\ )" for trade in _ASSISTED.split())
  + rf"assistants?\b(?!\ (?:to\ the\b|{_RANKS}))"
)


def patterns(name: str, products: str = "") -> tuple[str, ...]:
  """Returns patterns (verbose, any case), one of which shows that a name is a person's.

  Args:
    name: the bare name.
    products: a pattern of what follows the name of the assistant: no surname.
  """
  product = rf"{products}|" if products else ""
  no_surname = rf"(?!{product}(?:assistants?|models?|AI|LLMs?|chatbots?|api|team)\b)"
  comma = r"(?:,|\ \(|\ --?|\ ?\u2014)\ ?"
  return (
    rf"\b{_TITLES}\.?\ {name}\b",
    rf"\b(?:Jean|Marie|Pierre|Anne|Louis|Paul)[- ]{name}\b",
    rf"\b{name}\ {no_surname}(?:(?:de|du|van|von|le|la)\ )?(?-i:[A-Z])[\w'-]+",
    rf"\b{name}{comma}(?:{_DETERMINER})?{_INNER}{_HUMAN}\b",
    rf"\b{name}\ (?:is|was)\ {_DETERMINER}{_INNER}(?:{_KIN}|{_TRADE}|{_OF_AI})\b",
    rf"\b{name},\ (?:aged\ )?\d\d\b",
    rf"\b{name},\ who\ (?:\w+ly\ )?(?:runs?|ran|owns?|owned|keeps?|kept|lives?|lived"
    r"|works?|worked|sells?|sold|grew|bakes?|teaches|taught|married|died)\b",
    rf"(?:\b(?:my|our|his|her|their|your)|'s)\ {_INNER}{_HUMAN},?\ {name}\b",
    rf"\b{_HUMAN}\ (?:named|called)\ {name}\b",
    rf"\b{name}\ and\ (?:his|her)\ {_INNER}{_HUMAN}\b",
    rf"\b{name}\ (?:\w+ly\ |just\ |only\ |then\ )?{_BODILY}\b",
    rf"\b{name}'s\ (?:\w+\ )?(?:{_OWNED}|{_KIN})\b",
    rf"\b(?:name\ is|name's|I'm|I\ am|this\ is)\ {name}\b[^\n]{{0,60}}?\b(?:{_LIVES})",
  )
