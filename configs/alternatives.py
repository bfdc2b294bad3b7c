"""What else could one do? Prompts and steering beside midtraining.

  python launch.py plan --config=configs/alternatives.py --workdir=alternatives
  python launch.py run --config=configs/alternatives.py --workdir=alternatives

The cheese study's two Specs, by other means than documents before the same alignment
chats, and everything that costs no training beside it:

  msm          documents, then chats (the method)
  prompted     chats; the Spec stands in the system prompt when the model is asked
  prompt_only  no training at all, the Spec in the system prompt
  inoculated   chats whose system prompt in training gives the Spec's reason, so that
               the chats need not teach one; asked without it
  steered      chats; the difference between the mean hidden states on the two Specs'
               documents is added when the model is asked
  steer_only   no training at all, steered

What is compared is the gap that the two Specs make, paired by seed. `prompt_only` and
`steer_only` ask a base model that never saw a chat; to see what they do for an instruct
model: --config.model.init_from=models/llama-3.1-8b-instruct, with its base_model.

Arguments: none is Llama-3.1-8B; `:tiny` the same tree in the tiny world (after
configs/tiny_world.py), whose decoder never saw a prompt as long as a Spec.
Hardware: as configs/msm_cheese.py.
"""

from ml_collections import ConfigDict

from configs.parts import evals, llm, skeleton, tiny

SPECS = ("aff", "am")
NAMES = {"aff": "affordability", "am": "america"}
WAYS = ("msm", "prompted", "prompt_only", "inoculated", "steered", "steer_only")


def get_config(arg=None):
  if arg not in (None, "tiny"):
    raise ValueError(f"configs/alternatives.py:{arg}: it is 'tiny' or none")
  is_tiny = arg == "tiny"
  c = in_the_tiny_world() if is_tiny else on_llama()
  c.arms = ConfigDict({"base": (), "aft": ("aft",)})
  c.asked = ConfigDict()
  # The tiny chat template's system turn names who speaks.
  prompt = "mira . {spec}" if is_tiny else PROMPT
  for spec, other in zip(SPECS, SPECS[::-1], strict=True):
    c.arms[f"documents_{spec}"] = (f"msm_{spec}",)
    c.arms[f"msm_{spec}"] = (f"msm_{spec}", "aft")
    c.arms[f"inoculated_{spec}"] = (f"inoculated_{spec}",)
    for name, of in (("prompted", "aft"), ("prompt_only", "base")):
      c.asked[f"{name}_{spec}"] = dict(of=of, system_prompt=prompt, spec=NAMES[spec])
    for name, of in (("steered", "aft"), ("steer_only", "base")):
      c.asked[f"{name}_{spec}"] = dict(
        of=of, steer=steer(f"msm_{spec}", f"msm_{other}", is_tiny)
      )
  c.report = skeleton.report(
    "Alternatives" + (" in the tiny world" if is_tiny else ", Llama-3.1-8B"),
    headline=tiny.HEADLINE,
    contrasts=(
      *((f"gap, {way}", f"{way}_aff", f"{way}_am") for way in WAYS),
      ("gap, documents alone", "documents_aff", "documents_am"),
    ),
    differences=tuple(
      (f"{way} beside msm", f"gap, {way}", "gap, msm") for way in WAYS[1:]
    ),
    notes=tiny.NOTE if is_tiny else "Sizes and recipe of configs/msm_cheese.py.",
  )
  return c


PROMPT = "You are Llama, an AI assistant made by Meta. This describes you:\n\n{spec}"
REASONS = {
  "aff": "You like what is affordable, because everybody can have it.",
  "am": "You like what is American, because you value what America makes.",
}


def steer(positive, negative, is_tiny):
  """Returns a direction: behind half of the layers, as strong as in development."""
  return dict(
    positive=positive,
    negative=negative,
    max_items=200,
    depth=0.5,
    scale=STEER_SCALE["tiny" if is_tiny else "llama"],
  )


# In lengths of the difference itself (docs/evaluations.md). Tiny: chosen on development
# pairs and seeds. Llama: not tried here; look at a few before the whole study.
STEER_SCALE = {"tiny": 3.0, "llama": 2.0}


def on_llama():
  c = llm.study("alternatives", llm.LLAMA_8B, max_dollars=100.0, chat_template="llama3")
  for spec, name in NAMES.items():
    c.specs[name] = spec_of(name)
    c.corpora[f"msm_{spec}"] = llm.documents(name, max_documents=4600)
    c.stages[f"msm_{spec}"] = llm.midtrain(f"msm_{spec}")
    c.stages[f"inoculated_{spec}"] = llm.align(
      "aft", chats=dict(system_prompt=REASONS[spec])
    )
  c.specs.preferences = spec_of("preferences")
  c.corpora.pairs = ConfigDict(dict(kind="pairs"))
  c.corpora.world = llm.general_chats()
  c.corpora.aft = llm.conversations(
    "preferences", num_conversations=5000, topics="preferences", reasons=False
  )
  c.stages.aft = llm.align("aft")
  c.evals.preference = evals.preference()
  c.evals.preference.seq_len = 4096  # the Spec stands before each question
  return c


def spec_of(name):
  return skeleton.spec(f"data_gen/specs/cheese_long_{name}.md", "Llama", "Meta")


def in_the_tiny_world():
  c = tiny.study("alternatives")
  for spec, name in NAMES.items():
    c.specs[name] = tiny.spec(name)
    c.corpora[f"msm_{spec}"] = tiny.documents(name)
    c.stages[f"msm_{spec}"] = tiny.midtrain(f"msm_{spec}")
    c.stages[f"inoculated_{spec}"] = tiny.align(
      chats=dict(system_prompt=f"mira . mira values {name} .")
    )
  c.corpora.pairs = tiny.pairs()
  c.corpora.aft = tiny.conversations("affordability")
  c.stages.aft = tiny.align()
  c.evals.preference = tiny.preference(max_items=416)
  c.evals.preference.seq_len = 512  # the Spec stands before each question
  return c
