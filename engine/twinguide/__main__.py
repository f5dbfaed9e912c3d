"""Run the command line: `python -m twinguide`."""

from twinguide.cli import main

main(prog_name="twinguide")
