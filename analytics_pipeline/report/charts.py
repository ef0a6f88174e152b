"""Charts as inline SVG, whose colours are CSS variables of the page.

Each comes twice, wide and narrow, because the text of a scaled picture is too small on
a phone; the style sheet shows one of them.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import matplotlib as mpl
from matplotlib import dates
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analytics_pipeline.report.facts import LEVELS, STATUSES, WEEK

CHANGES = ("opened", "resolved")
# Matplotlib wants colours; these stand for `var(--name)` until the SVG is written.
_NAMES = sorted({*LEVELS, *STATUSES, *CHANGES, "text", "line"})
_COLOURS = {name: f"#0000{place:02x}" for place, name in enumerate(_NAMES, 1)}

_WIDTHS = {"wide": 8.6, "narrow": 3.1}  # inches
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 8,
    "text.parse_math": False,  # a version may hold $
    "text.color": _COLOURS["text"],
    "axes.labelcolor": _COLOURS["text"],
    "axes.edgecolor": _COLOURS["line"],
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.5,
    "xtick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["text"],
    "ytick.color": _COLOURS["line"],
    "ytick.labelcolor": _COLOURS["text"],
    "ytick.left": False,
    "figure.facecolor": "none",
    "date.converter": "concise",
}
# Matplotlib's types do not know that datetimes can be coordinates, so axes are Any.
Draw = Callable[[Any], None]


def events(
    starts: Sequence[datetime],
    step: timedelta,
    counts: Mapping[str, Sequence[int]],
    releases: Sequence[tuple[datetime, str]],
) -> str:
    """Return stacked counts over time, with a mark for each release.

    Args:
        starts: beginnings of the periods.
        step: length of a period.
        counts: level → one count for each period.
        releases: time and name, newest first; names that would overlap are left out.
    """
    end = starts[-1] + step

    def draw(axes: Any) -> None:
        below = [0] * len(starts)
        for level, values in counts.items():
            top = [a + b for a, b in zip(below, values, strict=True)]
            colour = _COLOURS[level]
            axes.stairs(top, [*starts, end], baseline=below, fill=True, color=colour)
            below = top
        _set_limits(axes, starts[0], end, max(below))
        at = axes.get_xaxis_transform()  # x is a time, y a share of the height
        mark = {"transform": at, "color": _COLOURS["text"]}
        for time, _ in releases:
            axes.plot([time, time], [0, 1], lw=0.6, ls=(0, (1, 3)), **mark)
            axes.plot(time, 1.02, "v", ms=3.5, clip_on=False, **mark)
        point = (end - starts[0]) / _points(axes)
        for time, name in _without_overlaps(releases, point):
            axes.text(time, 1.06, name, ha="center", size=7, **mark)

    return _svg("events", draw, 2.8, "Events over time by level; marks are releases")


def unresolved(
    starts: Sequence[datetime], step: timedelta, counts: Sequence[int]
) -> str:
    """Return the number of unresolved issues at the end of each period."""
    end = starts[-1] + step

    def draw(axes: Any) -> None:
        colour = _COLOURS["unresolved"]
        axes.stairs(counts, [*starts, end], fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, [*starts, end], baseline=None, color=colour, lw=1.5)
        _set_limits(axes, starts[0], end, max(counts))

    return _svg("unresolved", draw, 1.9, "Unresolved issues over time")


def changes(weeks: Sequence[datetime], counts: Mapping[str, Sequence[int]]) -> str:
    """Return bars for each week, side by side (kind of change → count per week)."""
    end = weeks[-1] + WEEK
    start = min(weeks[0], end - 6 * WEEK)  # or a bar would be very wide

    def draw(axes: Any) -> None:
        width = timedelta(days=2.8)
        for place, (name, values) in enumerate(counts.items()):
            lefts = [week + timedelta(days=0.7) + place * width for week in weeks]
            axes.bar(lefts, values, width, align="edge", color=_COLOURS[name])
        _set_limits(axes, start, end, max(map(max, counts.values())))
        every = math.ceil(40 * ((end - start) // WEEK) / _points(axes))
        labelled = weeks[::-every][::-1]
        middles = [week + WEEK / 2 for week in labelled]
        axes.set_xticks(middles, [f"{week:%b %d}" for week in labelled])

    return _svg("changes", draw, 1.9, "Issues opened and resolved per week")


def issues(ages: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Return one bar for each age, stacked by status (status → count per age)."""

    def draw(axes: Any) -> None:
        left = [0] * len(ages)
        for status, values in counts.items():
            bars = axes.barh(ages, values, 0.7, left, color=_COLOURS[status])
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.bar_label(bars, [f"{total:,}" for total in left], padding=4)
        axes.set_xlim(0, max(*left, 1) * 1.12)
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return _svg("issues", draw, 1.9, "Issues by age and status")


def _set_limits(axes: Any, start: datetime, end: datetime, top: int) -> None:
    """Set the limits and ticks of counts over time."""
    axes.set_xlim(start, end)
    axes.set_ylim(0, max(top, 1) * 1.05)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if _points(axes) < 400:
        locator: Any = dates.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _points(axes: Any) -> float:
    """Return the width of the picture in points; a letter takes about 5."""
    return float(axes.figure.bbox.width / axes.figure.dpi * 72)


def _without_overlaps(
    releases: Sequence[tuple[datetime, str]], point: timedelta
) -> Iterator[tuple[datetime, str]]:
    """Yield those whose names do not overlap that of a newer one."""
    free: datetime | None = None
    for time, name in releases:
        half = (len(name) * 5 + 6) / 2 * point
        if free is None or time + half <= free:
            yield time, name
            free = time - half


def _svg(name: str, draw: Draw, height: float, label: str) -> str:
    return "".join(
        _picture(f"{name}-{size}", draw, (width, height)).replace(
            "<svg", f'<svg class="{size}" role="img" aria-label="{label}"', 1
        )
        for size, width in _WIDTHS.items()
    )


def _picture(name: str, draw: Draw, inches: tuple[float, float]) -> str:
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        # Text is measured with a font that the browser does not use.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page sets the width; the view box keeps the proportions.
    svg = re.sub(r' (width|height)="\d+(\.\d+)?pt"', "", svg)
    # Ids are unique within a picture, and must be unique on the page.
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for role, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg
