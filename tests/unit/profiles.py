"""How much hypothesis tries: a little in each run, much in slow tests."""

import atexit
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

SHORT = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = settings(SHORT, max_examples=10_000)


# Hypothesis keeps what it knows of Unicode and of this code in a folder, from the
# collection of tests on.
HOME = TemporaryDirectory(prefix="hypothesis-")
atexit.register(HOME.cleanup)
set_hypothesis_home_dir(HOME.name)
