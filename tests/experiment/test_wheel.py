"""The package as it is installed elsewhere: from an sdist, by a wheel, without a checkout or a simulator."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import fsrl_ext

pytestmark = pytest.mark.slow

ROOT = Path(fsrl_ext.__file__).parents[1]
# What a machine without any simulator lacks, and the checkout that the tests run from.
ABSENT = ("mujoco", "pybullet", "bullet_safety_gym", "safety_gymnasium", "gymnasium_robotics", "pygame")
CHECKOUT = ("fsrl_ext", "__editable__", "distutils-precedence", "easy-install")


def finished(*arguments, **options):
    """Return the output of a program that has to end well."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build an sdist from a copy of the sources and a wheel from the sdist, as ``python -m build`` does."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "fsrl_ext", source / "fsrl_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(out)!r}))"
    sdist = out / finished(sys.executable, "-c", code, cwd=source).split()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    unpacked = out / sdist.name.removesuffix(".tar.gz")
    finished(*pip, "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", out, unpacked)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into an empty environment; return a function that runs its programs elsewhere.

    The environment sees the packages of this one, except for simulators and the checkout.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python")
    finished(*pip, "install", "-q", "--no-deps", "--no-index", wheel)
    packages = folder / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith((*ABSENT, *CHECKOUT)):
            (packages / entry.name).symlink_to(entry)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(packages)}

    def start(program, *arguments):
        return subprocess.run(
            [str(programs / program), *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def test_the_wheel_has_every_file_of_the_package(wheel):
    sources = [x.relative_to(ROOT) for x in (ROOT / "fsrl_ext").rglob("*") if x.is_file()]
    wanted = {x.as_posix() for x in sources if x.parent.name != "__pycache__"}
    assert {Path(x).suffix for x in wanted} >= {".toml", ".pt", ".css", ".js", ".json", ".csv", ".typed"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not wanted - names
    others = {x.split("/")[0] for x in names - wanted}
    assert others == {f"fsrl_ext-{fsrl_ext.__version__}.dist-info"}


@pytest.mark.parametrize("command", ["--help", "zoo"])
def test_the_program_is_installed(installed, command):
    done = installed("fsrl-ext", command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


EXTRAS = {
    "SafetyCarCircle-v0": "bullet",
    "SafetyPointGoal1-v0": "safety",
    "SafetyAntVelocity-2x4-v0": "safety",
    "SafetyPointStcircle1-v0": "safety",
}

# One process does all that imports what trains.
SCRIPT = f"""
import sys, fsrl_ext, fsrl_ext.experiment
from fsrl_ext.cli import main
from fsrl_ext.env.meta import held_out_suite
from fsrl_ext.experiment.sweeps.shipped import shipped_studies
from fsrl_ext.report.page.document import document
from fsrl_ext.report.study.published import anchors

print(fsrl_ext.__file__)
assert shipped_studies() and anchors() and held_out_suite("SafetyPointStcircle")
assert "<script" in document("title", "body", {{}})
assert main(["export", "zoo:cvpo-ball-circle", "--format", "torchscript"]) == 0
assert main(["list", "tasks"]) == 0
for task in {tuple(EXTRAS)}:
    assert main(["train", "cvpo", task]) == 2
"""


def test_without_a_simulator_data_are_read_policies_act_and_tasks_name_their_extra(installed):
    done = installed("python", "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "/venv/lib/" in done.stdout.splitlines()[0]
    lines = done.stderr.splitlines()
    assert len(lines) == len(EXTRAS)
    for line, (task, extra) in zip(lines, EXTRAS.items(), strict=True):
        assert line.startswith(f"fsrl-ext: {task} needs ")
        assert f'pip install "fsrl_ext[{extra}]"' in line
