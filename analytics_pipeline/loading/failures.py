"""Failures of dlt: the error of this package in them, and a readable sentence."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import dlt
from dlt.common.exceptions import DltException
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.trace import save_trace

from analytics_pipeline.errors import AnalyticsError, shortened
from analytics_pipeline.secrets import mask_error, masked

STEPS = {
    "extract": "reading",
    "normalize": "preparing rows",
    "load": "loading into the warehouse",
    "sync": "reading the state of the last run from the warehouse",
}
AGAIN = "data loaded so far is kept; fix the problem and run again"
MAY_NOT_CREATE = re.compile("permission denied for database")
"""PostgreSQL's words to a user who may not create schemas."""
KEPT = "no data is lost; fix the problem and run again"
_LOCKED = re.compile(
    r'lock on file "(.+)": Conflicting lock is held in (.+) \(PID (\d+)'
)
"""How DuckDB says that another process has the file open."""


def root_error(error: BaseException) -> BaseException:
    """Return the error of this package inside dlt's, or dlt's own."""
    return next((e for e in causes(error) if isinstance(e, AnalyticsError)), error)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the error of this package, or the Ctrl-C, that dlt wrapped.

    Secrets are masked in it, and in what dlt has stored of it.
    """
    try:
        yield
    except Exception as failure:
        mask_error(failure)
        _mask_traces(failure)
        if not isinstance(failure, DltException):
            raise
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes(failure)):
            raise KeyboardInterrupt from failure
        root = root_error(failure)
        if root is failure:
            raise  # from itself it would lose its own cause
        raise root from failure


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then its cause, and so on."""
    seen: set[int] = set()  # a chain may be a ring
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def sentence(error: BaseException) -> str:
    """Return the innermost reason, and what to do."""
    root = root_error(error)
    if isinstance(root, AnalyticsError):
        return str(root)
    steps = [cause for cause in causes(error) if isinstance(cause, PipelineStepFailed)]
    if not steps:
        return words(error) + (f"; {KEPT}" if isinstance(error, OSError) else "")
    step = steps[-1]
    text, advice = words(reason(step)), ""
    if MAY_NOT_CREATE.match(text):
        client = cast(dlt.Pipeline, step.pipeline).sql_client()
        schemas = f"{client.dataset_name} and {client.staging_dataset_name}"
        advice = f"; let an administrator create the schemas {schemas} for this user"
    return f"{STEPS.get(step.step, step.step)} failed: {text}{advice}; {AGAIN}"


def _mask_traces(error: BaseException) -> None:
    """Mask secrets in `trace.pickle`, where dlt stores failed steps."""
    for cause in causes(error):
        if isinstance(cause, PipelineStepFailed):
            pipeline = cast(dlt.Pipeline, cause.pipeline)
            trace = pipeline.last_trace
            steps = [
                step._replace(
                    step_exception=masked(step.step_exception),
                    exception_traces=masked(step.exception_traces),
                )
                for step in (trace.steps if trace else ())
            ]
            if trace and steps != trace.steps:
                trace.steps[:] = steps
                save_trace(pipeline.working_dir, trace)


def reason(error: BaseException) -> BaseException:
    """Return the error of a driver or library that caused dlt's."""
    for cause in causes(error):
        if not isinstance(cause, DltException):
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return cause
        error = cause
    return error


def words(error: BaseException) -> str:
    """Return the first paragraph of an error's text, on one line.

    Details that databases add are left out, because they hold values of rows.
    """
    text = " ".join(masked(str(error)).strip().partition("\n\n")[0].split())
    text = re.split(r"\b(?:DETAIL|CONTEXT|LINE \d+):", text)[0].rstrip()
    if lock := _LOCKED.search(text):
        text = "the file {} is in use by process {} ({})".format(*lock.group(1, 3, 2))
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    elif not isinstance(error, DltException) and type(error).__module__ == "builtins":
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shortened(text.rstrip(":.") or type(error).__name__, 400)
