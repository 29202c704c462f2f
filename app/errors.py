"""The errors that people see, each mapped to an HTTP status and a CLI exit code in one place.

`{"error": {"code", "message", "hint", "fields"?}}` is the one shape of an error answer.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AppError(Exception):
    """Something that was asked for cannot be done; the message says why, the hint what to do."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(self, message: str, hint: str = "", *, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def as_json(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.fields is not None:
            error["fields"] = self.fields
        return {"error": error}


class NotFound(AppError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class Conflict(AppError):
    """The thing is not in a state in which this can be done."""

    status = 409
    code = "conflict"


class Invalid(AppError):
    """The input is wrong; `fields` names each bad field."""

    status = 422
    code = "invalid"


class SignInNeeded(AppError):
    """Nobody is signed in."""

    status = 401
    code = "sign_in_needed"


class Forbidden(AppError):
    """Whoever is signed in may not do this."""

    status = 403
    code = "forbidden"


class TooLarge(AppError):
    """The request's body is over the limit."""

    status = 413
    code = "too_large"


class TooMany(AppError):
    """Too many tries; wait."""

    status = 429
    code = "too_many"


class Unavailable(AppError):
    """The database or the disk cannot take this now."""

    status = 503
    code = "unavailable"


class NotAllowed(AppError):
    """The address exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class Unexpected(AppError):
    """A mistake of ours. The log has the traceback under the number that the message names."""

    status = 500
    code = "unexpected"
