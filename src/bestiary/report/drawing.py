"""Draws HTML elements, and figures as inline SVG: bars with intervals, heat maps, curves.

Elements are trees, so a text cannot become markup wherever it stands. Bars and curves have
coordinates in percent and no scale of their own: they are as wide as the screen, and their text
stays readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import log1p
from typing import NamedTuple
from xml.etree.ElementTree import Element

from bestiary.introspection.figures import Figure

TICKS = (0, 25, 50, 75, 100)
"""Percent."""
CELL = 22
"""Pixels of a heat map's square."""
GAP = 8
"""Pixels between parts of a heat map."""
LETTER = 6.2
"""Pixels that a letter of a heat map's names takes, on average."""
LONGEST_NAME = 26
SHOWN_SHARE = 0.05
"""The smallest share that is written into its square."""
STRONG_SHARE = 0.7
"""Above it, a square is dark enough for light text."""


class Bar(NamedTuple):
    """A rate."""

    name: str
    color: str
    """A class of the style sheet."""
    figure: Figure | None
    floor: float | None = None
    """What chance comes to."""
    note: str = ""


class BarGroup(NamedTuple):
    """Bars under one heading; the heading may be empty."""

    heading: str
    note: str
    bars: Sequence[Bar]


class Point(NamedTuple):
    """The rate of one evaluation, by the organisms that its adapter was trained on."""

    name: str
    organisms: int
    figure: Figure


