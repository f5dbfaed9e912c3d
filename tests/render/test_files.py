"""What is left on disk: a video that plays, the same bytes for the same pictures, and stills of a case."""

import hashlib
import resource
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from twinguide.case import Landmark
from twinguide.errors import RecordingError
from twinguide.footage import Footage
from twinguide.render.pictures import picture_hash
from twinguide.render.stills import directions, draw_stills, look
from twinguide.render.video import VideoWriter


def pictures(count):
    """Return pictures of a bright square that walks over grey, 64 x 96."""
    out = []
    for number in range(count):
        pixels = np.full((64, 96, 3), 40, dtype=np.uint8)
        pixels[20:36, 4 * number : 4 * number + 16] = 230, 120, 30
        out.append(pixels)
    return out


def test_a_video_plays_back_what_was_written(tmp_path):
    path, shown = tmp_path / "new" / "stereo.webm", pictures(12)
    with VideoWriter(path, 96, 64, 30.0) as video:
        for pixels in shown:
            video.write(pixels)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9"
        assert stream.average_rate == 30
        played = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(played) == 12
    for one, other in zip(played, shown, strict=True):
        assert np.abs(one.astype(int) - other)[2:18].mean() < 4  # the grey, top row first; a lossy codec
        middle = np.flatnonzero(other[28, :, 0] == 230)[8]
        assert np.abs(one[28, middle].astype(int) - other[28, middle]).max() < 40  # colour is stored at half resolution


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    digests = set()
    for name in ("a.webm", "b.webm"):
        with VideoWriter(tmp_path / name, 96, 64, 89.5) as video:
            for pixels in pictures(8):
                video.write(pixels)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_video_without_pictures_or_closed_twice_is_no_error(tmp_path):
    video = VideoWriter(tmp_path / "empty.webm", 96, 64, 30.0)
    video.close()
    video.close()


def test_a_picture_of_another_size_and_odd_sizes_are_refused(tmp_path):
    with (
        VideoWriter(tmp_path / "a.webm", 96, 64, 30.0) as video,
        pytest.raises(RecordingError, match=r"64, 96.*64, 95"),
    ):
        video.write(np.zeros((64, 95, 3), dtype=np.uint8))
    with pytest.raises(RecordingError, match="even"):
        VideoWriter(tmp_path / "b.webm", 95, 64, 30.0)


def test_a_video_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordingError, match=r"file.stereo\.webm"):
        VideoWriter(tmp_path / "file" / "stereo.webm", 96, 64, 30.0)


@pytest.fixture
def case(surfaces):
    """What stills read of a case: surfaces, their roles and colours, landmarks, and a plan."""
    return SimpleNamespace(
        title="A patient of spheres",
        organ="liver",
        structures={n: SimpleNamespace(colour=s.colour, role=s.role) for n, s in surfaces.items()},
        surface=lambda name: surfaces[name],
        landmarks={},
        plan=SimpleNamespace(entry=np.array([-0.06, -0.12, 0.0]), target=np.array([0.02, 0.0, 0.01])),
    )


def test_stills_show_a_case_from_four_sides(ctx, case, tmp_path):
    paths = draw_stills(case, tmp_path / "stills")
    ctx.__enter__()  # stills are drawn in a context of their own, which was the current one until now
    assert [path.name for path in paths] == ["1_anterior.png", "2_right.png", "3_superior.png", "4_path.png"]
    shown = [np.asarray(Image.open(path)) for path in paths]
    assert all((one.max(axis=2) > 60).mean() > 0.02 for one in shown)
    assert len({one.tobytes() for one in shown}) == 4


def test_stills_name_the_landmarks_where_they_are(ctx, case, tmp_path):
    def front():
        return np.asarray(Image.open(draw_stills(case, tmp_path)[0])).astype(int)

    case.landmarks = {"F1": Landmark("F1", np.array([0.03, -0.03, 0.02]), "fiducial")}
    with_landmark = front()
    case.landmarks = {}
    changed = np.argwhere(np.abs(front() - with_landmark).max(axis=2) > 60)
    ctx.__enter__()
    seen = directions(case)["anterior"].inverse().apply(np.array([0.03, -0.03, 0.02]))
    x, y = (500 / np.tan(0.42) * seen[:2] / -seen[2]).tolist()
    wanted = (500 - y, 1820 / 2 + x - 420)  # which are cut on the left
    assert changed.mean(axis=0) == pytest.approx(wanted, abs=12.0)  # its name is not symmetric
    assert len(changed) > 100


def test_stills_have_the_whole_panel_on_either_side(ctx, case, tmp_path):
    def white(*heights):
        case.landmarks = {f"F{z}": Landmark(f"F{z}", np.array([0.13, -0.05, z]), "fiducial") for z in heights}
        lit = np.asarray(Image.open(draw_stills(case, tmp_path)[0])).min(axis=2) > 200  # words, seen from the front
        return int(lit[:, :700].sum()), int(lit[:, 700:].sum())

    free, in_the_way = white(), white(-0.12, 0.0, 0.12)  # wherever the panel may hang on the right
    ctx.__enter__()
    assert free[0] == in_the_way[1] == 0
    assert in_the_way[0] == pytest.approx(free[1], rel=0.05)  # on other parts of a pixel


