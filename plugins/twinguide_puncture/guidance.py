"""Measure a needle against its plan: depth, angle, offset, and the way to what must not be hit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from twinguide import Context, Finding, Point, TwinView
from twinguide.case import Case
from twinguide.frames import NORMAL_95, largest_variance

from .plugin import PunctureOptions

Array = NDArray[np.float64]
PATH_SAMPLES = 40  # along each path; half a step is taken off every distance, which changes by no more than that
UNDER = -0.5  # below this slope, upwards, of the distance to a rib a point lies under it


class Puncture:
    """Assess one needle against one plan."""

    def __init__(self, ctx: Context) -> None:
        self._options: PunctureOptions = ctx.options
        self._case: Case = ctx.case
        self._critical = [s for s in self._case.structures.values() if s.risk == "critical"]
        self._moves = np.array([s.moves for s in self._critical])[:, None, None]
        self._margins = np.array([s.margin_m for s in self._critical])[:, None]
        under_m = self._options.rib_underside_mm * 1e-3
        self._underside = np.array([under_m if s.role == "bone" else 0.0 for s in self._critical])[:, None]
        self._grids = self._case.distances(s.name for s in self._critical)
        self._organ = self._case.distance(self._case.organ)
        self._plan_findings = list(self._assess_plan())
        self._share = np.linspace(0.0, 1.0, PATH_SAMPLES)[:, None, None]

    def assess(self, twin: TwinView) -> list[Finding]:
        """Return the frame's findings; those of the plan stay, those of the needle need needle and target."""
        findings = list(self._plan_findings)
        needle = twin.needle
        if needle is None or twin.target is None or twin.target_status.state == "hidden":
            return findings
        findings.extend(self._assess_aim(needle.tip, needle.direction, twin.target, twin.t_display_ns))
        findings.extend(self._assess_path(needle.tip, needle.direction, twin.target, twin))
        return findings

    def _assess_aim(self, tip: Point, direction: Array, target: Point, t_ns: int) -> Iterator[Finding]:
        gap = target.position - tip.position
        distance = math.hypot(*gap.tolist())
        line = gap / distance if distance > 1e-6 else direction
        covariance = target.covariance + tip.covariance
        along = math.sqrt(max(0.0, float(line @ covariance @ line)))
        across = math.sqrt(max(0.0, (float(covariance.trace()) - along**2) / 2))
        yield Finding(
            t_ns=t_ns, name="depth", value=distance * 1e3, sigma=along * 1e3, unit="mm", severity="advisory",
            text="to target",
        )  # fmt: skip
        if distance < 5e-3:
            return  # this near, the direction to the target is noise
        angle = math.degrees(math.acos(min(1.0, max(-1.0, float(direction @ line)))))
        sigma = math.degrees(across / distance)
        off = angle > self._options.angle_caution_deg
        yield Finding(
            t_ns=t_ns, name="angle", value=angle, sigma=sigma, unit="deg", severity="caution" if off else "advisory",
            text="needle points past the target" if off else "to target",
        )  # fmt: skip
        offset = math.hypot(*(gap - (gap @ direction) * direction).tolist())
        yield Finding(
            t_ns=t_ns, name="offset", value=offset * 1e3, sigma=across * 1e3, unit="mm", severity="advisory",
            text="beside target",
        )  # fmt: skip

    def _assess_path(self, tip: Point, direction: Array, target: Point, twin: TwinView) -> Iterator[Finding]:
        """Measure the ways on, to the target and where the needle points, against each critical structure."""
        if twin.reference_from_image is None or not self._critical:
            return
        image_from_reference = twin.reference_from_image.inverse()
        turn = image_from_reference.rotation
        gap = target.position - tip.position
        length = math.hypot(*gap.tolist())
        ways = np.array([gap, length * direction]) @ turn.T  # where it is to go, and where it goes if only pushed
        points = (image_from_reference.apply(tip.position) + self._share * ways).reshape(-1, 3)
        moved = turn @ twin.displacement.position if twin.displacement else np.zeros(3)
        distances, margins = self._distances(points - self._moves * moved)  # what moves, where it was at rest
        slack = 0.5 * length / (PATH_SAMPLES - 1)
        sigma = math.sqrt(max(0.0, largest_variance(target.covariance + tip.covariance)))
        error = NORMAL_95 * sigma  # one-sided: with 95 % nothing is nearer by more
        nearest_m = (distances.min(axis=1) - slack).tolist()
        spare_m = ((distances - margins).min(axis=1) - slack).tolist()
        for structure, nearest, spare in zip(self._critical, nearest_m, spare_m, strict=True):
            lower = nearest - error
            # so asked that what is not a number warns
            severity = "advisory" if spare >= error else "caution" if lower >= 0 else "warning"
            yield Finding(
                t_ns=twin.t_display_ns, name="distance", of=structure.name, value=nearest * 1e3, sigma=sigma * 1e3,
                lower95=lower * 1e3, unit="mm", severity=severity, text=f"{structure.name.replace('_', ' ')} from path",
            )  # fmt: skip

    def _distances(self, points: Array) -> tuple[Array, Array]:
        """Return the distances of the critical structures and the margins that they want, (k, n) each [m].

        Points [m] are one row for each structure, (k, n, 3). Below a rib, where the distance to it falls upwards, the
        margin is wider.
        """
        distances, rises = self._grids.with_rise(points)
        return distances, self._margins + self._underside * (rises < UNDER)

    def _assess_plan(self) -> Iterator[Finding]:
        """Judge the planned path once: a veto stays in view until the plan is changed."""
        plan = self._case.plan
        wanted = self._options.must_be_known
        missing = self._case.missing if wanted is None else [n for n in wanted if n not in self._case.structures]
        if missing:
            yield Finding(
                name="unchecked", value=float(len(missing)), sigma=0.0, unit="", severity="caution",
                text=f"not in this case, so not checked: {', '.join(missing)}",
            )  # fmt: skip
        path = plan.entry + np.linspace(0.0, 1.0, 200)[:, None] * (plan.target - plan.entry)
        points = np.broadcast_to(path, (len(self._critical), *path.shape))
        for structure, distance, margin in zip(self._critical, *self._distances(points), strict=True):
            worst = int(np.argmin(distance - margin))
            if distance[worst] < margin[worst]:
                yield Finding(
                    name="plan", of=structure.name, value=float(distance[worst]) * 1e3, sigma=0.0, unit="mm",
                    severity="warning", text=f"planned path too near {structure.name.replace('_', ' ')}",
                )  # fmt: skip
        step = float(np.linalg.norm(plan.target - plan.entry)) / (len(path) - 1)
        tissue = self._organ.at(path) < 0
        inside_target = self._case.distance(plan.target_structure).at(path) < 0
        before = float(np.count_nonzero(tissue & ~inside_target)) * step * 1e3
        if before < self._options.organ_before_target_mm:
            yield Finding(
                name="plan", of=self._case.organ, value=before, sigma=0.0, unit="mm", severity="warning",
                text=f"too little {self._case.organ} before the target",
            )  # fmt: skip
