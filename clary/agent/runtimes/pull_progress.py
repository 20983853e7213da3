"""How the pull of an image gets on, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SAY_SECONDS = 5.0
_MIB = 1024**2


class PullProgress:
    """Adds up what the engine says of each layer."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, tuple[int, int]] = {}  # bytes so far, bytes in all
        self._said_at: float | None = None

    def take(self, step: Mapping[str, Any], now: float) -> str:
        """A line that is worth saying now, or ""."""
        layer, detail = str(step.get("id", "")), step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif step.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            self._layers[layer] = (self._layers[layer][1],) * 2
        if self._said_at is not None and now - self._said_at < _SAY_SECONDS:
            return ""
        self._said_at = now
        done = sum(layer[0] for layer in self._layers.values())
        total = sum(layer[1] for layer in self._layers.values())
        if not total:
            return f"Pulling the image {self._image}"
        return f"Pulling the image {self._image}: {done // _MIB} of {total // _MIB} MiB"
