"""Load what an error-analytics API knows into a warehouse, again and again.

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

`analytics_pipeline.runner` makes the same pipeline as the command line does, and sums
up what a run did.
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
    """Import what is asked for: dlt takes most of a second, which not all need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "source" if name == "analytics_source" else "errors"
    return getattr(import_module(f"{__name__}.{home}"), name)
