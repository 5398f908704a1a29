"""How far a run is: one line that renews itself in a terminal or notebook, a line now and then in a log."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

_TERMINAL_S, _LOG_S = 0.5, 30.0


class Progress:
    """Counts epochs and says the rate and the remaining time, on standard error."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        self.total, self.done, self.skipped = total, 0, 0
        self._enabled = enabled and total > 0
        self._live = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._start = self._said = time.monotonic()

    def step(self, *, skipped: bool) -> None:
        """One more epoch is finished."""
        self.done += 1
        self.skipped += skipped
        now = time.monotonic()
        if now - self._said >= (_TERMINAL_S if self._live else _LOG_S):
            self._said = now
            self._say(end="" if self._live else "\n")

    def close(self) -> None:
        """The last word."""
        if self._enabled:
            self._say(end="\n")

    def line(self, seconds: float) -> str:
        """What is said after so many seconds."""
        rate = self.done / seconds if seconds > 0 else 0.0
        left = f"{_duration((self.total - self.done) / rate)} left" if rate > 0 else "time left unknown"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.done} of {self.total} epochs, {rate:.3g} per second, {left}{skipped}"

    def _say(self, end: str) -> None:
        if self._enabled:
            text = self.line(time.monotonic() - self._start)
            print(f"\r{text:<78}" if self._live else text, end=end, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
