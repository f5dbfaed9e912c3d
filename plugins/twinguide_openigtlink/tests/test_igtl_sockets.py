"""Server and client over real sockets: many links, reconnection, slow readers, queues that end somewhere."""

import socket
import time

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
