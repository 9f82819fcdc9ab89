"""Many runs side by side: reading, selecting, tables, statistics over tasks, figures."""

from fsrl_ext.report.study.collect import Study, read_study
from fsrl_ext.report.study.plots import study_plot
from fsrl_ext.report.study.tables import study_table

__all__ = ["Study", "read_study", "study_plot", "study_table"]
