"""A Tianshou logger that writes a run folder: TensorBoard events and ``progress.csv``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from tianshou.utils import BaseLogger, WandbLogger
from tianshou.utils.logger.base import VALID_LOG_VALS_TYPE, TRestoredData
from torch.utils.tensorboard import SummaryWriter

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.training.folder import write_failure, writing
from fsrl_ext.report.files import replacing
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_progress, read_rows


class RunLogger(BaseLogger):
    """Writes every number that it is given, at the environment step that the number belongs to.

    ``progress.csv`` has one row per environment step that something was logged for. A row is written when it
    is complete, that is, when the next one begins. New columns replace the file in one move, so every
    complete row outlives a crash.

    :param folder: an existing run folder.
    :param state: what :meth:`state_dict` returned. The rows that were complete then are kept, and the one
        that was open goes on. ``None`` for a new run, which replaces curves that are there.
    :param beside: a logger that is given everything that this one is given; its own intervals decide what
        it writes.
    :raises RunFolderError: if ``progress.csv`` is damaged.
    :raises RunStoppedError: if a file cannot be written, here and in every method that writes.
    """

    def __init__(
        self, folder: RunFolder, *, state: Mapping[str, Any] | None = None, beside: BaseLogger | None = None
    ) -> None:
        super().__init__(train_interval=0, test_interval=0, update_interval=0, info_interval=0)
        self._columns: list[str] = []
        self._rows: list[bytes] = []  # as lines of the file, which take a tenth of a dictionary's memory
        self._row: dict[str, float] = {}
        self._events_failed = False
        self.path = folder.progress
        last = None if state is None else self._go_on_from(state)
        # TensorBoard then shows no event of this step or later that was written before.
        open_from = self._row.get("env_step", 0 if last is None else last + 1)
        with writing(folder.tensorboard):
            self.writer = SummaryWriter(str(folder.tensorboard), purge_step=int(open_from))
        for name, value in self._row.items():
            if name != "env_step":
                self._add_event(name, value, int(open_from))
        self.beside = beside
        if isinstance(beside, WandbLogger) and beside.writer is None:
            # It sends what a TensorBoard writer writes, and refuses to work without one.
            beside.load(self.writer)

    def state_dict(self) -> dict[str, Any]:
        """The number of complete rows, and the open one; the complete ones are then on the disk."""
        if self._rows:
            if not self.path.exists():
                self._write_all()
            with writing(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())
        return {"rows": len(self._rows), "row": dict(self._row)}

    def _go_on_from(self, state: Mapping[str, Any]) -> float | None:
        """Takes over a state, and writes the file anew with the complete rows of that time alone.

        :return: the environment step of the last of these rows.
        """
        try:
            columns, rows = read_rows(self.path) if self.path.is_file() else ([], [])
            if not all("env_step" in row for row in rows):
                raise RunFolderError(f"{self.path} is damaged: a row has no env_step")
        except RunFolderError as error:
            raise RunFolderError(f"{error}; delete the file to go on without its rows") from error
        if len(rows) < state["rows"]:
            warnings.warn(
                f"{self.path} has {len(rows)} of the {state['rows']} rows that it had; the others are lost",
                stacklevel=2,
            )
        rows, self._row = rows[: state["rows"]], dict(state["row"])
        used = {key for row in rows for key in row}
        self._columns = [key for key in columns if key in used]
        self._rows = [self._line(row) for row in rows]
        self._write_all()
        return rows[-1]["env_step"] if rows else None

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
        """Adds numbers to the row of the environment step; ``step_type`` is ``scope/unit``.

        The row may be complete already, as it is when the verdict on a selection comes.
        """
        scope = step_type.split("/")[0]
        if scope == "info":  # the summary of an epoch has the epoch as its step, and nothing new
            return
        numbers = {f"{scope}/{key}": float(value) for key, value in data.items()}  # type: ignore[arg-type]
        for name, number in numbers.items():
            self._add_event(name, number, step)
        if self._row and step < self._row["env_step"] and self._amend(step, numbers):
            return
        if self._row and self._row["env_step"] != step:
            self.flush()
        self._row["env_step"] = step
        self._row |= numbers

    def begin_row(self, step: int) -> None:
        """Begins the row of an environment step, so that it is there for numbers that come later."""
        self.write("later/env_step", step, {})

    def _amend(self, step: int, numbers: Mapping[str, float]) -> bool:
        """Adds numbers to the complete row of a step, and writes the file anew; False if there is no row."""
        place = self._columns.index("env_step") if self._rows else 0
        for i in reversed(range(len(self._rows))):
            values = self._rows[i].split(b",")
            if float(values[place]) != step:
                continue
            new = self._add_columns(numbers)
            values += [b""] * len(new)
            for name, number in numbers.items():
                values[self._columns.index(name)] = str(number).encode()
            self._rows[i] = b",".join(values)
            self._write_all()
            return True
        return False

    def _add_columns(self, row: Mapping[str, float]) -> list[str]:
        """Adds the columns that a row has and no row had before; returns them."""
        new = [key for key in row if key not in self._columns]
        if new:  # such as those of the first update; the rows before have no value there
            self._columns += new
            self._rows = [line + b"," * len(new) for line in self._rows]
        return new

    def flush(self) -> None:
        """Writes the open row, which then is complete."""
        if not self._row:
            return
        row, self._row = self._row, {}
        new = self._add_columns(row)
        self._rows.append(self._line(row))
        if new or not self.path.exists():
            self._write_all()
        else:
            with writing(self.path), self.path.open("ab") as file:
                file.write(self._rows[-1] + b"\r\n")
        self._write_events(self.writer.flush)

    def _add_event(self, name: str, value: float, step: int) -> None:
        self._write_events(lambda: self.writer.add_scalar(name, value, global_step=step))

    def _write_events(self, write: Callable[[], None]) -> None:
        """Writes to TensorBoard's events; after a failure, which is a warning, no more."""
        if self._events_failed:
            return
        try:
            write()
        except OSError as error:
            self._events_failed = True
            place = self.writer.get_logdir()
            warnings.warn(
                f"no more events in {place} ({write_failure(error)}); the run goes on", stacklevel=2
            )

    def _write_all(self) -> None:
        header = ",".join(self._columns).encode()
        with writing(self.path), replacing(self.path) as file:
            file.writelines(line + b"\r\n" for line in (header, *self._rows))

    def _line(self, row: Mapping[str, float]) -> bytes:
        return ",".join(str(row[key]) if key in row else "" for key in self._columns).encode()

    def finalize(self) -> None:
        """Writes the open row and closes the files, and finalizes the logger beside this one."""
        try:
            self.flush()
        finally:
            if self.beside is not None:
                self.beside.finalize()
            self._write_events(self.writer.close)

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
