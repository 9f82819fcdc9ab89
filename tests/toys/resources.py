"""What this process holds of the system."""

from __future__ import annotations

import multiprocessing
import os
import threading


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
