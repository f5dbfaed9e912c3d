"""The motion part: learns in the workflow's step `train`, then follows every exposure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twinguide import Array as WireArray
from twinguide import (
    Context,
    Displacement,
    Exposure,
    Gate,
    ImageTarget,
    Inbox,
    Message,
    Training,
    TwinGuideError,
    WorkflowState,
)
from twinguide.clock import SECOND

from . import gate
from .lag import LagPrior
from .marker import ChestSample, ReferenceFilter, locate_chest
from .model import HORIZONS_S, BreathingModel, Prediction, TooLittle, fit
from .plugin import BreathingOptions
from .rest import RestWatch
from .training import TrainingLog, trained
from .watch import Verdict, Watch
from .waveform import GRID_HZ, HISTORY_S, history_features

RETRY_S = 4.0
PROGRESS_NS = SECOND // 2
OFFSETS_NS = tuple(round(h * SECOND) for h in HORIZONS_S)


class Breathing:
    """Follow one target's breathing from a marker on the chest."""

    def __init__(self, ctx: Context) -> None:
        o: BreathingOptions = ctx.options
        self._options = o
        self._log = ctx.log
        self._of = o.of or ctx.case.plan.target_structure
        self._prior = LagPrior(
            o.imaging_lag_ms * 1e-3,
            o.imaging_lag_sigma_ms * 1e-3,
            hysteresis=o.hysteresis,
            hysteresis_sigma=o.hysteresis_sigma,
        )
        self._limits = gate.GateLimits(o.gate_mm * 1e-3, o.gate_mm_per_s * 1e-3)
        self._reference = ReferenceFilter(o.reference_window_s)
        self._step = ""
        self._training: TrainingLog | None = None
        self._fit_at_ns = 0
        self._progress_at_ns = 0  # when the training's progress is next published
        self._note = ""
        self._follower: Follower | None = None
        self._rest: RestWatch | None = None  # since the last registration
        self._excused_m = 0.0  # of creep, which was seen before landmarks were last verified
        self._gate = gate.UNKNOWN

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Take exposures and images up to `t_ns` [ns]; publish training, displacement and gate."""
        for message in inbox:
            if isinstance(message, WorkflowState):
                self._on_workflow(message, t_ns)
            elif isinstance(message, ImageTarget) and self._training and message.of == self._of:
                self._training.add_image(message)
            elif isinstance(message, Exposure):
                yield from self._on_exposure(message)
        if self._training:
            yield from self._train(t_ns)

    def _on_workflow(self, state: WorkflowState, t_ns: int) -> None:
        if state.step == "train" and self._step != "train":
            self._training = TrainingLog(t_ns)
            self._follower = None
            self._gate = gate.UNKNOWN
            self._fit_at_ns = t_ns + round(self._options.train_s * SECOND)
            self._progress_at_ns = t_ns
            self._note = ""
        elif state.step != "train":
            self._training = None
        if state.step == "register":
            self._rest = None
            self._excused_m = 0.0
        elif state.step == "verify" and self._rest and self._rest.creep:
            self._excused_m = self._rest.creep.size  # landmarks decide; the region stays as wide as it has become
        self._step = state.step

    def _on_exposure(self, exposure: Exposure) -> Iterator[Message]:
        sample = self._locate(exposure)
        if sample is None:
            bodies = {"chest marker": self._options.chest, "reference": self._options.reference}
            unseen = {body: name for body, name in bodies.items() if name not in exposure.tools}
            reasons = [f"{body}: {exposure.lost.get(name, 'not tracked')}" for body, name in unseen.items()]
            self._gate = gate.GateState(False, ", ".join(reasons) or "chest marker: no place that makes sense")
        elif self._training:
            self._training.add_chest(sample)
        elif self._follower:
            self._rest = self._rest or self._follower.rest_watch()
            yield from self._follow(self._follower, self._rest, sample)
        yield Gate(
            t_ns=exposure.t_ns, open=self._gate.open, reason=self._gate.reason, seconds_left=self._gate.seconds_left
        )

    def _locate(self, exposure: Exposure) -> ChestSample | None:
        """Return the chest's place, or None where it or the reference was not seen or makes no sense."""
        reference, chest = (exposure.tools.get(name) for name in (self._options.reference, self._options.chest))
        if reference is None or chest is None:
            return None
        try:
            return locate_chest(self._reference.add(reference.pose(exposure.t_ns)), chest.pose(exposure.t_ns))
        except TwinGuideError as error:
            self._log.warning("exposure at %d ns passed over: %s", exposure.t_ns, error)
            return None

    def _follow(self, follower: Follower, rest: RestWatch, sample: ChestSample) -> Iterator[Message]:
        rest.add(sample.t_ns * 1e-9, sample.position)
        answer = follower.follow(sample)
        if answer is None:
            self._gate = gate.GateState(False, "chest marker seen too short")
            return
        prediction, verdict = answer
        prediction = replace(prediction, covariance=prediction.covariance + rest.covariance())
        if verdict.in_model and rest.creep and rest.creep.size > self._excused_m + self._options.creep_mm * 1e-3:
            verdict = Verdict(False, f"reference or chest marker has crept by {rest.creep.size * 1e3:.1f} mm: verify")
        if verdict.in_model:
            self._gate = gate.decide(self._gate, prediction, self._limits, follower.rest_ends_in_s(sample.t_ns))
        else:
            self._gate = gate.GateState(False, verdict.reason)
        yield Displacement(
            t_ns=sample.t_ns,
            of=self._of,
            times_ns=tuple(sample.t_ns + offset for offset in OFFSETS_NS),
            mean=WireArray.of(prediction.displacement),
            covariance=WireArray.of(prediction.covariance),
            in_model=verdict.in_model,
            reason=verdict.reason,
        )

    def _train(self, t_ns: int) -> Iterator[Message]:
        assert self._training is not None
        if t_ns >= self._fit_at_ns:
            yield self._fit(self._training, t_ns)
        elif t_ns >= self._progress_at_ns:
            self._progress_at_ns = t_ns + PROGRESS_NS
            share = (t_ns - self._training.start_ns) / (self._options.train_s * SECOND)
            yield Training(t_ns=t_ns, progress=min(share, 0.99), done=False, note=self._note)

    def _fit(self, log: TrainingLog, t_ns: int) -> Training:
        try:
            recording = log.recording()
            model = fit(recording, self._prior)
        except (TooLittle, np.linalg.LinAlgError) as error:
            self._fit_at_ns = t_ns + round(RETRY_S * SECOND)
            self._progress_at_ns = t_ns + PROGRESS_NS
            self._note = f"training goes on: {error}"
            return Training(t_ns=t_ns, progress=0.99, done=False, note=self._note)
        self._training = None
        self._follower = Follower(model)
        self._rest = self._rest or self._follower.rest_watch()
        for at_s, position in zip(recording.chest_times.tolist(), recording.chest, strict=True):
            self._rest.add(at_s, position)
        return trained(model, t_ns)


