"""Where the wearer is: the head in the headset's room, and that room against the tracker; a jump of it is told once."""

from __future__ import annotations

from twinguide.clock import MS, SECOND
from twinguide.frames import Pose, Transform
from twinguide.messages import Exposure
from twinguide.staging import Staging
from twinguide.trust import HeadWatch
from twinguide.xr.base import Headset, HeadsetEvent

AWAY_NS = 300 * MS  # without tracking, after which a headset may have been put off or found another place


class Wearer:
    """Follows one headset; without `staging`, how its room lies to the tracker is given and only jumps are watched."""

    def __init__(self, headset: Headset, staging: Staging | None = None) -> None:
        self._headset, self._staging, self._watch = headset, staging, HeadWatch()
        self._jump = ""
        self._news: list[str] = []
        self.head = Transform.of("stage", "headset")  # the newest known
        self.tracked = False
        self._seen_ns: int | None = None  # when the head was last tracked

    def take(self, exposure: Exposure) -> None:
        """Learn from an exposure how the headset's room lies to the tracker."""
        if self._staging:
            self._jump = self._staging.take(exposure, self._headset.head) or self._jump

    def look(self, t_display_ns: int) -> None:
        """Ask where the head will be at a display time [ns]; where it is not tracked, nothing can be laid over."""
        head = self._headset.head(t_display_ns)
        was, self.tracked = self.tracked, head is not None
        if head is None:
            return
        away_ns = 0 if was or self._seen_ns is None else t_display_ns - self._seen_ns
        self.head, self._seen_ns = head, t_display_ns
        jump = self._watch.jumped(t_display_ns, head)
        if away_ns > AWAY_NS:
            jump = f"the headset was not tracked for {away_ns / SECOND:.1f} s"
        if jump:
            self.lose(jump, t_display_ns)

    def react(self, event: HeadsetEvent) -> None:
        """Follow what the headset tells of its room and its runtime."""
        if event.kind in ("lost", "recovered"):
            self._news.append(f"headset {event.kind}: {event.reason}")
        elif event.kind == "space_changed":
            self.lose(f"the headset has lost its place: {event.reason}", event.t_ns)

    def lose(self, reason: str, since_ns: int) -> None:
        """Take the room for lost from `since_ns` [ns] on."""
        self._jump = reason
        if self._staging:
            self._staging.restart(since_ns)

    def news(self) -> list[str]:
        """Return a line on each loss and return of the headset since the last call: it cannot show them itself."""
        news, self._news = self._news, []
        return news

    def take_jump(self) -> str:
        """Return how the room has jumped, once; nothing while it stands."""
        jump, self._jump = self._jump, ""
        return jump

    @property
    def follows(self) -> bool:
        """Whether the room is followed, rather than given."""
        return self._staging is not None

    def stage_from_tracker(self, now_ns: int) -> Pose | None:
        """Return how the room lies, as followed; None while nobody knows."""
        return self._staging.pose(now_ns) if self._staging else None

    @property
    def fault(self) -> str:
        """What is wrong with following the room, or nothing."""
        return self._staging.fault if self._staging else ""

    @property
    def reason(self) -> str:
        """Why `stage_from_tracker` has none."""
        return self._staging.reason if self._staging else ""
