"""What the environment says is read, and what cannot be meant is refused in a sentence."""

import pytest

from app.settings import load_settings


def test_endpoints_are_read_by_name(monkeypatch):
    monkeypatch.setenv("PREFLAB_ENDPOINTS", "local=http://127.0.0.1:8000/v1/, far=https://example.com/v1")
    assert load_settings().endpoints == {"local": "http://127.0.0.1:8000/v1", "far": "https://example.com/v1"}


@pytest.mark.parametrize(
    "address", ["http://me:secret1@host/v1", "http://host/v1?key=secret1", "http://host/v1#secret1"]
)
def test_a_key_in_an_endpoints_address_is_refused_and_not_repeated(monkeypatch, address):
    """Addresses stand in run directories; keys in the environment alone."""
    monkeypatch.setenv("PREFLAB_ENDPOINTS", f"local={address}")
    with pytest.raises(SystemExit) as caught:
        load_settings()
    assert "PREFLAB_KEY_LOCAL" in str(caught.value) and "secret1" not in str(caught.value)


@pytest.mark.parametrize("text", ["http://host/v1", "local=ftp://host", "a b=http://host/v1"])
def test_what_is_no_endpoint_is_refused(monkeypatch, text):
    monkeypatch.setenv("PREFLAB_ENDPOINTS", text)
    with pytest.raises(SystemExit, match="is no endpoint: write name=http://host:port/v1"):
        load_settings()
