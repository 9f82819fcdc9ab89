"""safety-gymnasium's navigation tasks near the speed of their physics, bit for bit the same.

- `layout`: a reset writes places into a compiled model instead of compiling it again;
- `placement`: the random layouts of the package, drawn with less Python;
- `task`: a step without repeated forward passes; what it uses:
- `views`, `agent`, `costs`, `lidar`, `observation`: arrays instead of lookups by name.

Import these modules after `import_safety_gymnasium`.
"""
