"""Run one part in this process: `python -m twinguide.hosting`, its spec on standard input."""

from twinguide.hosting.host import run_child

run_child()
