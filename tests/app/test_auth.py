"""Signing in and out, tokens and roles."""

import logging
import threading

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlmodel import select

from app import main, tokens
from app.auth import Role, require
from app.errors import Invalid, NotFound
from app.models import Token
from tests.app.conftest import ADDRESS, login_token

ROUTES = [route for router in (*main.PAGES, *main.APIS) for route in router.routes]
OPEN = {"/healthz", "/login", "/static/vendor/plotly.min.js"}


def make(database, kind, role=Role.RUNNER, name="somebody", lifetime=None):
    with database.write() as session:
        return tokens.create(session, kind, role, name, lifetime)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{','.join(route.methods)} {route.path}")
def test_every_route_names_a_role_and_only_a_few_are_open(route):
    role = main.role_of(route)
    assert role is not None
    assert (role == Role.ANYONE) == (route.path in OPEN)
    if route.methods - {"GET", "HEAD"} and route.path != "/sign-out":
        assert role >= Role.VIEWER


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_whoever_may_only_look_changes_nothing(method, app, database):
    """Of all routes that are not GET, a viewer may use those that only answer a question, and sign out."""
    secret = make(database, tokens.API, Role.VIEWER)[1]
    client = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})
    harmless = {"/sign-out", "/runs/check", "/runs/read"}
    for router in main.APIS:
        for route in router.routes:
            if method in route.methods and route.path not in harmless:
                path = route.path.replace("{", "").replace("}", "").replace("run_id", "1").replace("version", "1")
                path = path.replace("experiment_id", "1")
                answer = client.request(method, f"/api/v1{path}", headers={"Content-Type": "application/json"})
                assert answer.status_code == 403, f"{method} {path}"


def test_a_route_without_a_role_keeps_the_application_from_being_made():
    router = APIRouter()
    router.add_api_route("/forgotten", lambda: None)
    with pytest.raises(TypeError, match="/forgotten does not say who may use it"):
        main.refuse_routes_without_a_role(router)
    outer = APIRouter(dependencies=[require(Role.VIEWER)])
    outer.mount("/somewhere", app=lambda *_: None)
    with pytest.raises(TypeError):
        main.refuse_routes_without_a_role(outer)
    assert all(isinstance(route, APIRoute) for route in ROUTES)


