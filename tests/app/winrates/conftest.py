"""Files of answers and verdicts that come into a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db import Database
from tests.app.winrates.made import Bring


@pytest.fixture
def bring(any_database: Database, tmp_path: Path) -> Bring:
    return Bring(any_database, tmp_path)