class Follower:
    """A trained model at work: keeps the chest's recent history and the watch over it."""

    def __init__(self, model: BreathingModel) -> None:
        self._model = model
        self._watch = Watch(model.familiar)
        self._history: deque[tuple[float, float]] = deque(maxlen=round(1.5 * HISTORY_S * GRID_HZ))

    def follow(self, sample: ChestSample) -> tuple[Prediction, Verdict] | None:
        """Return the prediction and whether it can be believed; None while the history is too short."""
        now = sample.t_ns * 1e-9
        value = float(self._model.projection.apply(sample.position))
        if self._history and now <= self._history[-1][0]:
            return None
        self._history.append((now, value))
        times, values = np.array(self._history).T
        features = history_features(times, values)
        if features is None:
            return None
        verdict = self._watch.observe(now, value, features)
        prediction = self._model.predict(features)
        return (prediction if verdict.in_model else _doubted(prediction, self._model)), verdict

    def rest_watch(self) -> RestWatch:
        """Return a watch over where the chest rests, across the travel that was learnt."""
        inspiration = self._model.projection.direction * np.sign(self._model.travel)
        return RestWatch(inspiration, float(self._model.familiar.periods.mean()))

    def rest_ends_in_s(self, t_ns: int) -> float:
        """Return how long after `t_ns` [ns] the next breath begins at the soonest [s]; 0 where that is unknown."""
        end = self._watch.rest_ends_at()
        return 0.0 if end is None else end - t_ns * 1e-9


def _doubted(prediction: Prediction, model: BreathingModel) -> Prediction:
    """Widen a prediction out of model: the target may be anywhere in its usual travel (1 sigma: a third of it)."""
    full: NDArray[np.float64] = model.displacement(np.array([[model.resting + model.travel, 0.0]]))[0]
    wide = prediction.covariance + float(full @ full) / 9.0 * np.eye(3)
    return Prediction(prediction.displacement, wide, prediction.velocity, prediction.state)