def test_a_link_signs_one_browser_in_once(stranger, app, database):
    link = login_token(database)
    answer = stranger.get("/login", params={"token": link, "next": "/datasets"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/datasets")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and "Secure" not in cookie
    assert stranger.get("/datasets").status_code == 200
    other = TestClient(app, base_url=ADDRESS)
    again = other.get("/login", params={"token": link}, follow_redirects=False)
    assert again.status_code == 401
    assert "set-cookie" not in again.headers


def test_the_same_link_again_in_the_browser_that_used_it_just_goes_on(browser, database):
    used = login_token(database)
    for _ in range(2):
        assert browser.get("/login", params={"token": used}, follow_redirects=False).status_code == 303


def test_of_two_browsers_with_one_link_only_one_comes_in(app, database):
    link = login_token(database)
    codes = []
    barrier = threading.Barrier(2)

    def knock():
        client = TestClient(app, base_url=ADDRESS, headers={"Accept": "text/html"})
        barrier.wait()
        codes.append(client.get("/login", params={"token": link}, follow_redirects=False).status_code)

    threads = [threading.Thread(target=knock) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [303, 401]


@pytest.mark.parametrize("header", ["Sec-Purpose", "Purpose"])
def test_a_browser_that_only_looks_ahead_does_not_use_the_link_up(header, stranger, database):
    link = login_token(database)
    assert stranger.get("/login", params={"token": link}, headers={header: "prefetch;prerender"}).status_code == 503
    assert stranger.get("/login", params={"token": link}, follow_redirects=False).status_code == 303


def test_an_old_link_is_refused(stranger, database):
    old = login_token(database, lifetime=-1)
    answer = stranger.get("/login", params={"token": old})
    assert answer.status_code == 401
    assert "too old" in answer.text


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "", "/a\nb"]
)
def test_signing_in_never_leads_to_another_site(target, stranger, database):
    answer = stranger.get("/login", params={"token": login_token(database), "next": target}, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_with_https_the_cookie_is_sent_by_https_alone(settings, database):
    made = main.create_app(settings.model_copy(update={"https": True}))
    client = TestClient(made, base_url=ADDRESS)
    answer = client.get("/login", params={"token": login_token(database)}, follow_redirects=False)
    assert "; Secure" in answer.headers["set-cookie"]
    made.state.database.dispose()


def test_signing_out_ends_the_session_in_the_database_too(browser, database):
    assert browser.post("/api/v1/sign-out").status_code == 200
    assert browser.get("/api/v1/datasets").status_code == 401
    with database.read() as session:
        assert session.exec(select(Token).where(Token.kind == tokens.SESSION)).all() == []


def test_a_page_asks_a_stranger_to_sign_in_and_leads_back(stranger):
    answer = stranger.get("/datasets?kind=chat")
    assert answer.status_code == 401
    assert 'name="next" value="/datasets?kind=chat"' in answer.text
    assert stranger.get("/api/v1/datasets").json()["error"]["code"] == "sign_in_needed"


def test_the_database_keeps_no_secret(database):
    for kind in (tokens.API, tokens.LOGIN, tokens.SESSION):
        row, secret = make(database, kind)
        assert len(secret) >= 43 and secret not in repr(row)
        assert len(row.hash) == 64


def test_a_token_of_one_kind_is_no_token_of_another(app, database):
    for kind in (tokens.LOGIN, tokens.SESSION):
        secret = make(database, kind, Role.ADMIN)[1]
        client = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})
        assert client.get("/api/v1/datasets").status_code == 401


def test_a_revoked_token_lets_nobody_in(script, database):
    assert script.get("/api/v1/datasets").status_code == 200
    with database.write() as session:
        (row,) = [token for token in tokens.listing(session) if token.kind == tokens.API]
        tokens.revoke(session, row.id)
    assert script.get("/api/v1/datasets").status_code == 401
    with database.write() as session, pytest.raises(NotFound):
        tokens.revoke(session, row.id)


def test_roles_order_what_may_be_done(app, database):
    for role, code in ((Role.VIEWER, 403), (Role.RUNNER, 404), (Role.ADMIN, 404)):
        secret = make(database, tokens.API, role)[1]
        client = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {secret}"})
        assert client.get("/api/v1/datasets").status_code == 200
        assert client.delete("/api/v1/datasets/none/1").status_code == code


def test_wrong_tokens_are_throttled_by_address(app, database):
    good = make(database, tokens.API)[1]
    client = TestClient(app, base_url=ADDRESS)
    codes = [
        client.get("/api/v1/datasets", headers={"Authorization": f"Bearer wrong{n}"}).status_code for n in range(25)
    ]
    assert codes == [401] * 20 + [429] * 5
    refused = client.get("/api/v1/datasets", headers={"Authorization": f"Bearer {good}"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert client.get("/login", params={"token": "guess"}).status_code == 429
    elsewhere = TestClient(app, base_url=ADDRESS, client=("10.0.0.9", 1))
    assert elsewhere.get("/api/v1/datasets", headers={"Authorization": f"Bearer {good}"}).status_code == 200


def test_no_secret_is_logged(stranger, database, caplog):
    caplog.set_level(logging.DEBUG)
    link = login_token(database)
    stranger.get("/login", params={"token": link})
    stranger.get("/api/v1/datasets", headers={"Authorization": f"Bearer {link}"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    assert not [line for line in ours if link in line]


def test_a_tokens_name_is_needed(database):
    with database.write() as session, pytest.raises(Invalid):
        tokens.create(session, tokens.API, Role.VIEWER, " ")
