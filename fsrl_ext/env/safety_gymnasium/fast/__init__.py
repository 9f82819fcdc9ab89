"""Run safety-gymnasium's tasks near the speed of their physics, with the same numbers bit for bit.

The files in the order in which to read them:

- `layout`: a reset writes places into a compiled model instead of compiling it again;
- `placement`: draws the package's random layouts with less Python;
- `views`: ids and arrays of a compiled world, which replace lookups by name;
- `agent`, `costs`, `lidar`, `observation`: the parts of a step, computed from these arrays;
- `task`: a step without repeated forward passes, made of these parts;
- `velocity`: the simulators of the velocity tasks, with less Python around the physics.

`benchmarks/environments.py` measures the speed, and `benchmarks/environment_equality.py` checks the numbers.
Import these modules after `import_safety_gymnasium`.
"""
