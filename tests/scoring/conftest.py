"""Sessions whose truth and errors are known in closed form, written through the recorder itself."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from twinguide.bus.catalogue import Catalogue, Header
from twinguide.clock import MS, SECOND
from twinguide.frames import Transform, rotation_from_vector
from twinguide.messages import (
    Act,
    Array,
    Displacement,
    Finding,
    Gate,
    PartState,
    PoseWire,
    Registration,
    RunEnd,
    Shown,
    StructureRecord,
    Training,
    Truth,
    WorkflowState,
)
from twinguide.recording import Recorder

TARGET = np.array([0.02, -0.05, -0.09])
AXIS = np.array([0.1, 0.3, 0.95]) / np.linalg.norm([0.1, 0.3, 0.95])
STAGE_FROM_TRACKER = Transform.of(
    "stage", "tracker", rotation_from_vector(np.array([0.3, -1.1, 0.4])), np.array([0.5, 1.8, -0.7])
)
TRACKER_FROM_REFERENCE = Transform.of(
    "tracker", "reference", rotation_from_vector(np.array([-0.2, 0.5, 1.0])), np.array([0.1, 0.2, -1.5])
)
STAGE_FROM_REFERENCE = STAGE_FROM_TRACKER @ TRACKER_FROM_REFERENCE
NO_COVARIANCE = np.zeros((6, 6))


@dataclass(frozen=True)
class Spec:
    """What a made-up session contains; offsets are shown minus true [m]."""

    seconds: float = 4.0
    seed: int = 1
    truth: bool = True
    constant: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # target | breathing | needle
    sigma: dict[str, float] = field(default_factory=dict)  # the same, 1 sigma per axis, drawn anew each frame
    said_sigma: float = 1e-3  # [m], the covariance that is shown
    reported_from_true_head: np.ndarray = field(default_factory=lambda: np.eye(4))
    hidden: tuple[float, float] = (0.0, 0.0)  # seconds of guidance in which the target is hidden
    needle_name: str = "needle"  # its role is what makes it one
    needle_from: float = 0.0  # the needle appears here
    needle_lost: tuple[float, float] = (0.0, 0.0)
    needle_laid_down: float = np.inf
    cough_at: float = np.inf
    word_at: float = np.inf  # out of model, for 1.5 s
    flag_cough: bool = True
    missed: int = 0  # frames left out in the middle
    every: int = 1  # frame of the display that a slow machine makes
    period_ns: int = SECOND // 90
    begun_s: float = 0.0  # the real clock's time at which the session began
    processes: tuple[int, ...] = ()  # of the tracker, one after the other
    withdrawn: str = ""  # why the guidance was
    stage_us: int = 0
    head_sways: bool = True
    headset: str = "simulated"
    mode: str = "guide"
    asked_s: float = 1.0
    ended: str = "as asked"  # nothing: the recording breaks off
    early: bool = False


def breathing(t_s: float) -> np.ndarray:
    return 0.012 * np.sin(np.pi * t_s / 4.0) ** 2 * AXIS


def true_displacement(spec: Spec, t_s: float) -> np.ndarray:
    return breathing(t_s) + 0.008 * AXIS * (spec.cough_at <= t_s < spec.cough_at + 0.5)


def true_head(spec: Spec, t_s: float) -> Transform:
    sway = 0.02 * np.sin(t_s) if spec.head_sways else 0.0
    return Transform.of(
        "stage", "headset", rotation_from_vector(np.array([0.1 + sway, 0.2, 0.0])), np.array([sway, 1.6, 0.3])
    )


def true_tip(spec: Spec, t_s: float) -> np.ndarray:
    """A needle that comes in along a line and reaches the target's resting place at the end."""
    return TARGET + np.array([0.0, 0.06, 0.08]) * (1.0 - t_s / max(spec.seconds, 1.0))


def truth_at(spec: Spec, t_s: float) -> Truth:
    moved = true_displacement(spec, t_s)
    coughs = spec.flag_cough and spec.cough_at <= t_s < spec.cough_at + 0.5
    poses = {
        "stage_from_tracker": STAGE_FROM_TRACKER,
        "stage_from_head": true_head(spec, t_s),
        "tracker_from_reference": TRACKER_FROM_REFERENCE,
    }
    return Truth(
        t_ns=round(t_s * SECOND),
        points={"target": vec(TARGET + moved), "displacement": vec(moved), "needle_tip": vec(true_tip(spec, t_s))},
        poses={name: PoseWire.of(pose, NO_COVARIANCE) for name, pose in poses.items()},
        flags={"breathing": "cough" if coughs else "regular", "hit": "rib" if t_s > spec.seconds / 2 else ""},
    )


