"""Compute the costs of the package's objects from arrays, and read contacts once per step.

Each function replaces the `cal_cost` of one class, with the same entries in the same order. Objects of other
classes keep their own `cal_cost`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from safety_gymnasium.assets.free_geoms import Vases
from safety_gymnasium.assets.geoms import Buttons, Hazards, Pillars, Sigwalls
from safety_gymnasium.assets.mocaps import Gremlins
from safety_gymnasium.bases.base_agent import BaseAgent
from safety_gymnasium.bases.base_object import BaseObject

from fsrl_ext.env.safety_gymnasium.fast.views import Views

Costs = dict[str, Any]
Pairs = list[tuple[str, str]]
# Computes the costs of one object from the agent's contacts.
CostOf = Callable[[Pairs], Costs]


class Contacts:
    """Finds the geoms that touch the agent.

    The class replaces loops over `data.contact` which look up two names per contact, for each object and each
    cost. It is exact, because contacts are only counted, and the names are those of the model.

    :param agent: the agent.
    :param views: the views of the agent's model.
    """

    def __init__(self, agent: BaseAgent, views: Views) -> None:
        self._data = views.data
        self._names = [views.model.geom(g).name for g in range(views.model.ngeom)]
        of_agent = set(agent.body_info.geom_names)
        self._of_agent = [name in of_agent for name in self._names]

    def with_agent(self) -> Pairs:
        """Return the names of both geoms of every contact in which the agent takes part."""
        count = self._data.ncon
        if not count:
            return []
        contact, names, of_agent = self._data.contact, self._names, self._of_agent
        pairs = zip(contact.geom1[:count].tolist(), contact.geom2[:count].tolist(), strict=True)
        return [(names[a], names[b]) for a, b in pairs if of_agent[a] or of_agent[b]]


def _repeated(cost: float, count: int) -> float:
    """Add `cost` `count` times to 0, and round after each addition as the package's loops do."""
    total: float = 0
    for _ in range(count):
        total += cost
    return total


def _touching(pairs: Pairs, prefix: str, cost: float) -> float:
    return _repeated(cost, sum(a.startswith(prefix) or b.startswith(prefix) for a, b in pairs))


def _ids(views: Views, prefix: str, count: int) -> np.ndarray:
    return np.array([views.body(f"{prefix}{i}") for i in range(count)], dtype=int)


def hazards_cost(hazards: Hazards, views: Views) -> CostOf:
    """Replace an array of two numbers per hazard by floats; see `IndexedAgent.dist_xy`."""
    bodies = _ids(views, "hazard", hazards.num)

    def cost_of(pairs: Pairs) -> Costs:
        x, y, _ = views.agent_pos.tolist()
        size, total = hazards.size, 0.0
        for hazard_x, hazard_y, _ in views.xpos.take(bodies, axis=0).tolist():
            dx, dy = hazard_x - x, hazard_y - y
            distance = math.sqrt(dx * dx + dy * dy)
            if distance <= size:
                total += hazards.cost * (size - distance)
        return {"cost_hazards": total}

    return cost_of


def buttons_cost(buttons: Buttons, views: Views) -> CostOf:
    """Replace lookups of names per contact by `Contacts`."""

    def cost_of(pairs: Pairs) -> Costs:
        assert buttons.goal_button is not None
        if buttons.timer != 0:
            return {}
        goal = f"button{buttons.goal_button}"
        wrong = [pair for pair in pairs if goal not in pair]
        return {"cost_buttons": _touching(wrong, "button", buttons.cost)}

    return cost_of


def pillars_cost(pillars: Pillars, views: Views) -> CostOf:
    """Replace lookups of names per contact by `Contacts`."""
    return lambda pairs: {"cost_pillars": _touching(pairs, "pillar", pillars.cost)}


def gremlins_cost(gremlins: Gremlins, views: Views) -> CostOf:
    """Replace lookups of names per contact by `Contacts`."""
    return lambda pairs: {"cost_gremlins": _touching(pairs, "gremlin", gremlins.contact_cost)}


def vases_cost(vases: Vases, views: Views) -> CostOf | None:
    """Replace lookups of names per contact and vase; return None where the package's code does more."""
    if vases.displace_cost:
        return None
    bodies = _ids(views, "vase", vases.num).tolist()

    def cost_of(pairs: Pairs) -> Costs:
        costs: Costs = {"cost_vases_contact": 0}
        if vases.contact_cost:
            costs["cost_vases_contact"] = _touching(pairs, "vase", vases.contact_cost)
        if vases.velocity_cost:
            total = 0.0
            for body in bodies:
                x, y, z = views.velocity(body).tolist()
                speed = math.sqrt(x * x + y * y + z * z)
                if speed >= vases.velocity_threshold:
                    total += speed * vases.velocity_cost
            costs["cost_vases_velocity"] = total
        return costs

    return cost_of


# Four walls bound y too; two walls bound x alone.
_ALL_SIDES = 4


def walls_cost(walls: Sigwalls, views: Views) -> CostOf:
    """Replace two copies of the agent's position by one number each."""

    def cost_of(pairs: Pairs) -> Costs:
        x, y, _ = views.agent_pos.tolist()
        outside = abs(x) > walls.locate_factor
        return {"cost_out_of_boundary": outside or (walls.num == _ALL_SIDES and abs(y) > walls.locate_factor)}

    return cost_of


_REPLACED: dict[Any, Callable[[Any, Views], CostOf | None]] = {
    Hazards.cal_cost: hazards_cost,
    Buttons.cal_cost: buttons_cost,
    Pillars.cal_cost: pillars_cost,
    Gremlins.cal_cost: gremlins_cost,
    Vases.cal_cost: vases_cost,
    Sigwalls.cal_cost: walls_cost,
}

_BY_CONTACT = {Buttons.cal_cost, Pillars.cal_cost, Gremlins.cal_cost, Vases.cal_cost}


def _nothing(pairs: Pairs) -> Costs:
    return {}


def _cost_of(obstacle: BaseObject, views: Views) -> CostOf:
    stock = type(obstacle).cal_cost
    if stock is BaseObject.cal_cost:
        return _nothing
    replaced = _REPLACED[stock](obstacle, views) if stock in _REPLACED else None
    if replaced is None:
        return lambda pairs: obstacle.cal_cost()
    cost_of = replaced
    return lambda pairs: cost_of(pairs) if obstacle.is_constrained else {}


class ObjectCosts:
    """Computes the costs of a list of objects, as `BaseTask.calculate_cost` collects them.

    :param obstacles: the task's objects, in the task's order.
    :param agent: the agent.
    :param views: the views of the agent's model.
    """

    def __init__(self, obstacles: list[BaseObject], agent: BaseAgent, views: Views) -> None:
        self.contacts = Contacts(agent, views)
        self._read_contacts = any(type(o).cal_cost in _BY_CONTACT for o in obstacles)
        self._costs = [cost for o in obstacles if (cost := _cost_of(o, views)) is not _nothing]

    def __call__(self) -> Costs:
        """Return all costs and their sum "cost_sum"; positions and contacts must be up to date."""
        pairs = self.contacts.with_agent() if self._read_contacts else []
        costs: Costs = {}
        for cost_of in self._costs:
            costs.update(cost_of(pairs))
        costs["cost_sum"] = sum(value for name, value in costs.items() if name.startswith("cost_"))
        return costs
