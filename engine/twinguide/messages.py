"""The core's messages. A plugin brings its own: subclass `Message` with a tag and declare it on a topic.

The wire is plain MessagePack in map form, so `msgpack.unpackb` reads it without a schema. Arrays are raw bytes with
dtype and shape. Times are integer nanoseconds of the run's clock, lengths metres, angles radians.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.errors import BusError
from twinguide.frames import Pose, Transform, rotation_from_quaternion

Vec3 = tuple[float, float, float]
Vec4 = tuple[float, float, float, float]
DisplayState = Literal["valid", "predicted", "degraded", "hidden", "unconfirmed"]
Severity = Literal["advisory", "caution", "warning"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What travels on the bus: subclass with `tag="owner.name/major"`; fields may only ever be added, with defaults."""

    t_ns: int = 0  # the moment the content is valid for


class Array(msgspec.Struct, frozen=True):
    """A numeric array as raw little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(values: Any, dtype: str = "f8") -> Array:  # noqa: ANN401 - anything array-like
        """Pack an array-like."""
        a = np.ascontiguousarray(values, dtype=dtype)
        return Array(dtype, a.shape, a.tobytes())

    def numpy(self) -> NDArray[Any]:
        """Return a read-only view; raise BusError where dtype, shape and bytes disagree."""
        try:
            return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)
        except (TypeError, ValueError) as error:
            raise BusError(f"{self.shape} of {self.dtype}", f"{len(self.data)} bytes: {error}") from error


class PoseWire(msgspec.Struct, frozen=True):
    """A rigid transform with covariance on the wire: `target_from_source`."""

    target: str
    source: str
    position: Vec3  # [m]
    quaternion: Vec4  # xyzw
    covariance: Array  # (6, 6) over rotation [rad], translation [m], in source

    @staticmethod
    def of(transform: Transform, covariance: Any) -> PoseWire:  # noqa: ANN401 - anything array-like
        """Pack a transform and its covariance, shape (6, 6)."""
        position = tuple(transform.translation.tolist())
        quaternion = tuple(transform.quaternion.tolist())
        return PoseWire(transform.target, transform.source, position, quaternion, Array.of(covariance))

    def pose(self, t_ns: int) -> Pose:
        """Unpack as measured at `t_ns` [ns]; raise FrameError where it is not rigid and finite."""
        rotation = rotation_from_quaternion(self.quaternion)
        return Pose(
            Transform.of(self.target, self.source, rotation, np.array(self.position)), t_ns, self.covariance_array()
        )

    def covariance_array(self) -> NDArray[np.float64]:
        """Return the covariance, shape (6, 6); raise BusError where it is none."""
        c = self.covariance.numpy()
        where = f"{self.target}_from_{self.source}"
        if c.shape != (6, 6) or not np.isfinite(c).all():
            raise BusError("a finite covariance of shape (6, 6)", f"shape {c.shape}", where)
        if c.diagonal().min() < 0.0:
            raise BusError("a covariance", f"a variance of {c.diagonal().min():g}", where)
        return c


# ---- what sensors and motion models publish -------------------------------------------------------------------------


class Exposure(Message, frozen=True, kw_only=True, tag="twinguide.exposure/1"):
    """All tools of one camera exposure, so that reference and needle belong to the same instant.

    `t_ns` is the exposure on the host's clock, `sigma_t_ns` its uncertainty. A tool that was not seen is absent from
    `tools` and named in `lost` with the reason.
    """

    sigma_t_ns: int
    tools: dict[str, PoseWire]  # tracker_from_<tool>
    lost: dict[str, str] = {}


class ImageTarget(Message, frozen=True, kw_only=True, tag="twinguide.image_target/1"):
    """A structure located in a tracked image; `t_ns` is the imaging system's own stamp, of unknown lag."""

    of: str
    position: Vec3  # [m], in reference
    covariance: Array  # (3, 3) [m2], in reference


class Displacement(Message, frozen=True, kw_only=True, tag="twinguide.displacement/1"):
    """How far a structure moves from where the CT shows it: a short trajectory, to be interpolated at display time."""

    of: str
    times_ns: tuple[int, ...]
    mean: Array  # (n, 3) [m], in reference
    covariance: Array  # (n, 3, 3) [m2], in reference
    in_model: bool = True
    reason: str = ""


