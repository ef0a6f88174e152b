"""Properties of any page and any Link header that a server could send."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_pipeline.client.page import next_cursor
from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.tables.arrow import to_arrow
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import EXTRA, READ_AT, Table
from analytics_pipeline.values import loads
from tests.unit.profiles import EXAMPLES

READ = datetime(2026, 12, 1, 8, 30, 0, 123456, tzinfo=UTC)


# Pages


@dataclass(frozen=True)
class Number:
    """A number in a form that `json.dumps` may never write."""

    text: str


def written(value: Any) -> str:
    """Return the JSON text of a value."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        pairs = (f"{written(name)}:{written(item)}" for name, item in value.items())
        return f"{{{','.join(pairs)}}}"
    return json.dumps(value)


def understood(value: Any) -> Any:
    """Return the value as it must arrive."""
    if isinstance(value, str):
        paired = value.encode("utf-16", "surrogatepass")
        text = paired.decode("utf-16", "surrogatepass")
        return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    if isinstance(value, Number):
        number = json.loads(value.text, parse_constant=str)
        return str(number) if number in (float("inf"), float("-inf")) else number
    if isinstance(value, list):
        return [understood(item) for item in value]
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for name, item in value.items():
            name = understood(name)
            while name in result:
                name += "\N{REPLACEMENT CHARACTER}"
            result[name] = understood(item)
        return result
    return value


texts = st.text(
    st.one_of(
        st.characters(exclude_categories=()), st.sampled_from('\0\ud800\udfff�"\\[{')
    ),
    max_size=12,
)
# The last three become the same name.
names = st.one_of(texts, st.sampled_from(["\0", "\udfff", "\N{REPLACEMENT CHARACTER}"]))
digits = st.text("0123456789", min_size=1, max_size=30)
numbers = st.builds(
    Number,
    st.one_of(
        st.integers().map(str),
        st.integers(-(2**70), 2**70).map(str),
        st.integers(-(10**400), 10**400).map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.floats(allow_nan=False, allow_infinity=False).map("{:e}".format),
        st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", "-1E+999", "-0"]),
        st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), st.just("0"), digits),
    ),
)
times = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.one_of(st.integers(1970, 2100), st.sampled_from([0, 1, 9999])),
    st.one_of(st.integers(1, 28), st.sampled_from([1, 12, 13])),
    st.integers(0, 31),
    st.sampled_from("T "),
    st.integers(0, 24),
    st.integers(0, 59),
    st.integers(0, 60),
    st.one_of(st.just(""), digits.map(".{}".format), digits.map(",{}".format)),
    st.sampled_from(["Z", "+00:00", "-23:59", "+14:00", "+0530", "+01", "", "z"]),
)
numerals = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    st.sampled_from(["", "0", "0" * 20, "0" * 5000]),
    digits,
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, times, numerals),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)
    ),
    max_leaves=8,
)
well_behaved = {
    "text": texts,
    "timestamp": times,
    "bigint": st.one_of(numbers, numerals),
    "double": numbers,
    "bool": st.booleans(),
    "json": values,
}


