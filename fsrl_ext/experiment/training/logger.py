"""A Tianshou logger that writes a run folder: TensorBoard events and ``progress.csv``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from tianshou.utils import BaseLogger, WandbLogger
from tianshou.utils.logger.base import VALID_LOG_VALS_TYPE, TRestoredData
from torch.utils.tensorboard import SummaryWriter

from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_progress


class RunLogger(BaseLogger):
    """Writes every number that it is given, at the environment step that the number belongs to.

    ``progress.csv`` has one row per environment step that something was logged for.

    :param folder: an existing run folder.
    :param keep_until: the environment step of the snapshot that a run goes on from. Rows up to this step are
        kept and later ones are dropped. ``None`` for a folder without curves.
    :param beside: a logger that is given everything that this one is given; its own intervals decide what
        it writes.
    """

    def __init__(
        self, folder: RunFolder, *, keep_until: int | None = None, beside: BaseLogger | None = None
    ) -> None:
        super().__init__(train_interval=0, test_interval=0, update_interval=0, info_interval=0)
        purge = None if keep_until is None else keep_until + 1
        self.writer = SummaryWriter(str(folder.tensorboard), purge_step=purge)
        self.path = folder.progress
        self.beside = beside
        if isinstance(beside, WandbLogger) and beside.writer is None:
            # It sends what a TensorBoard writer writes, and refuses to work without one.
            beside.load(self.writer)
        self._columns: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._row: dict[str, float] = {}
        if keep_until is not None:
            self._keep_rows(keep_until)

    def _keep_rows(self, keep_until: int) -> None:
        """Reads the rows up to a step and writes the file anew with these alone."""
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                step = int(row["env_step"])
                if step <= keep_until:
                    self._rows.append({k: float(v) for k, v in row.items() if v} | {"env_step": step})
                if step >= keep_until:  # later rows may end in the middle of a line
                    break
        used = {key for row in self._rows for key in row}
        self._columns = [key for key in reader.fieldnames or () if key in used]
        self._write(self._rows, new_file=True)

    def log_train_data(self, log_data: dict, step: int) -> None:
        """Logs the statistics of a collect."""
        super().log_train_data(log_data, step)
        if self.beside is not None:
            self.beside.log_train_data(log_data, step)

    def log_test_data(self, log_data: dict, step: int) -> None:
        """Logs the outcome of a selection."""
        super().log_test_data(log_data, step)
        if self.beside is not None:
            self.beside.log_test_data(log_data, step)

    def log_update_data(self, log_data: dict, step: int) -> None:
        """Logs the means over the gradient steps of a cycle."""
        super().log_update_data(log_data, step)
        if self.beside is not None:
            self.beside.log_update_data(log_data, step)

    def log_info_data(self, log_data: dict, step: int) -> None:
        """Logs Tianshou's summary of an epoch."""
        super().log_info_data(log_data, step)
        if self.beside is not None:
            self.beside.log_info_data(log_data, step)

    def prepare_dict_for_logging(self, log_data: dict) -> dict[str, VALID_LOG_VALS_TYPE]:
        """Flattens nested dictionaries and drops arrays and everything that is not a number."""
        return dict(_flatten(log_data))

    def write(self, step_type: str, step: int, data: dict[str, VALID_LOG_VALS_TYPE]) -> None:
        """Adds numbers to the row of the environment step; ``step_type`` is ``scope/unit``."""
        scope = step_type.split("/")[0]
        if scope == "info":  # the summary of an epoch has the epoch as its step, and nothing new
            return
        if self._row and self._row["env_step"] != step:
            self.flush()
        self._row["env_step"] = step
        for key, value in data.items():
            number = float(value)  # type: ignore[arg-type]
            self._row[f"{scope}/{key}"] = number
            self.writer.add_scalar(f"{scope}/{key}", number, global_step=step)

    def flush(self) -> None:
        """Writes the open row to disk."""
        if not self._row:
            return
        self._rows.append(self._row)
        new = [key for key in self._row if key not in self._columns]
        self._columns += new
        # A column that appears later (the first update, the first test) needs a new header.
        self._write(self._rows if new else [self._row], new_file=bool(new))
        self._row = {}
        self.writer.flush()

    def _write(self, rows: list[dict[str, float]], *, new_file: bool) -> None:
        with self.path.open("w" if new_file else "a", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            if new_file:
                writer.writeheader()
            writer.writerows(rows)

    def finalize(self) -> None:
        """Writes the open row and closes the files, and finalizes the logger beside this one."""
        self.flush()
        if self.beside is not None:
            self.beside.finalize()
        self.writer.close()

    def save_data(
        self,
        epoch: int,
        env_step: int,
        gradient_step: int,
        save_checkpoint_fn: Callable[[int, int, int], str] | None = None,
    ) -> None:
        """Calls the trainer's checkpoint hook, and the logger beside this one likewise."""
        if save_checkpoint_fn is not None:
            save_checkpoint_fn(epoch, env_step, gradient_step)
        if self.beside is not None:
            self.beside.save_data(epoch, env_step, gradient_step, save_checkpoint_fn)

    def restore_data(self) -> tuple[int, int, int]:
        """Epoch, environment step and gradient step that a run starts from: zero.

        A resumed run takes its counters from the snapshot.
        """
        return 0, 0, 0

    @staticmethod
    def restore_logged_data(log_path: str) -> TRestoredData:
        """The columns of a run's ``progress.csv`` as arrays, NaN where a row has no value."""
        return dict(read_progress(Path(log_path)))


def _flatten(data: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            items += _flatten(value, f"{name}/")
        elif isinstance(value, Number) and not isinstance(value, complex):
            items.append((name, value))
    return items
