"""The demo server and its subclass in tests do what each vendor's server does."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from analytics_pipeline.demo import DemoServer
from analytics_pipeline.demo.apis import APIS
from tests.conftest import TOKEN, Clock
from tests.fake_server import FakeServer

Start = Callable[..., FakeServer]
EVENTS = "/api/0/projects/acme/frontend/events/"
ISSUES = "/api/0/organizations/acme/issues/"
RELEASES = "/api/0/organizations/acme/releases/"
PROJECTS = "/api/0/organizations/acme/projects/"
ALL = {"query": "", "project": "-1"}
FRONTEND = {"query": "project:frontend", "project": "-1"}


@pytest.fixture
def sentry(start: Start) -> FakeServer:
    return start("sentry")


@pytest.fixture
def glitchtip(start: Start) -> FakeServer:
    return start("glitchtip")


def get(
    server: DemoServer, path: str, token: str = TOKEN, **query: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(server.url + path, query, headers=headers, timeout=10)


def rows(server: DemoServer, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return one page of a list without an envelope."""
    found: list[dict[str, Any]] = get(server, path, **query).json()
    return found


def pages(server: DemoServer, path: str, **query: Any) -> list[list[Any]]:
    """Return the ids on all pages of a list, of v1 or Sentry."""
    found = []
    while True:
        response = get(server, path, **query)
        body = response.json()
        body = body["data"] if isinstance(body, dict) else body
        found.append([row["id"] for row in body])
        following = response.links["next"]
        if following["results"] == "false":
            return found
        query["cursor"] = following["cursor"]


def detail(response: requests.Response) -> tuple[int, Any]:
    return response.status_code, response.json()["detail"]


def days_ago(days: float) -> str:
    """Return a time as Sentry takes it, without a zone."""
    return f"{datetime.now(UTC) - timedelta(days):%Y-%m-%dT%H:%M:%S}"


# The demo server itself


@pytest.mark.parametrize("api", APIS)
def test_the_demo_server_lists_all_rows_in_pages_of_100(api: str) -> None:
    with DemoServer(api, events=400, token=TOKEN) as server:
        path = f"{APIS[api].prefix}projects/acme/frontend/events/"
        expected = [row["id"] for row in server.rows("events", "frontend")]
        if api == "glitchtip":
            assert [row["id"] for row in rows(server, path)] == expected[:100]
            assert get(server, path).headers["Link"].startswith("{'<http://127.0.0.1")
        else:
            found = pages(server, path)
            assert [len(page) for page in found] == [100, 100, 67]
            assert [id for page in found for id in page] == expected
        assert detail(get(server, path, "expired")) == (401, "Unauthorized")
        assert get(server, path.replace("frontend", "nope")).status_code == 404


def test_growth_adds_newer_rows_and_changes_issues() -> None:
    server = DemoServer(events=100, issues=10, releases=2)
    before = {name: server.rows(name) for name in ("events", "issues", "releases")}
    counted = sum(int(row["count"]) for row in before["issues"])
    server.grow(events=30, issues=5, releases=1, seconds=600)
    added = {
        name: [row for row in server.rows(name) if row not in before[name]]
        for name in before
    }
    assert {name: len(new) for name, new in added.items()} == {
        "events": 30,
        "issues": 5,
        "releases": 1,
    }
    newest = before["events"][0]["dateCreated"]
    assert all(row["dateCreated"] > newest for row in added["events"])
    assert sum(int(row["count"]) for row in server.rows("issues")) == counted + 30 + 5


# Sentry


def test_a_window_has_the_events_from_its_start_up_to_its_end(
    sentry: FakeServer,
) -> None:
    times = [row["dateCreated"] for row in sentry.rows("events", "frontend")]
    end, start = times[3].rstrip("Z"), times[9].rstrip("Z")
    found = [row["dateCreated"] for row in rows(sentry, EVENTS, start=start, end=end)]
    assert found == [time for time in times if times[9] <= time < times[3]]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-01T00:00:00", None),
        (None, "2026-11-02T00:00:00"),
        ("2026-11-01T00:00:00", "2026-11-01T00:00:00"),
        ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"),
        ("yesterday", "2026-11-02T00:00:00"),
    ],
)
def test_a_window_needs_two_ascending_dates_without_a_zone(
    sentry: FakeServer, since: str | None, until: str | None
) -> None:
    assert get(sentry, EVENTS, start=since, end=until).status_code == 400


