"""The fast path of an organ: used where its model is kept, within its range, and never otherwise."""

import gc
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinguide_softbody import SoftBody, block, fastpath, mix, native, pursuit, quadratic, tissue_of, training
from twinguide_softbody.constraints import points_of
from twinguide_softbody.reduced import ACCEPT_M

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="the fast path needs a C compiler")
TARGET = np.array([0.05, 0.06, 0.065])
SURE = np.eye(3) * 1e-8
apart = fastpath.train_apart  # which the tests' own cache replaces
CORNER = np.array([[0.12, 0.12, 0.12]])


def made(reduced="auto", material="neo_hookean", nodes=4):
    mesh = block(4, 0.12) if nodes == 4 else quadratic(*block(2, 0.12))
    mixture = mix(tissue_of("organ"), {}, {}, len(mesh[1]))
    return SoftBody(*mesh, mixture, TARGET, material=material, backend="cpu", reduced=reduced, patch_radius_m=0.03)


@pytest.fixture(scope="module")
def kept(asked):
    """Train the model that a run found missing; answer its job."""
    first = made()
    for k in range(3):
        assert first.step(np.array([0.0, 0.0, 0.003 * k]), SURE).level == "full"
    (job,) = asked
    fastpath.train(job)
    return job


def path(k):
    return np.array([0.004 * np.sin(k / 9), 0.006 * np.cos(k / 7) - 0.006, 0.015 * np.sin(k / 11)])


def test_within_its_range_frames_are_reduced_and_as_near_as_they_say(kept):
    fast, full = made(), made("off")
    for k in range(40):
        one, other = fast.step(path(k), SURE), full.step(path(k), SURE)
        away = np.sqrt(((one.vertices - other.vertices) ** 2).sum(axis=1).mean())
        assert one.level == ("reduced" if k else "full")  # the first is solved from rest
        assert away < 1.5 * ACCEPT_M  # what is accepted, and the full solver's own
        assert other.level == "full"


def test_tetrahedra_of_ten_nodes_have_their_own_model(kept, asked):
    made(nodes=10).close()
    job = asked.pop()
    assert job.path() != kept.path()
    fastpath.train(job)
    fast, full = made(nodes=10), made("off", nodes=10)
    for k in range(20):
        one, other = fast.step(path(k), SURE), full.step(path(k), SURE)
        assert one.level == ("reduced" if k else "full")
        assert np.sqrt(((one.vertices - other.vertices) ** 2).sum(axis=1).mean()) < 1.5 * ACCEPT_M


def test_outside_its_range_and_back_the_levels_say_which(kept):
    body, levels = made(), []
    for z in (*np.linspace(0, 0.026, 14), *np.linspace(0.026, 0.01, 9)):
        levels.append(body.step(np.array([0.0, 0.0, z]), SURE).level)
    assert levels[:11] == ["full"] + ["reduced"] * 10  # to 20 mm
    assert levels[11:17] == ["full"] * 6
    assert levels[18:] == ["reduced"] * 5


def test_a_measured_point_is_solved_for_in_full_from_where_the_modes_had_led(kept):
    body, full = made(), made("off")
    vertices, tetrahedra = block(4, 0.12)
    probe = points_of(vertices, tetrahedra, CORNER, CORNER + np.array([0.0, 0.002, 0.004]), np.eye(3)[None] * 1e-6)
    for k in range(30):
        measured = {"probe": probe} if 10 <= k < 20 else {}
        frames = [one.step(path(k), SURE, measured) for one in (body, full)]
        assert frames[0].level == ("full" if not k or measured else "reduced")
        away = np.sqrt(((frames[0].vertices - frames[1].vertices) ** 2).sum(axis=1).mean())
        # The probe comes 4 mm deep at once: more than two steps follow, from wherever they start.
        assert away < 3 * ACCEPT_M or 10 <= k < 13


def test_a_pose_of_the_modes_that_is_too_crushed_is_taken_back(kept, monkeypatch):
    body = made()
    for k in range(10):
        frame = body.step(path(k), SURE)
    assert frame.level == "reduced"
    with monkeypatch.context() as patched:
        patched.setattr(pursuit, "LEAST_J", 1.5)  # nothing is sound
        assert body.step(path(10), SURE).level == "rigid"
    body._reduced.leave()  # the solver goes on from where the modes led, if they led anywhere
    np.testing.assert_allclose(body._solver.positions, frame.vertices, atol=1e-12)


