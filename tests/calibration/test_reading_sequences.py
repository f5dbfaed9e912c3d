import gzip

import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import Track, read_poses, relative, without_repeats
from twinguide_calibration.reading.tracks import frames_of_name

QUARTER_ABOUT_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def matrix(rotation=QUARTER_ABOUT_Z, place=(10.0, 20.0, 300.0)):
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = rotation, place
    return m


def frames_of(count, *, status="OK", name="ProbeToTracker", first_s=10.0, change=lambda i, m: m):
    frames = []
    for i in range(count):
        m = change(i, matrix(place=(10.0 + i, 20.0, 300.0)))
        frames.append(
            {
                f"{name}Transform": " ".join(f"{v:.17g}" for v in np.asarray(m).ravel()),
                f"{name}TransformStatus": status,
                "Timestamp": f"{first_s + 0.02 * i:.6f}",
                "ImageStatus": "INVALID",
            }
        )
    return frames


def metaimage(path, frames, end="ElementDataFile = LOCAL\n", data=b""):
    lines = ["ObjectType = Image", "NDims = 3", f"DimSize = 0 0 {len(frames)} ", "Kinds = domain domain list"]
    for i, frame in enumerate(frames):
        lines += [f"Seq_Frame{i:04}_{name} = {value}" for name, value in frame.items()]
    path.write_bytes("\n".join([*lines, end]).encode() + data)
    return path


def nrrd(path, frames, data=b""):
    lines = ["NRRD0004", "# a comment: with a colon", "dimension: 3", f"sizes: 2 2 {len(frames)}", "type: uint8"]
    lines += ["encoding: gz", "ultrasound image type:=BRIGHTNESS"]
    for i, frame in enumerate(frames):
        lines += [f"Seq_Frame{i:04}_{name}:={value}" for name, value in frame.items()]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + data)
    return path


@pytest.mark.parametrize(("write", "name"), [(metaimage, "a.igs.mha"), (nrrd, "a.igs.nrrd")])
def test_a_known_point_of_the_probe_lands_where_the_file_says(tmp_path, write, name):
    data = gzip.compress(bytes(12))
    recording = read_poses(write(tmp_path / name, frames_of(3), data=data))
    track = recording.track("tracker_from_probe")
    # 5 mm along the probe's x is 5 mm along the tracker's y, from (10, 20, 300) mm
    place = track.rotations[0] @ [0.005, 0.0, 0.0] + track.translations[0]
    assert place == pytest.approx([0.010, 0.025, 0.300], abs=1e-15)
    assert track.times_ns.tolist() == [10_000_000_000, 10_020_000_000, 10_040_000_000]
    assert (track.target, track.source, recording.notes) == ("tracker", "probe", ())


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("ProbeToTracker", ("tracker", "probe")),
        ("ToolToTracker", ("tracker", "tool")),
        ("StylusTipToStylus", ("stylus", "stylus_tip")),
        ("ReferenceToRAS", ("ras", "reference")),
        ("LinearTransform", ("parent", "linear_transform")),
    ],
)
def test_plus_names_read_from_right_to_left(name, frames):
    assert frames_of_name(name) == frames


def test_frames_marked_invalid_are_left_out_and_told(tmp_path):
    frames = frames_of(4)
    frames[2]["ProbeToTrackerTransformStatus"] = "INVALID"
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    assert recording.track("probe").frames.tolist() == [0, 1, 3]
    assert recording.notes == ("tracker_from_probe: 1 rows marked as not valid, left out",)


def test_a_tool_never_seen_is_absent_with_the_reason(tmp_path):
    frames = [a | b for a, b in zip(frames_of(2), frames_of(2, status="INVALID", name="StylusToTracker"), strict=True)]
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    with pytest.raises(CalibrationRefused, match="all 2 are marked as not valid"):
        recording.track("stylus")
    with pytest.raises(CalibrationRefused, match=r"there is tracker_from_probe \(2 poses\)"):
        recording.track("needle")


def test_tools_of_one_frame_are_paired_though_one_was_lost_for_a_while(tmp_path):
    frames = [a | b for a, b in zip(frames_of(3), frames_of(3, name="ReferenceToTracker"), strict=True)]
    frames[1]["ReferenceToTrackerTransformStatus"] = "MISSING"
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    seen = relative(recording.track("probe"), recording.track("reference"))
    assert (seen.name, seen.frames.tolist()) == ("reference_from_probe", [0, 2])
    assert seen.translations == pytest.approx(np.zeros((2, 3)), abs=1e-15)