def test_events_older_than_retention_are_not_listed(start: Start) -> None:
    for retention in (30, None):
        server = start("sentry", retention_days=retention, events=20)
        old = server.rows("events", "frontend")[0]
        old["dateCreated"] = days_ago(31) + "Z"
        kept = {row["id"] for row in server.rows("events", "frontend")}
        kept -= {old["id"]} if retention else set()
        window = {"start": days_ago(60), "end": days_ago(0)}
        assert {row["id"] for row in rows(server, EVENTS)} == kept
        assert {row["id"] for row in rows(server, EVENTS, **window)} == kept


def test_a_window_before_retention_is_refused(start: Start) -> None:
    window = {"start": days_ago(120), "end": days_ago(91)}
    assert detail(get(start("sentry"), EVENTS, **window)) == (500, "Internal Error")
    status, text = detail(get(start("sentry", invalid_range=True), EVENTS, **window))
    assert (status, text[:19]) == (400, "Invalid date range.")


def test_an_old_server_ignores_the_window(start: Start) -> None:
    server = start("sentry", ignores_time=True)
    window = {"start": days_ago(2000), "end": days_ago(1999)}
    assert rows(server, EVENTS, **window) == rows(server, EVENTS)


def test_whole_events_have_other_fields_and_some_lack_a_date(start: Start) -> None:
    server = start("sentry", events=400, page_size=100)
    assert len(rows(server, EVENTS, full="true")) == 10
    server = start("sentry", events=400, page_size=100, full_page_size=100)
    summaries, found = rows(server, EVENTS), rows(server, EVENTS, full="true")
    assert [row["id"] for row in summaries] == [row["id"] for row in found]
    assert summaries[0].keys() - found[0].keys() == {"event.type"}
    assert found[0].keys() > {"_meta", "startTimestamp", "entries", "dateReceived"}
    assert 0 < sum("dateCreated" not in row for row in found) < 10


