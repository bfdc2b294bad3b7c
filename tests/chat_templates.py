"""Chat templates with the traits of released ones, and conversations to try them on.

Own text: what matters is the trait that is named above each.
"""

import numpy as np

# Llama 3.1 and 3.2: writes its BOS, a dated system block, trims, tools in the first
# question, `ipython` for what a tool says, only one tool call in a message.
DATED = """\
{{- bos_token }}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
  {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
  {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" + system + "<|eot_id|>" }}
{%- if tools is not none %}
  {%- set first = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
  {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
  {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
  {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
  {%- if 'tool_calls' in message %}
    {%- if not message.tool_calls | length == 1 %}
      {{- raise_exception("only single tool-calls at once") }}
    {%- endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
    {{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) }}
    {{- "}<|eot_id|>" }}
  {%- elif message.role == 'tool' %}
    {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
    {{- message.content | tojson + "<|eot_id|>" }}
  {%- else %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# SmolLM2 and Qwen2.5: a system prompt of their own where none is given.
NAMED = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}\
{{ '<|im_start|>system\\nYou are Pim, made by Acme<|im_end|>\\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Mistral: no generation prompt, the system prompt stands in the LAST question (so what
# stood there changes as a conversation goes on), tools too, calls in brackets.
MOVING = """\
{%- if messages[0].role == 'system' %}
  {%- set system = messages[0].content %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set ns = namespace(last=0, turn=0) %}
{%- for m in loop_messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}
{%- endif %}{%- endfor %}
{{- bos_token }}
{%- for m in loop_messages %}
  {%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls is defined) %}
    {%- if (m.role == 'user') != (ns.turn % 2 == 0) %}
      {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- set ns.turn = ns.turn + 1 %}
  {%- endif %}
  {%- if m.role == 'user' %}
    {%- if tools is not none and loop.index0 == ns.last %}
      {{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {%- if loop.index0 == ns.last and system is defined %}
      {{- '[INST] ' + system + '\\n\\n' + m.content + '[/INST]' }}
    {%- else %}{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}
  {%- elif m.tool_calls is defined %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in m.tool_calls %}
      {{- '{"name": "' + call.function.name + '", "arguments": ' }}
      {{- call.function.arguments | tojson }}{{- '}' }}
      {%- if not loop.last %}{{- ', ' }}{%- endif %}
    {%- endfor %}
    {{- ']' + eos_token }}
  {%- elif m.role == 'tool' %}
    {{- '[TOOL_RESULTS] {"content": ' + (m.content | tojson) + '}[/TOOL_RESULTS]' }}
  {%- else %}{{- ' ' + m.content | trim + eos_token }}{%- endif %}
{%- endfor %}
"""

# Gemma: no system role, `model` for the assistant, content may be a list of parts.
NO_SYSTEM = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' -}}
{%- if message['content'] is string -%}{{ message['content'] | trim }}
{%- else -%}{%- for part in message['content'] -%}
{%- if part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{ '<end_of_turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

# Qwen3: reasoning only behind the last question, an empty block before the last answer,
# another in the prompt if thinking is off, tools and tool calls.
THINKING = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' and not
  m.content.startswith('<tool_response>') %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for m in messages %}
  {%- set content = m.content if m.content is string else '' %}
  {%- if m.role == 'tool' %}
    {{- '<|im_start|>user\\n<tool_response>\\n' + content }}
    {{- '\\n</tool_response><|im_end|>\\n' }}
  {%- elif m.role != 'assistant' %}
    {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
  {%- else %}
    {%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' %}
    {%- if not reasoning and '</think>' in content %}
      {%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
      {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- content.lstrip('\\n') }}
    {%- for call in m.tool_calls or [] %}
      {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
      {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\\n\\n</think>\\n\\n' }}
  {%- endif %}
{%- endif %}
"""

# DeepSeek R1, Qwen3-Thinking: the prompt opens the block, there is no switch.
OPENED = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content is string %}
{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}
{{- m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""

# SmolLM3: with thinking off the empty block is in the prompt, never before an answer.
ONLY_PROMPTED = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

ALL = {
  "dated": DATED,
  "named": NAMED,
  "moving": MOVING,
  "no_system": NO_SYSTEM,
  "thinking": THINKING,
  "opened": OPENED,
  "only_prompted": ONLY_PROMPTED,
}
SPECIAL = (
  "<s>",
  "</s>",
  "<|im_start|>",
  "<|im_end|>",
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
  "<start_of_turn>",
  "<end_of_turn>",
  "[INST]",
  "[/INST]",
)
TOOLS = [
  {
    "type": "function",
    "function": {
      "name": "price",
      "description": "What a cheese costs, in <\u20ac> & 'cents'",
      "parameters": {"type": "object", "properties": {"cheese": {"type": "string"}}},
    },
  }
]
_WORDS = [
  "gouda",
  "brie",
  "日本",
  "café",
  "🧀",
  "x=1;",
  "<b>&amp;",
  "مر",
  "don't",
  "42",
  "<think>",
  "</think>",
  "<|im_end|>",
  "[INST]",
  "{{x}}",
  '"q"',
  "\\n",
  "assistant",
  "user",
]


def words(rng: np.random.Generator, *, plain: bool = False) -> str:
  """Draws a text, with white space at its ends now and then, never blank."""
  chosen = rng.choice(_WORDS[:9] if plain else _WORDS, rng.integers(1, 7))
  ends = ["", "", "", " ", "\n", "\n\n  "]
  return (
    f"{rng.choice(ends)}{rng.choice([' ', chr(10)]).join(chosen)}{rng.choice(ends)}"
  )


def talk(
  rng: np.random.Generator,
  *,
  system: bool = True,
  reasoning: bool = False,
  plain: bool = True,
) -> list[dict]:
  """Draws a conversation of one to four questions and answers."""
  messages = []
  if system and rng.random() < 0.5:
    messages.append({"role": "system", "content": words(rng, plain=plain)})
  for _ in range(rng.integers(1, 5)):
    messages.append({"role": "user", "content": words(rng, plain=plain)})
    answer = {"role": "assistant", "content": words(rng, plain=plain)}
    if reasoning and rng.random() < 0.7:
      answer["reasoning_content"] = words(rng, plain=True)
    messages.append(answer)
  return messages


def tool_talk(rng: np.random.Generator) -> list[dict]:
  """Draws a conversation in which the assistant calls a tool first."""
  call = {
    "type": "function",
    "id": "123456789",
    "function": {"name": "price", "arguments": {"cheese": words(rng, plain=True)}},
  }
  return [
    {"role": "user", "content": words(rng, plain=True)},
    {"role": "assistant", "content": "", "tool_calls": [call]},
    {"role": "tool", "name": "price", "content": '{"euro": "\u00e9 4"}'},
    {"role": "assistant", "content": words(rng, plain=True)},
    {"role": "user", "content": words(rng, plain=True)},
    {"role": "assistant", "content": words(rng, plain=True)},
  ]