class Boundary(Message, frozen=True, kw_only=True, tag="twinguide.boundary/1"):
    """Where points of a structure are now, as something measures them: drives solvers, as `Displacement` does.

    A message replaces the older ones of the same `name`; one without points withdraws them, and a name that is silent
    for a second is ignored. With `radius_m` above 0 each point stands for the patch around it, as under a probe that
    is pressed against the organ: a point that may slide has a large variance along its surface.
    """

    of: str
    name: str  # of what measures: "probe", "surface", ...
    rest: Array  # (k, 3) [m], in image: where the points are in the CT
    mean: Array  # (k, 3) [m], in reference: where they are now
    covariance: Array  # (k, 3, 3) [m2], in reference
    radius_m: float = 0.0


class Training(Message, frozen=True, kw_only=True, tag="twinguide.training/1"):
    """A part's progress in training; the workflow moves on when every training part is done."""

    progress: float  # 0..1
    done: bool
    note: str = ""
    figures: dict[str, float] = {}


class Gate(Message, frozen=True, kw_only=True, tag="twinguide.gate/1"):
    """Whether the target stands still enough to advance, with the reason; closed when unknown."""

    open: bool
    reason: str
    seconds_left: float = 0.0


class Lost(Message, frozen=True, kw_only=True, tag="twinguide.lost/1"):
    """A sensor's own report that it has nothing."""

    of: str
    reason: str


# ---- bulk -----------------------------------------------------------------------------------------------------------


class BulkRef(msgspec.Struct, frozen=True):
    """Where an array lies in a shared-memory ring: read it with `Context.bulk(ref)` while `version` still stands."""

    ring: str
    slot: int
    version: int
    dtype: str
    shape: tuple[int, ...]


class Solution(Message, frozen=True, kw_only=True, tag="twinguide.solution/1"):
    """A solver's result: `t_ns` is the time for which it is valid."""

    of: str
    vertices: BulkRef  # (n, 3) float32 [m], in image: where the body's vertices are
    level: str  # full | reduced | partial | rigid, as the contract declares
    residual: float  # [N/N], force imbalance over applied force
    sigma_m: float  # of all vertices, root mean square, 1 sigma per axis
    smallest_j: float
    deadline_met: bool
    t_input_ns: int = 0  # the newest boundary condition used
    sigma: BulkRef | None = None  # (n,) float32 [m]: 2.7955 of it hold 95 % of a vertex's errors, the input's apart
    reason: str = ""  # why the level is below the best


# ---- state ----------------------------------------------------------------------------------------------------------


UNSHARED = Array.of([[0.0] * 3] * 3)


class Landmark(msgspec.Struct, frozen=True):
    """A touched landmark: where the pointer was."""

    name: str
    position: Vec3  # [m], in reference
    covariance: Array  # (3, 3) [m2]
    shared: Array = UNSHARED  # (3, 3) [m], in `covariance`: how it moves by three errors of variance 1 of all touches


class Registration(Message, frozen=True, kw_only=True, tag="twinguide.registration/1"):
    """How the CT lies on the patient, and how well: state, versioned."""

    version: int
    state: Literal["absent", "made", "verified", "confirmed", "suspended", "void"]
    reason: str = ""
    reference_from_image: PoseWire | None = None
    fre_mm: float = 0.0
    tre_p95_mm: float = 0.0  # predicted at the target, not the FRE
    verification_mm: dict[str, float] = {}  # landmark not used for the fit -> measured error
    verification_p95_mm: dict[str, float] = {}  # and the radius that holds 95 % of such errors, as predicted
    verified_ns: int = 0  # when the last of them was touched; 0: never
    landmarks: tuple[Landmark, ...] = ()
    shared: Array | None = None  # (6, 3) covariance of the pose's error with those that all touches have in common


class Calibration(Message, frozen=True, kw_only=True, tag="twinguide.calibration/1"):
    """The pose between two fixed frames, as a calibration states it, with its covariance: state, repeated."""

    name: str  # stage_from_tracker
    pose: PoseWire


