"""Runs an experiment: builds it, trains, saves, resumes."""
