"""The recorder and the playback: what goes in comes out, whatever happens in between."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from twinguide.bus.catalogue import Catalogue, Header
from twinguide.clock import MS
from twinguide.errors import RecordingError
from twinguide.messages import Ack, Array, BulkRef, Gate, Message
from twinguide.playback import Recording, read
from twinguide.recording import BROKEN_OFF, BulkCopy, Recorder, segments

CATALOGUE = Catalogue()
GATE, ACK = "twinguide.gate/1", "twinguide.ack/1"


class Foreign(Message, frozen=True, tag="acme.foreign/1"):
    force_n: float


def header(seq: int, tag: str = GATE, *, source: str = "breathing", boot: int = 1, number: int = 0) -> Header:
    return Header(tag, source, boot, seq, seq * MS, number)


def gate(seq: int) -> bytes:
    return CATALOGUE.encode(Gate(t_ns=seq * MS, open=bool(seq % 2), reason=f"sample {seq}"))


def record_gates(folder: Path, count: int) -> Recorder:
    recorder = Recorder(folder, CATALOGUE)
    for seq in range(count):
        recorder.write("v1/stream/breathing/gate", header(seq, number=3 * seq), gate(seq))
    return recorder


def test_every_message_comes_back_with_its_header(tmp_path):
    recorder = record_gates(tmp_path, 500)
    recorder.write(
        "v1/stream/loop/ack", header(7, ACK, source="loop", boot=4), CATALOGUE.encode(Ack(id="a", accepted=True))
    )
    recorder.close()
    back = list(read(tmp_path))
    assert [r.message for r in back[:500]] == [CATALOGUE.decode(GATE, gate(seq)) for seq in range(500)]
    assert [(r.source, r.boot, r.seq, r.round, r.t_pub_ns) for r in back[:500]] == [
        ("breathing", 1, seq, 3 * seq, seq * MS) for seq in range(500)
    ]
    assert (back[500].topic, back[500].tag, back[500].boot) == ("v1/stream/loop/ack", ACK, 4)
    assert recorder.failed == ""


def test_other_tools_read_the_file_without_our_code(tmp_path):
    record_gates(tmp_path, 20).close()
    with (tmp_path / "session.mcap").open("rb") as file:
        rows = list(make_reader(file).iter_messages())
    schema, channel, message = rows[5]
    assert (schema.encoding, channel.message_encoding) == ("jsonschema", "msgpack")
    assert "reason" in msgspec.json.decode(schema.data)["$defs"]["Gate"]["properties"]
    assert msgpack.unpackb(message.data)["reason"] == "sample 5"


def test_a_type_that_nobody_knows_is_kept_and_read_as_its_fields(tmp_path):
    recorder = Recorder(tmp_path, CATALOGUE)
    recorder.write("v1/stream/acme/force", header(0, "acme.foreign/1"), CATALOGUE.encode(Foreign(t_ns=5, force_n=2.5)))
    recorder.write("v1/stream/acme/noise", header(1, "acme.noise/1"), b"\xc1")
    recorder.close()
    force, noise = read(tmp_path)
    assert force.message == {"type": "acme.foreign/1", "t_ns": 5, "force_n": 2.5}
    assert noise.message == b"\xc1"
    assert next(read(tmp_path, Catalogue([Foreign]))).message == Foreign(t_ns=5, force_n=2.5)


def test_arrays_are_kept_at_the_stated_rate(tmp_path):
    recorder = Recorder(tmp_path, CATALOGUE, bulk_hz=2.0)
    vertices = np.arange(30_000, dtype="f4").reshape(-1, 3)
    ref = BulkRef("fem", 0, 2, "<f4", vertices.shape)
    for step in range(90):  # 90 Hz for one second
        told = Header("twinguide.solution/1", "fem", 1, step, step * 1_000_000_000 // 90)
        recorder.write_bulk("v1/bulk/fem/solution", told, ref, vertices + step)
    recorder.close()
    copies = [r.message for r in read(tmp_path)]
    assert [type(copy) for copy in copies] == [BulkCopy, BulkCopy]
    assert copies[1].t_ns == 500_000_000
    np.testing.assert_array_equal(copies[1].values.numpy(), vertices + 45)
    assert isinstance(copies[1].values, Array)


def test_all_arrays_of_one_message_are_kept_together(tmp_path):
    recorder = Recorder(tmp_path, CATALOGUE, bulk_hz=2.0)
    for step in range(3):
        told = Header("twinguide.solution/1", "fem", 1, step, step * 100_000_000)
        for ring in ("vertices", "sigma"):
            recorder.write_bulk("v1/bulk/fem/solution", told, BulkRef(ring, 0, 2, "<f4", (2,)), np.ones(2, dtype="f4"))
    recorder.close()
    assert [r.message.ref.ring for r in read(tmp_path)] == ["vertices", "sigma"]


def test_what_never_came_is_counted_and_a_restart_is_no_loss(tmp_path):
    recorder = Recorder(tmp_path, CATALOGUE)
    for boot, seq in ((1, 10), (1, 11), (1, 15), (2, 0), (2, 2)):
        recorder.write("v1/stream/breathing/gate", header(seq, boot=boot), gate(seq))
    recorder.close()
    assert recorder.drops == {"breathing": 4}


def test_metadata_of_the_run_comes_back(tmp_path):
    recorder = record_gates(tmp_path, 3)
    recorder.metadata({"seed": 7, "scenario": "demo", "plugins": {"tracker": "twinguide_tracker"}})
    recorder.close()
    recording = Recording(tmp_path)
    assert len(list(recording)) == 3
    assert recording.metadata == {"seed": 7, "scenario": "demo", "plugins": {"tracker": "twinguide_tracker"}}
    assert recording.damage == []


class Gridded(Message, frozen=True, kw_only=True, tag="acme.gridded/1"):
    cells: dict[tuple[int, int], float]
    extra: msgspec.msgpack.Ext | None = None


def test_a_type_that_no_json_schema_can_tell_is_kept_all_the_same(tmp_path):
    catalogue = Catalogue([Gridded])
    recorder = Recorder(tmp_path, catalogue)
    for seq in (1, 2):
        told = Gridded(t_ns=seq, cells={(1, seq): 0.5})
        recorder.write("v1/stream/acme/grid", header(seq, "acme.gridded/1"), catalogue.encode(told))
    recorder.close()
    assert recorder.failed == ""
    assert [r.message.cells for r in Recording(tmp_path, catalogue)] == [{(1, 1): 0.5}, {(1, 2): 0.5}]


def test_a_second_recorder_continues_in_the_next_segment(tmp_path):
    for _ in range(3):
        record_gates(tmp_path, 10).close()
    assert [p.name for p in segments(tmp_path)] == ["session.mcap", "session-2.mcap", "session-3.mcap"]
    assert len(list(read(tmp_path))) == 30


def test_a_time_that_no_file_can_hold_costs_one_message(tmp_path):
    recorder = Recorder(tmp_path, CATALOGUE)
    recorder.write("v1/stream/breathing/gate", Header(GATE, "breathing", 1, 0, -5), gate(0))
    recorder.write("v1/stream/breathing/gate", header(1), gate(1))
    recorder.close()
    assert (recorder.withheld, recorder.failed, len(list(read(tmp_path)))) == (1, "", 1)


# ---- kill -9 --------------------------------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
from twinguide.bus.catalogue import Catalogue, Header
from twinguide.messages import Gate
from twinguide.recording import Recorder
catalogue = Catalogue()
recorder = Recorder(Path(sys.argv[1]), catalogue)
recorder.metadata({"seed": 3})
seq = 0
while True:
    stamp = time.monotonic_ns()
    payload = catalogue.encode(Gate(t_ns=stamp, open=True, reason=f"sample {seq}"))
    recorder.write("v1/stream/breathing/gate", Header("twinguide.gate/1", "breathing", 1, seq, stamp), payload)
    recorder.tick()
    print(stamp, flush=True)
    seq += 1
    time.sleep(0.002)
"""


