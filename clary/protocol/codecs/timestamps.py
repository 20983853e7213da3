"""Times in the forms in which the protocols write them; inside Clary a time is epoch seconds.

Replies have milliseconds, as AWS's do; HTTP dates have whole seconds.
"""

from __future__ import annotations

import calendar
import math
import re
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime

from clary.protocol.codecs.codec import Unreadable, shortened

MAX_EPOCH_SECONDS = 253_402_300_799  # the last second of the year 9999
MAX_TEXT = 64

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?)?"
    r"(?:[Zz]|([+-])(\d\d):?(\d\d)?)?",
    re.ASCII,
)
_NAMES = ("iso8601", "rfc822", "unixTimestamp")


def read_timestamp(value: object) -> float:
    """Epoch seconds of a number, a number's text, an ISO 8601 time or an HTTP date.

    A time without a zone is UTC. Raises `Unreadable`.
    """
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = _finite(value)
    elif isinstance(value, str) and len(value) <= MAX_TEXT:
        seconds = _read_text(value.strip())
    if seconds is None or not -MAX_EPOCH_SECONDS <= seconds <= MAX_EPOCH_SECONDS:
        raise Unreadable(f"'{shortened(value)}' is not a timestamp")
    return seconds


def _finite(number: float) -> float | None:
    try:
        seconds = float(number)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _read_text(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return _finite(float(text))
    found = _ISO.fullmatch(text)
    try:
        return _read_iso(found) if found else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _read_iso(found: re.Match[str]) -> float:
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = found.groups()
    moment = datetime(
        int(year),
        int(month),
        int(day),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        tzinfo=timezone.utc,
    )
    whole = calendar.timegm(moment.timetuple())
    if sign is not None:
        offset = int(zone_hours) * 3600 + int(zone_minutes or 0) * 60
        whole -= offset if sign == "+" else -offset
    # Microseconds are added as whole numbers, so that the float is rounded once.
    return (whole * 1_000_000 + round(float(f"0.{fraction or 0}") * 1_000_000)) / 1_000_000


def _milliseconds(value: object) -> int:
    """Milliseconds since the epoch of a handler's time: a number of seconds or an aware datetime."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError("a timestamp must be an aware datetime")
        return round(value.timestamp() * 1000)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return round(value * 1000)
    raise TypeError(f"a timestamp is a number of seconds or an aware datetime, not {type(value).__name__}")


def as_number(value: object) -> float | int:
    """Epoch seconds with milliseconds, as JSON and CBOR carry them."""
    milliseconds = _milliseconds(value)
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


def as_text(value: object, form: str, *, always_fraction: bool = False) -> str:
    """``value`` in ``form``, one of the models' names: ``iso8601``, ``rfc822``, ``unixTimestamp``.

    ``always_fraction`` writes ISO 8601's milliseconds even where they are zero, as S3 does.
    """
    if form == "unixTimestamp":
        return str(as_number(value))
    seconds, milliseconds = divmod(_milliseconds(value), 1000)
    if form == "rfc822":
        return formatdate(seconds, usegmt=True)
    if form != "iso8601":
        raise ValueError(f"a timestamp's form is one of {', '.join(_NAMES)}, not {form}")
    moment = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{milliseconds:03d}Z" if milliseconds or always_fraction else f"{moment}Z"