def records(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly valid keys, and fields of the table and others with any values."""
    keys = st.fixed_dictionaries(
        {field: st.one_of(texts, texts, st.integers(), values) for field in table.key}
    )
    kinds = table.types | {name: table.types[of] for name, of in table.aliases.items()}
    fields = st.sampled_from([*kinds]).flatmap(
        lambda field: st.tuples(
            st.just(field), st.one_of(well_behaved[kinds[field]], values)
        )
    )
    columns = st.sampled_from([*table.schema.names, EXTRA])
    others = st.dictionaries(st.one_of(names, columns), values, max_size=3)
    return st.tuples(st.lists(fields, max_size=5).map(dict), others, keys).map(
        lambda parts: {**parts[0], **parts[1], **parts[2]}
    )


pages = st.sampled_from(list(TABLES.values())).flatmap(
    lambda table: st.tuples(st.just(table), st.lists(records(table), max_size=4))
)


def same(one: Any, other: Any) -> bool:
    """Return whether values and their types are equal: 1 is neither 1.0 nor true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def is_said_by(cell: Any, kind: str, value: Any) -> bool:
    """Return whether the cell of a column contains the value."""
    match kind:
        case "json":
            return same(json.loads(cell), value)
        case "timestamp":
            time = datetime.fromisoformat(value)
            return bool(cell == (time if time.tzinfo else time.replace(tzinfo=UTC)))
        case "text":
            return not isinstance(value, bool | float) and bool(cell == str(value))
        case "bigint":
            number = int(value) if isinstance(value, str) else value
            return number is not True and number is not False and bool(cell == number)
        case "double":
            return isinstance(value, int | float) and bool(cell == value)
    return cell is value


def with_first_names(table: Table, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with aliases renamed unless their field has another value."""
    for alias, field in table.aliases.items():
        if alias in record:
            either = [record[alias], record.get(field)]
            said = [value for value in either if value is not None]
            if len(said) < 2 or same(*said):
                rest = {k: v for k, v in record.items() if k != alias}
                record = {**rest, field: said[0] if said else None}
    return record


def check_page(table: Table, page: list[dict[str, Any]]) -> None:
    """Check that every value is in its column or, by its name, in `extra`."""
    loaded, _ = loads(written(page).encode())
    expected = understood(page)
    assert same(loaded, expected)
    expected = [with_first_names(table, record) for record in expected]
    try:
        arrow, mismatches = to_arrow(table, loaded, READ)
    except UnexpectedAnswer:
        keys = [row[field] for row in expected for field in table.key]
        assert not all(isinstance(key, str) or type(key) is int for key in keys)
        return
    found = 0
    for record, row in zip(expected, arrow.to_pylist(), strict=True):
        extra = json.loads(row[EXTRA] or "{}")
        for field, value in record.items():
            if field not in table.types:
                assert same(extra.pop(field), value)
                continue
            cell = row[table.names[field]]
            if field in extra:
                assert cell is None
                assert same(extra.pop(field), value)
                found += 1
            elif value is None:
                assert cell is None
            else:
                assert is_said_by(cell, table.types[field], value)
        assert extra == {}
        assert row[READ_AT] == READ
        absent = table.types.keys() - record.keys()
        assert {row[table.names[field]] for field in absent} <= {None}
    assert mismatches == found


@EXAMPLES
def test_no_value_of_a_page_is_lost(examples: settings) -> None:
    examples(given(pages)(lambda page: check_page(*page)))()


# Deep pages


leaves = st.sampled_from(
    [
        ("1", "1"),
        (f"{2**64}", f"{2**64}"),
        ("NaN", '"NaN"'),
        (r'"\u0000\udc00"', '"\ufffd\ufffd"'),
        ("{}", "{}"),
    ]
)
brackets = st.lists(
    st.sampled_from([("[", "]"), ('{"a":', "}"), ("[[],", "]")]), min_size=1, max_size=4
)
depths = st.one_of(st.integers(1, 300), st.integers(1, 4000))


def check_depth(
    field: str, depth: int, around: list[tuple[str, str]], leaf: tuple[str, str]
) -> None:
    """Check that a deep value is stored unchanged, or refused."""
    levels = [around[n % len(around)] for n in range(depth)]
    before = "".join(opening for opening, _ in levels)
    after = "".join(closing for _, closing in reversed(levels))
    page = f'[{{"id": "1", "projectID": 2, "{field}": {before}{leaf[0]}{after}}}]'
    try:
        loaded, _ = loads(page.encode())
        arrow, mismatches = to_arrow(TABLES["events"], loaded, READ)
    except RecursionError:
        assert depth > 600
        return
    row = arrow.to_pylist()[0]
    stored = before + leaf[1] + after
    in_column = row.get(field) == stored
    assert in_column or row[EXTRA] == f'{{"{field}":{stored}}}'
    assert (row["id"], mismatches) == ("1", 0 if in_column or field == "new" else 1)


fields = st.sampled_from(["contexts", "new", "size"])


@EXAMPLES
def test_a_deep_value_is_stored_or_refused(examples: settings) -> None:
    examples(given(fields, depths, brackets, leaves)(check_depth))()


# Link headers


pieces = st.sampled_from(
    [
        *"<>;,=\"' ?&%\n\t\\{}",
        "<http://host/?cursor=",
        "<http://[",
        ">; ",
        'rel="next"',
        'results="true"',
        'results="false"',
        'cursor="',
        "cursor=%3D%",
    ]
)
headers = st.one_of(st.none(), st.text(), st.lists(pieces | st.text()).map("".join))


def check_any_header(header: str | None) -> None:
    """Check for a cursor, none, or an error that shows the header."""
    try:
        cursor = next_cursor(header)
    except UnexpectedAnswer as error:
        assert repr(header) in str(error)
    else:
        assert cursor is None or cursor


@EXAMPLES
def test_any_link_header_is_parsed_or_refused(examples: settings) -> None:
    examples(given(headers)(check_any_header))()


cursors = st.text(
    st.characters(exclude_characters='"', exclude_categories=["Cs"]), min_size=1
)
good = '<http://host/?a=b,c>; rel="next"; results="true"; cursor="{}"'
before = '<http://host/>; rel="previous"; results="false"; cursor="x", '
forms = st.sampled_from([good, before + good, "{{'" + before + good + "'}}"])


def check_good_header(form: str, cursor: str) -> None:
    """Check that the cursor, which only the server understands, is not changed."""
    assert next_cursor(form.format(cursor)) == cursor


@EXAMPLES
def test_any_cursor_is_kept_unchanged(examples: settings) -> None:
    examples(given(forms, cursors)(check_good_header))()
