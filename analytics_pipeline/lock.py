"""One run of a pipeline at a time.

Two runs in one working folder would take each other's files away. What one that ended
early left half written, the next one clears.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dlt

from analytics_pipeline.errors import Busy

_FAR = 1 << 30
"""Where Windows locks: a locked byte cannot be read, and the process id should be."""


@contextmanager
def exclusive(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Nobody else runs this pipeline meanwhile.

    The lock is on an open file, beside the working folder, since dlt empties that. It
    goes with its process, however that ends; the file stays.

    Raises:
        Busy: another run has it.
    """
    path = Path(pipeline.pipelines_dir, f"{pipeline.pipeline_name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            _lock(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = f"process {pid}" if (pid := file.read(20)) else "another process"
            raise Busy(
                f"{owner} is running the pipeline {pipeline.pipeline_name!r} of"
                f" {pipeline.pipelines_dir} already; wait until it has ended, or give"
                " this run a pipeline name of its own"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _sweep(pipeline)
        yield


def _sweep(pipeline: dlt.Pipeline) -> None:
    """Remove what dlt left if it was killed, or the disk full, while it wrote a schema.

    It would take such a file for a schema, and fail from then on.
    """
    folder = Path(pipeline.working_dir, "schemas")
    left = [path for path in folder.glob("*") if not path.suffix]
    for path in left:
        path.unlink()
    if left:
        with pipeline.managed_state() as state:
            names = set(state["schema_names"] or ()) - {path.name for path in left}
            pipeline.schema_names = state["schema_names"] = sorted(names)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
