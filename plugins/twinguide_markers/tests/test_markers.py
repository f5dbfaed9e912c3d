import zlib
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide import Inbox, TwinGuideError
from twinguide.frames import vector_from_rotation

cv2 = pytest.importorskip("cv2", reason="the marker tracker needs OpenCV: pip install 'twinguide[camera]'")

from twinguide_calibration.boards import dictionary_of  # noqa: E402 - after the skip
from twinguide_markers.markers import Markers  # noqa: E402
from twinguide_markers.plugin import MarkersOptions  # noqa: E402

SIZE = (320, 240)
K = np.array([[310.0, 0.0, 161.0], [0.0, 310.0, 119.0], [0.0, 0.0, 1.0]])
SIDE = 0.05
FPS = 25.0
FRAMES = 12
CAMERA = """image_size_px = [320, 240]
matrix_px = [[310.0, 0.0, 161.0], [0.0, 310.0, 119.0], [0.0, 0.0, 1.0]]
distortion = [0.0, 0.0, 0.0, 0.0, 0.0]
"""
TOOLS = {"pointer": "marker:7:50:4x4_50", "reference": "marker:3:50:4x4_50"}


def truth(tool, k):
    """Return camera_from_tool of the k-th frame: y up and z towards the camera, turned away from facing it."""
    side = -0.055 if tool == "pointer" else 0.055
    turn = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0.6, 0.02 * k, 0.1])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn.as_matrix(), [side + 0.001 * k, 0.01, 0.25]
    return pose


