"""Server and client over real sockets: many links, reconnection, slow readers, queues that end somewhere."""

import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from twinguide_openigtlink import Client, Decoder, NumberArray, Packet, Server, Status, Text, Transform

SOON_S = 5.0  # for what other threads bring about at once


def pose(number, device="Tool"):
    return Packet(Transform(np.eye(4)), device, number)


def wait_for(true):
    until = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def server():
    with Server(0) as made:
        yield made.start()


@pytest.fixture
def client(server):
    with Client(*server.address) as made:
        assert made.connect(SOON_S)
        yield made


def test_a_message_goes_there_and_back():
    with Server(0, on_arrival=lambda a: server.send(a.packet, a.link)) as server:
        server.start()
        with Client(*server.address) as client:
            assert client.connect(SOON_S)
            client.send(pose(5))
            assert client.receive(SOON_S).packet.stamp_ns == 5


def test_every_client_gets_every_message_in_order(server):
    clients = [Client(*server.address) for _ in range(5)]
    try:
        assert all(c.connect(SOON_S) for c in clients)
        wait_for(lambda: len(server.links) == 5)
        for i in range(200):
            assert server.send(pose(i)) == 5
        for c in clients:
            assert [c.receive(SOON_S).packet.stamp_ns for _ in range(200)] == list(range(200))
    finally:
        for c in clients:
            c.close()


def test_a_client_comes_back_when_the_server_does():
    server = Server(0).start()
    host, port = server.address
    with Client(host, port) as client:
        reader = client.reader()
        client.start()
        assert client.connect(SOON_S)
        server.close()
        wait_for(lambda: not client.connected)
        assert client.problem
        with Server(port) as again:
            again.start()
            wait_for(lambda: client.connected and again.links)
            again.send(pose(7))
            (arrival,) = reader.take(SOON_S)
            assert arrival.packet.stamp_ns == 7


def test_bytes_in_drops_and_in_heaps_are_the_same_messages(server):
    reader = server.reader()
    raw = b"".join(pose(i).pack() for i in range(3))
    with socket.create_connection(server.address) as plain:
        for i in range(len(raw)):
            plain.send(raw[i : i + 1])
        plain.send(raw)
        got = []
        wait_for(lambda: got.extend(reader.take(0.05)) or len(got) == 6)
    assert [a.packet.stamp_ns for a in got] == [0, 1, 2, 0, 1, 2]


def test_a_reader_gets_all_unless_it_asks_for_the_newest_only(server, client):
    everything, newest = server.reader(), server.reader(newest_only=True)
    for i in range(50):
        client.send(pose(i, "A" if i % 2 else "B"))
    got = []
    wait_for(lambda: got.extend(everything.take(0.05)) or len(got) == 50)
    assert {(a.packet.device, a.packet.stamp_ns) for a in newest.take(SOON_S)} == {("A", 49), ("B", 48)}
    assert everything.lost == 0


def test_a_full_box_loses_the_oldest_and_counts_them(server, client):
    reader = server.reader(limit=10)
    for i in range(30):
        client.send(pose(i))
    wait_for(lambda: server.links and server.links[0].received == 30)
    wait_for(lambda: reader.lost == 20)
    assert [a.packet.stamp_ns for a in reader.take()] == list(range(20, 30))


def test_a_peer_that_does_not_read_costs_messages_but_no_time():
    with Server(0, queue_bytes=200_000) as server:
        server.start()
        with socket.create_connection(server.address):
            wait_for(lambda: server.links)
            (link,) = server.links
            block = Packet(NumberArray(np.zeros((10, 5000), dtype="u1")), "Big")
            while not link.dropped:  # until the kernel's buffers and our queue are full
                server.send(block)
            assert not server.send(block)
            assert link.open


def test_a_newer_surface_replaces_one_that_still_waits():
    with Server(0, queue_bytes=10_000_000) as server:
        server.start()
        with socket.create_connection(server.address) as slow:
            wait_for(lambda: server.links)
            (link,) = server.links
            values = np.zeros((10, 10_000), dtype="u1")
            number = 0
            while link.replaced < 20:
                number += 1
                server.send(Packet(NumberArray(values), "Twin", number), newest_only=True)
            decoder, read = Decoder(), []
            slow.settimeout(0.5)
            while not read or read[-1].stamp_ns != number:
                read += decoder.feed(slow.recv(1 << 20))
            assert len(read) <= number - 20
            assert not decoder.refused


