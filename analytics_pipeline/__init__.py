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
    print(pipeline.dataset().issues.df())

`analytics_pipeline.runner` makes the same pipeline as the command line does, and sums
up what a run did.
"""

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
