"""Measures a saved policy: its critics against what is realised, its constraint, its episodes."""
