"""`twinguide igtl`: see what arrives, serve, replay a recording, and measure a device."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from twinguide.clock import MS

from .border import Names
from .client import Client
from .endpoints import PORT, Endpoint, Server
from .link import Arrival, Link
from .probing import ProbeReport, bytes_of, figures
from .replaying import Cue, played, read_recording
from .wire import (
    Capability,
    Command,
    Image,
    ImageMeta,
    NumberArray,
    Packet,
    Points,
    PolyData,
    Position,
    QuaternionTrackingData,
    Query,
    Reply,
    SensorData,
    StartTracking,
    Status,
    Text,
    TrackingData,
    Transform,
)
from .wire.packet import KNOWN_TYPES

HOST = click.option("--host", default="127.0.0.1", help="Where to connect, or the address to listen on.")
PORT_OPTION = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    help="The port; OpenIGTLink's own is 18944.",
)
LISTEN = click.option("--listen", is_flag=True, help="Wait for the other side to connect.")
SECONDS = click.option("--seconds", default=0.0, help="How long; 0: until Ctrl-C.")
POSITIVE = click.FloatRange(min=0.0, min_open=True)
REQUEST = click.option("--request", type=click.Choice(["TDATA", "QTDATA"]), help="Ask for it with STT_.")


@click.group(context_settings={"show_default": True})
def igtl() -> None:
    """Look at OpenIGTLink devices: PLUS, 3D Slicer, trackers."""


@contextmanager
def opened(host: str, port: int, *, listen: bool, request: str | None) -> Iterator[Endpoint]:
    """Open a server or a client that greets each peer with a request, polled by its own thread."""

    def on_link(link: Link) -> None:
        click.echo(f"{link.peer}: {'connected' if link.open else link.why}", err=True)
        if link.open and request:
            link.send(Packet(StartTracking(0, "", request), "", 0, 1).pack())

    try:
        endpoint = Server(port, host, on_link=on_link) if listen else Client(host, port, on_link=on_link)
    except OSError as error:
        raise click.ClickException(cannot_listen(host, port, error)) from error
    with endpoint:
        yield endpoint.start()


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return why a port cannot be had, and what to try."""
    taken = error.errno == errno.EADDRINUSE
    hint = "another program listens there; try another --port" if taken else "is --host an address of this machine?"
    return f"cannot listen on {host}:{port}: {error.strerror.partition(' (')[0] if error.strerror else error}: {hint}"


def until(seconds: float, step: Callable[[], object]) -> None:
    """Call `step` again and again for a time, until it says True, or until Ctrl-C."""
    end = time.monotonic() + seconds if seconds > 0.0 else math.inf
    try:
        while time.monotonic() < end and step() is not True:
            pass
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)


def silence(endpoint: Endpoint) -> str:
    """Return why nothing came, and what to try."""
    if endpoint.links:
        return "nothing came: connected, but the device is silent. Ask for data with --request TDATA."
    if isinstance(endpoint, Client):
        return f"nothing came: {endpoint.problem}. Is the device on? Try another --host or --port, or --listen."
    return "nothing came: nobody connected. Let the device connect as a client to this host and port."


def line_of(arrival: Arrival) -> str:
    """Return one message in one line."""
    packet = arrival.packet
    content = packet.content
    match content:
        case Transform():
            said = f"at {content.matrix_mm[:3, 3].round(2).tolist()} mm"
        case TrackingData() | QuaternionTrackingData():
            said = ", ".join(tool.name for tool in content.tools) or "no tool"
        case Status():
            said = f"{content.meaning}: {content.text}"
        case Text():
            said = content.text[:80]
        case Image():
            said = f"{content.voxels.shape} {content.voxels.dtype} in {content.axes}"
        case PolyData():
            said = f"{len(content.points_mm)} points, {len(content.triangles())} triangles"
        case Points():
            said = ", ".join(point.name for point in content.points)
        case Capability():
            said = ", ".join(content.types)
        case NumberArray():
            said = f"{content.values.shape} {content.values.dtype}"
        case SensorData():
            said = f"{[round(value, 6) for value in content.values]}"
        case Command():
            said = f"{content.id} {content.name}: {content.text}"
        case ImageMeta():
            said = ", ".join(f"{entry.name} ({entry.id})" for entry in content.images)
        case Position():
            said = f"at {[round(value, 2) for value in content.position_mm]} mm"
        case _:
            said = f"{len(bytes_of(content))} bytes"
    meta = f" {dict(packet.metadata)}" if packet.metadata else ""
    return printable(f"{packet.stamp_ns / 1e9:17.6f}  {content.type_name:11} {packet.device:20} {said}{meta}")


