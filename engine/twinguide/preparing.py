"""Before the run: what it is made of, the files it names, its case, checked against the scenario."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from twinguide.case import Case
from twinguide.errors import CaseError, ScenarioError
from twinguide.flaws import UNTOLD, Origin
from twinguide.hookspecs import Motion, Part
from twinguide.messages import Exposure
from twinguide.registry import Registry, made
from twinguide.scenario import Scenario, convert

Say = Callable[[str], None]
UNTOLD_HZ = 60.0  # of a tracker that does not tell its rate


@dataclass(frozen=True)
class Run:
    """What a run is made of before it starts."""

    scenario: Scenario
    registry: Registry
    out: Path
    say: Say
    origin: Origin = UNTOLD

    @property
    def declared(self) -> list[Part]:
        """What is declared of the run's parts, in the scenario's order."""
        return [self.registry.part(name) for name in self.scenario.parts]


def named_files(scenario: Scenario, registry: Registry) -> Iterator[Path]:
    """Yield every file or folder that a scenario names: case, calibrations, a recorded wearer, in parts' options.

    A word that a part's options themselves know, a choice or what is taken where it is left out, names none.
    """
    tools = [tool.calibration for tool in scenario.tools.values()]
    told = [scenario.case, scenario.headset.recorded, scenario.registration.calibration, *tools]
    for name, placed in scenario.parts.items():
        own = _own_words(registry.part(name).options)
        told += [text for text in _texts(placed.options) if text not in own]
    # not Path.exists, which raises at some texts, and any may come
    yield from (Path(text) for text in told if os.path.exists(text))  # noqa: PTH110


def _own_words(options: type[msgspec.Struct]) -> set[str]:
    try:
        return set(_texts(msgspec.json.schema(options), ("enum", "default")))
    except TypeError:  # a type that JSON cannot tell
        return set()


def _texts(told: object, under: Collection[str] = ()) -> Iterator[str]:
    """Yield every text within tables and lists; with `under`, those alone that stand below one of these keys."""
    if isinstance(told, str):
        if not under:
            yield told
    elif isinstance(told, Mapping):
        for key, value in cast("Mapping[str, object]", told).items():
            yield from _texts(value, () if key in under else under)
    elif isinstance(told, (list, tuple)):
        for one in cast("Iterable[object]", told):
            yield from _texts(one, under)


def exposure_hz(run: Run) -> float:
    """Return the rate of the exposures [Hz]: their part's option `rate_hz`, if it has one, else their topic's.

    Raises ScenarioError where that is no rate.
    """
    for name, placed in run.scenario.parts.items():
        part = run.registry.part(name)
        for topic in part.publishes.values():
            if topic.message is Exposure:
                where = f"parts.{name}.options"
                options = convert(placed.options, part.options, run.origin, where)
                rate = getattr(options, "rate_hz", None) or topic.rate_hz or UNTOLD_HZ
                if not 0 < rate < float("inf"):
                    raise ScenarioError("exposures at a rate above 0 Hz", f"{rate}", run.origin.of(f"{where}.rate_hz"))
                return float(rate)
    return UNTOLD_HZ


def _generator_of(run: Run) -> str:
    """Return what makes the patient of `generate:<organ>`, or nothing where the scenario names a case folder."""
    kind, _, name = run.scenario.case.partition(":")
    if kind != "generate":
        return ""
    makers = {organ.name: organ.make for organ in run.registry.organs() if organ.make}
    if name not in makers:
        known = ", ".join(sorted(makers)) or "none"
        raise ScenarioError(
            f"generate:<organ>, of an organ with a generator: {known}", repr(run.scenario.case), run.origin.of("case"),
            "Name one of these, or a case folder: docs/case.md.",
        )  # fmt: skip
    return makers[name]


def prepare_case(run: Run) -> Case:
    """Return the scenario's case, which fits the scenario; a generated one becomes the session's folder `case`."""
    generator = _generator_of(run)
    case = Case.load(_generate(run, generator) if generator else Path(run.scenario.case))
    check_known(run.scenario, case, run.say, run.origin)
    motions = [part.name for part in run.declared if isinstance(part, Motion)]
    check_phase(case.breathing_phase, motions, run.say)
    return case


def _generate(run: Run, generator: str) -> Path:
    """Make a patient and pass it through the importer; return its case folder, in the session's.

    Raises PluginError where the generator fails, CaseError where the folder cannot be written.
    """
    from twinguide.importing import import_case

    name = run.scenario.case.partition(":")[2]
    run.say(f"making a patient from seed {run.scenario.seed}")
    case = run.out / "case"
    with tempfile.TemporaryDirectory() as scratch:
        surfaces = Path(scratch) / f"{name}-{run.scenario.seed}"  # the patient is called so
        surfaces.mkdir()
        made(generator, surfaces, run.scenario.seed, where=f"case, the generator of {name}")
        import_case(
            surfaces, case, units="mm", axes="lps", breathing_phase="end-expiration", organs=run.registry.organs(),
            progress=lambda what, share: None,
        )  # fmt: skip
    return case


def check_known(scenario: Scenario, case: Case, say: Callable[[str], None], origin: Origin = UNTOLD) -> None:
    """Raise CaseError where a registration could not be made and proven on the case's landmarks.

    One that is brought must be this case's, and leave a landmark that it has not used.
    """
    known = scenario.registration.known
    if known is None:
        if scenario.mode == "guide":
            _check_landmarks(case)
        return
    where = origin.of("registration.calibration")
    if known.case_hash and known.case_hash != case.content_hash:
        got = f"one of {known.case_hash[:12]}, {case.title} is {case.content_hash[:12]}"
        raise CaseError("a registration of this case", got, where, "Register this case, or name the other one.")
    if not known.case_hash:
        say("the registration does not tell for which case it was made: only its verification will")
    if set(case.landmarks) <= set(known.landmarks):
        got = f"none: it has used {', '.join(case.landmarks) or 'nothing, and the case has none'}"
        raise CaseError("a landmark that the registration has not used", got, where, "Leave one out and register anew.")


def _check_landmarks(case: Case) -> None:
    kinds = [mark.kind for mark in case.landmarks.values()]
    fiducials, proofs = kinds.count("fiducial"), kinds.count("verification")
    if fiducials < 3 or not proofs:
        raise CaseError(
            "3 or more landmarks of kind fiducial, and one of kind verification that the fit does not use",
            f"{fiducials} and {proofs}", f"{case.title}: [[landmarks]]", "Mark more of them in case.toml.",
        )  # fmt: skip


def check_phase(phase: str, motions: list[str], say: Callable[[str], None]) -> None:
    """Refuse a scan of another breathing phase than motion models start from; an unknown one is said, not guessed.

    Fiducials are touched, and displacements are zero, at end-expiration: another scan's target would lie off by up to a
    breath's whole way. Raises CaseError.
    """
    if not motions or phase == "end-expiration":
        return
    if phase != "unknown":
        raise CaseError(
            f"a scan at end-expiration, where {', '.join(motions)} starts from", f"one at {phase}", "breathing_phase",
            "Scan at end-expiration, or run a scenario without a motion model on a patient whose breath is held.",
        )  # fmt: skip
    say(
        "WARNING: the scan's breathing phase is unknown and taken for end-expiration: the target may be centimetres off"
    )
