"""The command line: look at the machine, import a case, run a scenario, report on a session."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from twinguide.calibrating.commands import calibrate
from twinguide.errors import PluginError, RecordingError, TwinGuideError

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # end a run; the first is Ctrl-C
REPEATS = 5  # of them that are ignored while the session is written
PLUGIN_FILES = click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(path_type=Path),
    help="A plugin's Python file, beside the installed ones; repeatable.",
)  # fmt: skip


class Group(click.Group):
    """A group whose commands end with one clear line where TwinGuide refuses something."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run, and turn a TwinGuideError into a message and exit status 1."""
        try:
            return super().invoke(ctx)
        except TwinGuideError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1)


class Main(Group):
    """The program: its own commands, and those that plugins bring, imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands; a plugin cannot take one of ours."""
        from twinguide.registry import Registry

        return [*super().list_commands(ctx), *sorted(set(Registry.load().commands) - set(self.commands))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, or of the plugin that brings it, which says why where it cannot be had."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        from twinguide.registry import Registry, resolve

        make = Registry.load().commands.get(cmd_name)
        if make is None:
            return None
        try:
            command = resolve(make, f"command {cmd_name}")
            if not isinstance(command, click.Command):
                raise PluginError("a click command", f"{type(command).__name__}", f"{make}")
        except PluginError as error:
            return _broken(cmd_name, error)
        return command


def _broken(name: str, error: PluginError) -> click.Command:
    """Return a command that only tells why it is none: the help of all others must not end with it."""

    def refuse() -> NoReturn:
        raise error

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, anything, refuse, short_help=f"Broken: {error}")


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twinguide")
def main() -> None:
    """Digital-twin-assisted surgery in a headset. Research use only.

    `twinguide demo` shows it, all simulated; `twinguide doctor` says what this machine lacks.
    """


main.add_command(calibrate)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look at the machine, and name the remedy for each lack.

    TwinGuide does without what is a `lack`; with a `fault` it cannot run, and the exit status is 1.
    """
    from twinguide.doctor import as_tables, examine

    checks = examine()
    if as_json:
        click.echo(json.dumps(as_tables(checks), indent=2))
    else:
        for check in checks:
            click.echo(f"{check.state:5}  {check.name}: {check.found}")
            if check.remedy:
                click.echo(f"       -> {check.remedy}")
    sys.exit(any(check.state == "fault" for check in checks))


@main.group()
def case() -> None:
    """Import a patient's surfaces, and look at a case."""


@case.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--units", type=click.Choice(["mm", "m"]), required=True, prompt=True, help="Units of the files.")
@click.option(
    "--axes", type=click.Choice(["lps", "ras"]), required=True, prompt=True,
    help="Where the files' axes point: left, posterior, superior or right, anterior, superior.",
)  # fmt: skip
@click.option(
    "--breathing-phase", type=click.Choice(["end-expiration", "end-inspiration", "free-breathing", "unknown"]),
    required=True, prompt=True, help="When in the breath the patient was scanned.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The case folder to write.")
@PLUGIN_FILES
def case_import(
    source: Path, units: str, axes: str, breathing_phase: str, out: Path, plugins: tuple[Path, ...]
) -> None:
    """Import a patient's closed surfaces as a case.

    SOURCE is their folder: one VTK, STL, OBJ or PLY file for each structure, named after it (docs/case.md).
    """
    from rich.console import Console
    from rich.progress import Progress

    from twinguide.importing import import_case
    from twinguide.registry import Registry

    organs = Registry.load(plugins).organs()
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=1.0)

        def progress(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)
            if bar.disable:  # no terminal: a line each, so that a log tells how far it is
                click.echo(f"{share:4.0%}  {what}", err=True)

        report = import_case(
            source, out, units=units, axes=axes, breathing_phase=breathing_phase,  # pyright: ignore[reportArgumentType]
            organs=organs, progress=progress,
        )  # fmt: skip
    for row in report.rows:
        notes = "; ".join(row.repairs)
        click.echo(f"{row.structure:16} {row.triangles:7} triangles {row.volume_ml:9.1f} mL  {notes}")
    for name, text in (("laterality", report.laterality), ("body", report.body), ("plan", report.plan)):
        click.echo(f"{name}: {text}")
    click.echo(f"landmarks: {report.landmarks}; missing: {', '.join(report.missing) or 'nothing'}")
    if report.left_out:
        click.echo(f"left out, as no structure's word is in the name: {', '.join(report.left_out)}")
    click.echo(f"case written to {out}")


@case.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--stills", type=click.Path(path_type=Path), help="Where to put pictures (default: FOLDER/stills).")
def case_show(folder: Path, stills: Path | None) -> None:
    """Print a case as a table and draw it."""
    from rich.console import Console
    from rich.table import Table

    from twinguide.case import Case
    from twinguide.render.stills import draw_stills

    loaded = Case.load(folder)
    table = Table("structure", "role", "risk", "margin mm", "tolerance mm", "vertices", title=loaded.title)
    for name, s in loaded.structures.items():
        count = str(len(loaded.surface(name).vertices))
        table.add_row(name, s.role, s.risk, f"{s.margin_m * 1e3:g}", f"{s.tolerance_m * 1e3:g}", count)
    Console().print(table)
    for name, s in loaded.structures.items():
        if s.note:
            click.echo(f"{name}: {s.note}")
    plan = loaded.plan
    length_mm = 1e3 * sum((a - b) ** 2 for a, b in zip(plan.entry, plan.target, strict=True)) ** 0.5
    click.echo(f"laterality: {loaded.laterality}")
    click.echo(f"breathing phase: {loaded.breathing_phase}; units {loaded.source_units}, axes {loaded.source_axes}")
    click.echo(f"body: {loaded.body_note}")
    click.echo(f"missing: {', '.join(loaded.missing) or 'nothing'}")
    click.echo(f"plan: {length_mm:.0f} mm to {plan.target_structure}; {plan.note}")
    for path in draw_stills(loaded, stills or folder / "stills"):
        click.echo(f"drew {path}")


OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/session"), show_default=True,
    help="The session folder. The session that it holds is kept as its folder `previous`, the last one only.",
)  # fmt: skip
RUN_OPTIONS = [
    OUT,
    click.option("--seed", type=int, help="Seed of everything drawn by chance."),
    click.option("--seconds", type=float, help="Seconds of guidance."),
    click.option("--headset", type=click.Choice(["auto", "openxr", "simulated"]), help="openxr needs --clock real."),
    click.option("--clock", type=click.Choice(["real", "virtual"]), help="Real time; or lockstep, which repeats."),
    click.option("--draw-every", type=int, help="Draw every n-th frame (virtual clock)."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a key of the scenario, as loop.rate_hz=60; repeatable.",
    ),
    PLUGIN_FILES,
]


def run_options(command: Any) -> Any:  # noqa: ANN401 - click decorates what it likes
    """Give a command the options of a run."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


@main.command()
@click.argument("scenario")
@run_options
def run(scenario: str, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Run a scenario, and leave a session: recording, video, report.

    SCENARIO is a TOML file (docs/scenario.md), or the name of one that a plugin brings, as liver_puncture. It says what
    no option does. Ctrl-C ends the run; what was recorded is reported.
    """
    _run(scenario, **options)


@main.command()
@run_options
def demo(**options: Any) -> None:  # noqa: ANN401 - click's options
    """Guide a needle to a tumour in a breathing liver, all simulated.

    Short for `twinguide run liver_puncture`.
    """
    _run("liver_puncture", **options)


def _run(
    scenario: str,
    out: Path,
    settings: tuple[str, ...],
    plugins: tuple[Path, ...],
    draw_every: int | None,
    headset: str | None,
    **changed: object,
) -> None:
    from twinguide.app import run_scenario
    from twinguide.registry import Registry
    from twinguide.scenario import find, locate, overridden

    for number in ENDS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    registry = Registry.load(plugins)
    for plugin, why in registry.refused.items():
        click.echo(f"plugin {plugin} was refused: {why}", err=True)
    changes = [f"{key}={json.dumps(value)}" for key, value in changed.items() if value is not None]
    changes += [f'headset.backend="{headset}"'] if headset else []
    changes += [f"loop.draw_every={draw_every}"] if draw_every is not None else []
    file = locate(scenario, registry)
    laid_over = [*changes, *settings]
    ready = overridden(find(scenario, registry), laid_over, str(file))
    say = partial(_say, to=sys.stdout)  # whatever takes its place while the run lasts
    left = run_scenario(ready, registry, out, say=say, file=file, settings=laid_over)
    for number in ENDS:  # all is written, and Python restores the defaults some 0.3 s before its process is gone
        signal.signal(number, signal.SIG_IGN)
    say(left)


def _interrupt(_number: int, _frame: FrameType | None, ignored: int = 0) -> None:
    """End the run, once: people press Ctrl-C again, `timeout` sends its signal twice, a closed terminal several.

    Who goes on regardless, `REPEATS` times, ends what is still being written.
    """
    for number in ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, partial(_interrupt, ignored=(ignored or REPEATS + 1) - 1))
    if not ignored:
        raise KeyboardInterrupt


def _say(line: str, to: TextIO) -> None:
    with suppress(OSError):  # nobody listens any more: the session is still to be written
        click.echo(line, to)


@main.command()
@click.argument("session", type=click.Path(path_type=Path))
def report(session: Path) -> None:
    """Rebuild the summary, timing and report of a session's folder."""
    from twinguide.folder import being_written
    from twinguide.report import build_report

    if being_written(session):
        raise RecordingError(
            "a session that has ended", "one that a run still writes", str(session), "It reports itself at its end."
        )
    click.echo(f"wrote {build_report(session, say=click.echo)}")


@main.group()
def plugins() -> None:
    """Look at the plugins that are installed."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@PLUGIN_FILES
def plugins_list(as_json: bool, plugins: tuple[Path, ...]) -> None:
    """List plugins and the parts they declare."""
    from twinguide.registry import Registry

    registry = Registry.load(plugins)
    rows = [
        {"plugin": registry.plugin_of[name], "part": name, "kind": type(part).__name__, "placement": part.placement}
        for name, part in sorted(registry.parts.items(), key=lambda item: (registry.plugin_of[item[0]], item[0]))
    ]
    if as_json:
        click.echo(json.dumps({"parts": rows, "refused": registry.refused}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['plugin']:22} {row['part']:12} {row['kind']:9} {row['placement']}")
    for name, why in registry.refused.items():
        click.echo(f"{name:22} REFUSED: {why}")
