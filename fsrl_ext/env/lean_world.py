"""safety-gymnasium's world with only the pictures it needs.

Import this after `import_safety_gymnasium`.
"""

import os
from typing import Any
from xml.etree import ElementTree

from safety_gymnasium.world import World


class LeanWorld(World):
    """A world whose compiled model leaves out texture files that nothing will show.

    The package compiles its model from XML at every reset, and nearly all of that time goes into
    decoding six large pictures of stars which only a camera sees. Everything else is the package's:
    the physics is the same, bit for bit. A task that is given an instance before its first reset
    keeps it.

    :param agent: the task's agent.
    :param obstacles: the task's obstacles.
    :param drawn: whether a camera is used; then only pictures are left out that the installed
        package lacks (it ships without those of the Race tasks).
    """

    def __init__(self, agent: Any, obstacles: list[Any], *, drawn: bool) -> None:
        self._drawn = drawn
        self._xml_string: str | None = None
        super().__init__(agent, obstacles)

    @property
    def xml_string(self) -> str | None:
        """The model's source; `build` assigns it and hands what it reads here to the compiler."""
        return self._xml_string

    @xml_string.setter
    def xml_string(self, source: str | None) -> None:
        self._xml_string = None if source is None else self._without_pictures(source)

    def _without_pictures(self, source: str) -> str:
        root = ElementTree.fromstring(source)
        compiler, assets = root.find("compiler"), root.find("asset")
        assert compiler is not None  # build() writes both
        assert assets is not None
        folder = compiler.get("texturedir", "")
        dropped = set()
        for texture in assets.findall("texture"):
            files = [value for key, value in texture.items() if key.startswith("file")]
            present = all(os.path.exists(os.path.join(folder, file)) for file in files)
            if files and not (self._drawn and present):
                assets.remove(texture)
                dropped.add(texture.get("name"))
        for material in assets.findall("material"):
            if material.get("texture") in dropped:
                material.attrib.pop("texture", None)
        return ElementTree.tostring(root, encoding="unicode")

    def rebuild(self, config: dict[str, Any] | None = None, state: bool = True) -> None:
        """Build the model for a new layout.

        The first time, the task would have made a world and called `build` on it. A `rebuild` would
        add one `mj_forward`, whose warm start shows in the last bits of what follows.
        """
        if self.model is None:
            self.parse(config)
            self.build()
        else:
            super().rebuild(config, state)
