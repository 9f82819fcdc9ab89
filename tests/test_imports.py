"""Imports point one way, and heavy packages are imported where they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fsrl_ext

ROOT = Path(fsrl_ext.__file__).parent

# What each room may import from the others.
ALLOWED = {
    "functional": {"functional"},
    "net": {"net", "functional"},
    "env": {"env"},
    "data": {"data"},
    "policy": {"policy", "net", "functional"},
    "report": {"report"},
    "trainer": {"trainer", "policy", "net", "functional", "data"},
    "experiment": {
        "experiment", "trainer", "policy", "net", "functional", "data", "env", "report",
    },
}  # fmt: skip
EVERYONE = {"errors", "__version__"}

# Optional or heavy: only inside functions, or in a suite's own modules, which are imported there.
LAZY = {"ray", "mujoco", "pybullet", "pybullet_envs", "bullet_safety_gym", "safety_gymnasium"}
LAZY |= {"cvxpylayers", "cvxpy", "pettingzoo", "matplotlib", "pygame", "imageio"}

# Tianshou imports these two, and gymnasium's plugin of gymnasium-robotics the third.
BY_OTHERS = {"matplotlib", "pettingzoo", "mujoco"}


def imports(tree, top_level_only=False):
    """Full names of the modules that a file imports."""
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "fsrl_ext":
                yield from (f"fsrl_ext.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    inside = {name.split(".")[1] for name in imports(tree) if name.startswith("fsrl_ext.")}
    if room in ALLOWED:
        assert inside <= ALLOWED[room] | EVERYONE
    outside = {name.split(".")[0] for name in imports(tree)}
    if room == "functional":
        assert not outside & {"tianshou", "gymnasium"}
    if room == "report":
        assert not outside & {"tianshou", "gymnasium", "torch"}
    if room == "env":
        return
    at_import = {name.split(".")[0] for name in imports(tree, top_level_only=True)}
    assert not at_import & LAZY


def test_importing_everything_loads_no_simulator_and_prints_nothing():
    code = (
        "import sys, fsrl_ext.cli, fsrl_ext.env, fsrl_ext.experiment, fsrl_ext.policy\n"
        f"heavy = {sorted(LAZY - BY_OTHERS)!r}\n"
        "sys.exit(', '.join(m for m in heavy if m in sys.modules) or None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")
