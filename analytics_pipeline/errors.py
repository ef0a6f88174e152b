"""What can go wrong, in words for people.

A message says what happened, on which table and project, and what to do next. It holds
URLs without their query, and no secret.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from difflib import get_close_matches
from typing import Any, Self

import requests

from analytics_pipeline.secrets import masked

LONGEST_MESSAGE = 1000
"""Characters of an error that the words of a server may fill."""
LINES = 10
"""Of failures, and of projects, that a message names one by one."""


class AnalyticsError(Exception):
    """Base of all errors of this package. Secrets in its texts are masked."""

    def __init__(self, *texts: Any, **named: Any) -> None:
        super().__init__(*map(masked, texts), **named)

    def about(self, subject: str, advice: str = "") -> Self:
        """Return the same error for whoever knows more: what it is about, what to do."""
        error = copy(self)
        text = shortened(str(self), LONGEST_MESSAGE)
        error.args = (
            masked(subject) + ": " + text + (f"; {advice}" if advice else ""),
        )
        return error


class ConfigurationError(AnalyticsError, ValueError):
    """A setting is missing or makes no sense; nothing was asked or loaded."""


class MissingSetting(ConfigurationError):
    """A setting that is always needed is not given anywhere; `setting` is its name."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class InsecureUrl(ConfigurationError):
    """`base_url` is no address, or would send the token unencrypted."""


class PipelineLocked(AnalyticsError, RuntimeError):
    """Another process runs the same pipeline; nothing was asked or loaded."""


class MissingTable(AnalyticsError, LookupError):
    """A table that dlt had made is not in the warehouse any more."""


class ApiError(AnalyticsError):
    """The server did not give what was asked for."""


class Unreachable(ApiError, ConnectionError):
    """No connection to the server, after all retries."""


class BrokenAnswer(ApiError, ConnectionError):
    """The connection broke, or fell silent, before an answer was whole; after all retries."""


class UnexpectedAnswer(ApiError, ValueError):
    """The answer has another shape than the API promises."""


class MissingField(UnexpectedAnswer):
    """A record came without its key."""


class OtherApi(UnexpectedAnswer):
    """The answer has not the shape of this API; another one may be behind the address.

    `apis` are the settings that may be right, as far as that could be found out.
    """

    def __init__(self, message: str, apis: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.apis = tuple(apis)


class MissingLink(UnexpectedAnswer):
    """Nothing in an answer tells whether there are more rows."""


class EmptyAnswer(MissingLink):
    """There is no row, either: this is no list."""


class UnknownName(ApiError, LookupError):
    """The server knows no such organization, though it answers as if it were empty."""


class PageCursorLoop(ApiError, RuntimeError):
    """The server sent a page cursor twice in one list, which would never end."""


class HttpError(ApiError, requests.HTTPError):
    """The server refused; its status and its words are in the message."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code if self.response is not None else 0


class IncompleteLoad(ApiError):
    """Some lists could not be read, or the server refused all; all others are loaded.

    `failures` is list (`"events of project 'frontend'"`) → error; `summary` tells what
    was loaded.
    """

    def __init__(self, failures: Mapping[str, ApiError], summary: Any) -> None:
        lines = by_reason(failures.values())
        if len(lines) > LINES:
            lines[LINES:] = [f"and {len(lines) - LINES} more errors"]
        super().__init__("\n".join(lines))
        self.failures = dict(failures)
        self.summary = summary


def by_reason(errors: Iterable[Any]) -> list[str]:
    """Return a line for each reason, which names all lists of a table that it is of.

    Args:
        errors: of lists, each beginning as `"events of project 'frontend': "`.
    """
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for text in map(str, errors):
        name, _, rest = text.partition(": ")
        table, _, project = name.partition(" of project ")
        reason = re.sub(r"https?://\S+: ", "", rest) if project else text
        groups.setdefault((table, reason), {})[text] = project.strip("'\"")
    lines = []
    for (table, reason), projects in groups.items():
        names = sorted(projects.values())
        if len(names) > LINES:
            names[LINES:] = [f"and {len(names) - LINES} more"]
        several = f"{table} of {len(projects)} projects ({', '.join(names)}): {reason}"
        lines.append(several if len(projects) > 1 else next(iter(projects)))
    return lines


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Return what was perhaps meant, as the end of a sentence; empty where nothing was."""
    close = get_close_matches(value, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shortened(text: str, length: int) -> str:
    """Return the text without secrets, its end replaced by dots where it is longer."""
    text = masked(text)  # of one that is cut in two, the first half would stay
    return text if len(text) <= length else text[: length - 3] + "..."
