"""Keep what a trainer logs, to be looked at afterwards."""

from __future__ import annotations

from tianshou.utils import BaseLogger


class Recorder(BaseLogger):
    """Is a logger whose ``rows`` hold (scope, step, data) of every write, at every step."""

    def __init__(self):
        super().__init__(0, 0, 0, 0)
        self.rows = []

    def prepare_dict_for_logging(self, log_data):
        return log_data

    def write(self, step_type, step, data):
        self.rows.append((step_type.split("/")[0], step, data))

    def finalize(self):
        """Nothing is open."""

    def save_data(self, *args):
        """Nothing is saved."""

    def restore_data(self):
        return 0, 0, 0

    @staticmethod
    def restore_logged_data(log_path):
        return {}

    def steps(self, scope):
        """Return the steps at which a scope ("train", "test", "update") was logged."""
        return [step for s, step, _ in self.rows if s == scope]
