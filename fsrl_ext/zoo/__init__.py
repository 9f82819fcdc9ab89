"""Trained feasible policies by name: ``zoo:NAME`` stands for a saved policy wherever a run is expected."""

from fsrl_ext.zoo.policies import PREFIX, ZooPolicy, zoo_file, zoo_policies

__all__ = ["PREFIX", "ZooPolicy", "zoo_file", "zoo_policies"]
