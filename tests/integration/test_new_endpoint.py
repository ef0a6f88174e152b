"""A further endpoint needs its facts, its columns and a resource, and nothing else."""

from collections.abc import Iterator
from typing import Any

import dlt
import pyarrow as pa
import pytest

from analytics_pipeline import runner, source
from analytics_pipeline.client.endpoints import APIS, Endpoint
from analytics_pipeline.extraction import Incremental, Resource, for_threads
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import Table
from tests.conftest import ORGANIZATION, TOKEN, Warehouse
from tests.list_server import ListServer, ago

ENDPOINT = Endpoint(
    "teams", path="/organizations/{organization}/teams/", scope="team:read"
)
TABLE = Table(
    "teams",
    "Teams of the organization.",
    """
id           text       Id of the team.
slug         text       Short name of the team.
memberCount  bigint     Number of members.
dateCreated  timestamp  When the team was created.
""",
)


@dlt.resource(write_disposition="merge")
@for_threads
def teams(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Teams: GET /v1/organizations/{organization}/teams/."""
    with resource.reading("teams", date_created) as reading:
        for batch in reading.batches():
            yield batch.rows
            batch.confirm()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(APIS["v1"].endpoints, "teams", ENDPOINT)
    monkeypatch.setitem(TABLES, "teams", TABLE)
    monkeypatch.setattr(source, "RESOURCES", [*source.RESOURCES, teams])


def team(number: int, minutes: float) -> dict[str, Any]:
    return {
        "id": f"{number}",
        "slug": f"team-{number}",
        "memberCount": number,
        "dateCreated": ago(minutes),
    }


def load(warehouse: Warehouse, server: ListServer) -> runner.Summary:
    made = source.analytics_source(server.url, TOKEN, ORGANIZATION, "web")
    return runner.load(warehouse.pipeline(), made, ["teams"])


def test_a_new_endpoint_is_loaded_incrementally_and_reported(
    warehouse: Warehouse,
) -> None:
    with ListServer() as server:
        rows = server.lists["acme", "", "teams"]
        rows += [team(n, n * 90) for n in range(30)]
        first = load(warehouse, server)
        rows.insert(0, team(100, -60))
        second = load(warehouse, server)
        assert server.asked("/teams/") == 3  # two pages, then the new one
    assert (first.tables["teams"].rows, second.tables["teams"].rows) == (30, 1)
    loaded = warehouse.rows("select id, slug, member_count from analytics.teams")
    assert sorted(loaded) == sorted(
        (row["id"], row["slug"], row["memberCount"]) for row in rows
    )
    (status,) = runner.status(warehouse.pipeline()).lists
    assert (status.table, status.organization, status.rows) == ("teams", "acme", 31)
    stored = warehouse.pipeline().default_schema.tables["teams"]
    assert stored["description"] == TABLE.description
    for name, column in stored["columns"].items():
        assert column["description"] == TABLE.hints["columns"][name]["description"]
    assert stored["columns"]["id"]["primary_key"]


def test_other_apis_do_not_have_the_new_endpoint() -> None:
    made = source.analytics_source(
        "https://a.test", TOKEN, ORGANIZATION, "web", "sentry"
    )
    assert "teams" not in made.resources
