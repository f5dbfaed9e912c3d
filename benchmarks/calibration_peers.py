"""What other libraries are asked in `calibration.py`, each in its own words."""

from __future__ import annotations

import contextlib
import importlib
import io

import numpy as np
from scipy.spatial.transform import Rotation

from twinguide_calibration.rigid import compose, inverse


def optional(name: str):
    """Return a module, or say why it is not there and return None."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        print(f"  without {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}", flush=True)
        return None


def scipy_points(source, target):
    """Return rotation and translation by SciPy."""
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    rotation = Rotation.align_vectors(target - centre_t, source - centre_s)[0].as_matrix()
    return rotation, centre_t - rotation @ centre_s


def affine(found):
    """Return rotation and translation of OpenCV's affine answer."""
    matrix = found[0]
    return matrix[:, :3], matrix[:, 3]


def column(found):
    """Return rotation and translation of scikit-surgerycore's answer."""
    return found[0], np.ravel(found[1])


def open3d_points(o3d, source, target):
    """Return rotation and translation of points in pairs by open3d."""
    estimation = o3d.pipelines.registration.TransformationEstimationPointToPoint()
    pairs = o3d.utility.Vector2iVector(np.repeat(np.arange(len(source))[:, None], 2, axis=1))
    clouds = [o3d.geometry.PointCloud(o3d.utility.Vector3dVector(p)) for p in (source, target)]
    matrix = estimation.compute_transformation(*clouds, pairs)
    return matrix[:3, :3], matrix[:3, 3]


def open3d_ransac(o3d, source, target):
    """Return the transform (4, 4) of pairs, some wrong, by open3d's RANSAC."""
    clouds = [o3d.geometry.PointCloud(o3d.utility.Vector3dVector(p)) for p in (source, target)]
    pairs = o3d.utility.Vector2iVector(np.repeat(np.arange(len(source))[:, None], 2, axis=1))
    return o3d.pipelines.registration.registration_ransac_based_on_correspondence(*clouds, pairs, 0.004).transformation


def quiet(call):
    """Return the tip of a call that prints, NaN where it finds none."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = call()
    return np.full(3, np.nan) if found is None else np.ravel(found)


def cv2_hand_eye(cv2, a, b, flag):
    """Return X (4, 4) of OpenCV's calibrateHandEye."""
    back = inverse(b)
    rotation, shift = cv2.calibrateHandEye(a[:, :3, :3], a[:, :3, 3], back[:, :3, :3], back[:, :3, 3], method=flag)
    return compose(rotation, shift.ravel())


def cv2_robot_world(cv2, a, b, flag):
    """Return X (4, 4) of OpenCV's calibrateRobotWorldHandEye."""
    found = cv2.calibrateRobotWorldHandEye(a[:, :3, :3], a[:, :3, 3], b[:, :3, :3], b[:, :3, 3], method=flag)
    return compose(found[0], found[1].ravel())


def open3d_surface(o3d, model):
    """Return a call that matches a patch to a model by open3d."""
    target = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(model.samples))
    target.normals = o3d.utility.Vector3dVector(model.normals)
    registration = o3d.pipelines.registration
    estimation = registration.TransformationEstimationPointToPlane(registration.TukeyLoss(k=3e-3))
    criteria = registration.ICPConvergenceCriteria(max_iteration=60)

    def align(seen, start):
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(seen))
        return registration.registration_icp(cloud, target, 0.02, start, estimation, criteria).transformation

    return align


def pycpd(pycpd, model, seen, start):
    """Return the transform (4, 4) of a patch to a model by pycpd."""
    placed = seen[:300] @ start[:3, :3].T + start[:3, 3]
    chosen = model.samples[np.random.default_rng(0).permutation(len(model.samples))[:1500]]
    centre, scale = chosen.mean(axis=0), chosen.std()
    fit = pycpd.RigidRegistration(X=(chosen - centre) / scale, Y=(placed - centre) / scale, scale=False, w=0.1)
    fit.register()
    rotation = fit.R.T
    move = compose(rotation, centre + scale * np.ravel(fit.t) - rotation @ centre)
    return move @ start