def test_a_track_is_found_by_its_inverses_name(tmp_path):
    recording = read_poses(metaimage(tmp_path / "a.mha", frames_of(2)))
    straight, inverse = recording.track("tracker_from_probe"), recording.track("probe_from_tracker")
    chained = np.einsum("nij,nj->ni", straight.rotations, inverse.translations) + straight.translations
    assert chained == pytest.approx(np.zeros((2, 3)), abs=1e-15)


@pytest.mark.parametrize(
    "name", ["ProbeToTracker", "ProbeToTrackerTransform", "probeToTracker", "Probe", "ProbeTransform"]
)
def test_a_track_is_found_by_the_files_own_spelling(tmp_path, name):
    recording = read_poses(metaimage(tmp_path / "a.mha", frames_of(3)))
    assert recording.track(name).name == "tracker_from_probe"
    assert recording.track("TrackerToProbe").name == "probe_from_tracker"


def test_a_csv_may_name_its_tracks_as_plus_does(tmp_path):
    rows = "\n".join(f"{name},{i},0,0,0,0,0,1" for i in range(3) for name in ("ProbeToTracker", "tracker_from_needle"))
    (tmp_path / "a.csv").write_text(f"name,x_mm,y_mm,z_mm,qx,qy,qz,qw\n{rows}\n")
    assert [*read_poses(tmp_path / "a.csv").tracks] == ["tracker_from_probe", "tracker_from_needle"]


