"""What ``train`` and ``resume`` print at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrl_ext.cli.signals import INTERRUPTED

if TYPE_CHECKING:
    from fsrl_ext.experiment import RunResult


def print_result(done: RunResult) -> int:
    """Prints how a run ended and where its files are; returns the exit code.

    Of an interrupted run it prints one line, which ends with the command that goes on with the run.
    """
    from fsrl_ext.experiment import ExperimentConfig
    from fsrl_ext.experiment.training.permission import resume_command
    from fsrl_ext.report import result_table
    from fsrl_ext.report.folder import RunFolder

    if done.status != "finished":
        steps = done.result["env_step"]
        where = (
            "in the final evaluation" if steps >= done.result["config"]["steps"] else f"after {steps:,} steps"
        )
        config = ExperimentConfig.from_dict(done.result["config"])
        command = resume_command(done.folder, allow_import=config.imports_modules)
        print(f"interrupted {where}; to go on: {command}")
        return INTERRUPTED
    print()
    print(result_table(done.result))
    print(f"run folder: {done.folder}\ncurves:     {RunFolder(done.folder).curves}")
    return 0
