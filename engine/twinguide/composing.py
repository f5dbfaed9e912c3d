"""Compose one frame: the texts that say what the twin shows, how sure it is, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from twinguide.bus.finite import first_flaw
from twinguide.frames import p95_from_covariance
from twinguide.messages import Finding
from twinguide.scene import PanelRow, TwinView
from twinguide.wording import text

MINUTE_NS = 60_000_000_000
TELL_VERIFIED_MIN, VERIFY_AGAIN_MIN = 5.0, 15.0  # since landmarks were verified: told, and asked for anew
TWO_SIDED_95 = 1.96  # standard deviations to either side that hold 95 % of a normal error
THROUGH = {"distance": "path_through", "plan": "plan_through"}  # what a structure's finding says below zero
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Finding).decode
RANK = {"warning": 0, "caution": 1, "advisory": 2}


def finding_fault(said: object) -> str:
    """Return why something that guidance said cannot be shown, or nothing; one such thing must not end the run."""
    if not isinstance(said, Finding):
        return f"wanted a Finding, got {type(said).__name__}"
    try:  # as it travels: some 2 us, and nothing passes here that the recording would refuse, its whole frame with it
        _decode(_encode(said))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        return f"wanted a Finding of plain text and numbers, float(...) of NumPy's; got {said.name!r}: {error}"
    return first_flaw(said)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings, the worst first."""
    return tuple(sorted(findings, key=lambda f: (RANK[f.severity], f.value)))


def panel_of(
    twin: TwinView,
    findings: tuple[Finding, ...],
    training: float = 0.0,
    faults: Iterable[str] = (),
    attempts: tuple[str, ...] = (),
) -> tuple[PanelRow, ...]:
    """Return the panel's rows for ranked findings; `training` is 0..1, `faults` say which parts fail and why.

    In a rehearsal, whose target and registration have no error, `attempts` tell the trigger and how they went.
    """
    return tuple(_panel(twin, findings, training, faults, attempts))


def _panel(
    twin: TwinView, findings: tuple[Finding, ...], training: float, faults: Iterable[str], attempts: tuple[str, ...]
) -> Iterator[PanelRow]:
    step = twin.workflow.step
    yield "title", text("rehearse") if attempts and step in ("setup", "guide") else _title(twin, training)
    for row in attempts if step == "guide" else attempts[1:]:  # elsewhere the trigger does nothing
        yield "normal", row
    if twin.workflow.note:
        yield "caution", twin.workflow.note
    for row in twin.workflow.progress:
        yield "normal", row
    for fault in faults:
        yield "caution", fault
    guiding = step == "guide"
    for f in findings:  # before the rest: a small display has room for the first
        if guiding and f.name == "depth":
            yield "normal", text("target_depth", value_mm=f.value, bound_mm=TWO_SIDED_95 * f.sigma)
    if twin.target is not None and twin.target_status.state != "hidden" and not attempts:
        yield "normal", text("target_error", value_mm=p95_from_covariance(twin.target.covariance) * 1e3)
    if guiding:
        if twin.gate_open or twin.gate_reason:
            yield "normal", _gate(twin)
        yield from _measures(findings)
        minutes = (twin.t_display_ns - twin.registration.verified_ns) / MINUTE_NS
        if twin.registration.verified_ns and minutes >= TELL_VERIFIED_MIN:
            stale = minutes >= VERIFY_AGAIN_MIN
            told = text("verify_again" if stale else "verified_ago", minutes=minutes)
            yield "caution" if stale else "normal", told
    elif twin.registration.state not in ("absent", "void") and not attempts:
        r = twin.registration
        yield "normal", text("registration", fre_mm=r.fre_mm, tre_mm=r.tre_p95_mm)
        for name, error in r.verification_mm.items():
            bound = r.verification_p95_mm[name]
            beyond = error > bound
            words = text("beyond" if beyond else "verified", name=name, value_mm=error, bound_mm=bound)
            yield "caution" if beyond else "normal", words


def _title(twin: TwinView, training: float) -> str:
    step = twin.workflow.step
    if step in ("register", "verify"):
        return text(step, name=twin.workflow.waits_for.removeprefix("touch "))
    return text(step, percent=training * 100.0) if step == "train" else text(step)


def _gate(twin: TwinView) -> str:
    if twin.gate_open:
        return text("gate_open") + (text("gate_seconds", seconds=twin.gate_seconds) if twin.gate_seconds > 0.05 else "")
    return text("gate_closed", reason=twin.gate_reason)


def _measures(findings: tuple[Finding, ...]) -> Iterator[PanelRow]:
    """Yield the angle, every caution and warning, and of the harmless distances the least."""
    calm = [f for f in findings if f.severity == "advisory" and f.name == "distance"]
    for f in findings:
        if f.name == "angle" and f.severity == "advisory":
            yield "normal", text("angle", value_deg=f.value)
        elif f.severity != "advisory" and f.name != "depth":
            yield f.severity, _sentence(f)
    if calm:
        yield "advisory", _sentence(calm[0])


def _sentence(f: Finding) -> str:
    """Return a finding in words; one without a unit says all in its text."""
    if not f.unit:
        return f.text
    way = THROUGH.get(f.name) if f.of else None  # nobody reads a distance below zero
    if way and f.value < 0.0:
        return text(way, name=f.of.replace("_", " "))
    if f.lower95 is None:
        return text("finding", what=f.text, value=f.value, unit=f.unit)
    lower = max(f.lower95, 0.0) if way else f.lower95
    return text("finding_bound", what=f.text, value=f.value, unit=f.unit, lower=lower)