def tag(name: str, /, *children: Element | str, **attributes: object) -> Element:
    """An element; in names of attributes, `_` stands for `-`, and a last one for nothing."""
    made = Element(name, {k.rstrip("_").replace("_", "-"): str(v) for k, v in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return made


def count(number: int, name: str, plural: str = "") -> str:
    """A number of things, such as `1 family` or `2 families`."""
    return f"{number:,} {name if number == 1 else plural or name + 's'}"


def show_interval(figure: Figure) -> str:
    """The interval in words; one family gives none."""
    return f"{figure.low:.0%} to {figure.high:.0%}" if figure.families > 1 else "no interval"


def name_interval(figure: Figure) -> str:
    """The interval with its name, as a sentence has it."""
    return ("95% interval " if figure.families > 1 else "") + show_interval(figure)


def show_count(figure: Figure) -> str:
    """How many organisms and families a figure is of."""
    families = count(figure.families, "family", "families")
    return f"{count(figure.organisms, 'organism')}, {families}"


def show_share(share: float) -> str:
    """A share in percent; a small one is not shown as none."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def draw_bars(groups: Iterable[BarGroup], label: str) -> Element:
    """A table of bars: what is measured, the bar with its interval, and the number."""
    axis = tag("svg", *_write_ticks(), class_="axis", aria_hidden="true")
    head = tag("tr", tag("td"), tag("td", axis), tag("td"))
    table = tag("table", tag("thead", head), class_="bars", aria_label=label)
    for group in groups:
        body = tag("tbody")
        if group.heading:
            note = tag("span", group.note, class_="note")
            body.append(tag("tr", tag("th", group.heading, " ", note, colspan=3, scope="rowgroup")))
        body.extend(_draw_row(bar) for bar in group.bars)
        table.append(body)
    return table


def _write_ticks() -> list[Element]:
    anchors = {TICKS[0]: "start", TICKS[-1]: "end"}
    ticks = []
    for at in TICKS:
        place = {"x": f"{at}%", "y": "80%", "text_anchor": anchors.get(at, "middle")}
        ticks.append(tag("text", f"{at}%", class_="minor" if at % 50 else "major", **place))
    return ticks


def draw_key() -> Element:
    """What the marks of bars mean."""
    marks: dict[str, tuple[str, dict[str, object]]] = {
        "named": ("rect", {"width": "100%", "height": "100%"}),
        "interval": ("line", {"x1": 0, "x2": "100%", "y1": "50%", "y2": "50%"}),
        "floor": ("line", {"x1": "50%", "x2": "50%", "y1": 0, "y2": "100%"}),
    }
    drawn = {
        kind: tag("svg", tag(shape, class_=kind, **at), class_="key", aria_hidden="true")
        for kind, (shape, at) in marks.items()
    }
    return tag(
        "p",
        *(drawn["named"], " mean over organisms \u2003"),
        *(drawn["interval"], " 95% interval, from resampled families \u2003"),
        *(drawn["floor"], " by chance: how often reports of other families name it"),
        class_="note",
    )


def _draw_row(bar: Bar) -> Element:
    figure = bar.figure
    drawn = tag("svg", *_draw_grid(), class_="bar", aria_hidden="true")
    if figure is None:
        value = tag("td", "-", class_="value")
    else:
        value = tag("td", tag("b", show_share(figure.value)), " ", class_="value")
        value.append(tag("span", show_interval(figure)))
        shape = {"class": bar.color, "width": f"{figure.value:.2%}"}
        drawn.append(tag("rect", x=0, y="15%", height="70%", **shape))
        if figure.families > 1:
            drawn.extend(_draw_interval(figure.low, figure.high))
    if bar.floor is not None:
        drawn.append(_line("floor", (bar.floor, bar.floor), (-0.05, 1.05)))
        value.append(tag("span", f" by chance {show_share(bar.floor)}", class_="chance"))
    name = tag("th", bar.name, scope="row")
    if bar.note:
        name.append(tag("span", bar.note, class_="note"))
    return tag("tr", name, tag("td", drawn), value)


def _draw_grid() -> list[Element]:
    return [_line("grid", (at / 100, at / 100), (0, 1)) for at in TICKS]


def _draw_interval(low: float, high: float) -> list[Element]:
    caps = [_line("interval", (end, end), (0.3, 0.7)) for end in (low, high)]
    return [_line("interval", (low, high), (0.5, 0.5)), *caps]


def _line(kind: str, x: tuple[float, float], y: tuple[float, float]) -> Element:
    """A line between two points, whose coordinates are shares of the figure."""
    ends = {"x1": x[0], "x2": x[1], "y1": y[0], "y2": y[1]}
    return tag("line", class_=kind, **{name: f"{end:.2%}" for name, end in ends.items()})


def draw_heat(
    parts: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]],
    cells: Mapping[tuple[str, str], int],
    color: Callable[[str, str], str],
    label: str,
) -> Element:
    """A heat map of each row's shares; `color` names the class of a row's square in a column.

    `parts` are the rows and the columns, each in parts with a gap between them.
    """
    rows, columns = (_place(part) for part in parts)
    totals = {row: sum(n for (one, _), n in cells.items() if one == row) for row in rows}
    left, top = (4 + LETTER * max(len(_clip(n)) for n in names) + GAP for names in (rows, columns))
    drawn = [
        tag("text", _clip(row), x=left - GAP, y=top + y + 15, text_anchor="end")
        for row, y in rows.items()
    ]
    for column, x in columns.items():
        at = f"translate({left + x + 15:.0f} {top - GAP:.0f}) rotate(-90)"
        drawn.append(tag("text", _clip(column), transform=at))
    for row, y in rows.items():
        for column, x in columns.items():
            number = cells.get((row, column), 0)
            about = f"{row}: {number} of {totals[row]} reports name {column}"
            share = number / totals[row] if totals[row] else 0
            drawn += _draw_cell(left + x, top + y, share, about, color(row, column))
    width, height = (
        round(start + max(places.values()) + CELL + 2)
        for start, places in ((left, columns), (top, rows))
    )
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return scroll(tag("svg", *drawn, class_="heat", role="img", aria_label=label, **size))


def scroll(wide: Element) -> Element:
    """What may be wider than the screen, in a frame that scrolls."""
    hint = tag("p", "Scrolls sideways if it is wider than the screen.", class_="narrow")
    return tag("div", hint, tag("div", wide, class_="scroll", tabindex=0))


def _place(parts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Where each name's square begins."""
    gaps = [part for part, names in enumerate(parts) for _ in names]
    names = [name for part in parts for name in part]
    return {
        name: at * CELL + gap * GAP for at, (name, gap) in enumerate(zip(names, gaps, strict=True))
    }


def _draw_cell(x: float, y: float, share: float, about: str, color: str) -> list[Element]:
    shape = {"x": f"{x:.0f}", "y": f"{y:.0f}", "width": CELL - 1, "height": CELL - 1}
    drawn = [tag("rect", class_=f"{color} empty", **shape)]
    if share:
        opacity = f"{share:.3f}"
        drawn.append(tag("rect", tag("title", about), class_=color, fill_opacity=opacity, **shape))
    if share >= SHOWN_SHARE:
        tone = "strong" if share > STRONG_SHARE else "faint"
        at = {"x": f"{x + CELL / 2 - 0.5:.1f}", "y": f"{y + 14.5:.1f}"}
        drawn.append(tag("text", f"{share * 100:.0f}", class_=f"share {tone}", **at))
    return drawn


def _clip(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def draw_curve(points: Sequence[Point], label: str) -> Element:
    """Rates with their intervals; the number of organisms is on a logarithmic scale."""
    order = sorted(points, key=lambda point: point.organisms)
    low, high = log1p(order[0].organisms), log1p(order[-1].organisms)
    places = [
        (log1p(point.organisms) - low) / (high - low) if high > low else 0.5 for point in order
    ]
    drawn: list[Element] = []
    for at in TICKS:
        drawn.append(_line("grid", (0, 1), (1 - at / 100, 1 - at / 100)))
        drawn.append(tag("text", f"{at}%", x=-8, y=f"{100 - at}%", dy="0.35em", text_anchor="end"))
    for (x1, one), (x2, other) in pairwise(zip(places, order, strict=True)):
        drawn.append(_line("curve", (x1, x2), (1 - one.figure.value, 1 - other.figure.value)))
    for point, x in zip(order, places, strict=True):
        figure = point.figure
        drawn.append(_line("interval", (x, x), (1 - figure.low, 1 - figure.high)))
        about = f"{point.name}: {figure.value:.0%} ({figure.low:.0%} to {figure.high:.0%})"
        center = {"cx": f"{x:.2%}", "cy": f"{1 - figure.value:.2%}"}
        drawn.append(tag("circle", tag("title", about), r=5, class_="named", **center))
        under = {"x": f"{x:.2%}", "y": "100%", "dy": "1.6em", "text_anchor": "middle"}
        drawn.append(tag("text", f"{point.organisms:,}", **under))
    plot = tag("svg", *drawn, class_="plot", role="img", aria_label=label)
    return tag("div", plot, class_="figure")
