"""Clocks around methods, for our side and for the peers, with the standard library alone."""

from __future__ import annotations

import time
from typing import Any, NamedTuple


class Moment(NamedTuple):
    """Seconds of the wall clock and of the process's processor time; differences of moments are spans."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.wall - other.wall, self.processor - other.processor)


class Clock:
    """Records start and end of every call of the methods that it watches."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[Moment, Moment]]] = {}

    def watch(self, owner: Any, method: str) -> None:
        """Replaces the method of this object, and of no other object."""
        original, calls = getattr(owner, method), self.calls.setdefault(method, [])

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = Moment.now()
            answer = original(*args, **kwargs)
            calls.append((started, Moment.now()))
            return answer

        setattr(owner, method, timed)

    def starts(self, method: str) -> list[Moment]:
        return [start for start, _ in self.calls[method]]

    def ends(self, method: str) -> list[Moment]:
        return [end for _, end in self.calls[method]]

    def spans(self, method: str) -> list[Moment]:
        return [end - start for start, end in self.calls[method]]
