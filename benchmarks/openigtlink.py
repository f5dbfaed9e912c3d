"""OpenIGTLink on this machine, side by side with pyigtl and the bare socket: `python benchmarks/openigtlink.py`.

Round trips of a pose, streams without a loss, the CRC. Each peer is a process of its own on the loopback. Results go to
`benchmarks/results/openigtlink.json`; `--seconds` is the length of each stream. What pictures and surfaces cost the
engine's loop is measured by `openigtlink_loop.py`, what the wire costs in accuracy by `openigtlink_scenario.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fastcrc import crc64

from twinguide_openigtlink import Client, Packet, Server, Transform

OUT = Path(__file__).parent / "results" / "openigtlink.json"
SPAWN = mp.get_context("spawn")
POSE = np.eye(4)


def main() -> None:
    """Run what was asked for, print it, and keep it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("crc", "round-trips", "streams"), help="leave the rest as it was")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each stream of poses")
    parser.add_argument("--round-trips", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=OUT)
    a = parser.parse_args()
    results: dict[str, Any] = json.loads(a.out.read_text()) if a.out.is_file() else {}
    results["machine"] = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if a.only in (None, "crc"):
        results["crc"] = crc()
    if a.only in (None, "round-trips"):
        results["round_trip_ms"] = {
            "socket": round_trips(echo_socket, ask_socket, a.round_trips),
            "twinguide": round_trips(echo_ours, ask_ours, a.round_trips),
            "pyigtl": round_trips(echo_pyigtl, ask_pyigtl, max(a.round_trips // 25, 50)),
        }
    if a.only in (None, "streams"):
        results["one_stream_1_khz"] = stream(1, 1000.0, a.seconds)
        results["thirty_transforms_100_hz"] = stream(30, 100.0, a.seconds)
    a.out.parent.mkdir(exist_ok=True)
    a.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def processor() -> str:
    """Return the processor's name, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def crc() -> dict[str, float]:
    """Return the CRC-64's speed on 1 MB and its time on a pose."""
    block, pose = os.urandom(1 << 20), os.urandom(48)
    begun = time.perf_counter()
    for _ in range(200):
        crc64.ecma_182(block)
    large = 200 * len(block) / (time.perf_counter() - begun) / 1e6
    begun = time.perf_counter()
    for _ in range(100_000):
        crc64.ecma_182(pose)
    return {"megabytes_per_s": large, "pose_us": (time.perf_counter() - begun) * 10.0}


# ---- round trips ----------------------------------------------------------------------------------------------------


def round_trips(
    serve: Callable[[Connection], None], ask: Callable[[int, int], list[float]], count: int
) -> dict[str, float]:
    """Return percentiles [ms] of asking a serving process."""
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        times = np.array(ask(mine.recv(), count)[count // 10 :])
    finally:
        process.kill()
        process.join()
    return {
        "p50": float(np.median(times)),
        "p99": float(np.percentile(times, 99)),
        "max": float(times.max()),
        "n": len(times),
    }


def echo_ours(pipe: Connection) -> None:
    """Send back what comes, over our server."""
    with Server(0, on_arrival=lambda a: server.send(a.packet, a.link)) as server:
        pipe.send(server.address[1])
        while True:
            server.poll(1.0)


def ask_ours(port: int, count: int) -> list[float]:
    """Return round trips [ms] of our client."""
    times: list[float] = []
    with Client(port=port) as client:
        assert client.connect()
        for i in range(count):
            begun = time.perf_counter()
            client.send(Packet(Transform(POSE), "Tool", 1 + i, 1))
            assert client.receive(5.0) is not None
            times.append((time.perf_counter() - begun) * 1e3)
    return times


def echo_socket(pipe: Connection) -> None:
    """Send back what comes, over a bare blocking socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pipe.send(listening.getsockname()[1])
        sock, _ = listening.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := sock.recv(4096):
            sock.sendall(data)


def ask_socket(port: int, count: int) -> list[float]:
    """Return round trips [ms] of the bytes of a pose over a bare blocking socket."""
    raw, times = Packet(Transform(POSE), "Tool", 1, 1).pack(), list[float]()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            begun = time.perf_counter()
            sock.sendall(raw)
            left = len(raw)
            while left:
                left -= len(sock.recv(left))
            times.append((time.perf_counter() - begun) * 1e3)
    return times


def echo_pyigtl(pipe: Connection) -> None:
    """Send back what comes, over pyigtl's server."""
    import pyigtl

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = pyigtl.OpenIGTLinkServer(port=port)
    pipe.send(port)
    while True:
        message = server.wait_for_message("Tool", timeout=5)
        if message is not None:
            server.send_message(message, wait=False)


def ask_pyigtl(port: int, count: int) -> list[float]:
    """Return round trips [ms] of pyigtl's client."""
    import pyigtl

    client = pyigtl.OpenIGTLinkClient("127.0.0.1", port)
    times: list[float] = []
    try:
        while not client.is_connected():
            time.sleep(0.01)
        for i in range(count):
            begun = time.perf_counter()
            client.send_message(pyigtl.TransformMessage(POSE, device_name="Tool", timestamp=1 + i), wait=False)
            assert client.wait_for_message("Tool", timeout=5) is not None
            times.append((time.perf_counter() - begun) * 1e3)
    finally:
        client.stop()
    return times


# ---- streams --------------------------------------------------------------------------------------------------------


def send_poses(pipe: Connection, tools: int, rate_hz: float, seconds: float) -> None:
    """Send poses on time, stamped by the shared monotonic clock, once somebody listens."""
    with Server(0) as server:
        server.start()
        pipe.send(server.address[1])
        pipe.recv()
        begun, count = time.monotonic_ns(), round(rate_hz * seconds)
        for i in range(count):
            time.sleep(max((begun + round(i * 1e9 / rate_hz) - time.monotonic_ns()) * 1e-9, 0.0))
            for k in range(tools):
                server.send(Packet(Transform(POSE), f"Tool{k}", time.monotonic_ns(), 1))
        pipe.send((count * tools, sum(link.dropped for link in server.links)))
        pipe.recv()


def stream(tools: int, rate_hz: float, seconds: float) -> dict[str, float]:
    """Return loss and one-way latency [ms] of poses from another process."""
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=send_poses, args=(theirs, tools, rate_hz, seconds), daemon=True)
    process.start()
    with Client(port=mine.recv()) as client:
        reader = client.reader()
        client.start()
        assert client.connect()
        mine.send("go")
        delays: list[float] = []
        while not mine.poll():
            delays += [(a.t_ns - a.packet.stamp_ns) * 1e-6 for a in reader.take(0.05)]
        sent, dropped = mine.recv()
        until = time.monotonic() + 1.0
        while len(delays) < sent and time.monotonic() < until:
            delays += [(a.t_ns - a.packet.stamp_ns) * 1e-6 for a in reader.take(0.05)]
        mine.send("done")
    process.join()
    p50, p99 = np.percentile(delays, [50, 99]).tolist()
    return {
        "seconds": seconds, "sent": sent, "received": len(delays), "lost": sent - len(delays), "dropped": dropped,
        "boxed_lost": reader.lost, "one_way_p50": p50, "one_way_p99": p99, "one_way_max": max(delays),
    }  # fmt: skip


if __name__ == "__main__":
    main()
