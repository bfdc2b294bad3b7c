"""A teacher (or judge): stages in, requests out, answers parsed."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_gen import prompts, settings
from data_gen.clients import protocol
from data_gen.engine import ledger, scheduler, tally
from data_gen.engine.entries import failure_of
from msm_jax import json_text, progress

# An answer that cannot be parsed is asked for again, as another sample of the prompt.
PARSE_ATTEMPTS = 3
_MAX_SYSTEMS = 64

parse_json = json_text.find


class Teacher:
  """Asks the stages of a chain, or those whose templates lie in another directory."""

  def __init__(
    self,
    sender: scheduler.Scheduler,
    client: settings.ClientSettings,
    directory: pathlib.Path = prompts.DIRECTORY,
  ):
    self._scheduler = sender
    self.client = client
    self._directory = directory
    self._schemas = prompts.SCHEMAS if directory == prompts.DIRECTORY else {}
    self._params = protocol.Params(
      temperature=client.temperature,
      max_output_tokens=client.max_output_tokens,
      thinking=client.thinking,
      seed=client.seed,
    )
    self._systems: dict[str, str] = {}

  def request(
    self,
    stage: str,
    fields: Mapping[str, Any],
    sample_index: int = 0,
    schema: Mapping[str, Any] | None = None,
  ) -> protocol.Request:
    """Returns the request of one stage; the stages of chains have their schema."""
    system, prompt = prompts.render(stage, fields, self._directory)
    # Thousands of requests begin with the same long text: it is held once.
    if len(self._systems) >= _MAX_SYSTEMS:
      self._systems.clear()
    system = self._systems.setdefault(system, system)
    return protocol.Request(
      stage=stage,
      system=system,
      prompt=prompt,
      fields=fields,
      params=self._params,
      sample_index=sample_index,
      schema=schema or self._schemas.get(stage),
    )

  def identity(self, request: protocol.Request) -> str:
    """Returns the identity under which the ledger has a request."""
    return self._scheduler.identity(request)

  async def ask_all(
    self,
    requests: Iterable[protocol.Request],
    label: str = "",
    total: int = 0,
    kept: tally.Kept | None = None,
  ) -> None:
    """Gets a result for every request; with a label, shows how far it is.

    Args:
      requests: read as they are sent, so that they need not all be held.
      label, total: what the progress bar says; no label, no bar.
      kept: which records are kept, for the bar; None: whole answers are counted.
    """
    if not label:
      await self._scheduler.ask_all(requests)
      return
    with progress.Progress(label, total, "requests") as bar:
      await self._scheduler.ask_all(requests, bar, kept)

  def stop(self, reason: Exception) -> None:
    """Lets requests in flight finish and sends no others; `reason` is raised then."""
    self._scheduler.stop(reason)

  def find(self, request: protocol.Request) -> ledger.Entry | None:
    """Returns the result of a request, None if it was not asked."""
    return self._scheduler.result(request)

  def result(self, request: protocol.Request) -> ledger.Entry:
    """Returns the result of a request that was asked."""
    entry = self.find(request)
    assert entry is not None, "the request was never asked"
    return entry

  async def ask_parsed(
    self,
    stage: str,
    fields: Sequence[Mapping[str, Any]],
    parse: Callable[[str], Any],
    first_sample: int = 0,
  ) -> list[tuple[Any, str]]:
    """Asks one request per element of `fields` and parses the answers.

    Args:
      stage: the stage.
      fields: the fields of each request.
      parse: text -> value, or None if the text is not what was asked for.
      first_sample: sample index of the first attempt.

    Returns:
      For each request (value, ""), or (None, reason) if it came to nothing.
    """
    found: list[tuple[Any, str]] = [(None, "")] * len(fields)
    for attempt in range(PARSE_ATTEMPTS):
      open_ = [i for i, (value, _) in enumerate(found) if value is None]
      sample = first_sample + attempt
      # Made twice rather than held: there may be many, and long ones.
      await self.ask_all(self.request(stage, fields[i], sample) for i in open_)
      for i in open_:
        entry = self.result(self.request(stage, fields[i], sample))
        value = parse(entry.text) if entry.status == ledger.OK else None
        found[i] = (value, "" if value is not None else failure_of(entry) or "unparsed")
    return found

  def provenance(
    self, request: protocol.Request, entry: ledger.Entry
  ) -> dict[str, Any]:
    """Returns what a row says about how its text was made."""
    usage = entry.usage
    return {
      "teacher": {
        "client": self.client.client,
        "model": self.client.model,
        "model_version": entry.model_version,
        "params": entry.params,
      },
      "usage": {
        "prompt_tokens": usage["prompt_tokens"],
        "response_tokens": usage["response_tokens"],
        "thought_tokens": usage["thought_tokens"],
      },
      "finish_reason": entry.finish_reason,
      "prompt_hash": request.prompt_hash,
    }


def objects_parser(
  *keys: str, optional: Sequence[str] = ()
) -> Callable[[str], list[dict[str, str]] | None]:
  """Returns a parser for a JSON list of maps that have text under all of `keys`.

  Items that have not are left out; None if nothing is left. What is missing under an
  `optional` key becomes "".
  """

  def parse(text: str) -> list[dict[str, str]] | None:
    value = parse_json(text)
    if not isinstance(value, list):
      return None
    items = [
      {key: str(item.get(key) or "").strip() for key in (*keys, *optional)}
      for item in value
      if isinstance(item, dict)
      and all(isinstance(item.get(key), str) and item[key].strip() for key in keys)
    ]
    return items or None

  return parse


def parse_texts(text: str) -> list[str] | None:
  """Returns the texts of a JSON list, or None if there are none."""
  value = parse_json(text)
  if not isinstance(value, list):
    return None
  texts = [item.strip() for item in value if isinstance(item, str)]
  return [text for text in texts if text] or None


def parse_verdict(text: str) -> dict[str, str]:
  """Returns {verdict: 'yes' | 'no' | 'unparsed', reason}; what is unclear is no yes."""
  value = parse_json(text)
  verdict = value.get("verdict") if isinstance(value, dict) else None
  if not isinstance(verdict, str) or verdict.strip().lower() not in ("yes", "no"):
    return {"verdict": "unparsed", "reason": ""}
  return {
    "verdict": verdict.strip().lower(),
    "reason": str(value.get("reason", "")).strip(),
  }
