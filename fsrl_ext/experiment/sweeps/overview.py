"""What a sweep shows: a table on a terminal, and elsewhere a line for each start and end of a run."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fsrl_ext.cost_names import LimitUnit, training_column
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.sweeps.folder import StudyFolder

REFRESH_SECONDS = 1.0
_TAIL_BYTES = 65536
_MAX_ROWS = 30


@dataclass(frozen=True)
class Newest:
    """The newest numbers of a run.

    :param env_step: environment steps so far.
    :param training_return: mean return of the newest training episodes; ``None`` before the first.
    :param costs: their mean costs, one number per cost.
    """

    env_step: int
    training_return: float | None
    costs: tuple[float, ...]


def read_newest(progress: Path, unit: LimitUnit = "episode") -> Newest | None:
    """The newest numbers in a ``progress.csv``, from its last rows; ``None`` if there is no complete row.

    :param unit: of the costs.
    """
    try:
        with progress.open("rb") as file:
            header = file.readline().decode(errors="replace").strip().split(",")
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]  # without the header, or the rest of a line
    rows = [dict(zip(header, row, strict=False)) for row in csv.reader(lines)]
    rows = [row for row in rows if row.get("env_step")]
    if not rows:
        return None
    name = "train/returns_stat/mean"
    played = next((row for row in reversed(rows) if row.get(name)), None)
    if played is None:
        return Newest(int(float(rows[-1]["env_step"])), None, ())
    start, _, end = training_column("*", unit).partition("*")
    costs = [x for x in header if x.startswith(start) and x.endswith(end)]
    return Newest(
        int(float(rows[-1]["env_step"])),
        float(played[name]),
        tuple(float(played[x]) for x in costs if played.get(x)),
    )


class Overview:
    """Shows how far a sweep is.

    :param folder: of the study.
    :param configs: settings of the runs by name, as far as they are known before they begin.
    :param total: runs of the sweep; ``None`` if a search algorithm decides.
    :param finished: runs that had finished before the sweep began.
    :param show: False shows nothing anywhere.
    """

    def __init__(
        self,
        folder: StudyFolder,
        configs: Mapping[str, ExperimentConfig],
        *,
        total: int | None,
        finished: int,
        show: bool,
    ) -> None:
        self._folder, self._configs, self._total, self._show = folder, configs, total, show
        self._counts = {"finished": finished, "stopped early": 0, "failed": 0}
        self._running: dict[str, _Speed] = {}
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._next = 0.0
        self._live: Live | None = None
        if show and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def say(self, line: str) -> None:
        """Prints a line, above the table if there is one."""
        if self._show:
            self._console.print(line, markup=False)

    def began(self, name: str) -> None:
        """A run has begun, or goes on."""
        self._running[name] = _Speed()
        if self._live is None:
            self.say(f"started {name} ({self.counts()})")

    def ended(self, name: str, how: str) -> None:
        """A run has ended.

        :param how: ``"finished"``, ``"stopped early"`` by a scheduler, ``"failed"`` or ``"interrupted"``.
        """
        self._running.pop(name, None)
        if how in self._counts:
            self._counts[how] += 1
        self.say(f"{how} {name} ({self.counts()})")
        if how == "failed":
            self.say("".join(f"    {line}\n" for line in self._folder.end_of_log(name).splitlines()).rstrip())

    def counts(self) -> str:
        """How many runs have finished, run, wait and have failed, in words."""
        counts = {**self._counts, "running": len(self._running)}
        if self._total is not None:
            counts["waiting"] = max(self._total - sum(counts.values()), 0)
        optional = ("stopped early",)
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name not in optional)

    def refresh(self) -> None:
        """Draws the table anew, at most once per second."""
        now = time.monotonic()
        if self._live is None or now < self._next:
            return
        self._next = now + REFRESH_SECONDS
        self._live.update(self._table(now), refresh=True)

    def close(self) -> None:
        """Removes the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, now: float) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column("run", overflow="ellipsis", no_wrap=True)
        for name in ("steps", "return", "cost", "limit", "steps/s", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, speed in list(self._running.items())[:_MAX_ROWS]:
            table.add_row(name, *self._row(name, speed, now))
        more = len(self._running) - _MAX_ROWS
        last = [Text(f"and {more} more")] if more > 0 else []
        return Group(table, *last, Text(f"{self._folder.path}: {self.counts()}"))

    def _row(self, name: str, speed: _Speed, now: float) -> tuple[str, ...]:
        config = self._configs.get(name)
        unit: LimitUnit = "episode" if config is None else config.policy_config.limit_unit
        newest = read_newest(self._folder.run(name).progress, unit)
        if newest is None:
            return ("starting", "", "", "", "", "")
        rate = speed.measure(newest.env_step, now)
        steps = f"{newest.env_step:,}"
        limit = left = ""
        if config is not None:
            steps += f" of {config.steps:,}"
            limit = ",".join(f"{x:g}" for x in config.cost_limit)
            if newest.env_step >= config.steps:
                left = "judging"
            elif rate:
                left = _duration((config.steps - newest.env_step) / rate)
        value = "" if newest.training_return is None else f"{newest.training_return:.1f}"
        costs = ",".join(f"{x:.1f}" for x in newest.costs)
        return (steps, value, costs, limit, f"{rate:,.0f}" if rate else "", left)


class _Speed:
    """Steps per second of a run, over about the last minute."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def measure(self, env_step: int, now: float) -> float | None:
        """Adds a point; ``None`` as long as the run has made no steps since the first."""
        if self._points and env_step < self._points[-1][1]:
            self._points.clear()  # the run went on from its snapshot
        if not self._points or env_step > self._points[-1][1]:
            self._points.append((now, env_step))
        while len(self._points) > 2 and now - self._points[0][0] > 60.0:
            del self._points[0]
        (begun, first), (_, newest) = self._points[0], self._points[-1]
        return (newest - first) / (now - begun) if newest > first else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
