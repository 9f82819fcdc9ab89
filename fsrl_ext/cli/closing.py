"""What ``train`` and ``resume`` print at the end of a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsrl_ext.experiment import RunResult


def print_result(done: RunResult) -> int:
    """Prints how a run ended and where its files are; returns the exit code."""
    from fsrl_ext.report import result_table
    from fsrl_ext.report.folder import RunFolder

    print()
    if done.status == "finished":
        print(result_table(done.result))
    else:
        print(f"interrupted after {done.result['env_step']:,} steps; the best policy so far is saved")
        if done.resumable:
            print(f"to go on:   fsrl-ext resume {shlex.quote(str(done.folder))}")
    print(f"run folder: {done.folder}\ncurves:     {RunFolder(done.folder).curves}")
    return 0 if done.status == "finished" else 130
