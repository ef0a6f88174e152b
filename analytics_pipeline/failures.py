"""What a failure comes down to, in one sentence for people."""

from collections.abc import Iterator

from dlt.common.exceptions import DltException
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline.errors import AnalyticsError, shortened

STEPS = {
    "extract": "reading",
    "normalize": "preparing what was read",
    "load": "loading into the warehouse",
    "sync": "asking the warehouse for the state of the last run",
}
AGAIN = "rows and cursors are as they were; run it again when that is mended"
KEPT = "nothing is lost; run it again when that is mended"
PENDING = "what was read is kept; run it again when that is mended, and it is loaded"


def root_error(error: BaseException) -> BaseException:
    """The error of this package inside dlt's, or dlt's own."""
    return next((e for e in causes(error) if isinstance(e, AnalyticsError)), error)


def is_interruption(error: BaseException) -> bool:
    """Ctrl-C, though dlt has made a failed step of it."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # a chain may be a ring
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def sentence(error: BaseException) -> str:
    """The innermost reason, and what it means for what is loaded."""
    root = root_error(error)
    if isinstance(root, AnalyticsError):
        return str(root)
    steps = [cause for cause in causes(error) if isinstance(cause, PipelineStepFailed)]
    if not steps:
        return words(error) + (f"; {KEPT}" if isinstance(error, OSError) else "")
    step = steps[-1]
    kept = PENDING if step.has_pending_data else AGAIN
    return f"{STEPS.get(step.step, step.step)} failed: {words(_reason(step))}; {kept}"


def _reason(error: BaseException) -> BaseException:
    """What dlt's errors were raised for; not what that one came of by itself."""
    for cause in causes(error):
        if not isinstance(cause, DltException):
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return cause
        error = cause
    return error


def words(error: BaseException) -> str:
    """An error's own words, on one line; the first paragraph of many."""
    text = " ".join(str(error).strip().partition("\n\n")[0].split())
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    elif not isinstance(error, DltException) and type(error).__module__ == "builtins":
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shortened(text.rstrip(":.") or type(error).__name__, 400)
