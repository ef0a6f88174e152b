"""The demo server and its test subclass: what each vendor's server does."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.conftest import TOKEN, Clock
from tests.fake_server import FakeServer, too_many

Start = Callable[..., FakeServer]
EVENTS = "/api/0/projects/acme/frontend/events/"
ISSUES = "/api/0/organizations/acme/issues/"
RELEASES = "/api/0/organizations/acme/releases/"
PROJECTS = "/api/0/organizations/acme/projects/"
ALL = {"query": "", "project": "-1"}
DAY = timedelta(days=1)


@pytest.fixture
def sentry(start: Start) -> FakeServer:
    return start("sentry")


@pytest.fixture
def glitchtip(start: Start) -> FakeServer:
    return start("glitchtip")


def get(
    server: FakeServer, path: str, token: str = TOKEN, **query: Any
) -> requests.Response:
    return requests.get(
        server.url + path,
        query,
        headers={"Authorization": f"Bearer {token}"},
        allow_redirects=False,
        timeout=10,
    )


def rows(server: FakeServer, path: str, **query: Any) -> list[dict[str, Any]]:
    """One page of a list without an envelope."""
    found: list[dict[str, Any]] = get(server, path, **query).json()
    return found


def pages(server: FakeServer, path: str, **query: Any) -> list[list[Any]]:
    """All pages of a Sentry list."""
    found = []
    while True:
        response = get(server, path, **query)
        found.append([row["id"] for row in response.json()])
        following = response.links["next"]
        if following["results"] == "false":
            return found
        query["cursor"] = following["cursor"]


def detail(response: requests.Response) -> tuple[int, Any]:
    return response.status_code, response.json()["detail"]


def days_ago(days: float) -> str:
    """As Sentry takes and writes it, without a zone."""
    return f"{datetime.now(UTC) - days * DAY:%Y-%m-%dT%H:%M:%S}"


def move(server: FakeServer, index: int, days: float) -> str:
    """Date an event of `frontend` back; gives its id."""
    event = server.rows("events", "frontend")[index]
    event["dateCreated"] = days_ago(days) + "Z"
    server.touch()
    return str(event["id"])


# Sentry: events


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
        ("2026-11-02T00:00:00", "2026-11-01T00:00:00"),
        ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00"),
        ("2026-11-01T00:00:00", "2026-11-02T00:00:00+00:00"),
        ("yesterday", "2026-11-02T00:00:00"),
    ],
)
def test_a_window_needs_two_ascending_dates_without_a_zone(
    sentry: FakeServer, since: str | None, until: str | None
) -> None:
    assert get(sentry, EVENTS, start=since, end=until).status_code == 400


def test_events_older_than_retention_are_not_listed(start: Start) -> None:
    server = start("sentry", retention_days=30, events=20)
    old = move(server, 0, days=31)
    ids = [row["id"] for row in rows(server, EVENTS)]
    assert old not in ids
    assert old in [row["id"] for row in server.rows("events")]
    window = {"start": days_ago(60), "end": days_ago(0)}
    assert [row["id"] for row in rows(server, EVENTS, **window)] == ids


def test_a_window_before_retention_is_an_internal_error(start: Start) -> None:
    window = {"start": days_ago(120), "end": days_ago(91)}
    assert detail(get(start("sentry"), EVENTS, **window)) == (500, "Internal Error")
    status, text = detail(get(start("sentry", invalid_range=True), EVENTS, **window))
    assert (status, text[:19]) == (400, "Invalid date range.")


def test_a_server_without_retention_keeps_all_events(start: Start) -> None:
    server = start("sentry", retention_days=None)
    old = move(server, 0, days=4000)
    window = {"start": days_ago(4001), "end": days_ago(3999)}
    assert [row["id"] for row in rows(server, EVENTS, **window)] == [old]


def test_an_old_server_ignores_the_window_but_names_it_in_its_links(
    start: Start,
) -> None:
    server = start("sentry", ignores_time=True)
    window = {"start": days_ago(2000), "end": days_ago(1999)}
    assert rows(server, EVENTS, **window) == rows(server, EVENTS)
    link = get(server, EVENTS, **window).links["next"]
    assert "start=" in link["url"]


def test_whole_events_have_other_fields_than_summaries(sentry: FakeServer) -> None:
    (summary, *_), (whole, *_) = rows(sentry, EVENTS), rows(sentry, EVENTS, full="true")
    assert summary["id"] == whole["id"]
    assert summary["event.type"] == whole["type"] == "error"
    assert whole.keys() - summary.keys() >= {
        "_meta",
        "groupingConfig",
        "startTimestamp",
        "endTimestamp",
        "measurements",
        "breakdowns",
        "entries",
        "dateReceived",
    }
    assert summary.keys() - whole.keys() == {"event.type"}


def test_some_whole_events_have_no_date_and_some_arrived_days_later(
    start: Start,
) -> None:
    server = start("sentry", events=400, page_size=100, full_page_size=100)
    found = rows(server, EVENTS, full="true")
    assert len(found) == 100
    assert 0 < sum("dateCreated" not in row for row in found) < 10
    lags = [
        datetime.fromisoformat(row["dateReceived"])
        - datetime.fromisoformat(row["dateCreated"])
        for row in server.rows("events")
    ]
    assert min(lags) >= timedelta(seconds=1)
    assert DAY < max(lags) < 3 * DAY
    assert sorted(lags)[len(lags) // 2] == timedelta(seconds=1)


def test_a_page_of_whole_events_has_ten_rows(sentry: FakeServer) -> None:
    assert len(rows(sentry, EVENTS, full="true")) == 10
    assert len(rows(sentry, EVENTS)) == 20


# Sentry: issues


def test_issues_are_paged_by_the_time_in_milliseconds(sentry: FakeServer) -> None:
    response = get(sentry, ISSUES, **ALL)
    expected = sentry.rows("issues")
    last_seen = datetime.fromisoformat(expected[20]["lastSeen"]).timestamp()
    assert response.links["next"]["cursor"] == f"{int(last_seen * 1000)}:0:0"
    expected[-1]["lastSeen"] = expected[0]["lastSeen"]  # moves to the first page
    following = rows(sentry, ISSUES, cursor=response.links["next"]["cursor"], **ALL)
    assert following == rows(sentry, ISSUES, **ALL)[20:] + following
    assert [row["id"] for row in following] == [row["id"] for row in expected[20:-1]]


def test_issues_of_one_millisecond_are_paged_by_an_offset(sentry: FakeServer) -> None:
    for row in sentry.rows("issues"):
        row["lastSeen"] = days_ago(1) + "Z"
    first, second = pages(sentry, ISSUES, **ALL)
    assert (len(first), len(second), len({*first, *second})) == (20, 10, 30)
    assert get(sentry, ISSUES, cursor="x", **ALL).status_code == 400


def test_issues_not_seen_for_90_days_are_not_listed(sentry: FakeServer) -> None:
    old = sentry.rows("issues")[0]
    old["lastSeen"] = days_ago(91) + "Z"
    listed = {id for page in pages(sentry, ISSUES, **ALL) for id in page}
    assert listed == {row["id"] for row in sentry.rows("issues")} - {old["id"]}
    assert len(sentry.rows("issues")) == 30


def test_an_issues_figures_are_of_90_days_and_its_totals_in_lifetime(
    sentry: FakeServer,
) -> None:
    issue = sentry.rows("issues", "frontend")[0]
    before = dict(issue)
    sentry.age(issue["id"], first_seen="2024-11-01T00:00:00Z", count=440, users=12)
    totals = {
        "count": str(int(before["count"]) + 440),
        "userCount": before["userCount"] + 12,
        "firstSeen": "2024-11-01T00:00:00Z",
        "lastSeen": before["lastSeen"],
    }
    assert {name: issue[name] for name in totals} == totals
    listed = rows(sentry, ISSUES, project="-1", query="project:frontend")[0]
    assert {name: listed[name] for name in totals} == {n: before[n] for n in totals}
    assert listed["lifetime"] == totals | {"stats": {}}
    sentry.grow(events=200)
    listed = next(
        row
        for row in rows(sentry, ISSUES, project="-1", query="project:frontend")
        if row["id"] == issue["id"]
    )
    assert int(listed["count"]) == int(issue["count"]) - 440 > int(before["count"])
    assert listed["userCount"] == issue["userCount"] - 12 > before["userCount"]


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ({"collapse": "stats"}, "filtered lifetime stats"),
        ({"collapse": ["filtered", "unhandled"]}, "filtered isUnhandled"),
        ({"collapse": "lifetime"}, "lifetime"),
        ({"groupStatsPeriod": ""}, "stats"),
        ({"groupStatsPeriod": "24h"}, ""),
    ],
    ids=str,
)
def test_parts_of_an_issue_can_be_left_out(
    sentry: FakeServer, query: dict[str, Any], missing: str
) -> None:
    whole, part = (
        rows(sentry, ISSUES, **ALL)[0],
        rows(sentry, ISSUES, **ALL, **query)[0],
    )
    assert sorted(whole.keys() - part.keys()) == missing.split()


def test_issues_are_searched_in_the_users_own_projects_only(start: Start) -> None:
    server = start("sentry", member_of=["backend"])
    own = {row["id"] for row in server.rows("issues", "backend")}
    assert {row["id"] for row in rows(server, ISSUES, query="")} == own
    assert len(rows(server, ISSUES, query="project:backend")) == len(own)
    assert detail(get(server, ISSUES, query="project:frontend")) == (
        400,
        "Invalid query. Project(s) frontend do not exist or are not actively selected.",
    )
    query = {"query": "project:frontend", "project": "-1"}
    assert {row["project"]["slug"] for row in rows(server, ISSUES, **query)} == {
        "frontend"
    }
    releases = rows(server, RELEASES, status="")
    assert {row["projects"][0]["slug"] for row in releases} == {"backend"}


@pytest.mark.parametrize("value", ["nope", "1"])
def test_a_project_in_a_query_is_a_slug_that_exists(
    sentry: FakeServer, value: str
) -> None:
    query = {"query": f"project:{value}", "project": "-1"}
    status, text = detail(get(sentry, ISSUES, **query))
    assert (status, f"Project(s) {value} do not exist" in text) == (400, True)


def test_a_user_of_no_project_gets_an_empty_list_without_links(start: Start) -> None:
    server = start("sentry", member_of=())
    response = get(server, ISSUES, query="project:frontend")
    assert (response.status_code, response.json()) == (200, [])
    assert "Link" not in response.headers
    assert rows(server, ISSUES, query="project:frontend", project="-1")


def test_a_teamless_user_gets_no_issues_at_all(start: Start) -> None:
    response = get(start("sentry", teamless=True), ISSUES, **ALL)
    assert (response.status_code, response.json()) == (200, [])
    assert "Link" not in response.headers


# Sentry: projects and releases


def test_projects_come_by_bookmark_and_slug_with_fewer_fields(start: Start) -> None:
    server = start("sentry", projects=("b", "c", "a"))
    server.rows("projects", "c")[0]["isBookmarked"] = True
    listed = rows(server, PROJECTS)
    assert [row["slug"] for row in listed] == ["c", "a", "b"]
    left_out = {"avatar", "color", "isInternal", "isPublic", "organization"}
    assert not any(left_out & row.keys() for row in listed)
    assert left_out <= get(server, "/api/0/projects/acme/a/").json().keys()


def test_the_list_of_all_projects_is_withdrawn(sentry: FakeServer) -> None:
    response = get(sentry, "/api/0/projects/")
    assert response.status_code == 410
    assert response.headers["X-Sentry-Replacement-Endpoint"] == PROJECTS


def test_a_renamed_project_is_found_at_its_new_address(sentry: FakeServer) -> None:
    counts = {name: len(sentry.rows(name)) for name in ("events", "issues", "releases")}
    sentry.rename("frontend", "web")
    sentry.rename("web", "shop")
    moved = get(sentry, EVENTS, full="true", start=days_ago(2), end=days_ago(1))
    assert moved.status_code == 302
    asked = sentry.requests[-1].query
    assert get(sentry, moved.headers["Location"]).status_code == 200
    assert sentry.requests[-1].path == "/api/0/projects/acme/shop/events/"
    assert sentry.requests[-1].query == asked
    moved = get(sentry, "/api/0/projects/acme/frontend/")
    assert moved.headers["Location"] == "/api/0/projects/acme/shop/"
    assert get(sentry, moved.headers["Location"]).json()["slug"] == "shop"
    for slug, status in {"frontend": 400, "web": 400, "shop": 200}.items():
        found = get(sentry, ISSUES, query=f"project:{slug}", project="-1")
        assert found.status_code == status
    assert {row["slug"] for row in rows(sentry, PROJECTS)} == {"backend", "shop"}
    assert {row["project"]["slug"] for row in sentry.rows("issues")} == {
        "backend",
        "shop",
    }
    assert {
        project["slug"]
        for row in rows(sentry, RELEASES, project="-1", status="")
        for project in row["projects"]
    } == {"backend", "shop"}
    assert {name: len(sentry.rows(name)) for name in counts} == counts
    sentry.grow(events=20)
    assert len(sentry.rows("events")) == counts["events"] + 20


@pytest.mark.parametrize(("api", "prefix"), [("v1", "/v1"), ("glitchtip", "/api/0")])
def test_other_servers_do_not_know_the_old_slug(
    start: Start, api: str, prefix: str
) -> None:
    server = start(api)
    server.rename("frontend", "web")
    assert get(server, f"{prefix}/projects/acme/frontend/").status_code == 404
    assert get(server, f"{prefix}/projects/acme/web/").status_code == 200


def test_ids_of_releases_are_numbers_and_archived_ones_come_when_asked_for(
    sentry: FakeServer,
) -> None:
    some = rows(sentry, RELEASES, project="-1")
    every = rows(sentry, RELEASES, project="-1", status="")
    assert {row["status"] for row in some} == {"open"}
    assert {row["status"] for row in every} == {"open", "archived"}
    assert all(type(row["id"]) is int for row in every)
    for path in (EVENTS, ISSUES, PROJECTS):
        assert type(rows(sentry, path)[0]["id"]) is str


def test_an_unknown_path_is_a_web_page_that_is_not_found(sentry: FakeServer) -> None:
    for path in ("/v1/projects/", "/api/0/nothing/", EVENTS.rstrip("/")):
        response = get(sentry, path)
        assert response.status_code == 404
        assert response.text.startswith("<!doctype html>")


# Sentry: limits


def limits(response: requests.Response) -> dict[str, str]:
    """The headers that tell the limits, without what they have in common."""
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


def crowded(server: FakeServer) -> requests.Response:
    """The answer to a request while another one is being answered."""
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
    return refused


def test_two_requests_at_a_time_are_one_too_many(start: Start, clock: Clock) -> None:
    server = start("sentry", rate_limit=60, concurrent_limit=1, clock=clock.time)
    refused = crowded(server)
    assert detail(refused) == (
        429,
        "You are attempting to go above the allowed concurrency for this endpoint. "
        "Concurrency limit is 1",
    )
    told = limits(refused)
    assert int(told["Remaining"]) > 0
    assert (told["ConcurrentLimit"], told["ConcurrentRemaining"]) == ("1", "0")
    assert float(told["Reset"]) > clock.now
    assert "Retry-After" not in refused.headers
    assert get(server, EVENTS).status_code == 200


@pytest.mark.parametrize(
    "options", [{}, {"rate_limit": 60, "limit_headers": False}], ids=["none", "hidden"]
)
def test_a_self_hosted_server_says_nothing_of_its_limits(
    start: Start, options: dict[str, Any]
) -> None:
    refused = crowded(start("sentry", concurrent_limit=1, **options))
    assert (refused.status_code, limits(refused)) == (429, {})


def test_the_database_behind_sentry_says_only_that_it_knows_no_reset(
    start: Start,
) -> None:
    server = start("sentry", rate_limit=60)
    server.fail(too_many({"X-Sentry-Rate-Limit-Reset": "None"}), on="/events/")
    refused = get(server, EVENTS)
    assert (refused.status_code, limits(refused)) == (429, {"Reset": "None"})
    assert get(server, EVENTS).status_code == 200


# GlitchTip


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/0/projects/acme/nope/events/", 200),
        ("/api/0/projects/acme/nope/issues/", 200),
        ("/api/0/organizations/nope/releases/", 200),
        ("/api/0/organizations/nope/projects/", 200),
    ],
)
def test_lists_of_what_glitchtip_does_not_know_are_empty(
    glitchtip: FakeServer, path: str, status: int
) -> None:
    response = get(glitchtip, path)
    assert (response.status_code, response.json()) == (200, [])
    url = glitchtip.url + path
    assert response.headers["Link"] == (
        f'{{\'<{url}>; rel="previous"; results="false", '
        f'<{url}>; rel="next"; results="false"\'}}'
    )


@pytest.mark.parametrize(
    "path", ["/api/0/projects/acme/nope/", "/api/0/projects/nope/backend/issues/"]
)
def test_details_of_an_unknown_project_and_issues_of_an_unknown_organization(
    glitchtip: FakeServer, path: str
) -> None:
    assert detail(get(glitchtip, path)) == (404, "Not Found")


def test_glitchtip_ignores_what_sentry_selects_by(glitchtip: FakeServer) -> None:
    window = {"start": days_ago(2), "end": days_ago(1)}
    others = {"query": "project:nope", "full": "true", "per_page": "3"}
    assert rows(glitchtip, EVENTS, **window, **others) == rows(glitchtip, EVENTS)


@pytest.mark.parametrize(
    ("limit", "size"), [(None, 50), ("7", 7), ("100", 100), ("1000", 100)]
)
def test_a_page_of_glitchtip_has_50_rows_and_at_most_100(
    start: Start, limit: str | None, size: int
) -> None:
    server = start("glitchtip", events=300, page_size=100)
    assert len(rows(server, EVENTS, limit=limit)) == size


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (ISSUES, {"sort": "date"}),
        ("/api/0/projects/acme/frontend/issues/", {"sort": "date"}),
        (EVENTS, {"limit": "abc"}),
        (EVENTS, {"cursor": "0:100:0"}),
    ],
)
def test_glitchtip_does_not_process_what_it_does_not_understand(
    glitchtip: FakeServer, path: str, query: dict[str, str]
) -> None:
    assert get(glitchtip, path, **query).status_code == 422


def test_a_cursor_of_no_time_breaks_glitchtip(glitchtip: FakeServer) -> None:
    response = get(glitchtip, EVENTS, cursor="cD1mb28=")
    assert response.status_code == 500
    assert "Server Error (500)" in response.text


@pytest.mark.parametrize("token", [TOKEN, "expired"])
def test_glitchtip_shows_its_web_page_outside_its_api(
    glitchtip: FakeServer, token: str
) -> None:
    for path in ("/v1/projects/", "/", EVENTS.rstrip("/")):
        response = get(glitchtip, path, token)
        assert response.status_code == 200
        assert response.text.startswith("<!doctype html>")
    assert get(glitchtip, EVENTS, "expired").status_code == 401


@pytest.mark.parametrize(("api", "prefix"), [("v1", "/v1"), ("glitchtip", "/api/0")])
def test_the_list_of_all_projects_has_those_of_other_organizations(
    start: Start, api: str, prefix: str
) -> None:
    server = start(api, other_organizations={"globex": ["frontend", "zoo"]})
    server.add_project("aaa")
    body = get(server, f"{prefix}/projects/").json()
    listed = body["data"] if api == "v1" else body
    assert sorted((row["organization"]["slug"], row["slug"]) for row in listed) == [
        ("acme", "aaa"),
        ("acme", "backend"),
        ("acme", "frontend"),
        ("globex", "frontend"),
        ("globex", "zoo"),
    ]
    assert len({row["id"] for row in listed}) == 5
    assert len(server.rows("projects")) == 3
    if api == "glitchtip":
        assert [row["slug"] for row in listed] == sorted(r["slug"] for r in listed)
        assert rows(server, PROJECTS) == server.rows("projects")


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


def test_an_aged_issue_of_v1_has_its_totals(start: Start) -> None:
    server = start()
    issue = server.rows("issues", "frontend")[0]
    server.age(issue["id"], first_seen="2024-11-01T00:00:00Z", count=440)
    listed = get(server, "/v1/projects/acme/frontend/issues/").json()["data"][0]
    assert listed == issue
    assert listed["firstSeen"] == "2024-11-01T00:00:00Z"
