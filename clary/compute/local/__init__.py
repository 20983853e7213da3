"""Tasks on this machine."""

from clary.compute.local.driver import LocalDriver

__all__ = ["LocalDriver"]
