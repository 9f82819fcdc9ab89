"""Imports point one way and in no circle; heavy ones wait until use; an algorithm is read in few files.

Tests share what lies in tests/toys and import nothing from each other.
"""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fsrl_ext
import fsrl_ext.policy

ROOT = Path(fsrl_ext.__file__).parent

# What each room may import from the others.
ALLOWED = {
    "functional": {"functional"},
    "net": {"net", "functional"},
    "env": {"env"},
    "doctor": {"doctor", "env"},
    "data": {"data"},
    "policy": {"policy", "net", "functional"},
    "report": {"report", "zoo"},
    "zoo": {"zoo"},
    "trainer": {"trainer", "policy", "net", "functional", "data"},
    "experiment": {
        "experiment", "trainer", "policy", "net", "functional", "data", "env", "report", "zoo",
    },
}  # fmt: skip
EVERYONE = {"errors", "cost_names", "gymnasium_import", "__version__"}

# Optional or heavy: only inside functions, or in a suite's own modules, which are imported there.
LAZY = {"ray", "mujoco", "pybullet", "pybullet_envs", "bullet_safety_gym", "safety_gymnasium"}
LAZY |= {"cvxpylayers", "cvxpy", "pettingzoo", "matplotlib", "pygame", "imageio", "onnx", "onnxruntime"}

# Tianshou imports the first three, and gymnasium's plugin of gymnasium-robotics the last one.
BY_OTHERS = {"matplotlib", "pettingzoo", "ray", "mujoco"}


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


LIGHT = (["--help"], ["--version"], ["evaluate", "--help"], ["trian"], [], ["train", "cvop", "ToyLine-v0"])


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_the_command_line_speaks_before_anything_heavy_is_imported(arguments):
    code = (
        "import contextlib, sys\n"
        "from fsrl_ext.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
        "heavy = {'torch', 'tianshou', 'gymnasium', 'numpy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "fsrl" in out.stdout + out.stderr


# Comparing runs reads files, so it starts without what trains.
COMPARING = (
    ["table", "benchmarks/results/SafetyCarRun-v0/cpo"],
    ["plot", "benchmarks/results/SafetyCarRun-v0/cpo"],
)


@pytest.mark.parametrize("arguments", COMPARING, ids=" ".join)
def test_runs_are_compared_without_importing_what_trains(arguments, tmp_path):
    if arguments[0] == "plot":
        arguments = [*arguments, "--kind", "costs", "--out", str(tmp_path / "costs.svg")]
    code = (
        "import sys\n"
        "from fsrl_ext.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "heavy = {'torch', 'tianshou', 'gymnasium', 'fsrl_ext.experiment'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert out.returncode == 0, out.stderr


# The most files of ours that a reader opens to read an algorithm; see doors(). Off-policy policies read what
# is measured in the buffer and the level of the cost in files of their own, and policies that take discrete
# actions, too, read in another one what actions are drawn from. CVPO's E-step and M-step on a batch have a
# file each, beside the policy that puts them together.
DOORS = {"CVPOPolicy": 16, "CPOPolicy": 15, "SACLagPolicy": 12, "MetaCPOPolicy": 20}
# Folders of which a reader opens one file, the one with what is imported.
AS_ONE = ("fsrl_ext.functional.", "fsrl_ext.errors")
NAMES = {
    ".".join(("fsrl_ext", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FILES
}


@functools.cache
def tree_of(module):
    return ast.parse(NAMES[module].read_text())


@functools.cache
def is_face(module):
    """Tell whether a module is the ``__init__`` of a package that only imports names for others."""
    plain = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)
    return NAMES[module].name == "__init__.py" and all(
        isinstance(node, plain)
        and (not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant))
        and (not isinstance(node, ast.Assign) or [x.id for x in node.targets] == ["__all__"])
        for node in tree_of(module).body
    )


def sources(module, name, through=()):
    """Yield the modules that ``from module import name`` reads, each with the faces on the way to it.

    :param name: ``None`` for the module as a whole: of a face, everything that the face imports.
    """
    taken = []
    if is_face(module):
        # A face that imports a name from its own package imports a submodule.
        taken = [
            (node.module, alias.name)
            for node in tree_of(module).body
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fsrl_ext"
            for alias in node.names
            if name is None or (name == (alias.asname or alias.name) and node.module != module)
        ]
    if taken:
        for origin in taken:
            yield from sources(*origin, (*through, module))
    elif name is not None and f"{module}.{name}" in NAMES:
        yield from sources(f"{module}.{name}", None, through)
    elif not is_face(module):
        yield module, through


@functools.cache
def edges(module):
    """Return what a module imports of ours, anywhere in its file: each module with the faces on the way."""
    targets = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in NAMES:
                    targets |= set(sources(alias.name, None))
        elif isinstance(node, ast.ImportFrom) and node.module in NAMES:
            for alias in node.names:
                assert alias.name != "*", f"{module} imports everything from {node.module}"
                origins = set(sources(node.module, alias.name))
                assert origins, f"{module} imports {alias.name} from {node.module}, which does not have it"
                targets |= origins
    return targets


def folder_of(module, through):
    """Return the folder whose files count as one and that an import enters through its face, or ``None``."""
    faces = (face for face in through if face.startswith(AS_ONE))
    return next((face for face in faces if not module.startswith(f"{face}.")), None)


def doors(module):
    """Return the files that a module imports, directly or not, with its own.

    Faces are followed and do not count. A folder of ``functional/``, or ``errors/``, that is entered through
    its face counts as one file, whatever its files import of each other: what a reader needs is in the
    docstrings. A file that is imported past the face counts itself.
    """
    seen, open_ends = set(), [(module, None)]
    while open_ends:
        at, folder = state = open_ends.pop()
        if state in seen:
            continue
        seen.add(state)
        for target, through in edges(at):
            inside = folder is not None and target.startswith(f"{folder}.")
            open_ends.append((target, folder if inside else folder_of(at, through)))
    return sorted({folder or module for module, folder in seen})


def test_there_is_no_import_circle():
    """Imports for type checks and imports within functions count, too."""
    graph = {name: {target for target, _ in edges(name)} for name in NAMES if not is_face(name)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("policy", DOORS)
def test_an_algorithm_is_read_in_few_files(policy):
    files = doors(getattr(fsrl_ext.policy, policy).__module__)
    assert len(files) <= DOORS[policy], "\n" + "\n".join([f"{policy} needs {len(files)} files:", *files])


TOYS = Path(__file__).parent / "toys"
TESTS = sorted(TOYS.parent.rglob("*.py"))


def test_what_tests_share_lies_in_toys():
    """A file of Python without tests lies in tests/toys or is the conftest."""
    helpers = [path for path in TESTS if not path.name.startswith("test_")]
    outside = [path for path in helpers if path.parent != TOYS]
    assert outside == [TOYS.parent / "conftest.py"]
    assert len(helpers) > 1


def test_no_test_imports_from_another():
    names = {path.stem for path in TESTS if path.name.startswith("test_")}
    wrong = {
        f"{path.name} imports {module}"
        for path in TESTS
        for module in imports(ast.parse(path.read_text()))
        if names & set(module.split("."))
    }
    assert wrong == set()
