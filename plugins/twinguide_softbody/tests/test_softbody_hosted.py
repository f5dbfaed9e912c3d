"""The part as it is hosted: in a process of its own, in lockstep, on a case that it reads; what it publishes."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from twinguide.case import Case
from twinguide.case_file import BodyRow, CaseFile, PlanRow, Provenance, StructureRow
from twinguide.frames import Transform
from twinguide.hosting.plan import PartPlan, RunPlan
from twinguide.hosting.session import Session
from twinguide.messages import PoseWire, Registration, Solution
from twinguide.registry import Registry
from twinguide_softbody import fastpath, mesh, native
from twinguide_softbody.part import load
from twinguide_softbody.plugin import SoftbodyOptions

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="the fast path needs a C compiler")
TOLD = Path(__file__).parent / "told_plugin.py"
TARGET, CORNER = np.array([0.06, 0.06, 0.06]), np.array([0.12, 0.12, 0.12])
REST = np.stack([CORNER, CORNER - [0.03, 0.0, 0.0]])
GONE, PERIOD_NS = np.full(3, np.inf), 1_000_000_000 / 60
OPTIONS = {"backend": "cpu", "reduced": "auto", "patch_mm": 30.0}


def write_case(folder):
    """Write the case of a block with a tumour; the part reads no surface."""
    vertices, tetrahedra = mesh.block(4, 0.12)
    inside = np.linalg.norm(vertices[tetrahedra].mean(axis=1) - TARGET, axis=1) < 0.03
    arrays = {"vertices": vertices, "tetrahedra": tetrahedra, "fraction:tumour": inside.astype(np.float32)}
    grid = np.moveaxis(0.01 * np.indices((13, 13, 13)), 0, -1)
    distances = {"origin": np.zeros(3), "spacing": 0.01, "values": np.linalg.norm(grid - TARGET, axis=-1) - 0.03}
    np.savez(folder / "body.npz", **arrays, **distances)
    digest = hashlib.sha256((folder / "body.npz").read_bytes()).hexdigest()
    structures = [
        StructureRow(
            name=name, role=role, risk=risk, colour=(1.0, 1.0, 1.0), margin_mm=0.0, tolerance_mm=5.0,
            file="body.npz", sha256=digest, distance_file="body.npz", distance_sha256=digest,
        )
        for name, role, risk in (("liver", "organ", "pass"), ("tumour", "tumour", "target"))
    ]  # fmt: skip
    plan = PlanRow("tumour", (0.06, 0.0, 0.06), tuple(TARGET.tolist()))
    content = CaseFile(
        format=1, title="block", organ="liver", units="m", axes="lps", source_units="m", source_axes="lps",
        laterality="", breathing_phase="end-expiration", missing=[], structures=structures,
        body=BodyRow("body.npz", digest), landmarks=[], plan=plan, provenance=Provenance("test", "block", {}, {}),
    )  # fmt: skip
    (folder / "case.toml").write_bytes(msgspec.toml.encode(content))
    return folder


@pytest.fixture(scope="module")
def hosted(asked, tmp_path_factory):
    """Run the part on a drive [m], (steps, 3), and what is seen [m], (steps, points, 3); answer (Solution, vertices).

    The fast path's model is trained before, on few samples.
    """
    base = tmp_path_factory.mktemp("hosted")
    case = write_case(base)
    known = Case.load(case)
    load(SimpleNamespace(case=known, options=SoftbodyOptions(**OPTIONS), real_time=False), known.body())
    fastpath.train(asked[0])

    def run(drive, seen, registered_at=0, **options):
        script = base / "script.npz"
        np.savez(script, drive=drive, seen=seen, rest=REST)
        told = {"path": str(script)}
        parts = (
            PartPlan("touch", "inside", told),
            PartPlan("drive", "inside", told),
            PartPlan("softbody", "process", {**OPTIONS, **options}),
        )
        plan = RunPlan(
            run_id="levels", seed=1, clock="virtual", parts=parts, case_folder=str(case), record=False,
            plugin_files=(str(TOLD),), start_deadline_s=120.0,  # it may have to compile the kernels
        )  # fmt: skip
        pose = PoseWire.of(Transform.of("reference", "image"), np.zeros((6, 6)))
        found = []
        with Session(plan, Registry.load([TOLD])) as session:
            for k in range(len(drive) - 1):
                if k == registered_at:
                    session.publish(Registration(version=1, state="confirmed", reference_from_image=pose))
                session.advance(round((k + 0.5) * PERIOD_NS))
                new = [m for _, m in session.drain() if isinstance(m, Solution)]
                found += [(m, session.bulk(m.vertices), session.bulk(m.sigma)) for m in new]
            refused = [(r.part, r.reason) for r in session.refusals]
        return found, refused

    return run


def still(steps):
    """A slow breath within the model's range, and nothing seen."""
    drive = np.outer(0.006 - 0.006 * np.cos(np.arange(steps) / 20), [0.1, -0.3, 1.0])
    return drive, np.tile(GONE, (steps, 2, 1))


