"""The report's sections without a time axis: key figures, tables, pictures, and what the report rests on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from twinguide.bus.topics import LOOP
from twinguide.composing import RANK
from twinguide.messages import Attempt, Displacement, Training, Truth
from twinguide.recording import BROKEN_OFF, SYNC_S
from twinguide.report import page, plots
from twinguide.scoring import Scores, head_is_simulated, last_states
from twinguide.scoring.evidence import Evidence

STILL_WIDTH_PX = 640
MOST_STILLS = 24
ERRORS = ("target", "needle", "overlay", "breathing")


def early_end(evidence: Evidence, scores: Scores) -> str:
    """Return a notice where the run, or its recording, ended before its time."""
    ended = scores.summary["ended"]
    if not ended["early"]:
        return ""
    if ended["reason"] is not None:
        return page.notice(f"Ended early, {_when(ended)}: {ended['reason']}.")
    why = evidence.metadata.get(BROKEN_OFF)
    told = f"the run's end was not recorded{f' ({why})' if why else ''}. What came later is missing here."
    return page.notice(f"Breaks off {_when(ended)}: {told}")


def _when(ended: dict[str, Any]) -> str:
    if not ended["guided_s"]:
        return "before guidance"
    asked = f" of {ended['asked_s']:g} s" if ended["asked_s"] is not None else ""
    return f"after {ended['guided_s']:.1f} s{asked} of guidance"


def cards(evidence: Evidence, scores: Scores) -> str:
    """Return the key figures; what clock or mode cannot tell has none."""
    summary = scores.summary
    entries: list[tuple[str, str, str]] = []
    for name in ERRORS:
        found = summary[f"{name}_error_mm"]
        if found:
            note = f"mean; p95 {found['p95']:.2f}, predicted {found['predicted_p95']:.2f}"
            entries.append((f"{name} error", f"{found['mean']:.2f} mm", note))
    marked = summary["marked_fraction"]
    tip = summary["puncture"]["tip_error_mm"]
    hit = ", ".join(summary["puncture"]["structures_hit"] or ()) or "nothing that the case holds"
    model, ended = summary["out_of_model"], summary["ended"]
    if marked is not None:
        entries.append(("frames marked", f"{100 * marked:.1f} %", f"of {summary['frames']} while guiding"))
    if evidence.of(Displacement):
        entries.append(("out of model", str(len(model["episodes"])), f"{model['false']} of them false"))
    if tip is not None:
        when = _when(ended) if ended["early"] else "at the end"
        entries.append((f"tip to target {when}", f"{tip:.2f} mm", f"hit: {hit}"))
    if summary.get("clock") != "virtual":  # there none is missed, whatever the machine
        missed, of = scores.timing["missed_frames"], scores.timing["frames"]
        entries.append(("frames missed", str(missed), f"of {of}, by display time"))
    return page.cards(entries)


def errors(scores: Scores) -> str:
    """Return the errors as a table, with what was not scored and why; nothing for a rehearsal, which knows none."""
    if scores.summary.get("mode") == "rehearse":
        return ""
    keys = ("mean", "p95", "max", "predicted_p95", "coverage")
    rows: list[list[object]] = []
    for name in ERRORS:
        found: dict[str, Any] = scores.summary[f"{name}_error_mm"] or {}
        rows.append([name, *(found.get(key) for key in keys), scores.summary["frames_scored"][name]])
    head = ("error", "mean [mm]", "p95 [mm]", "max [mm]", "predicted p95 [mm]", "inside its 95 % region", "frames")
    why = sorted(set(scores.summary["not_scored"].values()))
    said = "Shown against true when each frame is first seen; overlay in stage, with the headset's own error."
    told = page.table(head, rows) + page.text(said) if any(row[1] is not None for row in rows) else ""
    return told + page.bullets([f"Not scored: {reason}." for reason in why])


def training(evidence: Evidence) -> str:
    """Return what the motion model said of its training."""
    done = [t for t in evidence.of(Training) if t.done]
    rows = [(name, value) for name, value in sorted(done[-1].figures.items())] if done else []
    return page.table(("training", "figure"), rows)


def stages(scores: Scores) -> str:
    """Return where the frame's wall time went."""
    stages = {name: row for name, row in scores.timing["stage_ms"].items() if row}
    if not stages or not any(row["max"] for row in stages.values()):
        return ""
    rows = [(name, row["p50"], row["p99"], row["max"]) for name, row in stages.items()]
    uri = plots.stages(stages, scores.timing["period_ms"])
    return page.picture(uri, "The loop's stages, all steps.", "stages") + page.table(
        ("stage", "p50 [ms]", "p99 [ms]", "max [ms]"), rows
    )


