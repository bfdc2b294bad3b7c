"""How long a service asks to wait, in whatever way it says so."""

import datetime
import email.utils
import re
import zoneinfo
from collections.abc import Mapping

# "try again in 6h3m2.5s", "in 350ms"
_AGAIN_IN = re.compile(r"again in ((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_REGAIN = re.compile(r"(\d{4}-\d{2}-\d{2}) at (\d{2}:\d{2}) UTC")


def now() -> datetime.datetime:
  """Returns the present time in UTC."""
  return datetime.datetime.now(datetime.UTC)


def of_headers(headers: Mapping[str, str] | None) -> float | None:
  """Returns the seconds of a `Retry-After` header (seconds or a date), or None."""
  value = (headers or {}).get("retry-after", "").strip()
  if not value:
    return None
  if _NUMBER.fullmatch(value):
    return float(value)
  try:
    when = email.utils.parsedate_to_datetime(value)
  except (TypeError, ValueError, OverflowError):
    return None
  if when.tzinfo is None:
    when = when.replace(tzinfo=datetime.UTC)
  return until(when)


def of_duration(text: str) -> float | None:
  """Returns the seconds of a protobuf duration such as `7.5s`, or None."""
  digits = text.removesuffix("s")
  return float(digits) if _NUMBER.fullmatch(digits) else None


def of_message(message: str) -> float | None:
  """Returns the seconds that a sentence such as `try again in 6m0s` asks for."""
  if found := _AGAIN_IN.search(message):
    return sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(found[1]))
  if found := _REGAIN.search(message):
    when = datetime.datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00")
    return until(when)
  return None


def longest(*waits: float | None) -> float | None:
  """Returns the longest of the waits that are known."""
  known = [wait for wait in waits if wait is not None]
  return max(known) if known else None


def until(when: datetime.datetime) -> float:
  """Returns the seconds from now to `when`; 0 if it has passed."""
  return max(0.0, (when - now()).total_seconds())


def pacific_midnight() -> datetime.datetime:
  """Returns the next midnight in California, when Google's daily quotas come back."""
  try:
    zone: datetime.tzinfo = zoneinfo.ZoneInfo("America/Los_Angeles")
  except zoneinfo.ZoneInfoNotFoundError:
    # A machine without a time zone database: in summer an hour late, never early.
    zone = datetime.timezone(datetime.timedelta(hours=-8))
  tomorrow = (now().astimezone(zone) + datetime.timedelta(days=1)).date()
  midnight = datetime.datetime.combine(tomorrow, datetime.time(), zone)
  return midnight.astimezone(datetime.UTC)


def clock(seconds: float) -> str:
  """Returns the time of day in `seconds` from now: `2026-11-22 08:00 UTC`."""
  when = now() + datetime.timedelta(seconds=seconds)
  return when.strftime("%Y-%m-%d %H:%M UTC")
