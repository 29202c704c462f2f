"""The stylesheet's colour tokens, for charts: `--name: light-dark(a, b)`. The stylesheet is the only place of a colour."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from app.resources import resource

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
TOKEN = re.compile(r"--([a-z0-9-]+):\s*light-dark\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)\s*;")


def parse_tokens(css: str) -> dict[str, dict[Theme, str]]:
    """Every token that has a light and a dark value."""
    return {name: {"light": light, "dark": dark} for name, light, dark in TOKEN.findall(css)}


@lru_cache(maxsize=1)
def _tokens() -> dict[str, dict[Theme, str]]:
    return parse_tokens((resource("static") / "preflab.css").read_text())


def colour(name: str, theme: Theme) -> str:
    """A token's colour in a theme. Raises KeyError."""
    return _tokens()[name][theme]
