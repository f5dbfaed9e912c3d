import numpy as np
import pytest
import trimesh

from twinguide.errors import CaseError
from twinguide.hookspecs import Anatomy
from twinguide.importing.reading import find_surfaces, match, read_surface, to_image

CUBE = trimesh.creation.box((2.0, 4.0, 6.0))
POINTS, FACES = np.array(CUBE.vertices), np.array(CUBE.faces)


def legacy_vtk(binary, version):
    points, cells = POINTS.astype(">f4"), np.insert(FACES, 0, 3, axis=1).astype(">i4")
    offsets = np.arange(0, 3 * len(FACES) + 1, 3).astype(">i8")
    head = f"# vtk DataFile Version {version}\ncube\n{'BINARY' if binary else 'ASCII'}\nDATASET POLYDATA\n"

    def block(values):
        return values.tobytes() + b"\n" if binary else (" ".join(map(str, values.ravel().tolist())) + "\n").encode()

    data = head.encode() + f"POINTS {len(points)} float\n".encode() + block(points)
    if version.startswith("5"):
        data += b"METADATA\nINFORMATION 0\n\n" + f"POLYGONS {len(offsets)} {FACES.size}\n".encode()
        data += b"OFFSETS vtktypeint64\n" + block(offsets)
        data += b"CONNECTIVITY vtktypeint64\n" + block(FACES.astype(">i8"))
    else:
        data += f"POLYGONS {len(FACES)} {cells.size}\n".encode() + block(cells)
    return data + f"POINT_DATA {len(points)}\nNORMALS n float\n".encode() + block(points)


@pytest.mark.parametrize("version", ["3.0", "5.1"])
@pytest.mark.parametrize("binary", [True, False])
def test_legacy_vtk_gives_back_points_and_triangles(tmp_path, binary, version):
    path = tmp_path / "cube.vtk"
    path.write_bytes(legacy_vtk(binary, version))
    vertices, triangles = read_surface(path)
    assert np.array_equal(vertices, POINTS)
    assert np.array_equal(triangles, FACES)


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
def test_every_format_gives_the_same_solid(tmp_path, suffix):
    CUBE.export(tmp_path / f"cube{suffix}")
    vertices, triangles = read_surface(tmp_path / f"cube{suffix}")
    assert trimesh.Trimesh(vertices, triangles).volume == pytest.approx(48.0)


def test_vtk_quadrilaterals_become_triangles_and_strips_are_refused(tmp_path):
    head = "# vtk DataFile Version 2.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 4 double\n0 0 0 1 0 0 1 1 0 0 1 0\n"
    (tmp_path / "quad.vtk").write_text(head + "POLYGONS 1 5\n4 0 1 2 3\n")
    assert read_surface(tmp_path / "quad.vtk")[1].tolist() == [[0, 1, 2], [0, 2, 3]]
    (tmp_path / "strip.vtk").write_text(head + "TRIANGLE_STRIPS 1 5\n4 0 1 3 2\n")
    with pytest.raises(CaseError, match="strips"):
        read_surface(tmp_path / "strip.vtk")


@pytest.mark.parametrize("suffix", [".vtk", ".stl", ".obj", ".ply"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage\xff" * 40, b"solid nothing\nendsolid nothing\n"])
def test_an_empty_or_damaged_file_is_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"liver{suffix}"
    path.write_bytes(content)
    with pytest.raises(CaseError, match=f"liver{suffix}"):
        read_surface(path)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.45, 0.6])
def test_a_file_that_is_cut_off_is_refused(tmp_path, binary, share):
    data = legacy_vtk(binary, "3.0")
    data = data[: data.index(b"POINT_DATA")]
    (tmp_path / "cube.vtk").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CaseError, match=r"cube\.vtk"):
        read_surface(tmp_path / "cube.vtk")


@pytest.mark.parametrize(
    ("suffix", "options", "told"),
    [
        (".stl", {}, "ends after 8 of 12"),
        (".stl", {"file_type": "stl_ascii"}, "endsolid"),
        (".ply", {"encoding": "ascii"}, "of 12"),
    ],
)
def test_a_cut_off_stl_or_ply_says_so(tmp_path, suffix, options, told):
    path = tmp_path / f"cube{suffix}"
    CUBE.export(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.75 * len(data))] if suffix == ".stl" else data[: data.rindex(b"\n3") - 40])
    with pytest.raises(CaseError, match=rf"{told}.*cut off"):
        read_surface(path)


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_a_text_stl_with_a_byte_order_mark_is_read_as_any_other(tmp_path, share):
    text = b"\xef\xbb\xbf" + CUBE.export(file_type="stl_ascii").encode()
    (tmp_path / "cube.stl").write_bytes(text[: int(share * len(text))])
    if share == 1.0:
        assert len(read_surface(tmp_path / "cube.stl")[1]) == 12
    else:
        with pytest.raises(CaseError, match=r"endsolid.*cut off"):
            read_surface(tmp_path / "cube.stl")


@pytest.mark.parametrize("content", [b"Dear all, here is the liver. " * 40, b"\x00" * 50, b"\xc3" * 5000])
def test_what_is_no_stl_at_all_is_said_to_be_none(tmp_path, content):
    (tmp_path / "liver.stl").write_bytes(content)
    with pytest.raises(CaseError, match="neither binary nor text STL"):
        read_surface(tmp_path / "liver.stl")


