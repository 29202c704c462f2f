"""What comes in, and what does not: Host, Origin, bodies, headers, errors."""

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from sqlalchemy import text

from app import assets
from app.main import create_app
from tests.app.conftest import ADDRESS, BY_PAGE, login_token

UPLOAD = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8321", "localhost:8321", "LOCALHOST", "[::1]:9000", "127.8.9.1", "x.localhost"]
)
def test_names_of_this_machine_are_answered_on_any_port(host, stranger):
    assert stranger.get("/healthz", headers={"Host": host}).json() == {"ok": True}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "[::1", "a@127.0.0.1",
     "[::ffff:10.0.0.1]", "0x7f000001.evil", "127.0.0.1:8321:1", "localhost/x", "192.168.0.1:8321"],
)  # fmt: skip
def test_other_names_are_not_even_for_health_and_static_files(host, stranger):
    for path in ("/healthz", "/static/preflab.css", "/login", "/api/v1/datasets"):
        answer = stranger.get(path, headers={"Host": host})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "wrong_host"


def test_allowed_hosts_are_answered(settings, database):
    made = create_app(settings.model_copy(update={"allowed_hosts": ["lab.example", "other.example:8321"]}))
    client = TestClient(made, base_url="http://lab.example")
    assert client.get("/healthz").status_code == 200
    assert client.get("/healthz", headers={"Host": "lab.example:99"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example:8321"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 400
    made.state.database.dispose()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (BY_PAGE, 201),
        ({"Sec-Fetch-Site": "same-origin", "X-Preflab": "1"}, 201),
        ({"Origin": ADDRESS}, 403),
        ({"X-Preflab": "1"}, 403),
        ({"Sec-Fetch-Site": "same-site", "X-Preflab": "1"}, 403),
        ({"Origin": "http://127.0.0.1:9999", "X-Preflab": "1"}, 403),
        ({"Origin": "https://127.0.0.1:8321", "X-Preflab": "1"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin", "X-Preflab": "1"}, 403),
        ({"Origin": "null", "X-Preflab": "1"}, 403),
    ],
)
def test_a_write_by_cookie_needs_our_origin_and_our_header(headers, code, app, database):
    client = TestClient(app, base_url=ADDRESS)
    client.get("/login", params={"token": login_token(database)})
    answer = client.put("/api/v1/datasets/a", content=b'{"text":"a"}\n', headers={**UPLOAD, **headers})
    assert answer.status_code == code, answer.text


def test_a_delete_is_a_write_too(app, database):
    client = TestClient(app, base_url=ADDRESS)
    client.get("/login", params={"token": login_token(database)})
    assert client.delete("/api/v1/datasets/a/1").status_code == 403
    assert client.delete("/api/v1/datasets/a/1", headers=BY_PAGE).status_code == 404


def test_a_script_with_a_token_needs_no_origin(script):
    assert script.put("/api/v1/datasets/a", content=b'{"text":"a"}\n', headers=UPLOAD).status_code == 201


def test_a_script_in_a_foreign_page_is_refused_though_it_has_a_token(script):
    answer = script.put("/api/v1/datasets/a", content=b"{}", headers={**UPLOAD, "Origin": "http://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain;application/json",
        "",
    ],
)
def test_bodies_that_a_form_can_send_are_refused(kind, browser):
    answer = browser.post("/api/v1/sign-out", content=b"a=1", headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "cannot be" in answer.json()["error"]["message"]


def test_no_other_site_is_told_that_it_may_read(stranger):
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    answer = stranger.options("/api/v1/datasets/a/1", headers=preflight)
    assert answer.status_code in {400, 403, 405}
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/healthz", "/login", "/static/preflab.css", "/api/v1/datasets", "/nowhere", "/api/v1/no"]
)
def test_every_answer_carries_the_security_headers(path, stranger):
    headers = stranger.get(path).headers
    policy = headers["content-security-policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0] and "unsafe-eval" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "server" not in headers


def test_a_body_is_counted_as_it_comes_whatever_its_length_was_said_to_be(app, browser):
    def endless():
        while True:
            yield b"x" * 65536

    answer = browser.post("/api/v1/sign-out", content=b"", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    answer = browser.put("/api/v1/runs", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code in {401, 405}  # the session is over, or no such method: nothing was read


def test_json_over_the_limit_is_refused(script):
    huge = b'{"name": "' + b"x" * (3 << 20) + b'"}'
    answer = script.post("/api/v1/experiments", content=huge, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_an_upload_over_its_limit_is_refused_and_leaves_nothing(settings, database):
    made = create_app(settings.model_copy(update={"upload_max_bytes": 200_000}))
    client = TestClient(made, base_url=ADDRESS, headers=BY_PAGE)
    client.get("/login", params={"token": login_token(database)})

    def chunks():  # no Content-Length: it comes in chunks
        for _ in range(10):
            yield b'{"text": "' + b"x" * 50_000 + b'"}\n'

    answer = client.put("/api/v1/datasets/a", content=chunks(), headers=UPLOAD)
    assert answer.status_code == 413
    assert list(settings.datasets_folder.iterdir()) == []
    said = client.put("/api/v1/datasets/a", content=b"x" * 300_000, headers=UPLOAD)
    assert said.status_code == 413
    made.state.database.dispose()


@pytest.mark.parametrize(
    "content",
    [b"{", b"[" * 10_000, b'{"a": "\\ud800"}', b"\x00", b"null", b'{"seed": 9223372036854775808}', b"\xff\xfe"],
)
def test_json_that_is_none_is_refused_with_a_sentence(content, script):
    answer = script.post("/api/v1/experiments", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/static/../app/main.py", "/static/%2e%2e/app/main.py", "/static/..%2fapp/main.py", "/static/..\\app\\main.py",
     "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/\0", "/static/vendor/../../pyproject.toml"],
)  # fmt: skip
def test_static_files_lead_nowhere_else(path, app):
    answer = TestClient(app, base_url=ADDRESS).request("GET", path.replace("\0", "%00"))
    assert answer.status_code in {400, 401, 404}
    assert "def create_app" not in answer.text and "root:" not in answer.text and "[project]" not in answer.text


def test_static_files_are_kept_for_ever_under_their_hash_and_asked_about_without(stranger):
    address = assets.static_url("preflab.css")
    assert "immutable" in stranger.get(address).headers["cache-control"]
    plain = stranger.get("/static/preflab.css")
    assert plain.headers["cache-control"] == "no-cache"
    same = stranger.get("/static/preflab.css", headers={"If-None-Match": plain.headers["etag"]})
    assert same.status_code == 304


def test_plotly_comes_from_the_installed_package_compressed_once(stranger, settings):
    address = assets.static_url("vendor/plotly.min.js")
    answer = stranger.get(address)
    assert answer.headers["content-encoding"] == "gzip" and "immutable" in answer.headers["cache-control"]
    assert "plotly.js v" in answer.text[:200]
    (packed,) = (settings.home / "cache").iterdir()
    before = packed.stat().st_mtime_ns
    plain = stranger.get(address, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == answer.text
    stranger.get(address)
    assert packed.stat().st_mtime_ns == before


@pytest.fixture
def with_faults(app):
    """Routes that break in the ways that a route can."""

    @app.get("/api/v1/test/broken")
    def broken():
        raise RuntimeError("secret detail")

    @app.get("/test/broken")
    def broken_page():
        raise RuntimeError("secret detail")

    @app.get("/api/v1/test/table")
    def table(request: Request):
        with request.app.state.database.read() as session:
            session.execute(text("SELECT * FROM runs_of_old"))

    @app.get("/api/v1/test/number")
    def number(count: int):
        return count

    return app


def test_an_unexpected_error_has_a_number_that_the_log_has_too(with_faults, browser, caplog):
    answer = browser.get("/api/v1/test/broken")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "unexpected" and "secret detail" not in answer.text
    number = error["message"].split("(error ")[1].split(")")[0]
    assert number in caplog.text and "secret detail" in caplog.text
    page = browser.get("/test/broken", headers={"Accept": "text/html"})
    assert page.status_code == 500
    assert "secret detail" not in page.text and "Traceback" not in page.text and "(error " in page.text


def test_wrong_parameters_are_named_by_field(with_faults, browser):
    error = browser.get("/api/v1/test/number", params={"count": "many"}).json()["error"]
    assert error["code"] == "invalid"
    assert list(error["fields"]) == ["count"]


def test_a_page_that_does_not_exist_says_so_as_page_and_as_json(browser):
    assert "There is no such page" in browser.get("/nowhere", headers={"Accept": "text/html"}).text
    assert browser.get("/api/v1/nowhere").json()["error"]["code"] == "not_found"
    assert browser.put("/healthz").json()["error"]["code"] == "method_not_allowed"


def test_a_database_that_is_gone_is_said_in_words(with_faults, browser):
    answer = browser.get("/api/v1/test/table")
    assert answer.status_code == 503
    assert answer.json()["error"] == {
        "code": "unavailable",
        "message": "The database has no tables yet.",
        "hint": "Run `preflab db upgrade`.",
    }


def test_a_database_that_others_hold_is_said_to_be_busy(app, browser, database):
    from sqlalchemy import event

    event.listen(
        app.state.database.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=50")
    )
    app.state.database.engine.dispose()
    with database.write() as session:
        session.execute(text("UPDATE token SET name = name"))
        answer = browser.post("/api/v1/sign-out")
    assert answer.status_code == 503
    assert "busy" in answer.json()["error"]["message"]


def test_a_read_only_database_is_said_to_be_so(app, browser, settings):
    from sqlalchemy import event

    event.listen(app.state.database.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=1"))
    app.state.database.engine.dispose()
    answer = browser.post("/api/v1/sign-out")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "The database is read-only."


def test_the_page_of_the_api_lists_every_route(browser):
    text = browser.get("/api/docs").text
    for path in browser.get("/api/openapi.json").json()["paths"]:
        assert path in text
