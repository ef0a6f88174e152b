from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.unit.canned import Answer, CannedServer, Serve


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that give canned answers; they end with the test."""
    with ExitStack() as stack:

        def start(*answers: Answer) -> CannedServer:
            return stack.enter_context(CannedServer(*answers))

        yield start
