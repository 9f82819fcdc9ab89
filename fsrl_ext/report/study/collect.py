"""Finds the runs below folders: run folders, and result files ``seed<k>.json``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.study.read import UnfinishedRunError, read_result_file, read_run
from fsrl_ext.report.study.run import StudyRun

_RESULT_FILE = re.compile(r"seed\d+\.json")


@dataclass(frozen=True)
class Study:
    """The finished runs below some folders, in the order of their paths.

    :param runs: the finished runs.
    :param skipped: one line for each run that was left out, and why.
    """

    runs: tuple[StudyRun, ...]
    skipped: tuple[str, ...]


def read_study(paths: Sequence[str | os.PathLike[str]], *, skip_damaged: bool = False) -> Study:
    """Reads every finished run below the paths.

    A run folder has a ``config.json``; a run is finished when its ``result.json`` says so. Runs that have not
    finished are left out and named. A run that is reached twice counts once, and so does a run that stands in
    a folder and in a result file: the same config, seed and label. The first one by path counts.

    :param paths: run folders, folders of run folders, and result files.
    :param skip_damaged: whether damaged files are left out and named, too.
    :raises RunFolderError: if a path does not exist, has no run below it, or a file is damaged, or if no run
        has finished.
    """
    runs: list[StudyRun] = []
    skipped: list[str] = []
    places = dict.fromkeys(place for path in paths for place in run_places(Path(path)))
    seen: dict[str, StudyRun] = {}
    for place in places:
        try:
            run = read_run(place) if place.is_dir() else read_result_file(place)
        except UnfinishedRunError as error:
            skipped.append(str(error))
            continue
        except RunFolderError as error:
            if not skip_damaged:
                raise RunFolderError(f"{error}; --skip-damaged goes on without it") from error
            skipped.append(str(error))
            continue
        same = seen.setdefault(repr(sorted(run.settings.items(), key=lambda x: x[0])), run)
        if same is run:
            runs.append(run)
        else:
            skipped.append(f"{run.path} is the same run as {same.path}")
    if not runs:
        more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        raise RunFolderError(f"no run has finished: {skipped[0]}{more}")
    return Study(tuple(runs), tuple(skipped))


def run_places(path: Path) -> list[Path]:
    """The run folders and result files below a path.

    :raises RunFolderError: if there are none.
    """
    if not path.exists():
        raise RunFolderError(f"there is no folder {path}")
    if path.is_file():
        if not _RESULT_FILE.fullmatch(path.name):
            raise RunFolderError(
                f"{path} is no run: runs are folders with a config.json, or files seed<k>.json"
            )
        return [path]
    places = list(_below(path))
    if not places:
        raise RunFolderError(f"{path} has no runs: no folder with a config.json, and no file seed<k>.json")
    return places


def _below(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        here = Path(folder)
        if RunFolder(here).config.name in files:
            folders.clear()  # what a run folder holds is its own
            yield here
            continue
        folders.sort()
        yield from (here / name for name in sorted(files) if _RESULT_FILE.fullmatch(name))
