"""Sweeps: many runs from one description, run side by side and continued after a stop."""