def test_rubbish_from_a_peer_leaves_others_alone(server, client):
    reader = server.reader()
    with socket.create_connection(server.address) as rude:
        rude.sendall(np.random.default_rng(1).bytes(100_000))
        client.send(Packet(Status(1), "Good", 3))
        (arrival,) = reader.take(SOON_S)
    assert arrival.packet.device == "Good"


def test_the_last_words_of_a_peer_that_hangs_up_are_read(server):
    reader = server.reader()
    with socket.create_connection(server.address) as plain:
        plain.sendall(Packet(Text("bye"), "Last").pack() + b"\0\1half")
    (arrival,) = reader.take(SOON_S)
    assert arrival.packet.content == Text("bye")
    wait_for(lambda: not server.links)


def test_a_name_that_takes_long_to_look_up_holds_nothing_up(monkeypatch):
    asked, answer = threading.Event(), threading.Event()

    def slow(*_, **__):
        asked.set()
        answer.wait(SOON_S)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with Client("tracker.example", 1) as client:
        client.poll()
        assert asked.wait(SOON_S)
        assert client.poll(0.01) == []  # would wait for the answer
        answer.set()
        wait_for(lambda: client.poll(0.01) or "no such name" in client.problem)


def test_an_address_that_does_not_answer_is_given_up_and_the_next_one_tried(server, monkeypatch):
    full = socket.socket()  # with a backlog of none it answers one caller and leaves the others waiting
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    crowd = [socket.socket() for _ in range(3)]
    for one in crowd:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    addresses = [(*family, full.getsockname()), (*family, server.address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with Client("tracker.example", dial_s=0.2) as client:
        assert client.connect(SOON_S)
        client.send(pose(3))
        wait_for(lambda: server.links and server.links[0].received == 1)
    for one in (full, *crowd):
        one.close()


def test_an_address_that_never_answers_is_told_as_such():
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    crowd = [socket.socket() for _ in range(3)]
    for one in crowd:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    with Client(*full.getsockname(), dial_s=0.1) as client:
        wait_for(lambda: client.poll(0.01) or "no answer within 0.1 s" in client.problem)
    for one in (full, *crowd):
        one.close()


def test_who_hangs_up_at_once_is_called_less_and_less_often():
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as rude, Client(*rude.getsockname()) as client:
        rude.settimeout(SOON_S)
        client.start()
        for _ in range(6):
            rude.accept()[0].close()
            calls.append(time.monotonic())
    gaps = np.diff(calls)
    assert gaps[-1] > 0.15  # the fifth rest is one of 0.2 s or more, the first one of 0.02 s


def test_who_has_said_all_still_gets_the_answer():
    with Server(0, on_arrival=lambda a: server.send(Packet(Text("yes"), "Answer"), a.link)) as server:
        server.start()
        with socket.create_connection(server.address) as plain:
            plain.sendall(pose(1).pack())
            plain.shutdown(socket.SHUT_WR)
            plain.settimeout(SOON_S)
            raw = b""
            while piece := plain.recv(4096):
                raw += piece
        (packet,) = Decoder().feed(raw)
        assert packet.content == Text("yes")
        wait_for(lambda: not server.links)


def test_an_error_in_handling_a_message_ends_neither_the_link_nor_the_server(caplog):
    def handle(arrival):
        if arrival.packet.device == "Bad":
            raise ValueError("no idea")
        server.send(arrival.packet, arrival.link)

    with Server(0, on_arrival=handle) as server:
        server.start()
        with Client(*server.address) as client:
            assert client.connect(SOON_S)
            client.send(pose(1, "Bad"))
            client.send(pose(2, "Good"))
            assert client.receive(SOON_S).packet.device == "Good"
    assert "could not be handled" in caplog.text


def test_a_thousand_callers_that_reset_at_once_leave_nothing_behind(server):
    numbers = Path("/proc/self/fd")  # of open files
    before = len(list(numbers.iterdir())) if numbers.is_dir() else None
    for _ in range(1000):
        with socket.create_connection(server.address) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
    with Client(*server.address) as client:
        assert client.connect(SOON_S)
        client.send(pose(5))
        wait_for(lambda: len(server.links) == 1 and server.links[0].received == 1)
    wait_for(lambda: not server.links)
    assert before is None or len(list(numbers.iterdir())) <= before


def test_one_caller_too_many_is_told_so(server):
    callers = [socket.create_connection(server.address) for _ in range(65)]
    callers[-1].settimeout(SOON_S)
    (packet,) = Decoder().feed(callers[-1].recv(4096))
    assert (packet.content.meaning, packet.content.text) == ("busy", "64 links are open")
    for caller in callers:
        caller.close()
