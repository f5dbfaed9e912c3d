"""The command line: look at the machine, import a case, run a scenario, report on a session."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from typing import Any

import click

from twinguide.calibrating.commands import calibrate
from twinguide.ending import heed, ignore, leave
from twinguide.errors import PluginError, RecordingError, TwinGuideError

LONG = 200  # characters of either end of what the system tells
PHASES = ("end-expiration", "end-inspiration", "free-breathing", "unknown")
PATH = click.Path(path_type=Path)
PLUGIN_FILES = click.option(
    "--plugin", "plugins", multiple=True, type=PATH,
    help="A plugin's Python file, beside the installed ones; repeatable.",
)  # fmt: skip


class Main(click.Group):
    """The program: its own commands, and those that plugins bring, imported only when asked for."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run, and end with one clear line and exit status 1 where TwinGuide or the system refuses something."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):  # click ends by them
            raise
        except (TwinGuideError, OSError, ValueError, RuntimeError) as error:
            if sys.flags.dev_mode and not isinstance(error, TwinGuideError):
                raise
            click.echo(f"{type(error).__name__}: {_told(error, f'twinguide {ctx.invoked_subcommand}')}", err=True)
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands; a plugin cannot take one of ours."""
        from twinguide.registry import Registry

        return [*super().list_commands(ctx), *sorted(set(Registry.load().commands) - set(self.commands))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, or of the plugin that brings it, which says why where it cannot be had."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        from twinguide.registry import Registry

        make = Registry.load().commands.get(cmd_name)
        if make is None:
            return None
        try:
            return _brought(cmd_name, make)
        except PluginError as error:  # raised again where it is called: the help of all others must not end with it
            anything = {"ignore_unknown_options": True, "allow_extra_args": True}
            again = partial(_brought, cmd_name, make)
            return click.Command(cmd_name, anything, again, short_help=f"Broken: {error}")


def _told(error: Exception, where: str) -> str:
    if isinstance(error, TwinGuideError):
        return str(error)
    got = str(error) if len(str(error)) <= 2 * LONG else f"{str(error)[:LONG]} ... {str(error)[-LONG:]}"
    return str(TwinGuideError(
        "files and values that can be used", got, where,
        "Check the paths given, and the folder that it is called in. Or it is a fault of TwinGuide or a plugin: "
        "with PYTHONDEVMODE=1 in the environment a traceback tells where. " + " ".join(getattr(error, "__notes__", ())),
    ))  # fmt: skip


def _brought(name: str, make: str) -> click.Command:
    """Return the command that a plugin brings; raise PluginError where it is none."""
    from twinguide.registry import resolve

    command = resolve(make, f"command {name}")
    if not isinstance(command, click.Command):
        raise PluginError("a click command", type(command).__name__, make)
    return command


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
            remedy = f"\n       -> {check.remedy}" if check.remedy else ""
            click.echo(f"{check.state:5}  {check.name}: {check.found}{remedy}")
    sys.exit(any(check.state == "fault" for check in checks))


@main.group()
def case() -> None:
    """Import a patient's surfaces, and look at a case."""


def choice(name: str, told: str, *choices: str) -> Callable[[Any], Any]:
    """Give a command an option that must be given, and is asked for where it is not."""
    return click.option(name, type=click.Choice(choices), required=True, prompt=True, help=told)


@case.command("import")
@click.argument("source", type=PATH)
@choice("--units", "Units of the files.", "mm", "m")
@choice("--axes", "Where the files' axes point: left, posterior, superior or right, anterior, superior.", "lps", "ras")
@choice("--breathing-phase", "When in the breath the patient was scanned.", *PHASES)
@click.option("--out", type=PATH, required=True, help="The case folder to write.")
@PLUGIN_FILES
def case_import(source: Path, out: Path, plugins: tuple[Path, ...], **given: Any) -> None:  # noqa: ANN401 - click's
    """Import a patient's closed surfaces as a case.

    SOURCE is their folder: one VTK, STL, OBJ or PLY file for each structure, named after it (docs/case.md).
    """
    from rich.console import Console
    from rich.progress import Progress

    from twinguide.importing import import_case
    from twinguide.registry import Registry

    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=1.0)

        def progress(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)
            if bar.disable:  # no terminal: a line each, so that a log tells how far it is
                click.echo(f"{share:4.0%}  {what}", err=True)

        report = import_case(source, out, organs=Registry.load(plugins).organs(), progress=progress, **given)
    for row in report.rows:
        click.echo(f"{row.structure:16} {row.triangles:7} triangles {row.volume_ml:9.1f} mL  {'; '.join(row.repairs)}")
    for name, text in (("laterality", report.laterality), ("body", report.body), ("plan", report.plan)):
        click.echo(f"{name}: {text}")
    click.echo(f"landmarks: {report.landmarks}; missing: {', '.join(report.missing) or 'nothing'}")
    if report.left_out:
        click.echo(f"left out, as no structure's word is in the name: {', '.join(report.left_out)}")
    click.echo(f"case written to {out}")


