"""OpenIGTLink as bytes: every message type packed and unpacked, and streams read past damage. No sockets."""

from .geometry import Attribute, Fiducial, Points, PolyData
from .image import Image, ImageEntry, ImageMeta
from .packet import KNOWN_TYPES, Content, Header, Packet, Unknown, unpack
from .refused import MessageRefused
from .stream import Decoder, Limits
from .tracking import (
    Position,
    QuaternionTool,
    QuaternionTrackingData,
    StartTracking,
    Tool,
    TrackingData,
    Transform,
)
from .values import Capability, Command, NumberArray, Query, Reply, SensorData, Status, Text, unit_code, unit_of

__all__ = [
    "KNOWN_TYPES",
    "Attribute",
    "Capability",
    "Command",
    "Content",
    "Decoder",
    "Fiducial",
    "Header",
    "Image",
    "ImageEntry",
    "ImageMeta",
    "Limits",
    "MessageRefused",
    "NumberArray",
    "Packet",
    "Points",
    "PolyData",
    "Position",
    "QuaternionTool",
    "QuaternionTrackingData",
    "Query",
    "Reply",
    "SensorData",
    "StartTracking",
    "Status",
    "Text",
    "Tool",
    "TrackingData",
    "Transform",
    "Unknown",
    "unit_code",
    "unit_of",
    "unpack",
]
