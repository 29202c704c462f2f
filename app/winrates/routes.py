"""The pages of results: win rates, leaderboard, agreement."""

from __future__ import annotations

from fastapi import APIRouter

from app.auth import Role, require
from app.winrates.api import api

__all__ = ["api", "pages"]

pages = APIRouter(dependencies=[require(Role.VIEWER)])