def test_a_killed_recorder_loses_at_most_a_quarter_of_a_second(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    lines = [child.stdout.readline() for _ in range(400)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.read().split()
    child.wait()
    written = [int(line) for line in lines if line.strip()]
    back = list(read(tmp_path))
    assert [r.seq for r in back] == list(range(len(back)))
    assert [r.t_pub_ns for r in back] == written[: len(back)]
    # the bound is 0.25 s from one sync to the next; the sync itself may take 75 ms on a busy disk
    assert written[-1] - back[-1].t_pub_ns <= 0.25e9 + 0.1e9
    recording = Recording(tmp_path)
    assert list(recording)
    assert recording.metadata == {"seed": 3}


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0.0, 1.0))
@example(cut=0.0001)  # the magic and no footer: the index reader seeks before the start
def test_a_file_torn_anywhere_gives_what_stands_before_the_tear(cut):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record_gates(folder, 3000).close()
        file = folder / "session.mcap"
        whole = file.read_bytes()
        file.write_bytes(whole[: int(cut * len(whole))])
        try:
            seqs = [r.seq for r in read(folder)]
        except RecordingError:
            assert cut * len(whole) < 8 + 1  # not even MCAP's magic was left
            return
        assert seqs == list(range(len(seqs)))
        assert len(seqs) >= 3000 * cut - 1500  # a chunk of 64 kB holds about 1000 of these


