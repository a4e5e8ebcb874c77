"""A board as a picture: quality against cost, each method a point with its interval.

Labels are put beside their points one after the other, each where it meets neither a label, a
point nor an interval. The SVG follows the reader's light or dark mode; the PNG is light.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.files import write_atomic
from headwater.evaluation.board import Board, Row
from headwater.evaluation.estimate import Estimate
from headwater.report.words import printable

INK, DIM, GROUND, LINE = "#1f2328", "#667079", "#fdfdfc", "#d9dcdf"
DARK = {INK: "#e6e8ea", DIM: "#9aa3ab", GROUND: "#16191d", LINE: "#343a40"}
PLAIN, TOLD, CONTROL = "#2f7ed8", "#d1662a", "#8a929a"  # mid tones: readable on either ground
CONTROLS = ("loss", "random", "bm25", "dense")
INCHES = (8.4, 5.4)
GAP, REACH = 9.0, 150.0  # pixels between a point and its label: the least, and the most
LINE_PRICE, TAKEN_PRICE = 25.0, 1000.0  # of a label over an interval, or over what must be read
CROWD = 60.0  # pixels within which points crowd each other


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels."""

    left: float
    low: float
    right: float
    high: float

    def meets(self, other: _Box) -> bool:
        """Whether they overlap."""
        return not (
            self.right <= other.left
            or other.right <= self.left
            or self.high <= other.low
            or other.high <= self.low
        )

    def within(self, other: _Box) -> bool:
        """Whether this lies inside the other."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.low <= self.low
            and self.high <= other.high
        )


def write_chart(folder: Path, found: Board) -> list[Path]:
    """Write board.svg and board.png; returns them, or none where there is nothing to draw.

    Raises:
        InputError: when matplotlib is not installed.
    """
    points = _points(found)
    grid = found.extra.get("grid")
    if not points and grid is None:
        return []
    plot, figure_of = _matplotlib()
    style = {"svg.fonttype": "path", "svg.hashsalt": "headwater", "font.size": 10}
    with plot.rc_context(style):
        made = figure_of(figsize=INCHES, facecolor=GROUND, dpi=100)
        if grid is None:
            _scatter(made, found, points)
        else:
            from headwater.report.board_heat import heat

            heat(made, found, grid, name_of(found), ink=INK, dim=DIM, ground=GROUND)
        paths = [folder / "board.svg", folder / "board.png"]
        write_atomic(paths[0], lambda path: _save(made, path, metadata={"Date": None}))
        write_atomic(paths[1], lambda path: _save(made, path, dpi=160))
    _follow_mode(paths[0])
    return paths


def _matplotlib() -> tuple[Any, Any]:
    try:
        import matplotlib as plot
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "The chart is drawn by matplotlib, which is not installed",
            do='install it with: pip install "headwater[evaluate]"',
        ) from error

    def figure(**options: Any) -> Any:
        made = Figure(**options)
        FigureCanvasAgg(made)  # which measures texts
        return made

    return plot, figure


def _save(made: Any, path: Path, **options: Any) -> None:
    made.savefig(path, facecolor=GROUND, **options)


def _follow_mode(path: Path) -> None:
    """Let the picture's plain colours follow a dark mode; a reader without one sees the light."""
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(<svg[^>]*>)", lambda tag: f"{tag[0]}\n {style}", text, count=1)
    write_atomic(path, lambda temporary: _text(temporary, text))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _points(found: Board) -> list[tuple[Row, float, Estimate]]:
    """(row, cost, figure) of the methods that have both."""
    made: list[tuple[Row, float, Estimate]] = []
    for row in found.rows:
        cost, figure = _cost(found, row), row.figures.get(found.headline)
        if cost is not None and cost > 0 and isinstance(figure, Estimate):
            made.append((row, cost, figure))
    return made


def _cost(found: Board, row: Row) -> float | None:
    """In trainings; in seconds where nothing was trained that could be timed."""
    if found.training_seconds is None and row.cost is not None:
        return row.cost.seconds
    return found.trainings(row)


def colour(row: Row) -> str:
    """By what kind of method it is."""
    if row.name in CONTROLS:
        return CONTROL
    return TOLD if row.given else PLAIN


def _scatter(made: Any, found: Board, points: Sequence[tuple[Row, float, Estimate]]) -> None:
    axes = made.add_axes((0.09, 0.12, 0.885, 0.74))
    _dress(axes, found)
    for row, cost, figure in points:
        spread = [[figure.value - figure.low], [figure.high - figure.value]]
        axes.errorbar(
            cost, figure.value, yerr=spread, fmt="o", ms=7, color=colour(row), elinewidth=1.2,
            ecolor=colour(row), alpha=0.95, zorder=3,
        )  # fmt: skip
    costs = [cost for _, cost, _ in points]
    axes.set_xlim(min(costs) / 2.2, max(costs) * 3.5)
    _title(made, found, points)
    made.canvas.draw()
    _labels(made, axes, points)


