"""Constrained ("safe") reinforcement learning in Tianshou's style."""

__version__ = "0.2.0"
