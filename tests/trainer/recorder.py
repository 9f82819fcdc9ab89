"""A logger for tests."""

from tianshou.utils import BaseLogger


class Recorder(BaseLogger):
    """Keeps the rows that the trainer logs: scope, step and data."""

    def __init__(self):
        super().__init__(0, 0, 0, 0)
        self.rows = []

    def prepare_dict_for_logging(self, log_data):
        return log_data

    def write(self, step_type, step, data):
        self.rows.append((step_type.split("/")[0], step, data))

    def finalize(self):
        pass

    def save_data(self, *args):
        pass

    def restore_data(self):
        return 0, 0, 0

    @staticmethod
    def restore_logged_data(log_path):
        return {}

    def steps(self, scope):
        return [step for s, step, _ in self.rows if s == scope]
