"""Times and spans of time, as users write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.values import utc

UNITS = {"h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=365_250)
"""A thousand years."""


def parse_time(setting: str, value: Any) -> datetime | None:
    """Return the time of ISO text, a date or a datetime; UTC if it has no time zone.

    `"7d"` is the time seven days ago.
    """
    if value in (None, ""):
        return None
    if isinstance(value, str) and re.fullmatch(r"\d+[a-z]", value.strip()):
        return datetime.now(UTC) - parse_span(setting, value)
    try:
        return utc(datetime.fromisoformat(str(value).strip()))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{setting} {value!r} is not a time; write it as 2026-11-30,"
            " 2026-11-30T12:00:00Z, or 7d for seven days ago"
        ) from None


def parse_since(value: Any) -> datetime | None:
    """Return the time to load from, which must have passed."""
    since = parse_time("since", value)
    if since and since > (now := datetime.now(UTC)):
        raise ConfigurationError(
            f"since {value!r} is in the future: it is {now:%Y-%m-%d %H:%M} UTC now"
        )
    return since


def parse_span(setting: str, value: str | timedelta) -> timedelta:
    """Return the span of time of `"12h"`, `"7d"` or `"2w"`."""
    if isinstance(value, timedelta):
        if value < timedelta(seconds=1):
            raise ConfigurationError(f"{setting}: a span of {value} is too short")
        return value
    match = re.fullmatch(r"([1-9]\d{0,4})([hdw])", str(value).strip())
    if match is None:
        raise ConfigurationError(
            f"{setting} {value!r} is not a span of time; write it as 12h, 7d or 2w"
        )
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def parse_lookback(value: Any) -> timedelta:
    """Return the span of time of a number of seconds, or of `"3d"`."""
    if isinstance(value, str) and value.strip()[-1:] in UNITS:
        return parse_span("lookback", value)
    try:
        seconds = value if isinstance(value, timedelta) else timedelta(0, float(value))
    except (TypeError, ValueError, OverflowError):
        seconds = -LONGEST
    if not timedelta() <= seconds <= LONGEST:
        raise ConfigurationError(
            f"lookback {value!r} is not a span of time up to a thousand years; write it"
            " as seconds, or as 12h, 7d or 2w"
        )
    return seconds


def parse_sweep(value: str | timedelta) -> timedelta | None:
    """Return the maximum age of the last sweep: 0 for `"now"`, None for `"never"`."""
    words = {"now": timedelta(), "never": None}
    if isinstance(value, str) and value.strip() in words:
        return words[value.strip()]
    try:
        return parse_span("sweep", value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or as now or never") from None
