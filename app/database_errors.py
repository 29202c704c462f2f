"""What ails the database, in words, for pages and the command line alike."""

from __future__ import annotations

import logging
import secrets
import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, TimeoutError

from app.errors import AppError, Conflict, Invalid, NotFound, Unavailable, Unexpected

log = logging.getLogger(__name__)

HOME = "Check who owns the home folder and its files, and that the disk is not mounted read-only."
UPGRADE = "Run `preflab db upgrade`."
SPACE = "Free some space, then try again."

SIGNS = (
    ("database is locked", "The database is busy: another process has been writing for seconds.", "Try again."),
    ("readonly database", "The database is read-only.", HOME),
    ("read-only transaction", "The database is read-only.", "Point PREFLAB_DATABASE_URL at the primary."),
    ("disk is full", "The disk is full: the database cannot be written.", SPACE),
    ("disk i/o error", "The disk could not be read or written.", "See the system's log; restore a backup if need be."),
    ("no space left", "The disk is full: the database cannot be written.", SPACE),
    ("unable to open database", "The database's file cannot be opened.", HOME),
    ("malformed", "The database's file is damaged.", "Restore it from a backup; `preflab db backup` makes them."),
    ("file is not a database", "The database's file is no database.", "Restore it, or move it out of the way."),
    ("no such table", "The database has no tables yet.", UPGRADE),
    ("does not exist", "The database, or a table of it, does not exist.", UPGRADE),
    ("password authentication failed", "The database refused the password.", "Correct PREFLAB_DATABASE_URL."),
)
"""What a driver's message holds, what that means, and what to do."""


def from_database(error: DBAPIError | TimeoutError) -> AppError:
    """A driver's error as a sentence. What is a mistake of ours is logged under a number."""
    text = str(getattr(error, "orig", None) or error)
    for sign, message, hint in SIGNS:
        if sign in text.lower():
            return Unavailable(message, hint)
    if isinstance(error, IntegrityError):
        return Conflict("Somebody else changed the same thing at the same moment.", "Look again, then try again.")
    if isinstance(error, DataError):
        return _odd_value(text)
    a_mistake = isinstance(getattr(error, "orig", None), sqlite3.Error)  # SQLite's own troubles are all in the list
    if isinstance(error, (OperationalError, TimeoutError)) and not a_mistake:
        log.warning("The database: %s", text)
        return Unavailable(
            "The database cannot be reached.",
            "Nothing is lost: running trainings go on, and what they did is written once it is back.",
        )
    return unexpected(error)


def _odd_value(text: str) -> AppError:
    """Postgres compares no number with a column that could not hold it, and takes no text with a NUL character."""
    if "out of range" in text:
        return NotFound("There is nothing of so large a number.", "Check the address.")
    if "NUL" in text:
        return Invalid("A text holds a NUL character (\\u0000), which cannot be stored.", "Leave the character out.")
    log.warning("The database refused a value: %s", text)
    return Invalid("The database cannot take one of these values.", "Shorten the texts, and leave odd characters out.")


def unexpected(error: BaseException) -> Unexpected:
    """Log a traceback under a number, and name the number."""
    number = secrets.token_hex(4)
    log.error("Unexpected error %s", number, exc_info=error)
    return Unexpected(
        f"Something went wrong that should not have (error {number}).",
        "The server's log says more under this number. Your runs are not affected.",
    )