def printable(text: str) -> str:
    """Return text of a peer without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@igtl.command()
@HOST
@PORT_OPTION
@LISTEN
@SECONDS
@REQUEST
@click.option("--count", default=0, help="Stop after so many messages.")
def listen(host: str, port: int, listen: bool, seconds: float, request: str | None, count: int) -> None:
    """Print what arrives, one line a message: stamp, type, device, content."""
    seen = 0

    with opened(host, port, listen=listen, request=request) as endpoint:
        reader = endpoint.reader()

        def step() -> bool:
            nonlocal seen
            for arrival in reader.take(0.2):
                click.echo(line_of(arrival))
                seen += 1
                if seen == count:
                    return True
            return False

        until(seconds, step)
        if not seen:
            raise click.ClickException(silence(endpoint))


@igtl.command()
@HOST
@PORT_OPTION
@SECONDS
@click.option("--rate", type=POSITIVE, default=60.0, help="Frames a second.")
@click.option("--tools", default="Probe,Reference", help="Names, with commas.")
@click.option("--form", type=click.Choice(["TDATA", "TRANSFORM"]), default="TDATA", help="As which message.")
def serve(host: str, port: int, seconds: float, rate: float, tools: str, form: str) -> None:
    """Be a tracker: tools "ProbeToTracker" on circles of 50 mm."""
    on_wire = Names()
    names = [on_wire.of(f"{name.strip()}ToTracker") for name in tools.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("wanted at least one name", param_hint="--tools")
    if on_wire.cut:
        click.echo(f"names of more than 20 bytes are cut for the wire: {on_wire.cut}", err=True)
    begun, begun_ns = time.monotonic(), time.time_ns()

    def cues() -> Iterator[Cue]:
        count = 0
        while not seconds or count / rate < seconds:
            t_ns, tools = round(count * 1e9 / rate), circles(names, count / rate)
            if form == "TDATA":
                yield Cue(t_ns, Packet(tools, "Tracker", begun_ns + t_ns))
            else:
                yield from (Cue(t_ns, Packet(Transform(t.matrix_mm), t.name, begun_ns + t_ns)) for t in tools.tools)
            count += 1

    play(cues(), host, port, begun)


def circles(names: list[str], t_s: float) -> TrackingData:
    """Return tools [mm] on circles, each with a phase of its own, at a time [s]."""
    from .wire import Tool

    found: list[Tool] = []
    for i, name in enumerate(names):
        angle = 2.0 * math.pi * (t_s / 4.0 + i / len(names))
        matrix = np.eye(4)
        matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix[:3, 3] = (50.0 * math.cos(angle), 50.0 * math.sin(angle), -1000.0)
        found.append(Tool(name, matrix))
    return TrackingData(tuple(found))


@igtl.command()
@click.argument("recording", type=click.Path(path_type=Path, exists=True))
@HOST
@PORT_OPTION
@click.option("--speed", type=POSITIVE, default=1.0, help="1: as recorded.")
@click.option("--rate", type=POSITIVE, default=30.0, help="Frames a second of a sequence without time stamps.")
@click.option("--loop", is_flag=True, help="Begin again at the end.")
@click.option("--wait/--no-wait", default=True, help="Begin when somebody has connected.")
def replay(recording: Path, host: str, port: int, speed: float, rate: float, loop: bool, wait: bool) -> None:
    """Serve RECORDING: a sequence of PLUS or 3D Slicer (.igs.mha, .nrrd), a CSV of poses, or a session (MCAP)."""
    cues = read_recording(recording, rate)
    names = sorted({cue.packet.device for cue in cues})
    click.echo(f"{len(cues)} messages over {cues[-1].t_ns / 1e9:.1f} s: {', '.join(names)}")

    play(played(cues, speed, loop=loop), host, port, None if wait else time.monotonic())


def play(cues: Iterator[Cue], host: str, port: int, begun: float | None) -> None:
    """Send messages when they are due, answer queries; from `begun` [s], or from when somebody has connected."""
    paused: set[Link] = set()
    rests: dict[Link, int] = {}  # ns between frames of tools, where a link asked for some
    due: dict[Link, int] = {}

    def answer(arrival: Arrival) -> None:
        content = arrival.packet.content
        if isinstance(content, StartTracking):
            paused.discard(arrival.link)
            rests[arrival.link] = content.interval_ms * MS
            server.send(Packet(Reply(content.of), "", 0, 1), arrival.link)
        elif isinstance(content, Query) and content.do == "STP":
            paused.add(arrival.link)
            server.send(Packet(Reply(content.of), "", 0, 1), arrival.link)
        elif content == Query("GET", "CAPABILITY"):
            server.send(Packet(Capability(KNOWN_TYPES), "", 0, 1), arrival.link)
        elif content == Query("GET", "STATUS"):
            server.send(Packet(Status(1, 0, "OK", "serving"), "", 0, 1), arrival.link)

    def wants(link: Link, cue: Cue) -> bool:
        if isinstance(cue.packet.content, (TrackingData, QuaternionTrackingData)):
            if cue.t_ns < due.get(link, 0):
                return False
            due[link] = cue.t_ns + rests.get(link, 0)
        return link not in paused

    try:
        server = Server(port, host, on_arrival=answer)
    except OSError as error:
        raise click.ClickException(cannot_listen(host, port, error)) from error
    sent = 0
    try:
        with server.start():
            click.echo("serving at {}:{}".format(*server.address))
            while begun is None and not server.links:
                time.sleep(0.01)
            begun = begun or time.monotonic()
            for cue in cues:
                time.sleep(max(begun + cue.t_ns / 1e9 - time.monotonic(), 0.0))
                sent += sum(server.send(cue.packet, link) for link in server.links if wants(link, cue))
            time.sleep(0.2)  # what is queued still goes out
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
    click.echo(f"{sent} messages sent")


@igtl.command()
@HOST
@PORT_OPTION
@LISTEN
@REQUEST
@click.option("--seconds", default=10.0, help="How long to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(host: str, port: int, listen: bool, request: str | None, seconds: float, as_json: bool) -> None:
    """Measure a device: rate, jitter, loss, clock offset; say what to mend."""
    with opened(host, port, listen=listen, request=request) as endpoint:
        reader = endpoint.reader(1 << 20)
        kept: list[Arrival] = []
        until(seconds, lambda: kept.extend(reader.take(0.2)))
        if not kept and not any(link.decoder.refused for link in endpoint.links):
            raise click.ClickException(silence(endpoint))
        refused: dict[str, int] = {}
        for link in endpoint.links:
            refused |= link.decoder.refused
        report = figures(kept, refused, time.time_ns() - time.monotonic_ns())
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        show(report)


def show(report: ProbeReport) -> None:
    """Print a probe's report."""
    click.echo(f"{report.seconds:.1f} s")
    click.echo(f"{'type':11} {'device':20} {'count':>7} {'Hz':>7} {'p99 ms':>7} {'jitter':>7} {'lost':>6} {'kB':>8}")
    for s in report.streams:
        device = printable(s.device)
        click.echo(
            f"{s.type_name:11} {device:20} {s.count:7d} {s.rate_hz:7.1f} {s.interval_p99_ms:7.2f} {s.jitter_ms:7.2f} "
            f"{s.lost_share:6.1%} {s.kilobytes:8.1f}"
        )
    if report.clock is not None:
        c = report.clock
        kind = "UTC" if abs(c.to_utc_s) < 60.0 else "its own zero"
        click.echo(
            f"clock: {kind}, offset {c.offset_s:.4f} s +- {c.sigma_ms:.2f} ms (with the least latency in it), "
            f"drift {c.drift_ppm:+.1f} ppm"
        )
    for text in report.mend or ("nothing to mend",):
        click.echo(f"-> {printable(text)}")
