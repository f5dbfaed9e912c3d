"""The simulated ultrasound against what it states."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide import Inbox, WorkflowState
from twinguide.clock import SECOND
from twinguide.messages import EchoSeen
from twinguide_imaging.imaging import Imaging
from twinguide_imaging.plugin import ImagingOptions

TRAIN = WorkflowState(step="train", waits_for="", version=1)
GUIDE = WorkflowState(step="guide", waits_for="", version=2)


def context(seed=1, **options):
    return SimpleNamespace(
        options=ImagingOptions(**options),
        rng=lambda stream="": np.random.default_rng([seed, zlib.crc32(stream.encode())]),
    )


def play(imaging, seconds, speed=0.0, states=(), dark=(0.0, 0.0)):
    out, echo = [], 0
    for k in range(round(seconds * 15)):
        t_ns = round(k * SECOND / 15)
        inbox = [("loop", s) for at, s in states if k == round(at * 15)]
        while echo * SECOND // 60 <= t_ns:
            at = echo * SECOND // 60
            if not dark[0] <= at * 1e-9 < dark[1]:
                inbox.append(("patient", EchoSeen(t_ns=at, of="tumour", position=(speed * at * 1e-9, 0.1, 0.2))))
            echo += 1
        out += list(imaging.step(t_ns, Inbox(inbox)))
    return out


def test_noise_is_as_stated():
    pictures = play(Imaging(context(training_only=False)), 140.0)
    errors = np.array([p.position for p in pictures]) - [0.0, 0.1, 0.2]
    assert errors.std(axis=0) == pytest.approx(1.5e-3, rel=0.06)  # 2100 draws are good to 1.5 %
    np.testing.assert_allclose(pictures[0].covariance.numpy(), np.eye(3) * 1.5e-3**2)


def test_pictures_are_stamped_too_late_by_the_lag():
    pictures = play(Imaging(context(training_only=False, sigma_mm=1e-6)), 4.0, speed=0.01)
    late = np.array([p.t_ns * 1e-9 - p.position[0] / 0.01 for p in pictures])
    np.testing.assert_allclose(late, 0.08, atol=1e-6)


def test_it_images_while_training_and_never_else():
    pictures = play(Imaging(context()), 9.0, states=[(2.0, TRAIN), (6.0, GUIDE)])
    times = [p.t_ns * 1e-9 for p in pictures]
    assert times[0] == pytest.approx(2.0)
    assert times[-1] < 6.0
    assert len(times) == 60


def test_over_a_gap_in_the_sound_no_place_is_guessed():
    pictures = play(Imaging(context(training_only=False)), 4.0, dark=(1.0, 1.5))
    of = np.array([p.t_ns * 1e-9 - 0.08 for p in pictures])
    assert not ((of > 1.0) & (of < 1.48)).any()
    assert np.count_nonzero(of > 1.5) >= 35


def test_same_seed_gives_the_same_bits():
    first, again, other = (play(Imaging(context(seed, training_only=False)), 1.0) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_without_sound_there_is_no_picture():
    imaging = Imaging(context(training_only=False))
    assert list(imaging.step(SECOND, Inbox())) == []
