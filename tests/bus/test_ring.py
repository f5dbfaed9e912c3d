from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import msgspec
import numpy as np
import pytest

from twinguide.bus.ring import HEAD, SLOTS, RingReader, RingShelf, RingWriter
from twinguide.errors import BusError
from twinguide.messages import BulkRef


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (0, 3), (2, 3, 4)])
def test_an_array_comes_back_as_it_was(tmp_path, dtype, shape):
    values = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    ref = RingWriter(tmp_path / "r", 4096).write(values)
    back = RingReader(tmp_path).read(ref)
    assert back is not None
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert np.array_equal(back, values)


def test_an_array_stands_until_as_many_slots_were_written_again(tmp_path):
    writer, reader = RingWriter(tmp_path / "r", 80), RingReader(tmp_path)
    refs = [writer.write(np.full(10, k, dtype="f8")) for k in range(SLOTS)]
    assert [reader.read(ref)[0] for ref in refs] == list(range(SLOTS))
    writer.write(np.full(10, 99.0))
    assert reader.read(refs[0]) is None
    assert reader.read(refs[1])[0] == 1


def test_a_copy_that_was_overtaken_is_dropped(tmp_path, monkeypatch):
    """Plant the race: the writer comes round to the slot between the reader's copy and its second look."""
    writer, reader = RingWriter(tmp_path / "r", 80), RingReader(tmp_path)
    ref = writer.write(np.zeros(10))
    frombuffer = np.frombuffer

    def slow(*arguments):
        view = frombuffer(*arguments)
        for k in range(SLOTS):
            writer.write(np.full(10, float(k + 1)))
        return view

    from twinguide.bus import ring

    monkeypatch.setattr(ring.np, "frombuffer", lambda *a: slow(*a) if a[0] is reader._maps["r"][0] else frombuffer(*a))
    assert reader.read(ref) is None


WRITER = """
    import sys, numpy as np, msgspec
    from pathlib import Path
    from twinguide.bus.ring import RingWriter
    writer = RingWriter(Path(sys.argv[1]), 8 * 2**20)
    k = 0
    while True:
        k += 1
        ref = writer.write(np.full(2**20, float(k)))
        sys.stdout.buffer.write(msgspec.json.encode(ref) + b"\\n")
        sys.stdout.buffer.flush()
"""


def test_no_torn_array_is_ever_returned_and_a_killed_writer_leaves_the_older_ones(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "r")], stdout=subprocess.PIPE
    )
    reader, whole, overtaken, newest = RingReader(tmp_path), 0, 0, None
    until = time.monotonic() + 1.5
    assert process.stdout is not None
    while time.monotonic() < until:
        newest = msgspec.json.decode(process.stdout.readline(), type=BulkRef)
        values = reader.read(newest)
        if values is None:
            overtaken += 1
        else:
            assert values.min() == values.max()
            whole += 1
    assert whole + overtaken > 10
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for line in process.stdout:
        newest = msgspec.json.decode(line, type=BulkRef)
    process.stdout.close()
    values = reader.read(newest)
    assert values is not None  # the writer may have died in the next slot; this one stands
    assert values.min() == values.max()


def test_a_slot_left_half_written_is_not_read(tmp_path):
    writer, reader = RingWriter(tmp_path / "r", 80), RingReader(tmp_path)
    ref = writer.write(np.zeros(10))
    with (tmp_path / "r").open("r+b") as file:  # a writer that died in slot 0, version SLOTS
        file.seek(HEAD)
        file.write((2 * SLOTS + 1).to_bytes(8, "little"))
    assert reader.read(ref) is None
    assert reader.read(msgspec.structs.replace(ref, version=SLOTS)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"ring": "../../etc/passwd"},
        {"slot": 99},
        {"slot": -1},
        {"shape": (10**9,)},
        {"shape": (-1, 4)},
        {"dtype": "O"},
        {"dtype": "nonsense"},
        {"dtype": "f8,"},
        {"dtype": "f4\x00"},
        {"shape": (0, 10**30)},
    ],
)
def test_an_impossible_reference_is_refused(tmp_path, change):
    ref = RingWriter(tmp_path / "r", 80).write(np.zeros(10))
    with pytest.raises(BusError):
        RingReader(tmp_path).read(msgspec.structs.replace(ref, **change))


def test_a_missing_ring_is_nothing_and_a_file_of_another_kind_is_refused(tmp_path):
    ref = BulkRef("r", 0, 0, "<f8", (1,))
    assert RingReader(tmp_path).read(ref) is None
    for content in (bytes(4096), bytes(8), b""):
        (tmp_path / "r").write_bytes(content)
        with pytest.raises(BusError, match="another kind"):
            RingReader(tmp_path).read(ref)


def test_a_larger_array_gets_a_larger_ring_and_files_are_private(tmp_path):
    shelf, early, late = RingShelf(tmp_path / "rings", "part", 1), *(RingReader(tmp_path / "rings") for _ in range(2))
    small = shelf.write("v", np.zeros(3))
    assert early.read(small).sum() == 0
    large = shelf.write("v", np.ones(10_000))
    assert small.ring != large.ring
    assert early.read(small).sum() == 0  # it has the ring open
    assert late.read(small) is None  # gone, as if overwritten
    assert early.read(large).sum() == late.read(large).sum() == 10_000
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "rings").iterdir()} == {0o600}


def test_arrays_that_grow_leave_one_ring_and_seldom_ask_for_another(tmp_path):
    shelf, reader = RingShelf(tmp_path / "rings", "part", 1), RingReader(tmp_path / "rings")
    shelf.write("other", np.zeros(3))
    refs = [shelf.write("v", np.full((n, 3), float(n))) for n in range(1000, 3000, 100)]
    assert reader.read(refs[-1])[0, 0] == 2900.0
    assert len(list((tmp_path / "rings").iterdir())) == 2
    assert len({ref.ring for ref in refs}) == 4  # 1000, 1500, 2250, 3375 rows


def test_objects_are_not_shared(tmp_path):
    with pytest.raises(BusError):
        RingWriter(tmp_path / "r", 80).write(np.array([object()]))