class WorkflowState(Message, frozen=True, kw_only=True, tag="twinguide.workflow/1"):
    """Where the procedure stands and what it waits for."""

    step: str  # setup | calibrate | register | verify | confirm | train | guide | review
    waits_for: str
    version: int
    note: str = ""  # why the last touch was refused, say
    touched: tuple[str, ...] = ()
    progress: tuple[str, ...] = ()  # how far the step is, as the wearer reads it


class PartState(Message, frozen=True, kw_only=True, tag="twinguide.part_state/1"):
    """What the supervisor knows of one part; for one that runs again, `reason` is why it was restarted."""

    part: str
    state: Literal["starting", "running", "dead", "hung", "restarting", "quarantined", "stopped"]
    placement: str
    reason: str = ""
    pid: int = 0
    restarts: int = 0

    @property
    def failed(self) -> bool:
        """Whether the part gives nothing now, though nobody has asked it to end."""
        return self.state in ("dead", "hung", "restarting", "quarantined")


class Health(Message, frozen=True, kw_only=True, tag="twinguide.health/1"):
    """A part's steps, as its work loop counts them."""

    part: str
    steps: int
    late: int = 0
    step_us_max: int = 0


class Refusal(Message, frozen=True, kw_only=True, tag="twinguide.refusal/1"):
    """What a part sent, or asked for, was refused."""

    part: str
    topic: str
    reason: str
    count: int


# ---- commands -------------------------------------------------------------------------------------------------------


class Command(Message, frozen=True, kw_only=True, tag="twinguide.command/1"):
    """What a person, or the simulated operator, asks of the engine; repeated with the same `id` until acknowledged."""

    id: str
    kind: Literal["start", "swing", "touch", "confirm", "verify", "reject", "train", "overlay", "stop"]
    argument: str = ""


class Ack(Message, frozen=True, kw_only=True, tag="twinguide.ack/1"):
    """The engine's answer to a command."""

    id: str
    accepted: bool
    reason: str = ""


class Act(Message, frozen=True, kw_only=True, tag="twinguide.act/1"):
    """What the simulated operator's hands do: the simulated world carries it out.

    `touch`: hold the pointer's tip on landmark `of`, off by `offset`. `swing`: swing the pointer, `of="pointer"`, with
    its tip in a divot, by up to `turn[0]` [rad] from the middle. `needle`: pick the needle up if it lies, and move
    it with `velocity` and `turn` until the next act (a hand sees where things appear, so it steers by differences and
    never by places). `withdraw`: lay the tool `of` down. `breathe`: ask the patient to hold the breath at
    end-expiration (`of="hold"`) or to go on (`of="free"`).
    """

    kind: Literal["touch", "swing", "needle", "withdraw", "breathe"]
    of: str = ""
    offset: Vec3 = (0.0, 0.0, 0.0)  # [m], in reference
    velocity: Vec3 = (0.0, 0.0, 0.0)  # of the hand-held tip [m/s], in reference
    turn: Vec3 = (0.0, 0.0, 0.0)  # about that tip [rad/s], in reference


# ---- guidance and what was shown ------------------------------------------------------------------------------------


class Finding(Message, frozen=True, kw_only=True, tag="twinguide.finding/1"):
    """One measured fact of guidance with its error."""

    name: str
    value: float
    sigma: float
    unit: str
    severity: Severity
    text: str
    of: str = ""
    lower95: float | None = None


class StructureRecord(msgspec.Struct, frozen=True):
    """What the wearer saw of one structure or tool."""

    state: DisplayState
    reason: str
    silence: float  # in the stream's own periods
    horizon_ms: float
    p95_mm: float
    role: str = ""  # of a tool that is shown: "needle", ...


class HandRecord(msgspec.Struct, frozen=True):
    """One controller, as the headset reported it for a frame's display time; a pose that was not tracked is None."""

    grip: PoseWire | None = None  # stage_from_grip_<hand>, exact: as reported
    aim: PoseWire | None = None  # stage_from_aim_<hand>
    trigger: float = 0.0  # 0..1
    squeeze: float = 0.0
    buttons: tuple[str, ...] = ()  # pressed