def test_one_damaged_chunk_costs_that_chunk_and_is_named(tmp_path):
    record_gates(tmp_path, 5000).close()
    file = tmp_path / "session.mcap"
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF  # inside the first chunk, which also declares the channel
    file.write_bytes(data)
    recording = Recording(tmp_path)
    seqs = [r.seq for r in recording]
    assert seqs
    assert seqs == list(range(seqs[0], 5000))
    assert "chunk" in recording.damage[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x89MCAP1"])
def test_empty_and_foreign_files_are_refused_with_the_reason(tmp_path, content):
    (tmp_path / "session.mcap").write_bytes(content)
    with pytest.raises(RecordingError, match="MCAP"):
        list(read(tmp_path))


def test_a_folder_without_recording_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"session\.mcap"):
        read(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordingError, match="Choose another"):
        Recorder(tmp_path / "file" / "session", CATALOGUE)


# ---- disk full ------------------------------------------------------------------------------------------------------


def fill(recorder: Recorder, limit_s: float = 20.0) -> int:
    """Write messages that lz4 cannot shrink until the recorder gives up; return how many were tried."""
    rng, seq, until = np.random.default_rng(1), 0, time.monotonic() + limit_s
    while not recorder.failed and time.monotonic() < until:
        reason = rng.bytes(600).hex()
        payload = CATALOGUE.encode(Gate(t_ns=seq, open=False, reason=reason))
        recorder.write("v1/stream/breathing/gate", header(seq), payload)
        seq += 1
    return seq


def check_full(folder: Path, recorder: Recorder, tried: int) -> None:
    assert "disk full" in recorder.failed
    recorder.write("v1/stream/breathing/gate", header(tried), gate(tried))
    recorder.tick()
    recorder.metadata({"seed": 1})
    recorder.close()
    recording = Recording(folder)
    back = list(recording)
    assert back
    assert [r.seq for r in back] == list(range(len(back)))
    assert recording.damage == []  # the file ends on a whole record
    assert recording.metadata == {BROKEN_OFF: recorder.failed}  # and says why it breaks off
    assert not (folder / ".reserve").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk]).returncode != 0:
        pytest.skip("mounting a tiny tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_keeps_what_was_written_and_leaves_room_for_the_report(tiny_disk):
    folder = tiny_disk / "session"
    recorder = Recorder(folder, CATALOGUE)
    check_full(folder, recorder, fill(recorder))
    with (folder / "session.mcap").open("rb") as file:
        assert sum(1 for _ in make_reader(file).iter_messages()) > 0  # other tools accept the early end
    (folder / "report.html").write_bytes(b"x" * 1_000_000)


def test_a_file_size_limit_ends_the_recording_and_not_the_program(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        recorder = Recorder(tmp_path, CATALOGUE)
        tried = fill(recorder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_full(tmp_path, recorder, tried)