def test_stills_are_upright_and_from_the_side_they_name(case):
    heads = directions(case)
    left, posterior, superior = np.eye(3)
    assert heads["anterior"].translation @ posterior < 0  # before the patient
    assert heads["anterior"].rotation[:, 0] @ left == pytest.approx(1.0)  # the patient's left is on the right
    assert heads["anterior"].rotation[:, 1] @ superior == pytest.approx(1.0)
    assert heads["right"].translation @ left < 0
    assert heads["superior"].translation @ superior > 0


def test_stills_are_filled_by_the_patient_beside_the_panel(case):
    everything = np.concatenate([case.surface(name).vertices for name in case.structures])
    for head in directions(case).values():
        seen = (everything - head.translation) @ head.rotation
        tangents = np.abs(seen[:, :2] / -seen[:, 2:]).max(axis=0) / np.tan(0.42)
        assert 0.9 < tangents.max() < 1.0  # of the half height, and of as much to the side


def test_looking_at_a_point_puts_it_straight_ahead():
    head = look(np.array([0.1, 0.2, 0.3]), np.array([0.6, 0.0, 0.8]), np.array([0.0, 1.0, 0.0]), 0.7)
    assert head.inverse().apply(np.array([0.1, 0.2, 0.3])) == pytest.approx([0.0, 0.0, -0.7])


@pytest.mark.parametrize("threaded", [False, True])
def test_a_still_is_kept_once_a_step_has_stood_and_told_of(scene_of, tmp_path, threaded):
    footage = Footage(tmp_path, (64, 64), lambda: 30.0, threaded=threaded)
    scene = scene_of()
    told = []
    for tenth in range(100):  # ten seconds: in real time the encoder may leave out any one frame
        told += footage.keep(replace(scene, twin=replace(scene.twin, t_display_ns=tenth * 100_000_000)))
        time.sleep(0.001 * threaded)
    told += footage.close()
    stills = [picture for picture in told if picture.name.endswith(".png")]
    assert [p.name for p in stills] == [f"01_{scene.twin.workflow.step}.png"]
    assert stills[0].t_ns == 500_000_000 or (threaded and stills[0].t_ns > 500_000_000)
    kept = np.asarray(Image.open(tmp_path / "stills" / stills[0].name))
    assert picture_hash(kept) == stills[0].sha256
    assert not footage.fault


@pytest.mark.parametrize("threaded", [False, True])
def test_a_fault_of_any_kind_ends_the_pictures_and_is_told(scene_of, tmp_path, threaded):
    footage = Footage(tmp_path, (64, 64), lambda: 1 / 0, threaded=threaded)
    for _ in range(20):  # more than the encoder's queue takes
        footage.keep(scene_of())
        time.sleep(0.001 * threaded)
    closing = threading.Thread(target=footage.close, daemon=True)
    closing.start()
    closing.join(20.0)
    assert not closing.is_alive()
    assert footage.fault == "no more pictures are kept: division by zero"


@pytest.mark.parametrize("threaded", [False, True])
def test_a_disk_that_takes_no_more_video_is_told_once_in_one_line(scene_of, tmp_path, threaded, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))  # less than the head of a WebM file
    try:
        footage = Footage(tmp_path, (64, 64), lambda: 30.0, threaded=threaded)
        for _ in range(20):
            footage.keep(scene_of())
            time.sleep(0.001 * threaded)
        footage.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    logged = [record for record in caplog.records if record.name == "twinguide.footage"]
    assert [record.getMessage() for record in logged] == [footage.fault]
    assert "stereo.webm" in footage.fault
    assert logged[0].exc_info is None


@pytest.mark.parametrize("threaded", [False, True])
def test_a_video_that_cannot_be_finished_is_told_and_its_stills_too(scene_of, tmp_path, threaded, monkeypatch):
    def fail(video):
        raise av.error.InvalidDataError(1, "no trailer")

    monkeypatch.setattr(VideoWriter, "close", fail)
    footage = Footage(tmp_path, (64, 64), lambda: 30.0, threaded=threaded)
    scene = scene_of()
    told = []
    for t_ns in (0, 500_000_000):
        told += footage.keep(replace(scene, twin=replace(scene.twin, t_display_ns=t_ns)))
    told += footage.close()
    assert f"01_{scene.twin.workflow.step}.png" in [picture.name for picture in told]
    assert "no trailer" in footage.fault


def test_a_video_of_no_frame_is_not_named(tmp_path):
    assert Footage(tmp_path, (64, 64), lambda: 30.0, threaded=False).close() == []
    assert not (tmp_path / "stereo.webm").exists()


def test_a_view_of_odd_height_loses_a_row_and_one_of_another_size_ends_the_pictures(scene_of, canvas_of, tmp_path):
    footage = Footage(tmp_path, (64, 65), lambda: 30.0, threaded=False)
    footage.take(0, canvas_of((64, 65)).framebuffer)
    footage.keep(scene_of())
    assert not footage.fault
    footage.take(1, canvas_of((64, 90)).framebuffer)
    assert "got (64, 90)" in footage.fault
    footage.close()
    with av.open(str(tmp_path / "stereo.webm")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (128, 64)
