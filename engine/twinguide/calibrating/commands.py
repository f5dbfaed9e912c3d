"""`twinguide calibrate`: fit, print a table, write the result file and its picture; refuse with the remedy."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any, Literal

import click


class _AboveZero(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic from click 8.4 on
    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        number = float(click.FLOAT.convert(value, param, ctx))
        return number if 0.0 < number < inf else self.fail(f"wanted a number above zero; got {value}", param, ctx)


class _ResultFile(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic from click 8.4 on
    """Where a result goes: anything but a .toml may be a recording, which must not be lost."""

    name = "path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(str(value))
        told = f"wanted a result file, .toml; got {path.name}: the picture is written beside it as .png"
        return path if path.suffix == ".toml" else self.fail(told, param, ctx)


class _Frame(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic from click 8.4 on
    name = "frame"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        told = f"wanted a name of letters, digits and _; got {value!r}"
        return str(value) if re.fullmatch(r"[A-Za-z]\w*", str(value)) else self.fail(told, param, ctx)


FILES, RESULT, FRAME, LIMIT = click.Path(path_type=Path), _ResultFile(), _Frame(), _AboveZero()


def kept(outcome: object, out: Path) -> None:
    """Print an outcome, write its result to `out` and its picture beside it."""
    from twinguide.calibrating.outcome import Outcome
    from twinguide.calibrating.result import write_result

    assert isinstance(outcome, Outcome)
    picture = out.with_suffix(".png")
    wide = max(len(name) for name, _ in outcome.rows)
    for name, value in outcome.rows:
        click.echo(f"{name:{wide}}  {value}")
    for note in outcome.result.notes:
        click.echo(f"note: {note}")
    write_result(outcome.result, out)
    outcome.draw(picture)
    click.echo(f"wrote {out} and {picture}")


@click.group()
def calibrate() -> None:
    """Calibrate from recordings of PLUS, 3D Slicer, or a session."""


@calibrate.command()
@click.argument("inputs", nargs=-1, required=True, type=FILES)
@click.option("--tool", default="", help="The track to use: stylus, tracker_from_stylus or StylusToTracker.")
@click.option("--reference", default="", help="The body that carries the divot, if it may move.")
@click.option("--p95-max-mm", type=LIMIT, default=0.5, show_default=True, help="Refuse a tip that is less sure.")
@click.option("--out", type=RESULT, default=Path("pivot.toml"), show_default=True, help="The result file.")
def pivot(inputs: tuple[Path, ...], tool: str, reference: str, p95_max_mm: float, out: Path) -> None:
    """Find a tool's tip from INPUTS in which it is swung about a fixed point, one point a recording."""
    from twinguide.calibrating.pivot import pivot as fit

    kept(fit(inputs, tool, reference, p95_max_mm), out)


@calibrate.command()
@click.argument("inputs", nargs=-1, required=True, type=FILES)
@click.option("--source", type=FRAME, default="image", show_default=True, help="The frame of the first file's points.")
@click.option(
    "--target", type=FRAME, default="reference", show_default=True, help="The frame of the second file's points."
)
@click.option("--sigma-mm", type=LIMIT, help="How sure one point is, per axis; else the residuals tell.")
@click.option("--fre-max-mm", type=LIMIT, default=3.0, show_default=True, help="Refuse larger residuals (rms).")
@click.option("--robust", is_flag=True, help="Leave out wrong pairs, up to nine in ten; needs --sigma-mm.")
@click.option(
    "--by",
    type=click.Choice(["name", "order"]),
    default="name",
    show_default=True,
    help="How two files are paired: by the points' names, or row by row.",
)
@click.option("--targets", type=FILES, help="Points in the source's frame at which to predict the error.")
@click.option("--out", type=RESULT, default=Path("points.toml"), show_default=True, help="The result file.")
def points(
    inputs: tuple[Path, ...],
    source: str,
    target: str,
    sigma_mm: float | None,
    fre_max_mm: float,
    targets: Path | None,
    robust: bool,
    by: Literal["name", "order"],
    out: Path,
) -> None:
    """Register named points: INPUTS are source and target, or one CSV of pairs.

    Each is a .mrk.json, .fcsv or .csv, a case's folder (its landmarks) or a session's (those last touched in it).
    """
    from twinguide.calibrating.points import points as fit

    kept(fit(inputs, source, target, sigma_mm, fre_max_mm, targets, robust, by), out)


