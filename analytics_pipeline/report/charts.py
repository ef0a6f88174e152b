"""Charts as inline SVG, whose colours are the CSS variables of the page.

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
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analytics_pipeline.report.facts import LEVELS, STATUSES

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


def events(
    starts: Sequence[datetime],
    step: timedelta,
    counts: Mapping[str, Sequence[int]],
    releases: Sequence[tuple[datetime, str]],
) -> str:
    """Stacked counts over time, with a mark for each release.

    Args:
        starts: beginnings of the spans.
        step: length of a span.
        counts: level → one count for each span.
        releases: time and name, newest first; only the names that have room are shown.
    """
    end = starts[-1] + step

    def draw(axes: Axes) -> None:
        below = [0] * len(starts)
        for level, values in counts.items():
            top = [a + b for a, b in zip(below, values, strict=True)]
            axes.stairs(
                top,
                [*starts, end],  # type: ignore[arg-type]  # times are units to it
                baseline=below,
                fill=True,
                color=_COLOURS[level],
            )
            below = top
        _set_limits(axes, starts[0], end, max(below))
        at = axes.get_xaxis_transform()  # x is time, y a share of the height
        mark: dict[str, Any] = {"transform": at, "color": _COLOURS["text"]}
        for time, _ in releases:
            axes.plot([time, time], [0, 1], lw=0.6, ls=(0, (1, 3)), **mark)  # type: ignore[arg-type]
            axes.plot(time, 1.02, "v", ms=3.5, clip_on=False, **mark)  # type: ignore[arg-type]
        point = (end - starts[0]) / _points(axes)
        for time, name in _with_room(releases, point):
            axes.text(time, 1.06, name, ha="center", size=7, **mark)  # type: ignore[arg-type]

    return _svg("events", draw, 2.8, "Events over time by level; marks are releases")


def unresolved(
    starts: Sequence[datetime], step: timedelta, counts: Sequence[int]
) -> str:
    """Area of the issues that were unresolved at the end of each span."""
    end = starts[-1] + step

    def draw(axes: Axes) -> None:
        edges: Any = [*starts, end]  # times are units to it
        colour = _COLOURS["unresolved"]
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, edges, baseline=None, color=colour, lw=1.5)
        _set_limits(axes, starts[0], end, max(counts))

    return _svg("unresolved", draw, 1.9, "Unresolved issues over time")


def changes(weeks: Sequence[datetime], counts: Mapping[str, Sequence[int]]) -> str:
    """Bars of issues for each week, side by side (kind of change → count per week)."""
    end = weeks[-1] + timedelta(weeks=1)
    start = min(weeks[0], end - timedelta(weeks=6))  # or a bar would be very wide

    def draw(axes: Axes) -> None:
        width: Any = timedelta(days=2.8)
        for place, (name, values) in enumerate(counts.items()):
            lefts: Any = [week + timedelta(days=0.7 + 2.8 * place) for week in weeks]
            axes.bar(lefts, values, width, align="edge", color=_COLOURS[name])
        _set_limits(axes, start, end, max(map(max, counts.values())))
        every = math.ceil(40 * ((end - start).days // 7) / _points(axes))
        shown = weeks[::-every][::-1]
        middles: Any = [week + timedelta(days=3.5) for week in shown]
        axes.set_xticks(middles, [f"{week:%b %d}" for week in shown])

    return _svg("changes", draw, 1.9, "Issues opened and resolved per week")


def _set_limits(axes: Axes, start: datetime, end: datetime, top: int) -> None:
    """Set the limits of counts over time, and what is written at the axes."""
    axes.set_xlim(start, end)  # type: ignore[arg-type]
    axes.set_ylim(0, max(top, 1) * 1.05)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if _points(axes) < 400:
        times: Any = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(times)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(times))  # type: ignore[no-untyped-call]


def _points(axes: Axes) -> float:
    """Return the width of the picture in points, of which a letter takes about 5."""
    return axes.figure.bbox.width / axes.figure.dpi * 72


def _with_room(
    releases: Sequence[tuple[datetime, str]], point: timedelta
) -> Iterator[tuple[datetime, str]]:
    """Those whose names do not run into a newer one, where a point is so long."""
    free: datetime | None = None
    for time, name in releases:
        half = (len(name) * 5 + 6) / 2 * point
        if free is None or time + half <= free:
            yield time, name
            free = time - half


def issues(ages: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Bars of issues, one for each age, stacked by status (status → count per age)."""

    def draw(axes: Axes) -> None:
        left = [0] * len(ages)
        for status, values in counts.items():
            axes.barh(ages, values, left=left, height=0.7, color=_COLOURS[status])
            left = [a + b for a, b in zip(left, values, strict=True)]
        for row, total in enumerate(left):
            axes.annotate(
                f"{total:,}",
                (total, row),
                (4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_xlim(0, max(*left, 1) * 1.12)
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return _svg("issues", draw, 1.9, "Issues by age and status")


def _svg(name: str, draw: Callable[[Axes], None], height: float, label: str) -> str:
    return "".join(
        _picture(f"{name}-{size}", draw, (width, height)).replace(
            "<svg", f'<svg class="{size}" role="img" aria-label="{label}"', 1
        )
        for size, width in _WIDTHS.items()
    )


def _picture(
    name: str, draw: Callable[[Axes], None], inches: tuple[float, float]
) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has other fonts than the one that the text is measured with.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page gives the width, and the view box its proportion.
    svg = re.sub(r' (width|height)="\d+(\.\d+)?pt"', "", svg)
    # Ids are unique in a picture, and must be on the page.
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for role, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg
