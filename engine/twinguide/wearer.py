"""Where the wearer is: the head in the headset's room, and that room relative to the tracker."""

from __future__ import annotations

from twinguide.clock import MS, SECOND
from twinguide.frames import Pose, Transform
from twinguide.headset import Headset, HeadsetEvent
from twinguide.messages import Exposure
from twinguide.staging import Staging
from twinguide.trust import HeadWatch

AWAY_NS = 300 * MS  # without tracking, after which a headset may have been put off or found another place


class Wearer:
    """Follows one headset; without `staging`, `stage_from_tracker` is given, and only jumps are watched for."""

    def __init__(self, headset: Headset, staging: Staging | None = None) -> None:
        self._headset = headset
        self._staging = staging
        self._watch = HeadWatch()
        self._jump = ""
        self._news: list[str] = []
        self.head = Transform.of("stage", "headset")  # the newest known
        self.tracked = False
        self._seen_ns: int | None = None  # when the head was last tracked

    def take(self, exposure: Exposure) -> None:
        """Refine `stage_from_tracker` by an exposure."""
        if self._staging:
            self._jump = self._staging.take(exposure, self._headset.head) or self._jump

    def look(self, t_display_ns: int) -> None:
        """Ask where the head will be at a display time [ns]; while it is not tracked, nothing can be overlaid."""
        head = self._headset.head(t_display_ns)
        was_tracked = self.tracked
        self.tracked = head is not None
        if head is None:
            return
        away_ns = 0 if was_tracked or self._seen_ns is None else t_display_ns - self._seen_ns
        self.head = head
        self._seen_ns = t_display_ns
        jump = self._watch.jump(t_display_ns, head)
        if away_ns > AWAY_NS:
            jump = f"the headset was not tracked for {away_ns / SECOND:.1f} s"
        if jump:
            self.lose(jump, t_display_ns)

    def react(self, event: HeadsetEvent) -> None:
        """React to an event of the headset's room or runtime."""
        if event.kind in ("lost", "recovered"):
            self._news.append(f"headset {event.kind}: {event.reason}")
        elif event.kind == "space_changed":
            self.lose(f"the headset has lost its place: {event.reason}", event.t_ns)

    def lose(self, reason: str, since_ns: int) -> None:
        """Regard the room as lost since `since_ns` [ns]."""
        self._jump = reason
        if self._staging:
            self._staging.restart(since_ns)

    def news(self) -> list[str]:
        """Return a line on each loss and return of the headset since the last call: it cannot show them itself."""
        news, self._news = self._news, []
        return news

    def take_jump(self) -> str:
        """Return how the room has jumped, once; nothing while it stays."""
        jump, self._jump = self._jump, ""
        return jump

    @property
    def follows(self) -> bool:
        """Whether the room is followed, rather than given."""
        return self._staging is not None

    def stage_from_tracker(self, now_ns: int) -> Pose | None:
        """Return `stage_from_tracker`, as estimated; None while it is unknown."""
        return self._staging.pose(now_ns) if self._staging else None

    @property
    def fault(self) -> str:
        """Why the room cannot be followed; empty where it can."""
        return self._staging.fault if self._staging else ""

    @property
    def reason(self) -> str:
        """Why `stage_from_tracker` returns None."""
        return self._staging.reason if self._staging else ""
