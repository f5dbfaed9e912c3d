"""Rebuild what a session leaves from its recording: `summary.json`, `timing.json`, a self-contained `report.html`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twinguide.bus.catalogue import Catalogue
from twinguide.errors import RecordingError
from twinguide.files import write_whole
from twinguide.report import curves, page, tables
from twinguide.scoring import Scores, score, write_scores
from twinguide.scoring.evidence import Evidence, load


def build_report(
    folder: Path, catalogue: Catalogue | None = None, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Score a session folder, write its figures and its report, and return the report's path.

    `say` is told what of the recording could not be read. Raises RecordingError where nothing could, or the report
    cannot be written.
    """
    evidence = load(folder, catalogue)
    for where in evidence.damage:
        say(f"damaged: {where}")
    scores = score(evidence)
    path = folder / "report.html"
    try:
        write_scores(folder, scores)
        write_whole(path, report_page(evidence, scores))
    except OSError as error:
        next_step = "Free some space, then run `twinguide report`."
        raise RecordingError(
            "room for summary.json, timing.json and report.html", str(error), str(folder), next_step
        ) from error
    return path


def report_page(evidence: Evidence, scores: Scores) -> str:
    """Return the report of a session as one HTML page."""
    frames, summary = evidence.guide(), scores.summary
    about = [f"{key} {summary[key]}" for key in ("seed", "mode", "headset", "clock") if key in summary]
    about += [] if summary["ended"]["early"] else [f"ended: {summary['ended']['reason']}"]
    attempts = page.section("Attempts", tables.attempts(evidence))
    damaged = f"Damaged: {'; '.join(evidence.damage)}. What could not be read is missing here."
    sections = [
        page.notice(damaged) if evidence.damage else "",
        tables.early_end(evidence, scores),
        page.notice("Research use. The display must not be the sole source of position."),
        attempts,
        tables.cards(evidence, scores),
        page.section("Errors", tables.errors(scores), curves.errors(evidence, scores)),
        page.section("Breathing", curves.breathing(evidence, frames, scores), tables.training(evidence)),
        page.section("Horizon and silence", curves.horizon(evidence, frames)),
        page.section("Needle", curves.approach(evidence, frames)),
        page.section("Latency", curves.latency(frames, scores), tables.stages(scores)),
        page.section("Workflow", curves.timeline(evidence, frames, scores), tables.registration(scores)),
        page.section("Findings", tables.findings(scores)),
        page.section("Parts", tables.parts(evidence, scores)),
        page.section("Pictures", tables.pictures(evidence.folder)),
        page.section("What this report rests on", page.bullets(tables.honesty(evidence, scores))),
    ]
    return page.page(f"TwinGuide: {summary.get('title', 'session')}", " · ".join(about), sections)