def test_levels_fall_back_and_recover_as_what_drives_comes_and_goes(hosted):
    drive, seen = still(120)
    drive[40] -= [0.0, 0.0, 0.1]  # a wild input
    drive[60:75] = np.linspace(drive[60], [0.0, 0.0, 0.026], 15)  # beyond the model's range
    drive[75:90] = np.linspace([0.0, 0.0, 0.026], drive[90], 15)
    seen[20:30, 0] = drive[20:30] + np.array([0.0, 0.002, 0.003])
    found, refused = hosted(drive, seen, registered_at=3)
    levels = [solution.level for solution, _, _ in found]
    assert refused == []
    assert set(levels[:3]) == {"rigid"}
    assert found[0][0].reason == "not registered"
    assert levels[3:6] == ["full", "reduced", "reduced"]  # the first is solved from rest
    assert set(levels[5:20]) == {"reduced"}
    assert set(levels[20:30]) == {"full"}
    assert "bounded, not yet found" in found[20][0].reason
    assert set(levels[31:40]) == {"reduced"}
    assert levels[40] == "rigid"
    assert "100 mm" in found[40][0].reason
    assert levels[42:58] == ["reduced"] * 16
    assert "full" in levels[60:90]
    assert set(levels[95:]) == {"reduced"}
    for _, vertices, sigma in found:
        assert np.isfinite(vertices).all()
        assert np.isfinite(sigma).all()


def test_bad_points_lower_the_level_and_say_so_and_it_recovers(hosted):
    drive, seen = still(90)
    moved = drive + np.array([0.0, 0.001, 0.002])
    seen[10:80, 0] = moved[10:80]
    seen[20, 0] += np.array([0.0, 0.0, 0.1])  # jumps 10 cm for one message
    seen[30:40, 1] = moved[30:40] + np.array([0.0, 0.05, 0.0])  # comes far off the body, contradicts its neighbour
    seen[50, 0, 2] = np.nan
    found, refused = hosted(drive, seen)
    by_step = {k: (solution.level, solution.reason) for k, (solution, _, _) in enumerate(found)}
    assert by_step[15][0] == "full"
    level, reason = by_step[20]
    assert level == "partial"
    assert "touch-0 left out" in reason
    assert by_step[21][0] == "full"
    for k in range(31, 40):
        assert by_step[k][0] == "partial"
        assert ("jumped" if k < 32 else "contradict") in by_step[k][1]  # three agree, and still it cannot be
    assert by_step[41][0] == "full"
    # What is not finite does not leave the part that would say it: the newest sound one stands.
    assert len(refused) == 1
    assert "touch" in refused[0][0]
    assert by_step[50][0] == "full"
    assert by_step[85][0] == "reduced"
    away = [np.abs(vertices - mesh.block(4, 0.12)[0]).max() for _, vertices, _ in found]
    assert max(away) < 0.03


def test_ten_nodes_are_solved_and_the_cases_own_vertices_published_with_the_same_bits_each_time(hosted):
    drive, seen = still(30)
    seen[15:25, 0] = drive[15:25] + np.array([0.0, 0.002, 0.003])
    runs = [hosted(drive, seen, nodes=10, reduced="off") for _ in range(2)]
    bits = [b"".join(v.tobytes() + s.tobytes() for _, v, s in found) for found, _ in runs]
    assert bits[0] == bits[1]
    found, refused = runs[0]
    assert refused == []
    assert {(solution.level, v.shape, s.shape) for solution, v, s in found} == {("full", (125, 3), (125,))}
    linear, _ = hosted(drive, seen, reduced="off")
    apart = [np.linalg.norm(a - b, axis=1).max() for (_, a, _), (_, b, _) in zip(found, linear, strict=True)]
    assert 1e-5 < max(apart[:15]) < 5e-4  # what linear tetrahedra of 3 cm are off: 0.3 mm at most on such a block
    at = [solution.sigma_m / float(np.sqrt((s.astype(float) ** 2).mean())) for solution, _, s in found]
    np.testing.assert_allclose(at, 1.0, rtol=1e-6)