def paint(image, marker, pose, side=SIDE):
    """Lay a marker with its white rim into a picture, three times larger than the camera's."""
    texture = np.pad(cv2.aruco.generateImageMarker(dictionary_of("4x4_50"), marker, 180), 45, constant_values=235)
    half = side / 2 * 270 / 180
    corners = np.array([[-half, half, 0], [half, half, 0], [half, -half, 0], [-half, -half, 0]])
    seen = (corners @ pose[:3, :3].T + pose[:3, 3]) @ K.T
    pixels = (seen[:, :2] / seen[:, 2:] + 0.5) * 3 - 0.5
    texels = np.array([[-0.5, -0.5], [269.5, -0.5], [269.5, 269.5], [-0.5, 269.5]])
    warp = cv2.getPerspectiveTransform(texels.astype(np.float32), pixels.astype(np.float32))
    shape = (SIZE[0] * 3, SIZE[1] * 3)
    layer = cv2.warpPerspective(texture, warp, shape, flags=cv2.INTER_AREA)
    mask = cv2.warpPerspective(np.ones_like(texture), warp, shape, flags=cv2.INTER_NEAREST)
    image[mask > 0] = layer[mask > 0]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return a folder with a video of both tools, the reference hidden in frames 5 and 6, and the camera's file."""
    folder = tmp_path_factory.mktemp("markers")
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE)
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 98)
    rng = np.random.default_rng(1)
    for k in range(FRAMES):
        large = np.full((SIZE[1] * 3, SIZE[0] * 3), 150, dtype=np.uint8)
        for tool, marker in (("pointer", 7), ("reference", 3)):
            if tool == "pointer" or k not in (5, 6):
                paint(large, marker, truth(tool, k))
        small = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA) + rng.normal(0.0, 1.5, SIZE[::-1])
        writer.write(cv2.cvtColor(np.clip(small, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR))
    writer.release()
    (folder / "camera.toml").write_text(CAMERA)
    return folder


def part(folder, **options):
    given = {"source": str(folder / "v.avi"), "calibration": str(folder / "camera.toml"), "tools": TOOLS} | options
    rng = lambda stream="": np.random.default_rng(zlib.crc32(stream.encode()))  # noqa: E731
    return Markers(SimpleNamespace(options=msgspec.convert(given, MarkersOptions), rng=rng))


def play(markers, seconds=0.6, start_ns=7_000_000_000):
    steps = round(seconds * 120)
    return [e for k in range(steps) for e in markers.step(start_ns + round(k * 1e9 / 120), Inbox())]


def test_both_tools_are_followed_within_their_stated_error(recording):
    exposures = [e for e in play(part(recording)) if e.tools]
    assert len(exposures) == FRAMES
    squares = []
    for k, exposure in enumerate(exposures):
        for tool, wire in exposure.tools.items():
            pose = wire.pose(exposure.t_ns)
            off = np.linalg.inv(pose.transform.matrix) @ truth(tool, k)
            delta = np.concatenate([vector_from_rotation(off[:3, :3]), off[:3, 3]])
            squares.append(delta @ np.linalg.solve(pose.covariance, delta))
            assert np.linalg.norm(off[:3, 3]) < 2e-3  # [m] at 0.25 m: 0.25 px on 60 px is 1 mm of depth
            assert (pose.transform.target, pose.transform.source) == ("tracker", tool)
    # six degrees of freedom; the drawn corners are better than the 0.25 px that is stated
    assert np.mean(squares) < 6.0


def test_a_frame_is_stamped_by_its_place_in_the_video(recording):
    stamps = [e.t_ns for e in play(part(recording)) if e.tools]
    assert stamps == [7_000_000_000 + round(k / FPS * 1e9) for k in range(FRAMES)]


def test_a_hidden_tool_is_lost_with_the_reason_and_comes_back(recording):
    exposures = [e for e in play(part(recording)) if e.tools]
    assert [k for k, e in enumerate(exposures) if "reference" in e.lost] == [5, 6]
    assert exposures[5].lost == {"reference": "not in the camera's view"}
    assert set(exposures[7].tools) == {"pointer", "reference"}


def test_a_slow_step_skips_to_the_newest_frame(recording):
    markers = part(recording)
    first = next(markers.step(0, Inbox()))
    late = list(markers.step(200_000_000, Inbox()))  # five frames later
    assert [e.t_ns for e in (first, *late)] == [0, 200_000_000]


def test_the_end_of_a_video_is_said_once(recording):
    ended = [e for e in play(part(recording), 1.0) if not e.tools]
    assert [e.lost for e in ended] == [dict.fromkeys(TOOLS, "the pictures have ended")]


def test_the_same_video_gives_the_same_bits(recording):
    one, two = (msgspec.msgpack.encode(play(part(recording))) for _ in range(2))
    assert one == two


def test_a_board_described_wrongly_is_lost_by_its_residual(recording):
    tools = {"both": "grid:2x1:50/10:4x4_50"}  # markers 0 and 1 are not there; 3 and 7 are not side by side
    assert play(part(recording, tools=tools))[0].lost == {"both": "not in the camera's view"}
    (recording / "board.toml").write_text(CAMERA.replace("310.0, 0.0, 161.0", "520.0, 0.0, 161.0"))
    lost = play(part(recording, calibration=str(recording / "board.toml")))[0].lost
    assert all("px rms from where the layout puts them" in reason for reason in lost.values())


def test_pictures_of_another_size_than_calibrated_give_no_pose(recording):
    (recording / "large.toml").write_text(CAMERA.replace("320, 240", "640, 480"))
    exposure = play(part(recording, calibration=str(recording / "large.toml")))[0]
    assert exposure.lost["pointer"] == "pictures of 320x240 px, calibrated at 640x480"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "nowhere.avi"}, "no such file"),
        ({"calibration": "nowhere.toml"}, "calibrate camera"),
        ({"tools": {"a": "marker:7"}}, "Write it as"),
        ({"tools": {"a": "marker:7:50:4x4_50", "b": "marker:7:40:4x4_50"}}, "marker 7 .* on a and b"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(recording, options, says):
    with pytest.raises(TwinGuideError, match=says):
        part(recording, **options)


def test_options_are_strict(recording):
    with pytest.raises(msgspec.ValidationError, match="colour"):
        part(recording, colour="red")
