"""Whole lists: their order, their end, and where they are left and gone on with."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.client.lists import ListSlice, Order, Position, Reader
from analytics_pipeline.client.pagination import Slice
from analytics_pipeline.errors import ApiError, PageCursorLoop
from tests.unit.canned import THINGS, Forgiving, at, page_of, time

ORDERED = replace(THINGS, newest_first=True)


def test_a_reader_wants_all_rows_and_gives_up_at_the_first_error() -> None:
    reader, error = Reader(THINGS), ApiError("no")
    assert reader.room() > 10**9
    with pytest.raises(ApiError) as raised:
        reader.on_error(Slice(reader), error)
    assert raised.value is error


# The order that pages show

DOCUMENTED, UNDOCUMENTED = True, False


def noted(documented: bool, *pages: Sequence[datetime | None]) -> Order:
    order = Order(documented)
    for times in pages:
        order.note(times)
    return order


def is_past(order: Order, times: Sequence[datetime | None], start: float) -> bool:
    """Note a page, then tell whether all behind it is older than `start`."""
    order.note(times)
    return order.is_past(times, time(start))


@pytest.mark.parametrize(
    ("hours", "start", "expected"),
    [
        ([9, 8, 7], 5, False),
        ([9, 8, 5], 5, False),
        ([9, 8, 4], 5, True),
        ([4], 5, True),
        ([4, 4], 5, True),
        ([9, 4, None], 5, True),
        ([9, 4, 8], 5, False),  # the last row tells
        ([None, None], 5, False),
        ([], 5, False),
    ],
)
def test_where_an_order_is_documented_the_last_row_tells(
    hours: list[float | None], start: float, expected: bool
) -> None:
    assert is_past(Order(DOCUMENTED), at(*hours), start) is expected


@pytest.mark.parametrize("documented", [DOCUMENTED, UNDOCUMENTED])
def test_without_a_start_all_is_wanted(documented: bool) -> None:
    order = noted(documented, at(3, 2, 1))
    assert not order.is_past(at(3, 2, 1), None)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([9, 8, 7], False),
        ([9, 8, 4], False),  # one old row does not end a list
        ([9, 4, 3], True),
        ([9, 8, 4, 4], True),
        ([4, 3, 2], True),
        ([9, None, 4, None, 3], True),
        ([9, 5, 5], False),
        ([3, 3, 3], False),  # equal times show no order
        ([4], False),
        ([4, 3, 9], False),
        ([4, 9, 3], False),
        ([3, 4, 9], False),
        ([], False),
        ([None], False),
    ],
)
def test_where_no_order_is_documented_the_page_has_to_show_it(
    hours: list[float | None], expected: bool
) -> None:
    assert is_past(Order(UNDOCUMENTED), at(*hours), 5) is expected


@pytest.mark.parametrize(
    ("length", "older", "expected"),
    [
        (100, 9, False),
        (100, 10, True),
        (95, 9, False),
        (95, 10, True),
        (20, 1, False),
        (20, 2, True),
        (2, 1, False),
        (2, 2, True),
    ],
)
def test_a_tenth_of_the_page_and_two_rows_have_to_be_older(
    length: int, older: int, expected: bool
) -> None:
    newer = length - older
    times = at(*(newer - number - 0.5 for number in range(length)))
    assert is_past(Order(UNDOCUMENTED), times, 0) is expected


def test_after_a_page_in_ascending_order_a_list_is_read_whole() -> None:
    order = noted(UNDOCUMENTED, at(1, 2, 3))
    assert not is_past(order, at(4, 3, 2), 9)
    assert not is_past(order, at(4, 3, 2), 9)


def test_after_a_page_without_order_a_later_one_may_end_the_list() -> None:
    order = noted(UNDOCUMENTED, at(9, 7, 8))
    assert is_past(order, at(4, 3, 2), 5)


@pytest.mark.parametrize(
    ("documented", "pages", "newest_first", "edge"),
    [
        (UNDOCUMENTED, [], None, None),
        (DOCUMENTED, [], True, None),
        (UNDOCUMENTED, [[3, 2, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [2, 1]], True, 1),
        (UNDOCUMENTED, [[1, 2, 3]], False, 3),
        (UNDOCUMENTED, [[1, 2], [2, 5]], False, 5),
        (UNDOCUMENTED, [[2, 2]], None, None),
        (UNDOCUMENTED, [[2]], None, None),
        (UNDOCUMENTED, [[2, 2], [2, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [1, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [1, 2]], None, None),
        (UNDOCUMENTED, [[2, 3, 1]], None, None),
        (UNDOCUMENTED, [[3, None, 2]], True, 2),
        (UNDOCUMENTED, [[None, None]], None, None),
        (DOCUMENTED, [[2, 2]], True, 2),
        (DOCUMENTED, [[1, 2, 3]], True, 1),
        (DOCUMENTED, [[5, 4], [None], [3, 2]], True, 2),
    ],
)
def test_pages_show_a_direction_and_how_far_reading_has_come(
    documented: bool,
    pages: list[list[float | None]],
    newest_first: bool | None,
    edge: float | None,
) -> None:
    order = noted(documented, *(at(*hours) for hours in pages))
    assert order.newest_first is newest_first
    assert order.edge == (None if edge is None else time(edge))


@pytest.mark.parametrize(
    ("newest_first", "hours", "expected"),
    [
        (True, [6, 5, 4], True),
        (True, [5, 4], False),  # rows of just that time may be missing
        (True, [4, 3], False),  # the rows between were deleted, or moved
        (True, [None, 6], True),
        (True, [None], False),
        (True, [], False),
        (False, [4, 5, 6], True),
        (False, [5, 6], False),
        (False, [6, 7], False),
        (False, [], False),
    ],
)
def test_a_page_that_is_asked_again_has_to_reach_what_was_read(
    newest_first: bool, hours: list[float | None], expected: bool
) -> None:
    order = Order(UNDOCUMENTED)
    order.resume(newest_first, time(5))
    assert (order.newest_first, order.edge) == (newest_first, time(5))
    assert order.overlaps(at(*hours)) is expected


def test_without_an_earlier_reading_nothing_overlaps() -> None:
    assert not Order(DOCUMENTED).overlaps(at(3, 2, 1))


@pytest.mark.parametrize(
    ("newest_first", "hours", "edge"), [(True, [6, 5, 3], 3), (False, [4, 5, 8], 8)]
)
def test_a_resumed_order_goes_on_from_its_edge(
    newest_first: bool, hours: list[float], edge: float
) -> None:
    order = Order(UNDOCUMENTED)
    order.resume(newest_first, time(5))
    order.note(at(*hours))
    assert (order.newest_first, order.edge) == (newest_first, time(edge))


def test_pages_in_another_order_than_before_show_none() -> None:
    order = Order(UNDOCUMENTED)
    order.resume(True, time(5))
    order.note(at(6, 7, 8))
    assert (order.newest_first, order.edge) == (None, None)


def test_a_list_that_was_ascending_is_read_whole_after_it_was_resumed() -> None:
    order = Order(UNDOCUMENTED)
    order.resume(False, time(1))
    assert not is_past(order, at(4, 3, 2), 9)


# Lists that may be left and gone on with


def listing(endpoint: Endpoint = THINGS, start: float | None = None) -> ListSlice:
    return ListSlice(Forgiving(endpoint), None if start is None else time(start))


def test_a_list_is_read_to_its_end() -> None:
    part = listing()
    assert part.after(page_of(3, 2, cursor="a")) == (part,)
    assert (part.page_cursor, part.pages, part.ended) == ("a", 1, False)
    assert part.after(page_of(1)) == ()
    assert (part.pages, part.ended) == (2, True)


def test_when_a_list_has_come_to_its_end_its_owner_says_what_is_next() -> None:
    other = listing()
    owner = Forgiving(ORDERED, next=[other])
    part = ListSlice(owner, time(5))
    assert part.after(page_of(9, 8, cursor="a")) == (part,)
    assert part.after(page_of(7, 4, cursor="b")) == [other]
    part = ListSlice(owner, None)
    assert part.after(page_of(9)) == [other]
    owner.is_full = True
    part = ListSlice(owner, None)
    part.after(page_of(9, cursor="a"))
    assert part.after(page_of(8, cursor="b")) == ()  # it was only left


@pytest.mark.parametrize(
    ("endpoint", "hours", "ends"),
    [
        (ORDERED, [9, 8, 4], True),
        (THINGS, [9, 8, 4], False),
        (THINGS, [9, 4, 3], True),
        (THINGS, [3, 4, 9], False),
    ],
)
def test_a_list_ends_at_the_rows_before_its_start(
    endpoint: Endpoint, hours: list[float], ends: bool
) -> None:
    part = listing(endpoint, start=5)
    assert part.after(page_of(*hours, cursor="a")) == (() if ends else (part,))
    assert (part.ended, part.pages) == (ends, 1)


def test_a_list_of_pages_in_ascending_order_is_read_whole() -> None:
    part = listing(start=5)
    assert part.after(page_of(1, 2, cursor="a")) == (part,)
    assert part.after(page_of(4, 3, 2, cursor="b")) == (part,)
    assert part.after(page_of(3, 2, 1, cursor="c")) == (part,)


def test_a_cursor_that_comes_again_is_an_error() -> None:
    part = listing()
    part.after(page_of(3, cursor="a"))
    part.after(page_of(2, cursor="b"))
    with pytest.raises(PageCursorLoop):
        part.after(page_of(1, cursor="a"))


def test_a_list_cannot_be_left_at_its_first_page() -> None:
    part = listing(ORDERED)
    part.owner.is_full = True  # type: ignore[attr-defined]
    assert part.after(page_of(9, 8, cursor="a")) == (part,)
    assert part.position() is None


@pytest.mark.parametrize(
    ("endpoint", "pages", "position"),
    [
        (THINGS, [[9, 8], [7, 6]], Position("0", True, time(6))),
        (THINGS, [[1, 2], [2, 3]], Position("0", False, time(3))),
        (ORDERED, [[9, 9], [9, 9]], Position("0", True, time(9))),
        (ORDERED, [[None], [7]], Position("0", True, time(7))),
        (THINGS, [[9, 9], [9, 9]], None),
        (THINGS, [[9, 8], [6, 7]], None),
        (THINGS, [[None], [None]], None),
    ],
)
def test_a_list_can_be_left_at_a_later_page_if_its_pages_are_in_order(
    endpoint: Endpoint, pages: list[list[float | None]], position: Position | None
) -> None:
    part = listing(endpoint)
    for number, hours in enumerate(pages):
        if number == len(pages) - 1:
            part.owner.is_full = True  # type: ignore[attr-defined]
        more = part.after(page_of(*hours, cursor=str(number)))
    assert part.position() == position
    assert more == (() if position else (part,))
    assert (part.ended, part.pages) == (False, 2)


def resumed(position: Position, endpoint: Endpoint = THINGS) -> ListSlice:
    part = listing(endpoint)
    part.resume(position)
    return part


NEWEST_FIRST = Position("p", True, time(5))
OLDEST_FIRST = Position("p", False, time(5))


@pytest.mark.parametrize(
    ("position", "hours"), [(NEWEST_FIRST, [6, 5]), (OLDEST_FIRST, [4, 5])]
)
def test_a_resumed_list_begins_with_the_page_it_was_left_at(
    position: Position, hours: list[float]
) -> None:
    part = resumed(position)
    assert (part.page_cursor, part.resumed_at) == ("p", time(5))
    assert part.after(page_of(*hours, cursor="q")) == (part,)
    assert (part.asked_cursor, part.page_cursor) == ("p", "q")


def test_a_resumed_list_can_be_left_only_when_it_is_further() -> None:
    part = resumed(NEWEST_FIRST)
    part.owner.is_full = True  # type: ignore[attr-defined]
    assert part.after(page_of(6, 5, cursor="q")) == (part,)
    assert part.position() is None
    assert part.after(page_of(5, 5, cursor="r")) == (part,)
    assert part.position() is None
    assert part.after(page_of(5, 4, cursor="s")) == ()
    assert part.position() == Position("r", True, time(4))


@pytest.mark.parametrize(
    ("position", "hours"), [(NEWEST_FIRST, [4, 3]), (OLDEST_FIRST, [6, 7])]
)
def test_a_resumed_list_with_a_gap_is_the_owners_affair(
    position: Position, hours: list[float]
) -> None:
    part = resumed(position)
    owner = part.owner
    assert isinstance(owner, Forgiving)
    owner.instead = [part.restart()]
    assert part.after(page_of(*hours, cursor="q")) == owner.instead
    (error,) = owner.errors
    assert "others would be missed" in str(error)
    assert (part.pages, part.ended) == (0, False)


def test_only_the_first_page_of_a_resumed_list_may_show_a_gap() -> None:
    part = resumed(NEWEST_FIRST)
    part.after(page_of(6, 5, cursor="q"))
    assert part.after(page_of(2, 1, cursor="r")) == (part,)


def test_a_restarted_list_begins_with_its_first_page() -> None:
    part = resumed(NEWEST_FIRST)
    part.start = time(1)
    again = part.restart()
    assert (again.page_cursor, again.resumed_at, again.start) == (None, None, time(1))
    assert again.owner is part.owner
    assert again.after(page_of(1, cursor="a")) == (again,)


@pytest.mark.parametrize(
    ("position", "before", "after"),
    [(NEWEST_FIRST, [6, 5], [4.9]), (OLDEST_FIRST, [4, 5], [5.1])],
)
def test_rows_of_the_page_that_is_asked_again_are_no_new_ones(
    position: Position, before: list[float], after: list[float]
) -> None:
    part = resumed(position)
    part.after(page_of(*before, *after, cursor="q"))
    assert all(part.is_overlap(time(hour)) for hour in before)
    assert not any(part.is_overlap(time(hour)) for hour in after)
    part.after(page_of(*after, cursor="r"))
    assert not any(part.is_overlap(time(hour)) for hour in before)


def test_a_list_from_its_beginning_asks_for_nothing_again() -> None:
    part = listing(ORDERED)
    part.after(page_of(6, 5, cursor="q"))
    assert not part.is_overlap(time(6))
