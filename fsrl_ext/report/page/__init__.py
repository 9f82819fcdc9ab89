"""A study as one HTML file that works offline: tables, interactive curves, diagnostics, configs and films."""

from fsrl_ext.report.page.study_page import study_page

__all__ = ["study_page"]