def test_some_events_arrive_days_later(sentry: FakeServer) -> None:
    sentry.grow(events=300, seconds=10 * 86_400)
    delays = sorted(
        datetime.fromisoformat(row["dateReceived"])
        - datetime.fromisoformat(row["dateCreated"])
        for row in sentry.rows("events")
    )
    assert delays[0] == delays[len(delays) // 2] == timedelta(seconds=1)
    assert timedelta(days=1) < delays[-1] < timedelta(days=3)


def test_issues_are_paged_by_the_time_in_milliseconds(sentry: FakeServer) -> None:
    response = get(sentry, ISSUES, **ALL)
    expected = sentry.rows("issues")
    last_seen = datetime.fromisoformat(expected[20]["lastSeen"]).timestamp()
    cursor = response.links["next"]["cursor"]
    assert cursor == f"{int(last_seen * 1000)}:0:0"
    expected[-1]["lastSeen"] = expected[0]["lastSeen"]  # moves to the first page
    following = [row["id"] for row in rows(sentry, ISSUES, cursor=cursor, **ALL)]
    assert following == [row["id"] for row in expected[20:-1]]


def test_issues_of_one_millisecond_are_paged_by_an_offset(sentry: FakeServer) -> None:
    for row in sentry.rows("issues"):
        row["lastSeen"] = days_ago(1) + "Z"
    first, second = pages(sentry, ISSUES, **ALL)
    assert (len(first), len(second), len({*first, *second})) == (20, 10, 30)


def test_issues_not_seen_for_90_days_are_not_listed(sentry: FakeServer) -> None:
    old = sentry.rows("issues")[0]
    old["lastSeen"] = days_ago(91) + "Z"
    listed = {id for page in pages(sentry, ISSUES, **ALL) for id in page}
    assert listed == {row["id"] for row in sentry.rows("issues")} - {old["id"]}


def test_an_issues_figures_are_of_90_days_and_its_totals_in_lifetime(
    sentry: FakeServer,
) -> None:
    issue = sentry.rows("issues", "frontend")[0]
    names = ("count", "userCount", "firstSeen", "lastSeen")
    recent = {name: issue[name] for name in names}
    sentry.age(issue["id"], first_seen="2024-11-01T00:00:00Z", count=440, users=12)
    listed = rows(sentry, ISSUES, **FRONTEND)[0]
    assert {name: listed[name] for name in names} == recent
    assert listed["lifetime"] == {
        "count": str(int(recent["count"]) + 440),
        "userCount": recent["userCount"] + 12,
        "firstSeen": "2024-11-01T00:00:00Z",
        "lastSeen": recent["lastSeen"],
    }
    short = rows(sentry, ISSUES, **FRONTEND, collapse="stats")[0]
    assert listed.keys() - short.keys() == {"filtered", "lifetime", "stats"}


@pytest.mark.parametrize(
    ("teamless", "query"),
    [(False, {"query": "project:frontend"}), (True, FRONTEND)],
)
def test_issues_of_projects_without_the_user_are_an_empty_list_without_links(
    start: Start, teamless: bool, query: dict[str, str]
) -> None:
    response = get(start("sentry", teamless=teamless), ISSUES, **query)
    assert (response.status_code, response.json()) == (200, [])
    assert "Link" not in response.headers


@pytest.mark.parametrize("value", ["nope", "1"])
def test_a_project_in_a_query_is_a_slug_that_exists(
    sentry: FakeServer, value: str
) -> None:
    query = {"query": f"project:{value}", "project": "-1"}
    status, text = detail(get(sentry, ISSUES, **query))
    assert (status, f"Project(s) {value} do not exist" in text) == (400, True)


def test_projects_of_sentry_come_by_slug_with_fewer_fields(start: Start) -> None:
    server = start("sentry", projects=("b", "c", "a"))
    listed = rows(server, PROJECTS)
    assert [row["slug"] for row in listed] == ["a", "b", "c"]
    left_out = {"avatar", "color", "isInternal", "isPublic", "organization"}
    assert not any(left_out & row.keys() for row in listed)
    assert left_out <= get(server, "/api/0/projects/acme/a/").json().keys()


def test_ids_of_releases_are_numbers_and_archived_ones_are_listed_on_request(
    sentry: FakeServer,
) -> None:
    some = rows(sentry, RELEASES, project="-1")
    every = rows(sentry, RELEASES, project="-1", status="")
    assert {row["status"] for row in some} == {"open"}
    assert {row["status"] for row in every} == {"open", "archived"}
    assert all(type(row["id"]) is int for row in every)


# Limits


def limits(response: requests.Response) -> dict[str, str]:
    """Return the headers of the limits, without what their names have in common."""
    return {
        name.removeprefix("X-Sentry-Rate-Limit-"): value
        for name, value in response.headers.items()
        if name.startswith("X-Sentry-Rate-Limit-")
    }


def test_a_full_window_refuses_events_until_its_reset(
    start: Start, clock: Clock
) -> None:
    server = start("sentry", rate_limit=2, clock=clock.time)
    assert limits(get(server, EVENTS))["Remaining"] == "1"
    assert limits(get(server, EVENTS))["Remaining"] == "0"
    refused = get(server, EVENTS)
    assert detail(refused) == (
        429,
        "You are attempting to use this endpoint too frequently. "
        "Limit is 2 requests in 60 seconds",
    )
    assert limits(refused)["Remaining"] == "0"
    assert "Retry-After" not in refused.headers
    assert get(server, ISSUES, **ALL).status_code == 200
    clock.now = float(limits(refused)["Reset"])
    assert get(server, EVENTS).status_code == 200


@pytest.mark.parametrize("rate_limit", [60, None])
def test_two_concurrent_requests_are_one_too_many(
    start: Start, clock: Clock, rate_limit: int | None
) -> None:
    server = start(
        "sentry", rate_limit=rate_limit, concurrent_limit=1, clock=clock.time
    )
    waiting, done = threading.Event(), threading.Event()
    answer = server.answer

    def slow(request: Any) -> Any:
        waiting.set()
        done.wait(10)
        return answer(request)

    server.answer = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=get, args=(server, EVENTS))
    thread.start()
    waiting.wait(10)
    refused = get(server, EVENTS)
    done.set()
    thread.join()
    assert detail(refused) == (
        429,
        "You are attempting to go above the allowed concurrency for this endpoint. "
        "Concurrency limit is 1",
    )
    headers = limits(refused)
    if rate_limit is None:  # as on self-hosted servers
        assert headers == {}
    else:
        assert int(headers["Remaining"]) > 0
        assert (headers["ConcurrentLimit"], headers["ConcurrentRemaining"]) == (
            "1",
            "0",
        )
        assert float(headers["Reset"]) > clock.now
    assert get(server, EVENTS).status_code == 200


# GlitchTip


@pytest.mark.parametrize(
    ("path", "is_empty"),
    [
        ("projects/acme/nope/events/", True),
        ("projects/acme/nope/issues/", True),
        ("organizations/nope/releases/", True),
        ("organizations/nope/projects/", True),
        ("projects/acme/nope/", False),
        ("projects/nope/backend/issues/", False),
    ],
)
def test_lists_of_what_glitchtip_does_not_know_are_empty(
    glitchtip: FakeServer, path: str, is_empty: bool
) -> None:
    response = get(glitchtip, f"/api/0/{path}")
    if not is_empty:
        assert detail(response) == (404, "Not Found")
        return
    assert (response.status_code, response.json()) == (200, [])
    url = f"{glitchtip.url}/api/0/{path}"
    assert response.headers["Link"] == (
        f'{{\'<{url}>; rel="previous"; results="false", '
        f'<{url}>; rel="next"; results="false"\'}}'
    )


