"""Check whether an environment keeps the contract of `make`, and say how to mend what does not.

The files in the order in which to read them:

- `findings`: what a check says;
- `episodes`: steps that are recorded, to compare two environments bit for bit;
- `spaces`: observations and actions;
- `steps`: resets, steps, costs, and the end of episodes;
- `repetition`: seeds, replays, several environments in one process, and environments in other processes;
- `drawing`: the render modes that an environment claims;
- `run`: `check_env`, which makes all checks.
"""

from fsrl_ext.env.check.findings import Finding
from fsrl_ext.env.check.run import check_env

__all__ = ["Finding", "check_env"]
