from contextlib import ExitStack

import pytest

from twinguide import app
from twinguide.case import Case
from twinguide.registry import Registry, resolve
from twinguide.scenario import find, overridden


@pytest.fixture(scope="session")
def registry():
    found = Registry.load()
    assert found.refused == {}
    return found


@pytest.fixture(scope="session")
def demo_case(registry, tmp_path_factory):
    """The demo's own patient, generated and imported once."""
    from twinguide.importing import import_case

    surfaces, folder = tmp_path_factory.mktemp("surfaces"), tmp_path_factory.mktemp("patient") / "case"
    resolve(registry.part("liver").make)(surfaces, 1)
    organs = registry.organs()
    import_case(
        surfaces, folder, units="mm", axes="lps", breathing_phase="end-expiration", organs=organs,
        progress=lambda what, share: None,
    )  # fmt: skip
    return Case.load(folder)


class Watched:
    """A run whose parts are all inside, watched frame by frame: what the wearer sees, without pictures."""

    def __init__(self, loop, run):
        self.loop, self.run, self.frames = loop, run, []

    def until(self, done, limit_s=150.0):
        """Make frames until `done(shown)`; fail at the limit of the run's clock."""
        while True:
            shown = self.loop.frame()
            self.frames.append(shown)
            if done(shown):
                return shown
            assert shown.t_ns < limit_s * 1e9, f"{shown.step} waits for {self.loop.workflow.state.waits_for!r}"

    def for_seconds(self, seconds):
        """Make frames for some time, and return them."""
        first = len(self.frames)
        end = (self.frames[-1].t_ns if self.frames else 0) + seconds * 1e9
        self.until(lambda shown: shown.t_ns >= end, limit_s=1e9)
        return self.frames[first:]


@pytest.fixture(scope="module")
def watch_module(registry, demo_case, tmp_path_factory):
    """Start a scenario with all parts inside, on the demo's patient; settings override keys."""
    with ExitStack() as stack:

        def start(*settings, scenario="liver_puncture", draw=False, faults=()):
            tables = find(scenario, registry)
            inside = [f"parts.{name}.placement=inside" for name in tables["parts"]]
            tables["parts"]["patient"] = {"options": {"faults": list(faults)}} if faults else {}
            ready = overridden(tables, [f"case={demo_case.folder}", "record=false", *inside, *settings])
            run = app.Run(ready, registry, tmp_path_factory.mktemp("run"), lambda line: None)
            return Watched(app.compose_loop(run, demo_case, stack, draw=draw), run)

        yield start