def registration(scores: Scores) -> str:
    """Return the registration's figures."""
    made = scores.summary["registration"]
    if made is None:
        return ""
    rows: list[tuple[str, object]] = [("state", made["state"]), ("FRE [mm]", made["fre_mm"])]
    rows += [("TRE at the target, predicted p95 [mm]", made["tre_p95_mm"])]
    rows += [(f"verified on {name} [mm]", error) for name, error in made["verification_mm"].items()]
    return page.table(("registration", "figure"), rows)


def findings(scores: Scores) -> str:
    """Return the findings that were raised."""
    rows: list[tuple[object, ...]] = []
    for name, severity, row in _gravest_first(scores.summary["findings"]):
        rows += [(name, of.replace("_", " "), severity, *told.values()) for of, told in row["of"].items()]
    head = ("finding", "of", "severity", "times raised", "frames", "first at [s]", "least lower 95 % bound [mm]")
    said = "A lower bound below 0 does not exclude that the path goes through the structure."
    return page.table(head, rows) + page.text(said) if rows else page.text("No finding was raised.")


def _gravest_first(found: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, str, dict[str, Any]]]:
    rows = [(name, severity, row) for name, by in found.items() for severity, row in by.items()]
    return sorted(rows, key=lambda row: RANK[row[1]])


def attempts(evidence: Evidence) -> str:
    """Return the rehearsed attempts."""
    rows: list[list[object]] = []
    for a in evidence.of(Attempt):
        name, least = min(a.closest.items(), key=lambda item: item[1], default=("-", None))
        figures = (a.seconds, a.tip_error_mm, a.angle_deg, a.path_mm, least)
        rows.append([a.number, *(None if f is None else round(f, 2) for f in figures), name.replace("_", " ")])
    head = ("attempt", "time [s]", "tip to target [mm]", "angle [deg]", "way of the tip [mm]", "closest [mm]", "to")
    return page.table(head, rows)


def parts(evidence: Evidence, scores: Scores) -> str:
    """Return how the parts ended the run, those that failed foremost, and what was refused of them."""
    last, restarts = last_states(evidence), scores.timing["restarts"]
    failed = ", ".join(name for name, state in last.items() if state.failed and name != LOOP)
    rows = [(n, s.placement, s.state, restarts.get(n, 0), s.reason) for n, s in last.items()]
    refused = [tuple(refusal.values()) for refusal in scores.timing["refused"]]
    return "".join(
        (
            page.notice(f"Parts that did not work at the end: {failed}.") if failed else "",
            page.table(("part", "placement", "at the end", "restarts", "reason"), rows),
            page.table(("part", "what was refused of it", "reason", "times, at least"), refused),
        )
    )


def pictures(folder: Path) -> str:
    """Return film and stills that lie in the session's folder."""
    files = sorted((folder / "stills").glob("*.png"))[:MOST_STILLS]
    films = [name for name in ("stereo.mp4", "stereo.webm") if (folder / name).is_file()]
    return "".join(page.video(name) for name in films) + page.stills([(_still(f), f.stem) for f in files])


def _still(file: Path) -> str:
    """Return a still as a data URI, small enough that a page of them can be sent."""
    from PIL import Image  # only a report with pictures pays for it

    with Image.open(file) as image:
        small = image.convert("RGB")
        small.thumbnail((STILL_WIDTH_PX, STILL_WIDTH_PX))
        buffer = io.BytesIO()
        small.save(buffer, "PNG", optimize=True)
    return plots.data_uri(buffer.getvalue(), "image/png")


def honesty(evidence: Evidence, scores: Scores) -> list[str]:
    """Return what was simulated, what is missing, and what the figures cannot tell."""
    worlds = evidence.sources(Truth)
    notes = [
        f"The patient and the room were simulated by {', '.join(worlds)}; errors are told against that truth, and say "
        "nothing of a real patient, tracker or headset."
        if worlds
        else "No truth was recorded: this report holds no error, only what was shown and how sure it claimed to be."
    ]
    if head_is_simulated(evidence):
        notes.append("The headset was simulated: no runtime, display or wearer took part.")
    if scores.summary.get("clock") == "virtual":
        notes.append("The clock was virtual: ages and horizons are the scenario's, stage times are this machine's.")
    if scores.summary["registration"] is not None:
        notes.append("One run holds one registration: its constant error does not average out over frames.")
    recording = scores.timing["recording"]
    segments = "one segment" if recording["segments"] == 1 else f"{recording['segments']} segments"
    notes.append(
        f"{recording['messages']} messages in {segments}; a killed recorder loses the last {SYNC_S} s at most of what "
        "had reached it, and all that is published until it runs again."
    )
    return notes + [
        f"{count} messages of {source} never reached the recorder." for source, count in recording["never_came"].items()
    ]
