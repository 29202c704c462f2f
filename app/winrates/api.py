"""Results as JSON, and answers and verdicts as files: the same verbs as the pages and the CLI."""

from __future__ import annotations

from fastapi import APIRouter

api = APIRouter(tags=["results"])
