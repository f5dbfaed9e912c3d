"""Registration with wrong pairs."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused, register_robust


def pairs(seed, wrong, n=100):
    rng = np.random.default_rng(seed)
    rotation, shift = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3) * 0.2
    source = rng.uniform(-0.1, 0.1, size=(n, 3))
    target = source @ rotation.T + shift + rng.normal(size=(n, 3)) * 1e-3
    count = int(wrong * n)
    target[:count] = shift + rng.uniform(-0.17, 0.17, size=(count, 3))
    return source, target, rotation, shift


@pytest.mark.parametrize("wrong", [0.0, 0.5, 0.9])
def test_the_right_pairs_are_found_among_wrong_ones(wrong):
    for seed in range(10):
        source, target, _, shift = pairs(seed, wrong)
        found = register_robust(source, target, 1e-3)
        # 1 mm noise on 10 pairs or more: the TRE's p95 is 1.3 mm, three times that is no accident
        assert np.linalg.norm(found.fit.apply(np.zeros(3)) - shift) < 4e-3
        assert found.inliers[int(wrong * 100) :].mean() > 0.9
        assert not set(np.flatnonzero(found.inliers)) & set(found.rejected)


def test_pairs_that_are_all_wrong_are_refused():
    for seed in range(5):
        source, target, _, _ = pairs(seed, 1.0)
        with pytest.raises(CalibrationRefused, match=r"by chance|no three pairs"):
            register_robust(source, target, 1e-3)


def test_a_few_exact_pairs_suffice():
    source, target, rotation, _ = pairs(3, 0.0, n=5)
    np.testing.assert_allclose(register_robust(source, target, 1e-3).fit.rotation, rotation, atol=0.05)
