"""Roles and users by name: their ARNs, their unique ids, and who acts as them."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from clary.faults import Invalid
from clary.resources.arn import PARTITION

_ROLE_ARN = re.compile(
    r"arn:aws[a-z-]*:iam::(\d{12}):role(/(?:[\x21-\x7e]{1,510}/)?)([\w+=,.@-]{1,64})\Z", re.ASCII
)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}\Z", re.ASCII)


@dataclass(frozen=True)
class RoleName:
    """A role's ARN taken apart. ``path`` begins and ends with a slash."""

    account: str
    path: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:{PARTITION}:iam::{self.account}:role{self.path}{self.name}"

    def assumed_arn(self, session_name: str) -> str:
        """The ARN of somebody who acts as this role; the path is not part of it."""
        return f"arn:{PARTITION}:sts::{self.account}:assumed-role/{self.name}/{session_name}"


def read_role_arn(arn: str) -> RoleName:
    """Take a role's ARN apart. Raises `Invalid` if it is none."""
    found = _ROLE_ARN.match(arn)
    if not found:
        raise Invalid(f"{arn[:200]} is invalid", code="ValidationError", status=400)
    return RoleName(*found.groups())


def unique_id(prefix: str, seed: str) -> str:
    """The IAM unique id that ``seed`` decides: ``AROA…`` for roles, ``AIDA…`` users, ``ANPA…`` policies."""
    digest = hashlib.sha256(f"{prefix} {seed}".encode()).digest()
    return prefix + base64.b32encode(digest).decode("ascii")[:17]


def presumed_role_id(role: RoleName) -> str:
    """The unique id of a role that nobody created: the same for each who acts as it."""
    return unique_id("AROA", role.arn)
