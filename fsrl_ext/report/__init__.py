"""Tables and curves from result files; nothing here imports a policy or a simulator."""

from fsrl_ext.report.curves import plot_run
from fsrl_ext.report.progress import read_progress, read_result
from fsrl_ext.report.table import result_table, text_table
from fsrl_ext.report.trajectories import plot_trajectories

__all__ = ["plot_run", "plot_trajectories", "read_progress", "read_result", "result_table", "text_table"]
