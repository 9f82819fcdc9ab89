"""Policies that learn from a replay buffer: CVPO and the Lagrangian actor-critics."""