def test_a_surer_target_keeps_the_model(kept):
    body, full = made(), made("off")
    for k in range(20):
        covariance = np.eye(3) * (1e-8 if k < 10 else 4e-6)
        one, other = (b.step(path(k), covariance) for b in (body, full))
        away = np.sqrt(((one.vertices - other.vertices) ** 2).sum(axis=1).mean())
        assert away < 1.5 * ACCEPT_M
    assert one.level == "reduced"


def test_other_laws_and_other_bodies_have_no_fast_path(kept):
    assert made(material="corotational").step(path(0), SURE).level == "full"
    assert kept.path() == fastpath.Job.of(kept.arrays()).path()
    other = fastpath.Job(kept.body, kept.springs, fastpath.family(kept.drive.rest, np.ones(len(kept.drive.rest))))
    assert other.path() != kept.path()
    assert fastpath.load(other.path()) is None


def test_a_spoilt_model_is_no_model_and_the_same_start_gives_the_same_bits(kept, monkeypatch, tmp_path):
    spoilt = tmp_path / "reduced-x.npz"
    spoilt.write_bytes(kept.path().read_bytes()[:1000])
    assert fastpath.load(spoilt) is None
    runs = []
    for _ in range(2):
        body = made()
        runs.append(np.concatenate([body.step(path(k), SURE).vertices for k in range(12)]).tobytes())
    assert runs[0] == runs[1]


def test_the_process_apart_makes_the_same_model(kept, tmp_path, monkeypatch):
    before = fastpath.load(kept.path())
    kept.path().unlink()
    np.savez(tmp_path / "job.npz", **kept.arrays())
    training.main(str(tmp_path / "job.npz"))
    after = fastpath.load(kept.path())
    assert np.array_equal(before.reduction.modes, after.reduction.modes)
    assert before.ratio == after.ratio
    assert not (tmp_path / "job.npz").exists()


def test_a_process_that_trains_ends_with_its_parent_and_leaves_nothing(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = apart(replace(kept, drive=fastpath.family(kept.drive.rest, np.ones(len(kept.drive.rest)))))
    assert len(list(tmp_path.iterdir())) == 1
    process.stdin.close()
    assert process.wait(timeout=60) in (-signal.SIGINT, 1)  # 1: before it had read the job
    assert not list(tmp_path.iterdir())


def test_a_process_that_ends_with_its_parent_while_it_compiles_leaves_nothing(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process = apart(kept)
    while process.poll() is None and not list(tmp_path.glob("twinguide/tmp*.so")):
        time.sleep(0.01)
    process.stdin.close()
    assert process.wait(timeout=60) == -signal.SIGINT
    assert not list((tmp_path / "twinguide").iterdir())


def test_a_process_that_trains_ends_well(kept):
    assert apart(kept).wait(timeout=60) == 0


def test_a_job_that_cannot_be_handed_over_leaves_no_file(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        apart(kept)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("why", ["No space left on device", "cannot be written"])
def test_a_start_that_can_have_no_model_made_says_so_and_goes_on(kept, caplog, monkeypatch, tmp_path, why):
    def full(_):
        raise OSError(28, why)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if why == "cannot be written":
        monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # which root always has
    else:
        monkeypatch.setattr(fastpath, "train_apart", full)
    assert made().step(path(0), SURE).level == "full"
    assert "solved in full; none can be made" in caplog.text
    assert why in caplog.text


def test_a_model_that_may_only_be_read_serves(kept, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert fastpath.load(kept.path()) is not None


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_a_process_that_trains_may_be_forgotten(kept):
    apart(kept)
    gc.collect()  # a dropped Popen warns while it runs


def test_a_start_without_a_model_says_that_one_is_made_and_how_long_it_takes(kept, caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made()
    assert "no model for the fast path yet: solved in full; a later start" in caplog.text
    caplog.clear()
    made("off")
    assert not caplog.text


def test_only_the_newest_models_are_kept(kept, monkeypatch):
    monkeypatch.setattr(fastpath, "KEPT", 1)
    old = kept.path().with_name("reduced-old.npz")
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    fastpath.train(kept)
    assert not old.exists()
    assert kept.path().exists()