def vec(v) -> tuple[float, float, float]:
    return tuple(float(x) for x in v)


def shown_at(spec: Spec, frame: int, t_s: float, rng: np.random.Generator) -> Shown:
    def off(name: str) -> np.ndarray:
        return np.array(spec.constant.get(name, (0.0, 0.0, 0.0))) + rng.normal(0.0, 1.0, 3) * spec.sigma.get(name, 0.0)

    said = Array.of(np.eye(3) * spec.said_sigma**2)
    hidden = spec.hidden[0] <= t_s < spec.hidden[1]
    lost = spec.needle_lost[0] <= t_s < spec.needle_lost[1] or t_s < spec.needle_from or t_s >= spec.needle_laid_down
    moved = breathing(t_s) + off("breathing")
    target = TARGET + breathing(t_s) + off("target")
    head = true_head(spec, t_s)
    reported = Transform("stage", "headset", head.matrix @ spec.reported_from_true_head)
    target_state = "hidden" if hidden else ("predicted" if frame % 2 else "valid")
    finding = Finding(name="angle", value=0.05, sigma=0.01, unit="rad", severity="caution", text="off the path")
    return Shown(
        t_ns=round(t_s * SECOND),
        frame=frame,
        step="guide",
        stage_from_head=PoseWire.of(reported, NO_COVARIANCE),
        stage_from_view=(PoseWire.of(reported, NO_COVARIANCE),) * 2,
        structures={
            "target": StructureRecord(target_state, "registration void" if hidden else "", 0.5, 45.0 + frame % 3, 2.1),
            "liver": StructureRecord("valid", "", 0.5, 45.0 + frame % 3, 2.4),
        },
        tools={
            spec.needle_name: StructureRecord("hidden", "", 3.0, 42.0, 1.0)
            if lost
            else StructureRecord("valid", "", 0.4, 42.0, 1.0, role="needle")
        },
        target=None if hidden else vec(target),
        target_covariance=None if hidden else said,
        target_displacement=vec(moved),
        target_displacement_covariance=said,
        target_stage=None if hidden else vec(STAGE_FROM_REFERENCE.apply(target)),
        target_stage_covariance=None if hidden else said,
        tips={} if lost else {spec.needle_name: vec(true_tip(spec, t_s) + off("needle"))},
        tip_covariances={} if lost else {spec.needle_name: said},
        directions={} if lost else {spec.needle_name: (0.0, -0.6, -0.8)},
        entry=vec(TARGET + np.array([0.0, 0.048, 0.064])),
        findings=(finding,) if 1.0 <= t_s < 1.5 or 2.0 <= t_s < 2.5 else (),
        text=("Guiding",),
        stage_us={name: spec.stage_us + 100 * k for k, name in enumerate(("wait", "twin", "draw"))},
        input_age_ms={"target": 45.0 + frame % 3, spec.needle_name: 0.0 if lost else 42.0},
        drawn=frame % 3 == 0,
        gate_open=t_s % 4.0 < 0.8,
        period_ns=spec.period_ns,
    )


