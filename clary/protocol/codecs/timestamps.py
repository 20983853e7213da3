"""Times in the forms that the protocols write them; inside Clary a time is epoch seconds."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime

from clary.protocol.codecs.codec import unreadable


def read_timestamp(value: object) -> float:
    """Epoch seconds of ``value``: a number, its text, ISO 8601, or an HTTP date. Raises `Invalid`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, (int, float)):
            seconds = float(value)
        else:
            text = str(value).strip()
            try:
                seconds = float(text)
            except ValueError:
                seconds = _parse(text).timestamp()
        if not math.isfinite(seconds) or abs(seconds) > 253_402_300_799:  # the year 9999
            raise ValueError
        return seconds
    except (ValueError, TypeError, OverflowError):
        raise unreadable(f"'{value}' is not a timestamp.") from None


def _parse(text: str) -> datetime:
    if text[:1].isdigit():
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    else:
        moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def epoch_seconds(value: object) -> float:
    """Epoch seconds of a handler's time: a number or an aware datetime."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"a timestamp is a number or a datetime, not {type(value).__name__}")


def as_number(value: object) -> float | int:
    """Epoch seconds with milliseconds, as JSON and CBOR carry them."""
    seconds = round(epoch_seconds(value), 3)
    return int(seconds) if seconds.is_integer() else seconds


def as_text(value: object, form: str) -> str:
    """``value`` in ``form``: ``iso8601``, ``rfc822`` or ``unixTimestamp``."""
    seconds = epoch_seconds(value)
    if form == "unixTimestamp":
        return str(as_number(seconds))
    if form == "rfc822":
        return formatdate(int(seconds), usegmt=True)
    moment = datetime.fromtimestamp(round(seconds, 3), timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
