"""TwinGuide: the registered, breathing twin in a headset, true to the moment it is seen.

Plugin authors import from here.
"""

import os

# Before NumPy: one thread for linear algebra, in every process alike. More would take the other parts' cores for
# matrices of a few numbers, and split sums otherwise than a part's own process does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from twinguide.errors import TwinGuideError
from twinguide.frames import Pose, Transform
from twinguide.hookspecs import (
    Anatomy,
    Context,
    Contract,
    Guidance,
    Motion,
    Operator,
    Organ,
    Overlay,
    Part,
    Sensor,
    Solver,
    Topic,
    World,
    hookimpl,
)
from twinguide.inbox import Inbox
from twinguide.messages import (
    Ack,
    Act,
    Array,
    Boundary,
    BulkRef,
    Command,
    Displacement,
    Exposure,
    Finding,
    Gate,
    ImageTarget,
    Lost,
    Message,
    PoseWire,
    Registration,
    Shown,
    Solution,
    Training,
    WorkflowState,
)
from twinguide.scene import Ellipsoid, Label, Line, Point, Ring, TwinView

__all__ = [
    "Ack",
    "Act",
    "Anatomy",
    "Array",
    "Boundary",
    "BulkRef",
    "Command",
    "Context",
    "Contract",
    "Displacement",
    "Ellipsoid",
    "Exposure",
    "Finding",
    "Gate",
    "Guidance",
    "ImageTarget",
    "Inbox",
    "Label",
    "Line",
    "Lost",
    "Message",
    "Motion",
    "Operator",
    "Organ",
    "Overlay",
    "Part",
    "Point",
    "Pose",
    "PoseWire",
    "Registration",
    "Ring",
    "Sensor",
    "Shown",
    "Solution",
    "Solver",
    "Topic",
    "Training",
    "Transform",
    "TwinGuideError",
    "TwinView",
    "WorkflowState",
    "World",
    "hookimpl",
]
