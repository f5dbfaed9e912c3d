"""The one error of this room: bytes, or a message, that the protocol does not allow."""

from __future__ import annotations

from twinguide import TwinGuideError


class MessageRefused(TwinGuideError):
    """Refuse an OpenIGTLink message: what was wanted, what came, in which field."""
