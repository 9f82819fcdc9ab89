"""Tasks of several agents: the contract of `pettingzoo.ParallelEnv` environments, and the team as one.

The files in the order in which to read them:

- `contract`: what `make` promises of a task of several agents, and the class that keeps the promise;
- `velocity`: safety-gymnasium's robots whose joints are divided among agents;
- `team`: all agents as one Gymnasium environment, for collectors and policies.
"""

from fsrl_ext.env.agents.contract import ParallelCostEnv
from fsrl_ext.env.agents.team import TeamEnv, TeamEpisode

__all__ = ["ParallelCostEnv", "TeamEnv", "TeamEpisode"]