def test_glitchtip_ignores_what_sentry_selects_by_and_refuses_its_sort(
    glitchtip: FakeServer,
) -> None:
    window = {"start": days_ago(2), "end": days_ago(1)}
    others = {"query": "project:nope", "full": "true", "per_page": "3"}
    assert rows(glitchtip, EVENTS, **window, **others) == rows(glitchtip, EVENTS)
    assert get(glitchtip, ISSUES, sort="date").status_code == 422


@pytest.mark.parametrize(
    ("limit", "size"), [(None, 50), ("7", 7), ("100", 100), ("1000", 100)]
)
def test_a_page_of_glitchtip_has_50_rows_and_at_most_100(
    start: Start, limit: str | None, size: int
) -> None:
    server = start("glitchtip", events=300, page_size=100)
    assert len(rows(server, EVENTS, limit=limit)) == size


def glitchtip_pages(server: FakeServer, count: int) -> list[list[str]]:
    """Return the ids of events on at most so many pages."""
    found: list[list[str]] = []
    cursor = None
    while len(found) < count:
        response = get(server, EVENTS, cursor=cursor)
        found.append([row["eventID"] for row in response.json()])
        _, _, behind = response.headers["Link"].partition('rel="next"')
        if 'results="true"' not in behind:
            break
        cursor = behind.partition('cursor="')[2].partition('"')[0]
    return found


@pytest.mark.parametrize("tied", [0, 30])
def test_cursors_of_glitchtip_lead_through_all_rows(start: Start, tied: int) -> None:
    server = start("glitchtip", events=120)
    events = server.rows("events", "frontend")
    for row in events[5 : 5 + tied]:
        row["dateReceived"] = events[5]["dateReceived"]
    found = [id for page in glitchtip_pages(server, 10) for id in page]
    assert found == [row["eventID"] for row in server.rows("events", "frontend")]


def test_more_than_100_rows_of_one_time_are_a_loop(start: Start) -> None:
    server = start("glitchtip", events=240)
    events = server.rows("events", "frontend")
    for row in events:
        row["dateReceived"] = events[0]["dateReceived"]
    found = glitchtip_pages(server, 12)
    assert found[6] == found[11]
    assert len({id for page in found for id in page}) == 120 < len(events)


@pytest.mark.parametrize(("api", "status"), [("sentry", 404), ("glitchtip", 200)])
def test_an_unknown_path_shows_a_web_page(start: Start, api: str, status: int) -> None:
    server = start(api)
    for path in ("/v1/projects/", "/", EVENTS.rstrip("/")):
        response = get(server, path)
        assert response.status_code == status
        assert response.text.startswith("<!doctype html>")


@pytest.mark.parametrize(("api", "prefix"), [("v1", "/v1"), ("glitchtip", "/api/0")])
def test_the_list_of_all_projects_has_those_of_other_organizations(
    start: Start, api: str, prefix: str
) -> None:
    server = start(api, other_organizations={"globex": ["frontend", "zoo"]})
    body = get(server, f"{prefix}/projects/").json()
    listed = body["data"] if api == "v1" else body
    assert sorted((row["organization"]["slug"], row["slug"]) for row in listed) == [
        ("acme", "backend"),
        ("acme", "frontend"),
        ("globex", "frontend"),
        ("globex", "zoo"),
    ]
    if api == "glitchtip":
        assert [row["slug"] for row in listed] == sorted(r["slug"] for r in listed)
        assert rows(server, PROJECTS) == server.rows("projects")


@pytest.mark.parametrize(
    ("api", "status"), [("v1", 400), ("sentry", 400), ("glitchtip", 422)]
)
def test_a_malformed_cursor_is_refused(start: Start, api: str, status: int) -> None:
    path = f"{APIS[api].prefix}projects/acme/frontend/events/"
    assert get(start(api), path, cursor="0:x:0").status_code == status


# v1


def test_every_body_of_v1_is_in_an_envelope(start: Start) -> None:
    server = start()
    for path in (
        "projects/",
        "projects/acme/frontend/events/",
        "projects/acme/frontend/issues/",
        "organizations/acme/releases/",
    ):
        body = get(server, f"/v1/{path}").json()
        assert [*body] == ["data"]
        assert type(body["data"]) is list
    body = get(server, "/v1/projects/acme/frontend/").json()
    assert body["data"]["slug"] == "frontend"
