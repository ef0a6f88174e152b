"""Records of a list as rows of its table."""

from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder


def test_of_two_copies_on_one_page_the_last_is_kept() -> None:
    page = [{"id": "1", "title": "a"}, {"id": "2"}, {"id": "1", "title": "b"}]
    build = RowBuilder(TABLES, Redactor([])).build
    rows = build("issues", "id", "frontend", page, datetime.now(UTC), ()).rows
    assert dict(
        zip(*rows.select(["id", "title"]).to_pydict().values(), strict=True)
    ) == {
        "1": "b",
        "2": None,
    }
    assert rows.num_rows == 2


@pytest.mark.parametrize(
    ("api", "sent", "kept"),
    [
        ("glitchtip", {"userCount": 0, "stats": {"24h": []}}, (None, None)),
        ("glitchtip", {"userCount": 7, "stats": {"24h": [1]}}, (7, '{"24h":[1]}')),
        ("glitchtip", {}, (None, None)),
        ("v1", {"userCount": 0, "stats": {"24h": []}}, (0, '{"24h":[]}')),
    ],
)
def test_figures_the_server_does_not_compute_are_null(
    api: str, sent: dict[str, Any], kept: tuple[Any, Any]
) -> None:
    endpoint = APIS[api].endpoints["issues"]
    built = RowBuilder(TABLES, Redactor([])).build(
        "issues",
        endpoint.key,
        "frontend",
        [{"id": "1", **sent}],
        datetime.now(UTC),
        endpoint.unfilled,
    )
    (row,) = built.rows.select(["user_count", "stats"]).to_pylist()
    assert (row["user_count"], row["stats"]) == kept
