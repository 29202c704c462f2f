"""Tokens: 256 random bits each, of which the table keeps the SHA-256 alone.

Three kinds: `api` (a script's, sent as `Authorization: Bearer`), `login` (in a link; used once, it becomes a
session) and `session` (a browser's cookie).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

from sqlalchemy import delete as sql_delete
from sqlalchemy import update
from sqlmodel import Session, col, or_, select

from app.auth import Identity, Role
from app.errors import Invalid, NotFound
from app.models import Token

API, LOGIN, SESSION = "api", "login", "session"
DAY = 86_400.0
LIFETIMES = {LOGIN: DAY, SESSION: 30 * DAY}  # seconds; `api` tokens live until they are revoked
PREFIX = "preflab_"  # lets scanners of leaked secrets know one


def create(session: Session, kind: str, role: Role, name: str, lifetime: float | None = None) -> tuple[Token, str]:
    """A new token: its row, and the secret, which is shown once and not kept. `lifetime` in seconds."""
    if not name.strip() or len(name) > 100:
        raise Invalid("A token's name has 1 to 100 characters.", "It says whose or what for the token is.")
    secret = PREFIX + secrets.token_urlsafe(32)
    now = time.time()
    lifetime = LIFETIMES.get(kind) if lifetime is None else lifetime
    token = Token(
        hash=_digest(secret),
        kind=kind,
        role=role.name.lower(),
        name=name.strip(),
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )
    session.add(token)
    session.flush()
    return token, secret


def identify(session: Session, secret: str, kind: str) -> Identity | None:
    """Whose token of this kind this is; None where it is unknown or expired."""
    digest = _digest(secret)
    token = session.exec(select(Token).where(Token.hash == digest, Token.kind == kind)).one_or_none()
    if token is None or not hmac.compare_digest(token.hash, digest) or _expired(token):
        return None
    return Identity(name=token.name, role=Role[token.role.upper()])


def sign_in(session: Session, secret: str) -> str | None:
    """Use a login token up. The secret of the session that it opens, or None where it is unknown, used or expired."""
    now = time.time()
    statement = (
        update(Token)
        .where(col(Token.hash) == _digest(secret), col(Token.kind) == LOGIN, col(Token.used_at).is_(None))
        .where(or_(col(Token.expires_at).is_(None), col(Token.expires_at) > now))
        .values(used_at=now)
        .returning(col(Token.name), col(Token.role))
        .execution_options(synchronize_session=False)
    )
    used = session.execute(statement).one_or_none()
    if used is None:
        return None
    name, role = used
    _forget_expired(session, now)
    return create(session, SESSION, Role[role.upper()], name)[1]


def sign_out(session: Session, secret: str) -> None:
    session.execute(sql_delete(Token).where(col(Token.hash) == _digest(secret), col(Token.kind) == SESSION))


def listing(session: Session) -> Sequence[Token]:
    """Every token that still lets somebody in, oldest first."""
    found = session.exec(select(Token).where(col(Token.used_at).is_(None)).order_by(col(Token.id))).all()
    return [token for token in found if not _expired(token)]


def revoke(session: Session, token_id: int) -> Token:
    """Raises NotFound."""
    token = session.get(Token, token_id)
    if token is None:
        raise NotFound(f"There is no token {token_id}.", "`preflab token list` shows them.")
    session.delete(token)
    session.flush()
    return token


def _forget_expired(session: Session, now: float) -> None:
    session.execute(sql_delete(Token).where(col(Token.expires_at) < now))


def _expired(token: Token) -> bool:
    return token.expires_at is not None and token.expires_at <= time.time()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