class Shown(Message, frozen=True, kw_only=True, tag="twinguide.shown/1"):
    """One frame as shown; `t_ns` is its display time."""

    frame: int
    step: str
    stage_from_head: PoseWire  # as the runtime reported it for this display time
    stage_from_view: tuple[PoseWire, PoseWire]
    structures: dict[str, StructureRecord]
    tools: dict[str, StructureRecord]
    target: Vec3 | None  # [m], in reference
    target_covariance: Array | None  # (3, 3) [m2], in reference
    target_displacement: Vec3 | None  # [m], in reference: the breathing part of it
    target_displacement_covariance: Array | None
    target_stage: Vec3 | None  # [m], in stage
    target_stage_covariance: Array | None
    tips: dict[str, Vec3]  # tool -> tip [m], in reference
    tip_covariances: dict[str, Array]
    directions: dict[str, Vec3]
    entry: Vec3 | None
    findings: tuple[Finding, ...]
    text: tuple[str, ...]  # the panel's rows; a small display has room for the gravest and counts the others
    stage_us: dict[str, int]  # wall time by loop stage, in a virtual run too
    input_age_ms: dict[str, float]
    drawn: bool = True
    gate_open: bool = False
    period_ns: int = 0  # of the display; 0 in older recordings
    seen_ns: int = 0  # when it is first seen: `t_ns`, or later where the machine was too slow
    controllers: dict[str, PoseWire] = {}  # stage_from_<tool> of tools that a controller is, for this display time
    hands: dict[str, HandRecord] = {}  # the controllers that were active: left, right


class Picture(Message, frozen=True, kw_only=True, tag="twinguide.picture/1"):
    """A still of the session, and the SHA-256 of its pixels."""

    name: str
    sha256: str


class Attempt(Message, frozen=True, kw_only=True, tag="twinguide.attempt/1"):
    """One rehearsed puncture, from trigger to trigger."""

    number: int
    seconds: float
    tip_error_mm: float
    angle_deg: float
    path_mm: float  # travelled by the tip
    closest: dict[str, float]  # critical structure -> least distance [mm]


class RunEnd(Message, frozen=True, kw_only=True, tag="twinguide.run_end/1"):
    """Why the run ended, said after its last frame: a recording without it breaks off before."""

    reason: str
    early: bool = False  # neither lasted as long as asked nor was brought to review


# ---- the simulated world --------------------------------------------------------------------------------------------


class BodiesSeen(Message, frozen=True, kw_only=True, tag="twinguide.world.bodies/1"):
    """What light brings to a simulated camera: true tool poses. For declared simulated sensors only."""

    tools: dict[str, PoseWire]  # tracker_from_<tool>, exact
    occluded: tuple[str, ...] = ()


class EchoSeen(Message, frozen=True, kw_only=True, tag="twinguide.world.echo/1"):
    """What sound brings to a simulated probe: a structure's true place. For declared simulated sensors only."""

    of: str
    position: Vec3  # [m], in reference


class Truth(Message, frozen=True, kw_only=True, tag="twinguide.truth/1"):
    """The simulated world's hidden state, for recorder and scorer only."""

    points: dict[str, Vec3]  # [m], in reference: target, displacement (of the target), needle_tip, pointer_tip
    poses: dict[str, PoseWire]  # stage_from_tracker, stage_from_head, reference_from_image, tracker_from_reference
    flags: dict[str, str] = {}  # breathing: regular, hold, cough, jump, creep; hit: structures the needle has entered


# ---- lockstep -------------------------------------------------------------------------------------------------------


class StepMark(Message, frozen=True, kw_only=True, tag="twinguide.step/1"):
    """The coordinator lets one part step; on the data path, so everything published before has arrived."""

    part: str
    round: int


class DoneMark(Message, frozen=True, kw_only=True, tag="twinguide.done/1"):
    """A part's step is over; on the data path, after everything that the step published."""

    part: str
    round: int
    published: tuple[str, ...] = ()  # tags
