"""Feed mutated OpenIGTLink streams to the decoder: `python benchmarks/openigtlink_fuzz.py --count 1000000`.

Each stream is one or two messages, mutated, then a good one, in pieces of any size. Nothing may raise; what is accepted
must stand in the stream with a right CRC, found by another way; the good one must be read. The slowest stream is told.
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
from fastcrc import crc64

from twinguide_openigtlink import (
    Command,
    Decoder,
    Fiducial,
    Header,
    Image,
    NumberArray,
    Packet,
    Points,
    PolyData,
    SensorData,
    Status,
    Text,
    Tool,
    TrackingData,
    Transform,
)

HEADER_BYTES = 58
GOOD_NS = 1_234_567_890_123_456_789
MS = 1_000_000


def corpus() -> list[bytes]:
    """Return one message of each kind, in both header versions."""
    triangle = PolyData.of_triangles(np.eye(3), np.array([[0, 1, 2]]))
    contents = (
        Transform(np.eye(4)),
        TrackingData((Tool("Probe", np.eye(4)), Tool("Needle", np.eye(4)))),
        Status(1, 0, "OK", "ready"),
        Text("hello"),
        SensorData((1.0, 2.0)),
        NumberArray(np.arange(12, dtype="f4").reshape(3, 4)),
        Points((Fiducial("a", (1.0, 2.0, 3.0)),)),
        triangle,
        Image(np.zeros((2, 8, 8), dtype="u1"), np.eye(3), np.zeros(3)),
        Command(1, "Get", "<x/>"),
    )
    plain = [Packet(content, "Device", 1 + i, 1).pack() for i, content in enumerate(contents)]
    return plain + [Packet(c, "Device", 100 + i, 2, i, {"Status": "OK"}).pack() for i, c in enumerate(contents)]


def mutate(raw: bytes, other: bytes, random: Random) -> bytes:
    """Return a message damaged in one of nine ways."""
    data = bytearray(raw)
    at, length = random.randrange(len(data)), random.randint(1, 40)
    way = random.randrange(9)
    if way == 0:
        data[at] ^= 1 << random.randrange(8)
    elif way == 1:
        data[at : at + length] = random.randbytes(length)
    elif way == 2:
        del data[at : at + length]
    elif way == 3:
        data[at:at] = random.randbytes(length)
    elif way == 4:
        data[at:at] = data[at : at + length]
    elif way == 5:
        data = data[:at]
    elif way == 6:
        data[42:50] = struct.pack(">Q", random.choice((0, 1, 57, 200, 4000, 1 << 20, 1 << 31, 1 << 40, 2**64 - 1)))
    elif way == 7:
        data[58:70] = random.randbytes(12)
    else:
        data[at:at] = other
    return bytes(data)


def acceptable(stream: bytes) -> set[tuple[str, int]]:
    """Return type and stamp of everything in a stream that has a right CRC, whatever it stands in."""
    found = set[tuple[str, int]]()
    at = stream.find(b"\0")
    while 0 <= at <= len(stream) - HEADER_BYTES:
        header = Header.unpack(stream[at : at + HEADER_BYTES])
        body = stream[at + HEADER_BYTES : at + HEADER_BYTES + min(header.body_size, len(stream))]
        if header.version in (1, 2) and len(body) == header.body_size and crc64.ecma_182(body) == header.crc:
            found.add((header.type, header.stamp_ns))
        at = stream.find(b"\0", at + 1)
    return found


def fuzz(count: int, seed: int) -> dict[str, float]:
    """Return what came of `count` mutated streams."""
    random, messages = Random(seed), corpus()
    good = Packet(Transform(np.eye(4)), "Good", GOOD_NS, 2).pack()
    figures = dict.fromkeys(("good_missed", "accepted_with_wrong_crc", "damaged_refused", "accepted"), 0)
    slowest = 0.0
    begun = time.perf_counter()
    for _ in range(count):
        parts = [mutate(random.choice(messages), random.choice(messages), random) for _ in range(random.randint(1, 2))]
        stream = b"".join(parts) + good
        decoder, read, at = Decoder(), list[Packet](), 0
        started = time.perf_counter()
        while at < len(stream):
            size = random.randint(1, 2 * len(stream))
            read += decoder.feed(stream[at : at + size], 0)
            at += size
        for waited_ms in (60, 120, 180):  # each damaged size may cost one patience
            read += decoder.feed(b"", waited_ms * MS)
        slowest = max(slowest, time.perf_counter() - started)
        right = acceptable(stream)
        stamps = {(p.content.type_name, p.stamp_ns) for p in read}
        figures["accepted"] += len(read)
        figures["accepted_with_wrong_crc"] += len(stamps - right)
        figures["good_missed"] += not read or read[-1].stamp_ns != GOOD_NS
        figures["damaged_refused"] += bool(decoder.refused)
    seconds = time.perf_counter() - begun
    return {"streams": count, "seconds": seconds, "slowest_ms": slowest * 1e3, **figures}


def _mutate_share(job: tuple[int, int]) -> dict[str, float]:
    return fuzz(*job)


def main() -> None:
    """Fuzz, in as many processes as asked for, and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the figures, beside those of other seeds")
    a = parser.parse_args()
    jobs = [(a.count // a.processes, a.seed + i) for i in range(a.processes)]
    with ProcessPoolExecutor(a.processes) as pool:
        shares = list(pool.map(_mutate_share, jobs))
    found = {str(a.seed): total_of(shares)}
    if a.out is not None:
        found = (json.loads(a.out.read_text())["seeds"] if a.out.is_file() else {}) | found
        a.out.write_text(json.dumps({"total": total_of(list(found.values())), "seeds": found}, indent=2) + "\n")
    print(json.dumps(total_of(list(found.values())), indent=2))


def total_of(shares: list[dict[str, float]]) -> dict[str, float]:
    """Return the sums of several runs, and the slowest stream of all."""
    return {key: (max if key == "slowest_ms" else sum)(share[key] for share in shares) for key in shares[0]}


if __name__ == "__main__":
    main()