def _dress(axes: Any, found: Board) -> None:
    axes.set_facecolor(GROUND)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(True, which="major", color=LINE, linewidth=0.6, zorder=0)
    axes.axhline(0, color=DIM, linewidth=0.9, zorder=1)
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)
    for name in ("left", "bottom"):
        axes.spines[name].set_color(LINE)
    axes.tick_params(colors=DIM, which="both", labelcolor=DIM)
    unit = "seconds" if found.training_seconds is None else "trainings of the model"
    axes.set_xlabel(f"cost: {unit} (log)", color=DIM)
    axes.set_ylabel(printable(found.headline), color=DIM)


def name_of(found: Board) -> str:
    """The preset, and its scale where that is not the full one."""
    scale = found.recipe.get("scale")
    return printable(found.preset if scale in (None, "full") else f"{found.preset} ({scale})")


def _title(made: Any, found: Board, points: Sequence[tuple[Row, float, Estimate]]) -> None:
    made.text(0.09, 0.945, f"{name_of(found)}: {printable(found.headline)} against cost",
              color=INK, fontsize=13, fontweight="bold")  # fmt: skip
    kinds = {
        PLAIN: "a model and a corpus",
        TOLD: "is given more (checkpoints, recipe, ...)",
        CONTROL: "control",
    }
    drawn = {colour(row) for row, _, _ in points}
    at = 0.09
    for shade, told in kinds.items():
        if shade in drawn:
            text = made.text(at, 0.897, f"● {told}", color=shade, fontsize=9.5)
            width = text.get_window_extent(made.canvas.get_renderer()).width
            at += (width + 18) / (made.get_figwidth() * made.dpi)


def _labels(made: Any, axes: Any, points: Sequence[tuple[Row, float, Estimate]]) -> None:
    """Each label at the cheapest place that is free, those in the thick of it first."""
    frame = axes.get_window_extent()
    inside = _Box(frame.x0, frame.y0 + 2, frame.x1 + 18, frame.y1 + 10)
    at = [axes.transData.transform((cost, figure.value)) for _, cost, figure in points]
    lines: list[_Box] = []
    for _, cost, figure in points:
        (x, low), (_, high) = axes.transData.transform([(cost, figure.low), (cost, figure.high)])
        lines.append(_Box(x - 2, low, x + 2, high))
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y in at]
    crowd = [sum((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 < CROWD**2 for b in at) for a in at]
    size = made.get_figwidth() * made.dpi, made.get_figheight() * made.dpi
    for number in sorted(range(len(points)), key=lambda n: (-crowd[n], -at[n][1])):
        title = printable(points[number][0].title)
        text = made.text(0, 0, title, color=INK, fontsize=9.5, zorder=5, va="baseline")
        extent = text.get_window_extent(made.canvas.get_renderer())
        box = _free(at[number], extent.width, extent.height, taken, lines, inside)
        taken.append(box)
        text.set_position((box.left / size[0], (box.low + extent.height * 0.22) / size[1]))
        text.set_bbox({"facecolor": GROUND, "edgecolor": "none", "pad": 0.8, "alpha": 0.82})
        _leader(axes, at[number], box)


def _free(
    point: tuple[float, float],
    width: float,
    height: float,
    taken: Sequence[_Box],
    lines: Sequence[_Box],
    inside: _Box,
) -> _Box:
    """The cheapest place of this size: near its point, and over few intervals.

    Over a label or a point only where no place in reach is free.
    """
    x, y = point
    cheapest: tuple[float, _Box] | None = None
    for gap in np.arange(GAP, REACH, GAP / 2):
        for angle in np.arange(16) * np.pi / 8:
            right, up = float(np.cos(angle)), float(np.sin(angle))
            left = x + gap * right - width * (1 - right) / 2
            low = y + gap * up - height * (1 - up) / 2
            box = _Box(left, low, left + width, low + height)
            price = float(gap) + LINE_PRICE * sum(box.meets(line) for line in lines)
            price += TAKEN_PRICE * sum(box.meets(other) for other in taken)
            price += 0.0 if box.within(inside) else TAKEN_PRICE
            if cheapest is None or price < cheapest[0]:
                cheapest = price, box
    return cheapest[1] if cheapest is not None else _Box(x, y, x + width, y + height)


def _leader(axes: Any, point: tuple[float, float], box: _Box) -> None:
    """A thin line to a label that stands away from its point."""
    x = min(max(point[0], box.left), box.right)
    y = min(max(point[1], box.low), box.high)
    if ((x - point[0]) ** 2 + (y - point[1]) ** 2) ** 0.5 < GAP * 1.8:
        return
    ends = axes.transData.inverted().transform([point, (x, y)])
    axes.plot(ends[:, 0], ends[:, 1], color=DIM, linewidth=0.6, zorder=4)