@calibrate.command()
@click.argument("input", type=FILES)
@click.option("--board", required=True, help="Such as charuco:7x5:25/18:4x4_50 or chessboard:8x6:30 (mm).")
@click.option("--name", default="camera", show_default=True, help="What the camera is called.")
@click.option("--rms-max-px", type=LIMIT, default=1.0, show_default=True, help="Refuse larger residuals.")
@click.option("--out", type=RESULT, default=Path("camera.toml"), show_default=True, help="The result file.")
def camera(input: Path, board: str, name: str, rms_max_px: float, out: Path) -> None:
    """Find a camera's intrinsics and distortion from INPUT, a folder of pictures of a board, or a video."""
    from twinguide.calibrating.camera import camera as fit
    from twinguide.errors import CalibrationError

    if input.is_dir() and input.resolve() in out.resolve().parents:
        next_step = "Choose another with --out: the picture of the result would be taken for one of the board."
        raise CalibrationError("a result outside the folder of pictures", str(out), "--out", next_step)
    kept(fit(input, board, name, rms_max_px), out)


@calibrate.command()
@click.argument("inputs", nargs=-1, required=True, type=FILES)
@click.option("--a", default="", help="The first track: stage_from_head, say; the inverse's name inverts it.")
@click.option("--b", default="", help="The second track, of the last file: tracker_from_marker, say.")
@click.option(
    "--offset/--no-offset", default=None, help="Find the clocks' offset too (default: with two files that have stamps)."
)
@click.option("--lag-max-ms", type=LIMIT, default=300.0, show_default=True, help="How far to look for the offset.")
@click.option(
    "--p95-max-mm", type=LIMIT, default=10.0, show_default=True, help="Refuse x, or z where b was, less sure."
)
@click.option("--out", type=RESULT, default=Path("handeye.toml"), show_default=True, help="The result file.")
def handeye(
    inputs: tuple[Path, ...], a: str, b: str, offset: bool | None, lag_max_ms: float, p95_max_mm: float, out: Path
) -> None:
    """Find the two fixed transforms x and z of a x = z b from two tracks of INPUTS, one file or two."""
    from twinguide.calibrating.handeye import handeye as fit

    kept(fit(inputs, a, b, offset, lag_max_ms, p95_max_mm), out)


@calibrate.command()
@click.argument("inputs", nargs=-1, required=True, type=FILES)
@click.option("--a", default="", help="The track that is ahead.")
@click.option("--b", default="", help="The track that is behind, of the last file.")
@click.option(
    "--by",
    type=click.Choice(["turning", "moving"]),
    default="turning",
    show_default=True,
    help="How far both turn, or how b's places follow a's poses: for a body that hardly turns.",
)
@click.option("--lag-max-ms", type=LIMIT, default=500.0, show_default=True, help="How far to look, to either side.")
@click.option("--out", type=RESULT, default=Path("time.toml"), show_default=True, help="The result file.")
def time(inputs: tuple[Path, ...], a: str, b: str, by: str, lag_max_ms: float, out: Path) -> None:
    """Find how much later one track of INPUTS, one file or two, tells of a motion than another.

    Of one CSV with the columns device_ms and arrival_ms (or _s, _us, _ns): the clocks' offset and drift.
    """
    from twinguide.calibrating.lag import lag as fit

    kept(fit(inputs, a, b, by, lag_max_ms), out)


@calibrate.command()
@click.argument("input", type=FILES)
@click.option("--model", type=FILES, required=True, help="The surface: STL, OBJ, PLY or VTK; or a case's folder.")
@click.option("--units", type=click.Choice(["mm", "m"]), help="Units of the model's file.")
@click.option("--axes", type=click.Choice(["lps", "ras"]), help="Axes of the model's file.")
@click.option("--structure", default="", help="Which structure of a case.")
@click.option("--start", type=FILES, help="A result of `points`, or a .tfm, that lies near; else all sides are tried.")
@click.option("--tip", type=FILES, help="The result of `pivot` whose tip touched the surface in a recording of poses.")
@click.option("--tool", default="", help="The track of that tool.")
@click.option("--reference", default="", help="The body in whose frame the tip is told.")
@click.option("--source", type=FRAME, default="reference", show_default=True, help="The frame of the points.")
@click.option("--target", type=FRAME, default="image", show_default=True, help="The frame of the model.")
@click.option("--out", type=RESULT, default=Path("surface.toml"), show_default=True, help="The result file.")
def surface(
    input: Path,
    model: Path,
    units: str | None,
    axes: str | None,
    structure: str,
    start: Path | None,
    tip: Path | None,
    tool: str,
    reference: str,
    source: str,
    target: str,
    out: Path,
) -> None:
    """Register surface points of INPUT (CSV, markups, or the path of a tip) to a model."""
    from twinguide.calibrating.surface import Model, Touched
    from twinguide.calibrating.surface import surface as fit

    shape = Model(model, units, axes, structure)  # pyright: ignore[reportArgumentType]
    kept(fit(input, shape, start, Touched(tool, reference, tip), source, target), out)
