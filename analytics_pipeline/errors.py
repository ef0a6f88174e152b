"""Exceptions, and what their messages have in common.

A message says what happened, to which list, and what to do. URLs are shown without their
query, and secrets are masked.
"""

import re
from collections.abc import Iterable, Mapping
from copy import copy
from difflib import get_close_matches
from typing import Any, Self

import requests

from analytics_pipeline.secrets import masked

LONGEST_MESSAGE = 1000
"""Characters of an error."""
LINES = 10
"""How many failures, or projects, a message lists."""

TRY_LATER = "Data loaded so far is kept. Try again later."


class AnalyticsError(Exception):
    """Base of all errors of this package. Secrets in messages are masked."""

    def __init__(self, *texts: Any, **named: Any) -> None:
        super().__init__(*map(masked, texts), **named)

    def about(self, subject: str, advice: str = "") -> Self:
        """Return a copy that also says what the error is about, and what to do."""
        error = copy(self)
        text = f"{masked(subject)}: {shortened(str(self), LONGEST_MESSAGE)}"
        text = f"{text.removesuffix('.')}. {advice}" if advice else text
        error.args = (text,)
        return error


class ConfigurationError(AnalyticsError, ValueError):
    """A setting is missing or invalid; no request was sent and nothing was loaded."""


class PipelineLocked(AnalyticsError, RuntimeError):
    """Another process runs the same pipeline; nothing was loaded."""


class ApiError(AnalyticsError):
    """The server did not return what was requested."""


class Unreachable(ApiError, ConnectionError):
    """No connection to the server, after all retries."""


class HttpError(ApiError, requests.HTTPError):
    """The server answered with an error status; the message holds it and the reason."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code if self.response is not None else 0


class UnexpectedAnswer(ApiError, ValueError):
    """The answer does not have the shape that the API promises."""


class OtherShape(UnexpectedAnswer):
    """The answer may come from another API, or from a proxy or web server."""


class OtherApi(ApiError):
    """The server has another API than the setting `api`."""


class UnknownName(ApiError, LookupError):
    """The organization does not exist, though the server answers with an empty list."""


class IncompleteLoad(ApiError):
    """Some lists could not be read, or the server refused all; the others are loaded.

    `failures` maps lists (`"events of project 'frontend'"`) to errors; `summary` is the
    result of the run.
    """

    def __init__(self, failures: Mapping[str, ApiError], summary: Any) -> None:
        lines = first_lines(by_reason(failures.values()), "more errors")
        super().__init__("\n".join(lines))
        self.failures = dict(failures)
        self.summary = summary


def by_reason(errors: Iterable[Any]) -> list[str]:
    """Return one line for each table and reason, naming its projects.

    Args:
        errors: each begins with its list, such as `"events of project 'frontend': "`.
    """
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for text in map(str, errors):
        name, _, rest = text.partition(": ")
        table, _, project = name.partition(" of project ")
        reason = re.sub(r"https?://\S+: ", "", rest) if project else text
        groups.setdefault((table, reason), {})[text] = project.strip("'\"")
    lines = []
    for (table, reason), projects in groups.items():
        names = first_lines(sorted(projects.values()))
        several = f"{table} of {len(projects)} projects ({', '.join(names)}): {reason}"
        lines.append(several if len(projects) > 1 else next(iter(projects)))
    return lines


def first_lines(texts: list[str], others: str = "more") -> list[str]:
    """Return the first `LINES` texts, followed by the number of the others."""
    count = len(texts) - LINES
    return [*texts[:LINES], f"and {count} {others}"] if count > 0 else texts


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Return the known name closest to the value as the end of a sentence, or nothing."""
    close = get_close_matches(value, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of the text, without secrets."""
    text = masked(text)  # first, because half a secret would not be recognized
    return text if len(text) <= length else text[: length - 3] + "..."