def test_a_tracker_that_repeats_itself_counts_once(tmp_path):
    frames = frames_of(6, change=lambda i, m: matrix(place=(10.0 + i // 2, 20.0, 300.0)))
    track, repeats = without_repeats(read_poses(metaimage(tmp_path / "a.mha", frames)).only())
    assert (len(track), repeats) == (3, 3)


@pytest.mark.parametrize(("returns", "left"), [(True, 7), (False, 4)])
def test_a_robot_that_goes_to_and_fro_keeps_its_returns_where_asked(returns, left):
    place = np.outer([0, 1, 1, 2, 1, 3, 2, 0], [1e-4, 0.0, 0.0])  # as its encoder rounds them
    track = Track("base", "flange", np.tile(np.eye(3), (8, 1, 1)), place, np.arange(8), None)
    fresh, repeats = without_repeats(track, returns=returns)
    assert (len(fresh), repeats) == (left, 8 - left)


def test_rounded_rotations_are_repaired_and_the_repair_is_told(tmp_path):
    recording = read_poses(
        metaimage(tmp_path / "a.mha", frames_of(3, change=lambda i, m: m @ np.diag([1.0004, 1, 1, 1])))
    )
    rotation = recording.only().rotations[0]
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    assert "made orthonormal" in recording.notes[0]


MIRRORED = np.diag([1.0, -1.0, 1.0, 1.0])
REFUSED = {
    "a scale": (lambda i, m: m @ np.diag([0.2, 0.2, 0.2, 1.0]), "scale 0.2"),
    "a scale just beyond the tolerance": (lambda i, m: m @ np.diag([1.0008, 1.0008, 1.0008, 1.0]), "orthonormal"),
    "swapped axes": (lambda i, m: m[:, [1, 0, 2, 3]], "right-handed"),
    "a flipped axis": (lambda i, m: MIRRORED @ m, "right-handed"),
    "columns for rows": (lambda i, m: m.T, "transpose"),
    "metres among millimetres": (lambda i, m: matrix(place=m[:3, 3] * (1e-3 if i % 2 else 1.0)), "mixed"),
    "micrometres": (lambda i, m: matrix(place=m[:3, 3] * 1e3), "unit"),
    "zeros": (lambda i, m: np.diag([0.0, 0.0, 0.0, 1.0]), "orthonormal"),
    "no numbers": (lambda i, m: m * np.nan, "0 that can be used"),
}


@pytest.mark.parametrize(("change", "says"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_wrong_as_a_whole_is_refused_with_the_reason(tmp_path, change, says):
    with pytest.raises(CalibrationRefused, match=says):
        read_poses(metaimage(tmp_path / "a.mha", frames_of(12, change=change)))


def test_one_bad_matrix_among_many_costs_its_row_and_is_told(tmp_path):
    frames = frames_of(40, change=lambda i, m: m @ np.diag([1.1, 1, 1, 1]) if i == 7 else m * (np.nan if i == 9 else 1))
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    assert sorted(set(range(40)) - set(recording.only().frames.tolist())) == [7, 9]
    assert len(recording.notes) == 2


def test_repeated_and_backward_stamps_cost_their_rows_and_are_told(tmp_path):
    frames = frames_of(60)
    frames[10]["Timestamp"] = frames[9]["Timestamp"]
    frames[20]["Timestamp"] = "0.5"
    del frames[30]["Timestamp"]
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    assert sorted(set(range(60)) - set(recording.only().frames.tolist())) == [10, 20, 30]
    assert (np.diff(recording.only().times_ns) > 0).all()
    text = " ".join(recording.notes)
    assert "repeated" in text
    assert "ran backwards" in text
    assert "not finite" in text


def test_a_clock_that_stands_is_refused(tmp_path):
    frames = frames_of(60)
    for i, frame in enumerate(frames):
        frame["Timestamp"] = str(i // 20)
    with pytest.raises(CalibrationRefused, match="3 of 60 that do"):
        read_poses(metaimage(tmp_path / "a.mha", frames))


@pytest.mark.parametrize("first_s", [1.7e12, 1.7e18], ids=["milliseconds", "nanoseconds"])
def test_stamps_in_another_unit_than_seconds_are_refused(tmp_path, first_s):
    with pytest.raises(CalibrationRefused, match="milliseconds or nanoseconds taken for seconds"):
        read_poses(metaimage(tmp_path / "a.mha", frames_of(3, first_s=first_s)))


def test_two_recordings_in_one_file_are_refused(tmp_path):
    with pytest.raises(CalibrationRefused, match="run backwards"):
        read_poses(metaimage(tmp_path / "a.mha", [*frames_of(20, first_s=10.0), *frames_of(20, first_s=5.0)]))


def test_without_stamps_the_poses_can_still_be_used(tmp_path):
    frames = frames_of(3)
    for frame in frames:
        del frame["Timestamp"]
    recording = read_poses(metaimage(tmp_path / "a.mha", frames))
    assert recording.only().times_ns is None
    assert recording.notes == ("tracker_from_probe: no time stamps",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "0 bytes"),
        (b"\n\n", "first line blank"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "bytes after|name = value"),
        (b"ObjectType = Image\nElementDataFile = LOCAL\n", "no frame"),
        (b"ObjectType = Image\nSeq_Frame0000_Timestamp = 1\nElementDataFile = LOCAL\n", "no field ends in Transform"),
    ],
    ids=["empty", "blank", "a picture", "an image without frames", "frames without transforms"],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(tmp_path, text, says):
    (tmp_path / "a.mha").write_bytes(text)
    with pytest.raises(CalibrationRefused, match=says):
        read_poses(tmp_path / "a.mha")


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(CalibrationRefused, match="No such file"):
        read_poses(tmp_path / "nothing.mha")
    with pytest.raises(CalibrationRefused, match=r"\.mha.*a session's folder; got \.xyz.*Write a CSV with the columns"):
        read_poses(tmp_path / "a.xyz")


@pytest.mark.parametrize(("write", "name"), [(metaimage, "a.mha"), (nrrd, "a.nrrd")])
def test_a_header_cut_anywhere_is_refused_never_half_read(tmp_path, write, name):
    whole = write(tmp_path / name, frames_of(6)).read_bytes()
    cut = tmp_path / f"cut.{name}"
    end = len(whole) - len(b"ElementDataFile = LOCAL\n") if write is metaimage else len(whole) - 1
    for length in range(0, end, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(CalibrationRefused):
            read_poses(cut)


@pytest.mark.parametrize(("name", "end", "whole"), [
    ("a.mhd", "ElementDataFile = a.raw", True),
    ("a.mhd", "ElementDataFile = a.raw\r\n", True),
    ("a.mhd", "ElementDataFile = ", False),
    ("a.mhd", "ElementDataF", False),
    ("a.mha", "ElementDataFile = LOCAL", False),
])  # fmt: skip
def test_a_detached_header_may_end_without_a_newline(tmp_path, name, end, whole):
    path = metaimage(tmp_path / name, frames_of(3), end)
    if whole:
        assert len(read_poses(path).only()) == 3
        return
    with pytest.raises(CalibrationRefused, match="cut off"):
        read_poses(path)


def test_random_damage_ends_in_a_refusal_or_in_rigid_poses(tmp_path):
    rng = np.random.default_rng(4)
    whole = metaimage(tmp_path / "a.mha", frames_of(8)).read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "b.mha").write_bytes(bytes(damaged))
        try:
            recording = read_poses(tmp_path / "b.mha")
        except CalibrationRefused:
            refused += 1
            continue
        for track in recording.tracks.values():
            assert np.linalg.det(track.rotations) == pytest.approx(np.ones(len(track)), abs=1e-9)
            assert np.isfinite(track.translations).all()
    assert 0 < refused < 300