def test_a_folder_or_a_link_to_nothing_that_is_called_like_a_surface_is_refused_by_name(tmp_path):
    (tmp_path / "tumour.stl").symlink_to(tmp_path / "gone.stl")
    with pytest.raises(CaseError, match=r"got a name that leads to no file; in .*tumour"):
        read_surface(tmp_path / "tumour.stl")
    (tmp_path / "liver.stl").mkdir()
    with pytest.raises(CaseError, match=r"got a folder; .*take this away"):
        read_surface(tmp_path / "liver.stl")


@pytest.mark.parametrize(("more", "told"), [(b"\0\0\0\0", "4 bytes"), (b"\xff" * 120, "120 bytes")])
def test_a_binary_stl_that_goes_on_after_its_last_triangle_says_by_how_much(tmp_path, more, told):
    (tmp_path / "cube.stl").write_bytes(CUBE.export(file_type="stl") + more)
    with pytest.raises(CaseError, match=f"{told} too many after 12 triangles.*save it again"):
        read_surface(tmp_path / "cube.stl")


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply", ".vtk"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, suffix):
    (tmp_path / f"liver{suffix}").touch()
    with pytest.raises(CaseError, match=r"got an empty file.*Save the surface anew"):
        read_surface(tmp_path / f"liver{suffix}")


def test_points_without_triangles_are_said_to_bound_nothing(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2\n")
    head = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(head + "1 2 3\n")
    for path in (tmp_path / "a.obj", tmp_path / "a.ply"):
        with pytest.raises(CaseError, match=r"wanted triangles; got none; .*bound nothing"):
            read_surface(path)


def damaged_vtk(how):
    """The cube as VTK that ITK cannot read, though it is legacy polygon data."""
    points, cells = POINTS.astype("<f4"), np.insert(FACES, 0, 3, axis=1).astype("<i4")
    if how == "little-endian":
        data = f"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET POLYDATA\nPOINTS {len(points)} float\n".encode()
        return data + points.tobytes() + f"\nPOLYGONS {len(FACES)} {cells.size}\n".encode() + cells.tobytes()
    if how == "no points":
        return b"# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 0 float\n\nPOLYGONS 0 0\n"
    return legacy_vtk(False, "3.0").replace(b"POINTS", b"points").replace(b"POLYGONS", b"polygons")


@pytest.mark.parametrize("how", ["little-endian", "no points", "lower case"])
def test_vtk_that_itk_dies_of_names_the_usual_causes_and_shows_no_backtrace(tmp_path, how):
    (tmp_path / "cube.vtk").write_bytes(damaged_vtk(how))
    with pytest.raises(CaseError, match=r"not big-endian.*not in upper case.*no points") as refused:
        read_surface(tmp_path / "cube.vtk")
    assert "wasm" not in str(refused.value)


def test_a_surface_too_large_to_import_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "liver.stl"
    with path.open("wb") as file:
        file.write(b"\0" * 80 + (3_000_000).to_bytes(4, "little"))
        file.truncate(84 + 50 * 3_000_000)  # sparse: nothing is written
    with pytest.raises(CaseError, match=r"at most 2,000,000 triangles; got 3,000,000.*Decimate"):
        read_surface(path)


def test_a_volume_grid_is_not_taken_for_a_surface(tmp_path):
    (tmp_path / "ct.vtk").write_text("# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\n")
    with pytest.raises(CaseError, match="POLYDATA"):
        read_surface(tmp_path / "ct.vtk")


def test_indices_past_the_last_point_are_refused(tmp_path):
    head = "# vtk DataFile Version 2.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 3 double\n0 0 0 1 0 0 1 1 0\n"
    (tmp_path / "a.vtk").write_text(head + "POLYGONS 1 4\n3 0 1 7\n")
    with pytest.raises(CaseError, match="damaged"):
        read_surface(tmp_path / "a.vtk")


def test_ras_is_turned_into_lps_without_a_mirror_and_mm_into_metres():
    right_front_top = np.array([[10.0, 20.0, 30.0]])
    assert np.allclose(to_image(right_front_top, "mm", "ras"), [[-0.010, -0.020, 0.030]])
    basis = to_image(np.eye(3), "m", "ras")
    assert np.linalg.det(basis) == pytest.approx(1.0)


def test_the_longest_word_in_a_file_name_decides_and_a_tie_is_refused():
    liver = Anatomy("liver", "organ", ("liver",), (1, 1, 1))
    tumour = Anatomy("tumour", "tumour", ("tumour",), (1, 1, 1))
    sac = Anatomy("sac", "bile", ("bladd",), (1, 1, 1))
    assert match("Liver_Tumours", [liver, tumour]) is tumour
    assert match("spleen", [liver, tumour]) is None
    with pytest.raises(CaseError, match="Rename"):
        match("liver_bladder", [liver, sac])


def test_the_dot_files_that_macos_leaves_are_passed_over(tmp_path):
    CUBE.export(tmp_path / "liver.stl")
    (tmp_path / "._liver.stl").write_bytes(b"\0\5\x16\7")
    assert find_surfaces(tmp_path) == [tmp_path / "liver.stl"]


def test_a_folder_without_surfaces_says_what_was_found_instead(tmp_path):
    (tmp_path / "ct.nii").write_bytes(b"x")
    with pytest.raises(CaseError, match=r"ct\.nii"):
        find_surfaces(tmp_path)
    with pytest.raises(CaseError, match="no such folder"):
        find_surfaces(tmp_path / "absent")
    with pytest.raises(CaseError, match="got a file"):
        find_surfaces(tmp_path / "ct.nii")
