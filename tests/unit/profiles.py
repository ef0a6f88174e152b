"""Settings of hypothesis: few examples by default, many in slow tests."""

import atexit
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

SHORT = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = settings(SHORT, max_examples=10_000)
EXAMPLES = pytest.mark.parametrize(
    "examples",
    [
        pytest.param(settings(SHORT, max_examples=70), id="few"),
        pytest.param(LONG, id="many", marks=pytest.mark.slow),
    ],
)

# Hypothesis caches Unicode tables and constants of the code in a folder.
HOME = TemporaryDirectory(prefix="hypothesis-")
atexit.register(HOME.cleanup)
set_hypothesis_home_dir(HOME.name)
