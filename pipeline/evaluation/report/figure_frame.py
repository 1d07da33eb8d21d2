"""Parts that all figures share: a frame that names model and calibration, colours, axes, and the PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's palette, distinguishable with any colour vision, and in grey by lightness.
BLUE, VERMILION, GREEN, AMBER, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
INK, MUTED, RULE = "#1f2933", "#5f6b7a", "#d9dee4"
COMPARISON_STYLES = ((VERMILION, (0, (5, 2))), (GREEN, (0, (1, 1.2))), (PURPLE, (0, (4, 1, 1, 1))), (AMBER, "solid"))
_SIZE = (5.4, 4.9)
_DPI = 160
LegendPlace = Literal["lower left", "lower right", "upper left", "upper center", "upper right"]


@dataclass(frozen=True)
class Caption:
    """Text under the title of every figure.

    Attributes:
        model: name of the model.
        calibration: its calibrator in a few words (``Calibrator.describe()``).
        cases: which cases, as ``test split, 243 cases of 131 patients``.
    """

    model: str
    calibration: str
    cases: str = ""

    @property
    def line(self) -> str:
        """Model and cases."""
        return " · ".join(part for part in (self.model, self.cases) if part)


def to_png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def new_frame(title: str, caption: Caption, *, probabilities: bool = True) -> tuple[Figure, Axes]:
    """A figure under its title and caption, with axes to draw on; ``probabilities``: whether it shows their values."""
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0.135, 0.115, 0.835, 0.725))
    _head(figure, title, caption, probabilities=probabilities)
    tidy(axes)
    return figure, axes


def new_frame_with_strip(title: str, caption: Caption) -> tuple[Figure, Axes, Axes]:
    """Likewise, with a second, low strip of axes below the first."""
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0.135, 0.285, 0.835, 0.555))
    strip = figure.add_axes((0.135, 0.115, 0.835, 0.14))
    _head(figure, title, caption, probabilities=True)
    tidy(axes)
    tidy(strip)
    return figure, axes, strip


def _head(figure: Figure, title: str, caption: Caption, *, probabilities: bool) -> None:
    figure.text(0.02, 0.975, title, fontsize=13, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 0.922, caption.line, fontsize=8, color=MUTED, va="top")
    shown = "probability: " if probabilities else "scores: calibrated probability, "
    figure.text(0.02, 0.888, f"{shown}{caption.calibration}", fontsize=8, color=MUTED, va="top")


def tidy(axes: Axes) -> None:
    """Apply the style that all axes share."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=RULE, lw=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8.5)


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 1, with a margin for lines at the edge, under these labels."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def add_legend_below(figure: Figure, axes: Axes) -> None:
    """Add a legend below the axes, where it hides nothing; the figure grows by its height."""
    width, height = figure.get_size_inches()
    names = axes.get_legend_handles_labels()
    lower = (0.16 * len(names[1]) + 0.1) / (height + 0.16 * len(names[1]) + 0.1)
    for part in figure.axes:
        x, y, wide, high = part.get_position().bounds
        part.set_position((x, lower + y * (1 - lower), wide, high * (1 - lower)))
    for text in figure.texts:
        text.set_y(lower + text.get_position()[1] * (1 - lower))
    figure.set_size_inches(width, height / (1 - lower))
    figure.legend(*names, loc="lower left", bbox_to_anchor=(0.1, 0.0), fontsize=8, frameon=False, labelcolor=INK)


def add_legend(axes: Axes, place: LegendPlace, *, columns: int = 1) -> None:
    """Add a legend in front of everything that is drawn."""
    style: dict[str, Any] = {"fontsize": 8, "frameon": True, "framealpha": 0.92, "edgecolor": "none", "labelcolor": INK}
    axes.legend(loc=place, ncols=columns, **style).set_zorder(6)
