"""Which packages are installed, and whether their versions are among those that this package allows.

The packages and their versions are those of ``setup.cfg``: of the file itself in a checkout, whose installed
metadata may be older than the checkout, and elsewhere as the metadata of the installed package has them.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import itertools
import operator
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsrl_ext
from fsrl_ext.doctor.findings import Finding

PACKAGE = "fsrl_ext"
SETUP = Path(fsrl_ext.__file__).parents[1] / "setup.cfg"
"""Where a checkout has its requirements."""

# Packages whose own requirements cannot be installed, so that no extra can name them (README.md).
_APART = {"safety": {"safety-gymnasium": "==1.0.0", "gymnasium-robotics": "==1.2.2"}}
if sys.version_info >= (3, 12):
    _APART["bullet"] = {"bullet-safety-gym": "==1.4.0"}
_NOT_SHOWN = ("dev", "docs")
"""Extras for work on this package."""

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[^\]]*\])?\s*\(?(?P<versions>[^()]*)\)?")
_EXTRA = re.compile(r"extra\s*==\s*[\"'](?P<extra>[\w.-]+)[\"']")
_PYTHON = re.compile(r"python_version\s*(?P<operator>[<>=]=|[<>])\s*[\"'](?P<numbers>\d+(\.\d+)*)[\"']")
_VERSION = re.compile(r"(?P<operator>[<>=]=|[<>])\s*(?P<numbers>\d+(\.\d+)*)")
_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


def install_command(extra: str) -> str:
    """Returns the command that installs an extra, and what belongs to it but cannot be part of it."""
    command = f'pip install "{PACKAGE}[{extra}]"'
    apart = " ".join(f"{name}{versions}" for name, versions in _APART.get(extra, {}).items())
    return f"{command} && pip install --no-deps {apart}" if apart else command


def examine_packages() -> list[Finding]:
    """Returns a finding for each package that everything needs, and one for each extra.

    If it is not known what the package needs, that is the only finding.
    """
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        return [
            Finding(
                section="core",
                name=PACKAGE,
                status="missing",
                message="the package is not installed, so the packages that it needs are not known",
                mend="pip install .  # in a checkout",
            )
        ]
    findings = [_of_package(name, versions) for name, versions in wanted.pop("").items()]
    return [*findings, *(_of_extra(extra, packages) for extra, packages in wanted.items())]


def requirements() -> dict[str, dict[str, str]]:
    """Returns the versions that are allowed by extra and by package; the extra ``""`` is the core.

    :raises PackageNotFoundError: if there is no checkout, and the package is not installed.
    """
    wanted: dict[str, dict[str, str]] = {"": {}}
    for extra, text in _of_checkout() if SETUP.is_file() else _of_metadata():
        match = _REQUIREMENT.match(text)
        assert match is not None, text
        if extra not in _NOT_SHOWN:
            wanted.setdefault(extra, {})[match["name"]] = match["versions"].strip()
    for extra, packages in _APART.items():
        wanted.setdefault(extra, {}).update(packages)
    return wanted


def _of_checkout() -> Iterator[tuple[str, str]]:
    """Yields the extra and the text of each requirement of a checkout."""
    config = configparser.ConfigParser()
    config.read(SETUP)
    groups = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    for extra, lines in groups.items():
        for line in filter(None, lines.split("\n")):
            requirement, _, marker = line.partition(";")
            if _is_for_this_python(marker):
                yield extra, requirement


def _of_metadata() -> Iterator[tuple[str, str]]:
    """Yields the extra and the text of each requirement of the installed package."""
    for text in importlib.metadata.requires(PACKAGE) or ():
        requirement, _, marker = text.partition(";")
        in_extra = _EXTRA.search(marker)
        if _is_for_this_python(marker):
            yield "" if in_extra is None else in_extra["extra"], requirement


def _is_for_this_python(marker: str) -> bool:
    """Tells whether the conditions on ``python_version`` in a marker hold."""
    return all(
        _OPERATORS[part["operator"]](*_padded(sys.version_info[:2], _numbers(part["numbers"])))
        for part in _PYTHON.finditer(marker)
    )


def installed_version(name: str) -> str | None:
    """Returns the version of an installed package; ``None`` for one that is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_allowed(version: str, wanted: str) -> bool:
    """Tells whether a version such as ``"1.2.0+cpu"`` is one of ``wanted``, such as ``">=1.2,<2"``.

    What follows the numbers of the version does not count.
    """
    return all(
        _OPERATORS[part["operator"]](*_padded(_numbers(version), _numbers(part["numbers"])))
        for part in _VERSION.finditer(wanted)
    )


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return () if match is None else tuple(map(int, match[0].split(".")))


def _padded(*versions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Returns versions of one length: 1.2 is 1.2.0."""
    return tuple(zip(*itertools.zip_longest(*versions, fillvalue=0), strict=True))


def _of_package(name: str, wanted: str) -> Finding:
    version = installed_version(name)
    mend = f'pip install "{name}{wanted}"'
    if version is None:
        return Finding(section="core", name=name, status="missing", message="is not installed", mend=mend)
    if not is_allowed(version, wanted):
        message = f"{version}, and {wanted} is needed"
        return Finding(section="core", name=name, status="fails", message=message, mend=mend)
    return Finding(section="core", name=name, status="ok", message=version)


def _of_extra(extra: str, packages: dict[str, str]) -> Finding:
    versions = {name: installed_version(name) for name in packages}
    missing = [name for name, version in versions.items() if version is None]
    wrong = {
        name: version
        for name, version in versions.items()
        if version is not None and not is_allowed(version, packages[name])
    }
    name = f"[{extra}]"
    if not missing and not wrong:
        message = ", ".join(f"{package} {version}" for package, version in versions.items())
        return Finding(section="extras", name=name, status="ok", message=message)
    parts = [f"{x} is not installed" for x in missing]
    parts += [f"{x} is {version}, and {packages[x]} is needed" for x, version in wrong.items()]
    return Finding(
        section="extras",
        name=name,
        status="missing" if missing else "fails",
        message=", ".join(parts),
        mend=install_command(extra),
    )
