"""Policies that learn from the newest data alone: CPO, TRPO-Lag, PPO-Lag, FOCOPS."""
