"""The web process stays small: nothing that it imports pulls in torch or its kin."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "peft", "sentence_transformers", "pandas", "scipy"}


@pytest.mark.parametrize("module", ["app.main", "app.serve", "app.cli", "worker.__main__"])
def test_what_serves_and_supervises_never_imports_torch(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
