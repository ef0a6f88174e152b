"""Load data from an error-analytics API into a warehouse, incrementally.

    import dlt
    from analytics_pipeline import analytics_source

    pipeline = dlt.pipeline(
        "analytics_pipeline", destination="duckdb", dataset_name="analytics"
    )
    source = analytics_source(
        base_url="https://errors.example.com",
        auth_token="…",  # better: AUTH_TOKEN or .dlt/secrets.toml
        organization="acme",
        project=["frontend", "backend"],
    )
    print(pipeline.run(source))
    print(pipeline.dataset().issues.select("short_id", "title", "count").fetchall())

`analytics_pipeline.runner` makes the same pipeline as the command line, and returns a
summary of each run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics_pipeline.errors import (
        AnalyticsError,
        ApiError,
        ConfigurationError,
        IncompleteLoad,
    )
    from analytics_pipeline.source import analytics_source

__all__ = [
    "AnalyticsError",
    "ApiError",
    "ConfigurationError",
    "IncompleteLoad",
    "analytics_source",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because importing dlt takes most of a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "source" if name == "analytics_source" else "errors"
    return getattr(import_module(f"{__name__}.{home}"), name)
