"""Measures what a process keeps: memory while one run lasts, and handles over many runs.

    python benchmarks/soak.py memory --minutes 30
    python benchmarks/soak.py handles --runs 30

``memory`` trains and reports by how much the resident memory grew between a fifth of the time and its end.
A replay buffer is allocated at once but takes memory only where transitions were written. What the buffer
has taken so far is subtracted, because it stops when the buffer is full. Memory that was freed but that
glibc keeps for later allocations is given back before each sample: it comes and goes by up to 100 MB with
the order in which a gradient step's arrays are freed, and hides what stays. The other processes of the run
count as well, as they are. The bar is a growth of less than 1%.

``handles`` makes short runs with worker processes in one process, one after the other, and counts open files,
child processes, threads and segments of shared memory after each. The bar is that the counts after the second
run and after the last one are the same. The garbage collector is off, so that only what is given back
explicitly counts.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gc
import multiprocessing
import os
import tempfile
import threading
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsrl_ext.experiment import make_config, run

MEMORY_BAR = 0.01
START_SHARE = 0.2
NEIGHBOURS = 5
"""Samples whose median stands for one moment."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is held at one moment of a run; memory in MB."""

    seconds: float
    env_step: int
    resident: float
    kept: float
    """The same before freed memory was given back."""
    buffer: float

    @property
    def net(self) -> float:
        """Memory without the part of the buffer that has been written to."""
        return self.resident - self.buffer


class Watch:
    """Takes a sample every few seconds, and stops the run when its time is over; a callback of a run.

    :param seconds: length of the run.
    :param every: seconds between two samples.
    :param trace: whether to print which lines of code allocated more at the end than at a fifth of the time.
    """

    def __init__(self, seconds: float, every: float, trace: bool) -> None:
        self.seconds, self.every, self.trace = seconds, every, trace
        self.samples: list[Sample] = []
        self._begun: float | None = None
        self._early: Any = None

    def on_collect_end(self, view: Any) -> None:
        """Take a sample if it is time for one."""
        now = time.monotonic()
        self._begun = self._begun or now
        passed = now - self._begun
        if not self.samples or passed - self.samples[-1].seconds >= self.every:
            kept = resident()
            give_back_freed_memory()
            self.samples.append(
                Sample(
                    seconds=passed,
                    env_step=view.env_step,
                    resident=resident(),
                    kept=kept,
                    buffer=written(view.trainer.train_collector.buffer),
                )
            )
        if self.trace and self._early is None and passed >= START_SHARE * self.seconds:
            self._early = snapshot()
        if passed >= self.seconds:
            if self.trace:
                for line in snapshot().compare_to(self._early, "lineno")[:20]:
                    print(line)
            raise KeyboardInterrupt


def snapshot() -> tracemalloc.Snapshot:
    """Return what Python's allocators hold, without what nobody refers to."""
    gc.collect()
    return tracemalloc.take_snapshot()


def give_back_freed_memory() -> None:
    """Let glibc return freed memory to the system; other C libraries have no such function."""
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim is not None:
        trim(0)


def resident() -> float:
    """Return the resident memory of this process and its children in MB."""
    total = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 2**20


def written(buffer: Any) -> float:
    """Return the memory in MB of the rows of a buffer that have been written to."""
    row = sum(values.nbytes for values in buffer.arrays.values() if isinstance(values, np.ndarray))
    return row * len(buffer) / buffer.maxsize / 2**20


def median(samples: list[Sample], around: int) -> float:
    """Return the median net memory of the samples next to one of them."""
    first = min(max(around - NEIGHBOURS // 2, 0), max(len(samples) - NEIGHBOURS, 0))
    return float(np.median([sample.net for sample in samples[first : first + NEIGHBOURS]]))


def memory(options: argparse.Namespace) -> int:
    """Train for some minutes and report the growth."""
    seconds = 60.0 * options.minutes
    watch = Watch(seconds, every=max(seconds / 200, 0.5), trace=options.trace)
    config = make_config(options.policy, options.task, cost_limit=options.cost_limit, steps=options.steps)
    if options.trace:
        tracemalloc.start(1)
    with tempfile.TemporaryDirectory() as out:
        run(config, out=out, show_progress=False, callbacks=[watch])
    samples = watch.samples
    for sample in samples[:: max(len(samples) // 20, 1)]:
        print(
            f"{sample.seconds:7.0f} s {sample.env_step:9d} steps  resident {sample.resident:8.1f} MB  "
            f"buffer {sample.buffer:6.1f} MB  net {sample.net:8.1f} MB  with freed {sample.kept:8.1f} MB"
        )
    if len(samples) < 4 * NEIGHBOURS:
        print(f"{len(samples)} samples are too few: collects take too long for {options.minutes} minutes")
        return 1
    start = next(i for i, sample in enumerate(samples) if sample.seconds >= START_SHARE * seconds)
    first, last = median(samples, start), median(samples, len(samples) - 1)
    growth = last / first - 1.0
    print(
        f"from {first:.1f} to {last:.1f} MB between {samples[start].seconds:.0f} and "
        f"{samples[-1].seconds:.0f} s: {growth:+.2%} (bar {MEMORY_BAR:.0%})"
    )
    return int(growth >= MEMORY_BAR)


def held() -> dict[str, int]:
    """Count open files, child processes, threads, and segments of shared memory."""
    with open("/proc/self/maps") as maps:
        shared = sum("pym-" in line or "/dev/shm" in line for line in maps)
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "children": len(multiprocessing.active_children()),
        "threads": threading.active_count(),
        "shared": shared,
    }


def handles(options: argparse.Namespace) -> int:
    """Make short runs and compare what is held after them."""
    config = make_config(
        options.policy,
        "KnownOptimum-v0",
        cost_limit=5.0,
        **{"steps": 800, "step_per_collect": 80, "workers": 2},
        **{"hidden_sizes": (16,), "selections": 2, "selection_episodes": 2, "final_episodes": 2},
    )
    counts = []
    gc.disable()
    for k in range(options.runs):
        with tempfile.TemporaryDirectory() as out:
            run(config, out=out, show_progress=False)
        counts.append(held())
        print(
            f"run {k + 1}: " + ", ".join(f"{name} {count}" for name, count in counts[-1].items()), flush=True
        )
    return int(counts[1] != counts[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("memory", help="train for some minutes")
    part.add_argument("--minutes", type=float, default=30.0)
    part.add_argument("--policy", default="cvpo")
    part.add_argument("--task", default="SafetyBallCircle-v0")
    part.add_argument("--cost-limit", type=float, default=20.0)
    part.add_argument("--steps", type=int, default=1_000_000, help="more than the time allows")
    part.add_argument("--trace", action="store_true", help="print which lines allocated; 2 times slower")
    part.set_defaults(main=memory)
    part = parts.add_parser("handles", help="make many short runs with workers")
    part.add_argument("--runs", type=int, default=30)
    part.add_argument("--policy", default="ppo_lag")
    part.set_defaults(main=handles)
    options = parser.parse_args()
    return int(options.main(options))


if __name__ == "__main__":
    raise SystemExit(main())
