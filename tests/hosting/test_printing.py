"""What is printed and logged lies in a file, and costs nothing where a disk is full."""

import logging
import os
import sys

from twinguide.hosting.printing import log_stream, printed_to


def test_what_is_printed_and_logged_meanwhile_is_in_the_file_alone(tmp_path, capsys):
    log, late = tmp_path / "logs" / "loop.log", logging.Logger("of a part's library")
    with printed_to(log):
        print("from a part")
        print("to its errors", file=sys.stderr)
        logging.getLogger("twinguide.part.tip").info("as it is")
        late.addHandler(logging.StreamHandler())
    print("afterwards")
    late.warning("from a handler that was made meanwhile")
    logging.getLogger("twinguide.part.tip").info("too late")
    first, second, third, fourth = log.read_text().splitlines()
    assert (first, second) == ("from a part", "to its errors")
    assert third.endswith("twinguide.part.tip INFO as it is")
    assert fourth == "from a handler that was made meanwhile"
    assert capsys.readouterr() == ("afterwards\n", "")


def test_a_full_disk_costs_nobody_who_prints():
    with log_stream(os.open("/dev/full", os.O_WRONLY)) as stream:
        for _ in range(3):
            print("x" * 20_000, file=stream)
