"""Constrained ("safe") reinforcement learning in Tianshou's style."""

__version__ = "0.3.0"
