"""Draw the report's plots as inline PNG pictures: arrays in, data URI out. Only this file imports matplotlib."""

# pyright: reportUnknownMemberType=false
# matplotlib's stubs leave the keyword arguments of every drawing call untyped

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Span = tuple[float, float]  # from, to [s]
# Okabe & Ito 2008: told apart by readers of any colour vision
BLUE, ORANGE, GREEN, RED, PURPLE, YELLOW, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#B8A900",
    "#56B4E9",
)
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, YELLOW)
GREY, INK = "#8a94a1", "#1c2430"
WIDTH_IN, DPI = 9.6, 140


def _sheet(rows: int, height_in: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of stacked axes that share their time axis."""
    from matplotlib.figure import Figure  # 0.3 s to import: only a report pays for it

    sheet = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = [sheet.add_subplot(rows, 1, 1)]
    axes += [sheet.add_subplot(rows, 1, row + 1, sharex=axes[0]) for row in range(1, rows)]
    for axis in axes:
        axis.grid(visible=True, color="#e6eaef", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#b6bfca")
        axis.tick_params(colors=INK, labelsize=9)
    return sheet, axes


def _uri(sheet: Figure) -> str:
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=DPI)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Return content as a data URI of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _legend(axis: Axes) -> None:
    """Put the names above the plot, where they hide no curve."""
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=8,
        columnspacing=1.4,
        handlelength=1.6,
        frameon=False,
        fontsize=9,
        borderaxespad=0.1,
    )


def _shade(axis: Axes, spans: Sequence[Span], colour: str, label: str) -> None:
    for index, (start, end) in enumerate(spans):
        axis.axvspan(start, end, color=colour, alpha=0.18, linewidth=0, label=label if index == 0 else None)


def errors(t_s: Array, by_source: Mapping[str, Array], predicted_mm: Array, out_of_model: Sequence[Span]) -> str:
    """Draw the errors [mm], shape (n,) each, over time [s], with the 95 % that was predicted for the target."""
    sheet, axes = _sheet(1, 3.9)
    for (name, values), colour in zip(by_source.items(), COLOURS, strict=False):
        if np.isfinite(values).any():
            front = name == "target"
            width, layer = (1.6, 4) if front else (1.0, 3)
            axes[0].plot(t_s, values, color=colour, linewidth=width, zorder=layer, label=name)
    axes[0].plot(t_s, predicted_mm, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="target, predicted 95 %")
    _shade(axes[0], out_of_model, RED, "out of model")
    axes[0].set(ylabel="error [mm]", xlabel="time of the run [s]", ylim=(0, None))
    _legend(axes[0])
    return _uri(sheet)


def breathing(t_s: Array, shown_mm: Array, true_mm: Array, out_of_model: Sequence[Span], gate: Sequence[Span]) -> str:
    """Draw the target's motion [mm], shape (n, 3), as shown over as it was, by axis, over time [s]."""
    sheet, axes = _sheet(3, 5.6)
    for axis, name, column in zip(axes, ("x", "y", "z"), range(3), strict=True):
        axis.plot(t_s, true_mm[:, column], color=GREY, linewidth=3.2, alpha=0.7, label="true")
        axis.plot(t_s, shown_mm[:, column], color=BLUE, linewidth=1.2, label="shown")
        _shade(axis, gate, GREEN, "gate open")
        _shade(axis, out_of_model, RED, "out of model")
        axis.set_ylabel(f"{name} [mm]")
        if column < 2:
            axis.tick_params(labelbottom=False)
    axes[2].set_xlabel("time of the run [s]")
    _legend(axes[0])
    return _uri(sheet)


def horizon(t_s: Array, horizon_ms: Mapping[str, Array], silence: Mapping[str, Array], marked: Sequence[Span]) -> str:
    """Draw the horizon [ms] and the silence [periods] of each stream, shape (n,) each, over time [s]."""
    sheet, axes = _sheet(2, 4.6)
    for axis, rows in zip(axes, (horizon_ms, silence), strict=True):
        for index, ((name, values), colour) in enumerate(zip(rows.items(), COLOURS, strict=False)):
            size = max(2.0, 6.0 - 2.5 * index)  # streams of one device lie on each other: the first stays visible
            axis.plot(t_s, values, ".", color=colour, markersize=size, label=name)
        _shade(axis, marked, PURPLE, "target marked")
    axes[1].axhline(3.0, color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
    axes[1].annotate("3 periods: the state changes", (t_s[0], 3.12), fontsize=8.5, color=INK)
    axes[0].set(ylabel="horizon [ms]", ylim=(0, None))
    axes[0].tick_params(labelbottom=False)
    axes[1].set(ylabel="silence [periods]", xlabel="time of the run [s]", ylim=(0, 5))
    _legend(axes[0])
    return _uri(sheet)


def approach(t_s: Array, shown_mm: Array, true_mm: Array, depth_mm: Array, angle_deg: Array) -> str:
    """Draw the needle: distance to the target shown and true [mm], depth [mm], angle off the path [deg], over [s]."""
    sheet, axes = _sheet(3, 5.6)
    if np.isfinite(true_mm).any():
        axes[0].plot(t_s, true_mm, color=GREY, linewidth=3.2, alpha=0.7, label="true")
    axes[0].plot(t_s, shown_mm, color=RED, linewidth=1.2, label="shown")
    axes[1].plot(t_s, depth_mm, color=BLUE, linewidth=1.2)
    axes[2].plot(t_s, angle_deg, color=GREEN, linewidth=1.2)
    labels = ("tip to target [mm]", "depth past entry [mm]", "angle off path [deg]")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
    for axis in axes[:2]:
        axis.tick_params(labelbottom=False)
    axes[0].set_ylim(0, None)
    axes[2].set(xlabel="time of the run [s]", ylim=(0, None))
    _legend(axes[0])
    return _uri(sheet)


def stages(spreads: Mapping[str, Mapping[str, float]], period_ms: float) -> str:
    """Draw the time of each stage of the loop [ms] as bars: p50 in full, p99 as a whisker."""
    sheet, axes = _sheet(1, 0.9 + 0.3 * len(spreads))
    names = list(spreads)
    p50 = [spreads[name]["p50"] for name in names]
    reach = [spreads[name]["p99"] - spreads[name]["p50"] for name in names]
    axes[0].barh(names, p50, color=BLUE, height=0.6, xerr=[[0.0] * len(names), reach], ecolor=GREY, capsize=3)
    axes[0].axvline(period_ms, color=RED, linewidth=1.2, linestyle=(0, (5, 3)))
    axes[0].invert_yaxis()
    axes[0].set_xlabel("wall time [ms]: bar p50, whisker p99; dashed: one frame")
    return _uri(sheet)


def timeline(rows: Mapping[str, Sequence[tuple[float, float, str]]]) -> str:
    """Draw what held when: name -> (from [s], to [s], word) spans."""
    sheet, axes = _sheet(1, 0.9 + 0.45 * len(rows))
    edges = [edge for spans in rows.values() for start, end, _ in spans for edge in (start, end)]
    whole_s = max(edges) - min(edges) if edges else 0.0
    for row, (spans, colour) in enumerate(zip(rows.values(), COLOURS, strict=False)):
        for index, (start, end, word) in enumerate(spans):
            axes[0].barh(row, end - start, left=start, height=0.62, color=colour, alpha=0.75 if index % 2 else 0.5)
            if word and end - start > 0.08 * whole_s:  # a shorter one has no room for its word
                axes[0].annotate(word, ((start + end) / 2, row), ha="center", va="center", fontsize=8.5, clip_on=True)
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].set(xlabel="time of the run [s]", ylim=(len(rows) - 0.5, -0.5))
    return _uri(sheet)
