"""Deform a block of liver with a tumour from arrays alone: no engine, no case, no display.

    python examples/softbody.py

A tumour is seen 12 mm deeper, a probe presses the top by 5 mm; printed is where a vessel's points lie and how sure they
are. The run checks itself and ends with an error if a promise is broken.
"""

import numpy as np

from twinguide.embedding import embed
from twinguide_softbody import SoftBody, Surroundings, block, mix, pressed, tissue_of

# A block of 12 cm, 4,116 tetrahedra; the tumour is a ball of 4 cm, given as each tetrahedron's share of it.
vertices, tetrahedra = block((7, 7, 14), (0.12, 0.12, 0.12))
target = np.array([0.05, 0.06, 0.065])
inside = np.linalg.norm(vertices[tetrahedra].mean(axis=1) - target, axis=1) < 0.02
mixture = mix(tissue_of("organ"), {"tumour": inside.astype(np.float32)}, {"tumour": tissue_of("tumour")}, len(inside))
body = SoftBody(vertices, tetrahedra, mixture, target, Surroundings(dome_share=1.1, rest_share=0.9))

# A vessel runs past the tumour; its last point lies 15 mm outside, where a body says less of what rides on it.
vessel = np.array([[0.02, 0.03, 0.03], [0.04, 0.05, 0.05], [0.06, 0.08, 0.08], [0.08, 0.10, 0.11], [0.09, 0.12, 0.135]])
riding = embed(body.body, vessel)

# Thirty frames: the target sinks, as an ultrasound sees it to 0.5 mm; from the tenth on a probe presses the top.
seen = np.eye(3) * 0.0005**2
for k in range(30):
    sink = np.array([0.0, 0.0, -0.012]) * np.sin(np.pi / 2 * min(1.0, k / 20))
    tip = np.array([0.08, 0.06, 0.12 - 0.005])
    probe = pressed(vertices, tetrahedra, tip, radius_m=0.015, sigma_m=0.001)
    assert probe is not None
    frame = body.step(sink, seen, {"probe": probe} if k >= 10 else {})
    print(
        f"frame {k:2d}  {frame.level:7s}  smallest J {frame.smallest_j:.3f}  error of a vertex: "
        f"{2.7955e3 * frame.sigma.mean():.2f} mm on average, {2.7955e3 * frame.sigma.max():.2f} mm at worst (95 %)"
    )
    assert frame.level == "full", frame.reason

weights = np.exp(-0.5 * (np.linalg.norm(vertices - target, axis=1) / 0.01) ** 2)
reached = weights @ (frame.vertices - vertices) / weights.sum()
print(f"the tumour went {1e3 * reached.round(5)} mm, seen at {1e3 * sink.round(5)} mm")
assert np.linalg.norm(reached - sink) < 0.0015  # three of the sensor's sigma

places, sigma = riding.apply(frame.vertices), riding.sigma(frame.sigma, frame.vertices, vertices)
for rest, now, one in zip(vessel, places, sigma, strict=True):
    print(f"the vessel's point {1e3 * rest} mm lies at {1e3 * now.round(5)} mm, to {2795.5 * one:.2f} mm (95 %)")
assert (places[:, 2] < vessel[:, 2]).all()  # it sinks along
assert sigma[-1] > sigma[:-1].max()

# What no sensor can be right about lowers the level, and says so: it never stops the loop.
for wild in (np.full(3, np.nan), np.array([0.0, 0.0, 0.088])):
    frame = body.step(wild, seen)
    print(f"{wild} m -> {frame.level}: {frame.reason}")
    assert frame.level == "rigid"
    assert np.isfinite(frame.vertices).all()
