"""Pictures off the GPU: read, hash, measure, put side by side, save."""

from __future__ import annotations

import hashlib
from pathlib import Path

import moderngl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def read_pixels(framebuffer: moderngl.Framebuffer) -> Pixels:
    """Return a framebuffer's colours, shape (height, width, 3), top row first; waits for the GPU."""
    width, height = framebuffer.size
    raw = framebuffer.read(viewport=(0, 0, width, height), components=3, alignment=1)
    return np.frombuffer(raw, dtype=np.uint8).reshape(height, width, 3)[::-1]


def picture_hash(pixels: Pixels) -> str:
    """Return the SHA-256 of a picture's raw pixels, as 64 hex digits."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def save_png(pixels: Pixels, path: Path) -> Path:
    """Write a picture and return its path; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path
