"""The closed set of errors a caller can be shown.

Code below the wire raises these; the wire name and HTTP status come from the operation's service model
(`clary.protocol.faults`), unless the place that raises knows a sharper AWS code and names it with ``code``.
Anything else that is raised is a bug: it is logged with the request id and shown as an internal error.
"""

from __future__ import annotations

from collections.abc import Mapping


class Fault(Exception):
    """A caller-visible error.

    ``message`` names the field, the value and the remedy. ``code`` is AWS's error code where the generic
    one of the class will not do (``NoSuchKey``). ``fields`` are further members of the modelled error shape
    (``{"BucketName": "b"}``). ``status`` overrides the HTTP status.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.fields: Mapping[str, object] = dict(fields or {})


class NotFound(Fault):
    """What the caller names does not exist."""


class InUse(Fault):
    """The name is taken, or the thing is busy and cannot be changed now."""


class Invalid(Fault):
    """The request breaks a rule; AWS's ValidationException and its like."""


class LimitExceeded(Fault):
    """A quota or a size limit is exceeded."""


class Conflict(Fault):
    """The thing changed meanwhile, or its state does not allow the request."""


class AccessDenied(Fault):
    """The caller is not who it says, or may not do this."""


class UnknownOperation(Fault):
    """The operation does not exist, or Clary does not offer it."""


class Unavailable(Fault):
    """Cannot be served now; trying again may work."""


class Internal(Fault):
    """A bug or a broken machine, not the caller's doing."""
