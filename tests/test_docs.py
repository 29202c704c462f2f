"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from app.docs import configuration
from app.runs.states import ARROWS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_the_state_table_and_diagram_are_the_codes_arrows():
    text = (ROOT / "docs/states.md").read_text()
    for arrow in ARROWS:
        sources = ", ".join(arrow.sources) or "(new)"
        assert f"| {arrow.letter} | {sources} | {arrow.target} | {arrow.when} |" in text
        for source in arrow.sources or ("[*]",):
            assert f"    {source} --> {arrow.target}: {arrow.letter}\n" in text
    drawn = re.findall(r"--> \w+: [A-Z]$", text, re.MULTILINE)
    assert len(drawn) == sum(len(arrow.sources) or 1 for arrow in ARROWS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_configuration_page_is_what_the_code_makes():
    assert (ROOT / "docs/configuration.md").read_text() == configuration(), "run `python -m app.docs`"
