"""Where every picture begins and ends: axes without pyplot, one quiet look, and the way out as PNG or SVG.

    INK     text and axes             follows the page's text colour in an inline SVG
    PAPER   halos behind text         follows the page's background
    MUTED   reference lines           readable on light and on dark

Nothing here touches matplotlib's global state: axes are made on a `Figure` of their own, and the look is set on the
axes. To add a picture: a file per subject, a function that takes arrays or a frame and `ax=None`, calls `new_axes`,
draws, calls `dress`, and returns the axes; a row in `CASES` of `tests/test_plotting.py`.
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from biovae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.patheffects import AbstractPathEffect

INK, PAPER, MUTED = "#1d2733", "#fffffe", "#8792a0"
BLUE, ORANGE, GREEN, VERMILLION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
RASTERISE_ABOVE = 1_000
SMALL, NORMAL = 7.5, 8.5  # points
Grid = Literal["x", "y", "both", "none"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def expect_columns(frame: pd.DataFrame, names: Sequence[str], source: str) -> None:
    """Refuse a frame that lacks a column; `source` makes those that do not.

    Raises:
        InputError: A column is missing.
    """
    missing = [name for name in names if name not in frame]
    if missing:
        raise InputError(
            f"expected the columns {', '.join(names)}, found none called {', '.join(missing)}: "
            f"pass the frame of {source}."
        )


def new_axes(ax: Axes | None = None, *, width: float = 4.7, height: float = 3.5) -> Axes:
    """The axes given, or new ones on a figure of their own; `width` and `height` in inches."""
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def panels(count: int, *, width: float = 4.7, height: float = 3.5, columns: int = 3) -> list[Axes]:
    """Axes of several pictures on one figure, up to `columns` in a row; `width` and `height` of each in inches."""
    columns = max(min(columns, count), 1)
    rows = max(-(-count // columns), 1)
    figure = new_axes(width=width * columns, height=height * rows).figure
    figure.clear()
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def dress(ax: Axes, *, x: str, y: str, title: str = "", grid: Grid = "both") -> Axes:
    """Give axes the house look and their labels."""
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(which="both", labelsize=SMALL, labelcolor=INK, color=MUTED, length=3, width=0.7)
    ax.tick_params(which="minor", length=0)
    ax.set_axisbelow(True)
    if grid != "none":
        ax.grid(visible=True, axis=grid, which="major", color=MUTED, alpha=0.22, linewidth=0.6)
    ax.set_xlabel(x, fontsize=NORMAL, color=INK)
    ax.set_ylabel(y, fontsize=NORMAL, color=INK)
    if title:
        ax.set_title(plain(title, 60), fontsize=NORMAL + 1, color=INK, loc="left", fontweight="bold", pad=8)
    return ax


def key(ax: Axes, *, columns: int = 4) -> None:
    """The legend of what was labelled, above the axes on the left, without a frame."""
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=SMALL, labelcolor=INK,
        borderaxespad=0.3, handlelength=1.6, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def halo() -> list[AbstractPathEffect]:
    """The path effects that set text off from what it lies on."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.2, foreground=PAPER)]


def plain(text: object, most: int = 32) -> str:
    r"""Text that matplotlib draws as it stands: no mathematics between dollars, no control characters, not too long.

    >>> plain("a\nb")
    'a b'
    >>> plain("CD14+ monocytes of the second donor", 12)
    'CD14+ monoc…'
    """
    clean = _CONTROL.sub(" ", str(text)).strip()
    short = clean if len(clean) <= most else clean[: most - 1] + "…"
    return short.replace("$", r"\$")


def thousands(value: float, _position: object = None) -> str:
    """A tick label with thousands separators, a true minus, and no more decimals than it needs."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
    return text.replace("-", "−")


def png(figure: Figure | SubFigure, *, dpi: int = 160) -> bytes:
    """The figure as a PNG on white."""
    return _save(figure, format="png", dpi=dpi, facecolor="white")


def svg(figure: Figure | SubFigure, *, prefix: str, label: str) -> str:
    """The figure as an SVG element for an HTML page: no addresses, unique ids, colours and font of the page.

    Args:
        figure: The figure; scatters of many points are embedded as PNG inside.
        prefix: Put before every id, unique on the page, letters and digits only.
        label: The alternative text.
    """
    from xml.sax.saxutils import quoteattr

    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        text = _save(figure, format="svg", dpi=200, transparent=True, metadata=_NO_METADATA).decode("utf-8")
    view = re.search(r'viewBox="([-\d. ]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    for pattern, replacement in _TO_PAGE:
        body = pattern.sub(replacement.replace("PREFIX", prefix), body)
    box = view.group(1) if view else "0 0 338 252"
    return f'<svg viewBox="{box}" role="img" aria-label={quoteattr(_CONTROL.sub(" ", label))}>{body}</svg>'


_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_TO_PAGE = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<!--.*?-->\s*", ""),
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<style type=\"text/css\">.*?</style>", ""),
        (r"xlink:href=", "href="),
        (r"(<[^<>]*?\s)id=\"", r'\1id="PREFIX-'),
        (r"href=\"#", 'href="#PREFIX-'),
        (r"url\(#", "url(#PREFIX-"),
        (r"font-family: [^;\"]*", "font-family: inherit"),
        (r"(font: [^;\"]*?px) [^;\"]*", r"\1 inherit"),
        (INK, "currentColor"),
        (PAPER, "var(--paper)"),
    )
)


def _save(figure: Figure | SubFigure, **how: Any) -> bytes:
    """Draw to memory; a name in a script that the measuring font lacks is no reason to warn: the page's font has it."""
    buffer = io.BytesIO()
    with _without_glyph_warnings():
        figure.figure.savefig(buffer, **how)  # of a subfigure, the whole
    return buffer.getvalue()


@contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield
