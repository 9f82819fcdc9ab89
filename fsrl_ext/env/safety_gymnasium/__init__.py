"""The adapter of safety-gymnasium's tasks, and its fast layer."""
