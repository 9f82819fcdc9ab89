"""Define the library's own families on safety-gymnasium's robots by their numbers, without a simulator.

Lengths are in metres, the simulator's unit; x and y are measured from the centre of the floor.
"""

from collections.abc import Mapping

from fsrl_ext.env.meta.family import Family, add_family
from fsrl_ext.env.meta.parameters import Computed, Distribution, Fixed, Integers, Uniform

AGENTS = ("Point", "Car", "Racecar", "Doggo", "Ant")

Levels = Mapping[int, Mapping[str, Distribution]]


def wall(radius: float, scale: float) -> float:
    """Return `wall`, the distance from the centre at which both walls stand: x = wall and x = -wall."""
    return round(radius * scale, 3)


def three_more(buttons: int) -> int:
    return buttons + 3


def six_more(buttons: int) -> int:
    return buttons + 6


def _circle(radius: Distribution, scale: Distribution) -> dict[str, Distribution]:
    return {"radius": radius, "scale": scale, "wall": Computed(wall, ("radius", "scale"))}


def _hazards(number: Distribution, extent: float) -> dict[str, Distribution]:
    return {"hazards": number, "hazard_extent": Fixed(extent)}


CIRCLE: Levels = {
    0: _circle(Fixed(1.25), Fixed(0.75)),
    1: _circle(Uniform(1.0, 1.5), Uniform(0.55, 0.75)),
    2: _circle(Uniform(2.0, 2.5), Uniform(0.55, 0.65)),
}
CIRCLE_HAZARD: Levels = {
    0: _circle(Fixed(1.25), Fixed(0.65)) | _hazards(Fixed(5), 1.4),
    1: _circle(Uniform(1.0, 1.5), Uniform(0.55, 0.75)) | _hazards(Integers(4, 6), 1.4),
    2: _circle(Uniform(1.5, 2.0), Uniform(0.55, 0.65)) | _hazards(Integers(10, 12), 1.8),
}
BUTTON: Levels = {
    0: {"extent": Fixed(1.9), "buttons": Fixed(4), "hazards": Fixed(7)},
    1: {
        "extent": Uniform(1.75, 2.0),
        "buttons": Integers(3, 6),
        "hazards": Computed(three_more, ("buttons",)),
    },
    2: {
        "extent": Uniform(2.6, 2.9),
        "buttons": Integers(6, 10),
        "hazards": Computed(six_more, ("buttons",)),
    },
}
KINDS: Mapping[str, Levels] = {
    "Stcircle": CIRCLE,
    "StcircleHazard": CIRCLE_HAZARD,
    "Stbutton": BUTTON,
}


# The families of one kind of task draw the same tasks for all robots.
for _kind, _levels in KINDS.items():
    for _agent in AGENTS:
        add_family(Family(name=f"Safety{_agent}{_kind}", levels=_levels, draws=_kind))
