"""Adapt safety-gymnasium 1.0.0 to `CostEnv`, and run its navigation tasks near the speed of their physics.

The files in the order in which to read them:

- `importing`: imports the package on Python >= 3.11, without its notices;
- `suite`: the package's tasks as `CostEnv`, and the function that builds them;
- `builder`, `fixed`: the tasks of the CVPO paper, whose every episode begins in the same way;
- `world`: compiles a world without the pictures that nothing shows;
- `fast/`: faster steps and resets with the same numbers, bit for bit.

`importing` and `suite` load nothing of the package at their own import. The others do, so they are
imported after `import_safety_gymnasium`.
"""

from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.safety_gymnasium.suite import NavigationEnv, VelocityEnv, make_safety_gymnasium

__all__ = ["NavigationEnv", "VelocityEnv", "import_safety_gymnasium", "make_safety_gymnasium"]
