"""Messages about errors of several lists."""

from analytics_pipeline.errors import LINES, by_reason


def refusal(table: str, project: str, reason: str = "403; no scope") -> str:
    url = f"https://host.invalid/projects/acme/{project}/{table}/"
    return f"{table} of project {project!r}: {url}: {reason}"


def test_lists_of_a_table_with_the_same_reason_share_a_line() -> None:
    errors = [refusal(table, project) for project in "abc" for table in ("one", "two")]
    assert by_reason(errors) == [
        "one of 3 projects (a, b, c): 403; no scope",
        "two of 3 projects (a, b, c): 403; no scope",
    ]


def test_a_reason_of_one_list_is_given_in_full() -> None:
    errors = [
        refusal("events", "a"),
        refusal("events", "b", "404; did you mean 'c'?"),
        "releases of organization 'acme': https://host.invalid/: 403; no scope",
        "releases of organization 'globex': https://host.invalid/: 403; no scope",
    ]
    assert by_reason(errors) == errors


def test_only_the_first_of_many_projects_are_named() -> None:
    (line,) = by_reason(refusal("events", f"p{n:02}") for n in range(LINES + 5))
    assert line.startswith("events of 15 projects (p00, p01, ")
    assert f"p{LINES - 1:02}, and 5 more): 403" in line
