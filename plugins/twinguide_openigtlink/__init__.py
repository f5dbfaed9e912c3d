"""OpenIGTLink: real trackers, 3D Slicer and PLUS. The codec and the connections stand alone, without an engine.

Send a needle's pose and wait for whatever comes:

    from twinguide_openigtlink import Client, Packet, Transform

    with Client("127.0.0.1", 18944) as client:
        client.connect()
        client.send(Packet(Transform(matrix_mm), "NeedleToTracker", stamp_ns=time.time_ns()))
        arrival = client.receive(timeout_s=1.0)
"""

from .client import Client
from .endpoints import PORT, Endpoint, Reader, Server
from .link import Arrival, Link
from .wire import (
    KNOWN_TYPES,
    Attribute,
    Capability,
    Command,
    Content,
    Decoder,
    Fiducial,
    Header,
    Image,
    ImageEntry,
    ImageMeta,
    Limits,
    MessageRefused,
    NumberArray,
    Packet,
    Points,
    PolyData,
    Position,
    QuaternionTool,
    QuaternionTrackingData,
    Query,
    Reply,
    SensorData,
    StartTracking,
    Status,
    Text,
    Tool,
    TrackingData,
    Transform,
    Unknown,
    unit_code,
    unit_of,
    unpack,
)

__all__ = [
    "KNOWN_TYPES",
    "PORT",
    "Arrival",
    "Attribute",
    "Capability",
    "Client",
    "Command",
    "Content",
    "Decoder",
    "Endpoint",
    "Fiducial",
    "Header",
    "Image",
    "ImageEntry",
    "ImageMeta",
    "Limits",
    "Link",
    "MessageRefused",
    "NumberArray",
    "Packet",
    "Points",
    "PolyData",
    "Position",
    "QuaternionTool",
    "QuaternionTrackingData",
    "Query",
    "Reader",
    "Reply",
    "SensorData",
    "Server",
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
