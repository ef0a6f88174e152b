"""Whatever order a list is in, and however its links are written, all of it is read."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.errors import IncompleteLoad
from tests.conftest import Warehouse
from tests.integration.test_bookmarks import ids, load, served
from tests.list_server import LINK, ListServer, ago, event, newest_first


@pytest.fixture
def server() -> Iterator[ListServer]:
    with ListServer() as server:
        yield server


@pytest.mark.parametrize("place", [19, 39, 59])
def test_a_late_row_as_the_last_of_a_page_does_not_end_the_list(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, place: int
) -> None:
    rows = newest_first(300)
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    rows[:0] = [event(1000 + n, n - 200) for n in range(200)]
    rows.insert(place, event(2000, 10_000))
    load(server, elsewhere)
    assert {row["id"] for row in rows} - {*ids(warehouse)} <= {"e2000"}


def test_a_list_that_is_oldest_first_is_read_to_its_end(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = newest_first(300)[::-1]
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)
    rows += [event(1000 + n, -n) for n in range(300)]
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


def test_an_oldest_first_list_that_begins_with_rows_of_one_time(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = [event(n, 50_000) for n in range(60)] + newest_first(100, start=100)[::-1]
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    rows += [event(1000 + n, -n) for n in range(50)]
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


def test_a_list_in_no_order_is_read_to_its_end(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = newest_first(300)
    dice = random.Random(7)
    dice.shuffle(rows)
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere, rows_per_load=40)
    assert ids(warehouse) == served(rows)
    rows += [event(1000 + n, -n) for n in range(50)]
    dice.shuffle(rows)
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


def test_a_newest_first_list_is_not_read_beyond_what_is_new(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = newest_first(300)
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    rows[:0] = [event(1000 + n, n - 25) for n in range(25)]
    before = len(server.requests)
    assert load(server, elsewhere).tables["events"].rows == 25
    assert len(server.requests) - before == 2
    assert ids(warehouse) == served(rows)


def test_a_page_of_one_row_does_not_end_a_list(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer(page_size=1) as server:
        rows = newest_first(10)
        server.lists["acme", "web", "events"] = rows
        load(server, elsewhere)
        rows[:0] = [event(100, 20_000), event(101, -1), event(102, -2)]
        load(server, elsewhere)
        assert {row["id"] for row in rows} - {*ids(warehouse)} <= {"e100"}


UNQUOTED = "<http://x/>;rel=next;results={more};cursor={cursor}"
SHOUTED = '<http://x/>; Rel="Next"; Results="{more}"; Cursor="{cursor}"'


@pytest.mark.parametrize("link", [UNQUOTED, SHOUTED, f"{UNQUOTED}, <http://y/>;rel=x"])
def test_links_are_read_in_every_legal_form(
    warehouse: Warehouse, elsewhere: Path, link: str
) -> None:
    with ListServer(link=link) as server:
        server.lists["acme", "web", "events"] = newest_first(100)
        load(server, elsewhere)
        assert len(ids(warehouse)) == 100


@pytest.mark.parametrize(
    "link",
    [
        "",
        '<http://x/>; rel="next"',
        LINK.replace("next", "first"),
        '<http://x/>; "next"',
    ],
)
def test_a_list_that_does_not_tell_whether_there_is_more_is_an_error(
    elsewhere: Path, link: str
) -> None:
    with ListServer(link=link) as server:
        server.lists["acme", "web", "events"] = newest_first(100)
        with pytest.raises(IncompleteLoad, match="events of project 'web'") as caught:
            load(server, elsewhere)
    assert "whether there are more rows" in str(caught.value)


def test_of_equal_keys_in_a_load_the_one_that_was_read_last_stays(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, postgres: Any
) -> None:
    """One of them has no date; DuckDB and PostgreSQL agree."""
    import dlt

    rows = newest_first(60)
    rows[45] = event(5, 0, title="read last") | {"dateCreated": None}
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    sql = "select title from analytics.events where id = 'e5'"
    assert warehouse.rows(sql) == [("read last",)]
    destination = dlt.destinations.postgres(postgres.uri)
    load(server, elsewhere / "other", destination=destination)
    assert postgres.query(sql) == [("read last",)]


def test_rows_of_a_page_know_when_they_were_read(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.lists["acme", "web", "events"] = newest_first(60)
    load(server, elsewhere)
    sql = "select read_at, count(*) from analytics.events group by 1 order by 1"
    times = warehouse.rows(sql)
    assert [count for _, count in times] == [20, 20, 20]
    assert ago(0) < times[0][0].isoformat() < times[2][0].isoformat()