def messages_of(spec: Spec):
    """Yield (source, topic, publication [ns], message) of a session."""
    rng = np.random.default_rng(spec.seed)
    for source, placement in (("tracker", "process"), ("breathing", "process"), ("puncture", "inside")):
        yield "hub", "v1/state/hub/part", 0, PartState(part=source, state="running", placement=placement)
    for pid in spec.processes:
        yield "hub", "v1/state/hub/part", 0, PartState(part="tracker", state="running", placement="process", pid=pid)
    if spec.withdrawn:
        withdrawn = PartState(part="puncture", state="quarantined", placement="inside", reason=spec.withdrawn)
        yield "loop", "v1/state/puncture/part", SECOND, withdrawn
    steps = ("setup", "register", "verify", "confirm", "train", "guide")
    for version, step in enumerate(steps):
        at = -2.0 * (len(steps) - 1 - version)  # what came before guidance is told at negative seconds, moved below
        yield (
            "loop",
            "v1/state/loop/workflow",
            round(at * SECOND),
            WorkflowState(t_ns=round(at * SECOND), step=step, waits_for="", version=version),
        )
    image = PoseWire.of(Transform.of("reference", "image"), NO_COVARIANCE)
    yield (
        "loop",
        "v1/state/loop/registration",
        0,
        Registration(
            version=3,
            state="confirmed",
            reference_from_image=image,
            fre_mm=0.31,
            tre_p95_mm=1.4,
            verification_mm={"xiphoid": 0.9},
        ),
    )
    yield (
        "breathing",
        "v1/stream/breathing/training",
        0,
        Training(progress=1.0, done=True, figures={"residual_mm": 0.6}),
    )
    if spec.truth:
        for k in range(-5, round(spec.seconds * 100) + 10):
            yield "patient", "v1/truth/patient/truth", k * 10 * MS, truth_at(spec, k * 0.01)
    for k in range(round(spec.seconds * 30)):
        yield "breathing", "v1/stream/breathing/target", k * SECOND // 30, displacement_at(spec, k / 30)
        yield (
            "breathing",
            "v1/stream/breathing/gate",
            k * SECOND // 30,
            Gate(t_ns=k * SECOND // 30, open=False, reason=""),
        )
    frames = round(spec.seconds * 90)
    skipped = range(frames // 2, frames // 2 + spec.missed)
    for frame in range(frames):
        shown = shown_at(spec, frame, frame / 90, rng)
        if frame not in skipped and frame % spec.every == 0:
            yield "loop", "v1/stream/loop/shown", shown.t_ns - 30 * MS, shown
    if spec.ended:
        yield "loop", "v1/state/loop/end", round(spec.seconds * SECOND), RunEnd(reason=spec.ended, early=spec.early)
    if np.isfinite(spec.needle_laid_down):
        at = round(spec.needle_laid_down * SECOND)
        yield "operator", "v1/stream/operator/act", at, Act(t_ns=at, kind="withdraw", of="needle")


def displacement_at(spec: Spec, t_s: float) -> Displacement:
    times = np.arange(4) * 0.05 + t_s
    out = spec.word_at <= t_s < spec.word_at + 1.5
    constant = np.array(spec.constant.get("breathing", (0.0, 0.0, 0.0)))
    return Displacement(
        t_ns=round(t_s * SECOND),
        of="tumour",
        times_ns=tuple(round(t * SECOND) for t in times),
        mean=Array.of([breathing(t) + constant for t in times]),
        covariance=Array.of([np.eye(3) * spec.said_sigma**2] * 4),
        in_model=not out,
        reason="innovation 6 sigma" if out else "",
    )


SHIFT = 60 * SECOND  # the session's guidance starts a minute into the run


def write(folder, spec: Spec, *, shuffle: int = 0, close: bool = True):
    """Write a session; `shuffle` changes the order of arrival among sources, as concurrent parts do."""
    catalogue = Catalogue()
    recorder = Recorder(folder, catalogue)
    recorder.metadata(
        {
            "run_id": "731",
            "seed": spec.seed,
            "title": "Made up",
            "clock": "virtual",
            "headset": spec.headset,
            "mode": spec.mode,
            "seconds": spec.asked_s,
            "plugins": {"puncture": {"placement": "inside", "plugin": "twinguide_puncture"}},
        }
    )
    packets, seqs = [], {}
    for source, topic, t_pub_ns, message in messages_of(spec):
        seqs[source] = seqs.get(source, 0) + 1
        by_ns = SHIFT + round(spec.begun_s * SECOND)
        at_ns = max(round(spec.begun_s * SECOND), t_pub_ns + by_ns)
        packets.append((at_ns, seqs[source], source, topic, moved(message, by_ns)))
    rng = np.random.default_rng(shuffle)
    order = rng.permutation(len(packets)) if shuffle else range(len(packets))
    for index in order:
        t_pub_ns, seq, source, topic, message = packets[index]
        tag = message.__struct_config__.tag
        recorder.write(topic, Header(tag, source, 1, seq, t_pub_ns), catalogue.encode(message))
    if close:
        recorder.close()
    return folder


def moved(message, by_ns):
    """Move a message from guidance's seconds to the run's clock."""
    fields = {"t_ns": message.t_ns + by_ns}
    if isinstance(message, Displacement):
        fields["times_ns"] = tuple(t + by_ns for t in message.times_ns)
    return type(message)(**{**{n: getattr(message, n) for n in message.__struct_fields__}, **fields})


@pytest.fixture
def session(tmp_path):
    """Return a function that writes a made-up session and returns its folder."""

    def make(name: str = "session", *, shuffle: int = 0, **changes):
        return write(tmp_path / name, replace(Spec(), **changes), shuffle=shuffle)

    return make