@case.command("show")
@click.argument("folder", type=PATH)
@click.option("--stills", type=PATH, help="Where to put pictures (default: FOLDER/stills).")
def case_show(folder: Path, stills: Path | None) -> None:
    """Print a case as a table and draw it."""
    from rich.console import Console
    from rich.table import Column, Table

    from twinguide.case import Case
    from twinguide.importing.planning import obstacles_of, told
    from twinguide.render.stills import draw_stills

    loaded = Case.load(folder)
    others = [Column(key, overflow="fold") for key in ("role", "risk", "margin mm", "tolerance mm", "vertices")]
    table = Table(Column("structure", no_wrap=True), *others, title=loaded.title, box=None, padding=(0, 1, 0, 0))
    for name, s in loaded.structures.items():
        count = str(len(loaded.surface(name).vertices))
        table.add_row(name, s.role, s.risk, f"{s.margin_m * 1e3:g}", f"{s.tolerance_m * 1e3:g}", count)
    Console().print(table)
    for name, s in loaded.structures.items():
        if s.note:
            click.echo(f"{name}: {s.note}")
    click.echo(f"laterality: {loaded.laterality}")
    click.echo(f"breathing phase: {loaded.breathing_phase}; units {loaded.source_units}, axes {loaded.source_axes}")
    click.echo(f"body: {loaded.body_note}")
    click.echo(f"missing: {', '.join(loaded.missing) or 'nothing'}")
    click.echo(f"plan: {told(loaded.plan, obstacles_of(loaded))}")
    for path in draw_stills(loaded, stills or folder / "stills"):
        click.echo(f"drew {path}")


RUN_OPTIONS = [
    click.option(
        "--out", type=PATH, default=Path("out/session"), show_default=True,
        help="The session folder. The session that it holds is kept as its folder `previous`, the last one only.",
    ),
    click.option("--seed", type=int, help="Seed of everything drawn by chance."),
    click.option("--seconds", type=float, help="Seconds of guidance."),
    click.option("--headset", type=click.Choice(["auto", "openxr", "simulated"]), help="openxr needs --clock real."),
    click.option("--clock", type=click.Choice(["real", "virtual"]), help="Real time; or lockstep, which repeats."),
    click.option("--draw-every", type=int, help="Draw every n-th frame (virtual clock)."),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE",
        help="Set a key of the scenario, as loop.rate_hz=60; repeatable.",
    ),
    PLUGIN_FILES,
]  # fmt: skip
KEYS = {"headset": "headset.backend", "draw_every": "loop.draw_every"}  # option -> the scenario's key, where not alike


def run_options(command: Any) -> Any:  # noqa: ANN401 - click decorates what it likes
    """Give a command the options of a run."""
    return reduce(lambda given, option: option(given), reversed(RUN_OPTIONS), command)


@main.command()
@click.argument("scenario")
@run_options
def run(scenario: str, out: Path, settings: tuple[str, ...], plugins: tuple[Path, ...], **given: object) -> None:
    """Run a scenario, and leave a session: recording, video, report.

    SCENARIO is a TOML file (docs/scenario.md), or the name of one that a plugin brings, as liver_puncture. It says what
    no option does. Ctrl-C ends the run; what was recorded is reported.
    """
    from twinguide.app import run_scenario
    from twinguide.registry import Registry
    from twinguide.scenario import find, locate, overridden

    heeded = heed()
    registry = Registry.load(plugins)
    for plugin, why in registry.refused.items():
        click.echo(f"plugin {plugin} was refused: {why}", err=True)
    changes = [f"{KEYS.get(name, name)}={json.dumps(value)}" for name, value in given.items() if value is not None]
    file, laid_over = locate(scenario, registry), [*changes, *settings]
    ready = overridden(find(scenario, registry), laid_over, str(file))

    def say(line: str) -> None:
        with suppress(OSError):  # nobody listens any more: the session is still to be written
            click.echo(line)

    left = run_scenario(ready, registry, out, say=say, file=file, settings=laid_over)
    ignore(heeded)
    say(left)
    leave(heeded)


@main.command()
@run_options
@click.pass_context
def demo(ctx: click.Context, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Guide a needle to a tumour in a breathing liver, all simulated: `twinguide run liver_puncture`."""
    ctx.invoke(run, scenario="liver_puncture", **options)


@main.command()
@click.argument("session", type=PATH)
def report(session: Path) -> None:
    """Rebuild the summary, timing and report of a session's folder."""
    from twinguide.folder import being_written
    from twinguide.report import build_report

    if being_written(session):
        got = "one that a run still writes"
        raise RecordingError("a session that has ended", got, str(session), "It reports itself at its end.")
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
