"""Build safety-gymnasium's world with only the pictures that it needs, and compile it as rarely as possible.

Import this module after `import_safety_gymnasium`.
"""

import os
from typing import Any
from xml.etree import ElementTree

import mujoco
from safety_gymnasium.world import World

from fsrl_ext.env.safety_gymnasium.fast.layout import LayoutCache
from fsrl_ext.env.safety_gymnasium.fast.views import IndexedEngine


class LeanWorld(World):
    """Compiles a model without the texture files that nothing will show.

    The package compiles its model from XML at every reset, and spends nearly all of that time on decoding six
    large pictures of stars, which only a camera sees. Everything else is the package's own, and the physics
    equals the package's bit for bit. A task that is given an instance before its first reset keeps it.

    Where only places have changed, the model that was compiled before is used again (see `LayoutCache`).
    `xml_string` and `xml` are then those of the layout that was compiled last.

    :param agent: the task's agent.
    :param obstacles: the task's obstacles.
    :param drawn: whether a camera is used. If so, only the pictures are left out that the installed package
        lacks (it ships without those of the Race tasks).
    :param layouts: the compiled layouts of the environment, which outlive this world; None compiles at every
        reset.
    """

    def __init__(self, agent: Any, obstacles: list[Any], *, drawn: bool, layouts: LayoutCache | None) -> None:
        self._drawn = drawn
        self._layouts = layouts
        self._xml_string: str | None = None
        super().__init__(agent, obstacles)
        self.engine = IndexedEngine()
        self.bind_engine()

    @property
    def xml_string(self) -> str | None:
        """Return the model's XML; `build` assigns the source and compiles what this property returns."""
        return self._xml_string

    @xml_string.setter
    def xml_string(self, source: str | None) -> None:
        self._xml_string = None if source is None else self._without_pictures(source)

    def _without_pictures(self, source: str) -> str:
        root = ElementTree.fromstring(source)
        compiler, assets = root.find("compiler"), root.find("asset")
        assert compiler is not None  # `build` writes both elements
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

    def build(self) -> None:
        """Write the objects' places into the compiled model, or compile a model where that is not exact."""
        if self._layouts is None:
            super().build()
        elif self._layouts.load(self):
            model, data = self._layouts.engine()
            mujoco.mj_forward(model, data)  # the package makes the same call after compiling
            self.engine.update(model, data)
        else:
            super().build()
            self._layouts.store(self)

    def rebuild(self, config: dict[str, Any] | None = None, state: bool = True) -> None:
        """Build the model for a new layout.

        The package's task calls `build` the first time, and `rebuild` afterwards. `rebuild` makes one
        `mj_forward` more, whose warm start changes the last bits of what follows. A task that is given this
        world calls `rebuild` from the first time on, so this method calls `build` then.
        """
        if self.model is None:
            self.parse(config)
            self.build()
        else:
            super().rebuild(config, state)
