"""Registers the toy tasks at its import, for processes that name them ``toys.registered:ToyLine-v0``."""

from toys.tasks import register_toys

register_toys()
