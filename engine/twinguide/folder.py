"""A session's folder: claimed by one run at a time; the session before is kept, and put back where no run begins."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from twinguide.errors import ScenarioError, TwinGuideError

MARKER = ".twinguide-session"  # this folder is ours to empty
KEPT = "previous"  # in it: the session before
FAILED = "failed"  # in it: the logs of the last start that failed and left some, until a run begins
ALONE, BESIDE = "starting", "starting beside previous"  # what the marker says until the run has begun


def make_folder(out: Path, needed: Iterable[Path] = ()) -> BinaryIO:
    """Make the session folder, or take an earlier session's, still as it was; anything else is left alone.

    It is this run's until what is returned is closed: another run into it is refused meanwhile. Raises ScenarioError,
    also where the run itself needs what `earlier_kept` would move.
    """
    marker = out / MARKER
    inside = [str(path) for path in needed if path.exists() and path.resolve().is_relative_to(out.resolve())]
    if inside:
        raise ScenarioError(
            "what the run needs outside the folder that it writes anew", ", ".join(inside), f"--out {out}",
            "Name another folder with --out, or copy what it needs elsewhere.",
        )  # fmt: skip
    try:
        if out.exists() and any(out.iterdir()) and not marker.is_file():
            raise ScenarioError("a new folder, or an earlier session's", str(out), "--out", "Name another folder.")
        out.mkdir(parents=True, exist_ok=True)
        held = marker.open("ab")
    except OSError as error:
        raise ScenarioError("a folder that can be written", str(error), "--out", "Name another folder.") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise ScenarioError(
            "a folder of this run's own", f"{out}, which another run writes", "--out", "Name another folder."
        ) from error
    return held


def being_written(folder: Path) -> bool:
    """Tell whether a run writes a session's folder now."""
    try:
        with (folder / MARKER).open("rb") as marker:
            fcntl.flock(marker, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no marker: a folder of recordings alone
        return False
    return False


@contextmanager
def earlier_kept(out: Path) -> Generator[None]:
    """Set an earlier session in `out` aside, as its folder `previous`; put it back where the block does not end well.

    The one kept there before goes only then, so that the last is always there: what a run leaves that was killed in
    the block is no session, and goes first. Raises ScenarioError where the earlier one cannot be moved. What the block
    logged is kept in the folder `failed` where it does not end well, and its error tells so.
    """
    marker = out / MARKER
    try:
        _roll_back(out)
        aside = _set_aside(out)
        marker.write_text(BESIDE if aside else ALONE)
    except OSError as error:
        raise ScenarioError("a session that can be set aside", str(error), "--out", "Name another folder.") from error
    try:
        yield
    except BaseException as error:
        logs = str(out.resolve() / "logs")
        kept = _keep_logs(out, empty=isinstance(error, TwinGuideError) and error.where.startswith(logs))
        _roll_back(out)
        if not kept:
            raise
        told = f"What was logged is in {out / FAILED}."
        if not isinstance(error, TwinGuideError):
            error.add_note(told)
            raise
        where = error.where.replace(logs, str(out / FAILED), 1)
        raise type(error)(error.wanted, error.got, where, f"{error.next_step} {told}".strip()) from error
    marker.write_text("")
    _remove(out / KEPT / KEPT)
    _remove(out / FAILED)


def _set_aside(out: Path) -> bool:
    """Move a session into the folder `previous`, with what that held; return whether there was one."""
    earlier = [file for file in out.iterdir() if file.name not in (MARKER, FAILED)]
    if {file.name for file in earlier} <= {KEPT}:
        return False
    aside = Path(tempfile.mkdtemp(prefix=".", dir=out))
    try:
        _move(earlier, aside)
    except BaseException:
        _move(aside.iterdir(), out)
        aside.rmdir()
        raise
    aside.rename(out / KEPT)
    return True


def _keep_logs(out: Path, *, empty: bool) -> bool:
    """Move logs, `empty` ones only if asked, to the folder `failed`, whose own go first; return whether it did."""
    try:
        if not (empty or any(log.stat().st_size for log in (out / "logs").iterdir())):
            return False
        _remove(out / FAILED)
        (out / "logs").rename(out / FAILED)
    except OSError:  # no logs, or a disk that takes nothing
        return False
    return True


def _roll_back(out: Path) -> None:
    """Remove what a run has left that did not begin, and put back the session that it had set aside."""
    marker = out / MARKER
    begun = marker.read_text() if marker.is_file() else ""
    if not begun:
        return
    for file in out.iterdir():
        if file.name not in (MARKER, KEPT, FAILED):
            _remove(file)
    marker.write_text("")  # before anything is moved: what is half put back is never taken for what a run has left
    if begun == BESIDE:
        aside = (out / KEPT).rename(tempfile.mkdtemp(prefix=".", dir=out))
        _move(aside.iterdir(), out)
        aside.rmdir()


def _move(files: Iterable[Path], folder: Path) -> None:
    for file in list(files):
        file.rename(folder / file.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
