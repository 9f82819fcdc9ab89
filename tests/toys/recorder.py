"""Keep what a trainer logs, to be looked at afterwards."""

from __future__ import annotations

from tianshou.utils import BaseLogger


class Recorder(BaseLogger):
    """Is a logger that keeps everything it is given, at every step.

    ``rows`` holds (scope, step, data) of every write, ``epochs`` the arguments of every `save_data`, and
    ``ended`` counts the calls of `finalize`.
    """

    def __init__(self):
        super().__init__(0, 0, 0, 0)
        self.rows, self.epochs, self.ended = [], [], 0

    def prepare_dict_for_logging(self, log_data):
        return log_data

    def write(self, step_type, step, data):
        self.rows.append((step_type.split("/")[0], step, data))

    def finalize(self):
        self.ended += 1

    def save_data(self, epoch, env_step, gradient_step, save_checkpoint_fn=None):
        self.epochs.append((epoch, env_step, gradient_step))

    def restore_data(self):
        raise AssertionError("a run starts from its snapshot, not from a logger")

    @staticmethod
    def restore_logged_data(log_path):
        raise AssertionError("a run starts from its snapshot, not from a logger")

    def steps(self, scope):
        """Return the steps at which a scope ("train", "test", "update", "info") was logged."""
        return [step for s, step, _ in self.rows if s == scope]
