"""The container files agree with the program. (Building them needs an engine; their parts run by hand: test_by_hand.)"""

import re
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from app.cli import cli
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
OURS = ("web", "worker")


def test_every_part_is_there_healthy_restarted_and_without_roots_rights():
    assert set(SERVICES) == {"postgres", "redis", "web", "worker"}
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"] and service["restart"] == "unless-stopped", name
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert SERVICES["redis"]["user"] == "redis"
    for name in OURS:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for stage in stages:
        assert re.findall(r"^USER (\w+)$", stage, re.MULTILINE)[-1] == "preflab"


def test_both_images_are_stages_of_the_dockerfile():
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert [SERVICES[name]["build"]["target"] for name in OURS] == stages == list(OURS)


def test_only_the_workers_image_has_torch():
    web, worker = DOCKERFILE.split("FROM web AS worker")
    assert "[train]" in worker and "[train]" not in web


@pytest.mark.parametrize("name", OURS)
def test_the_commands_exist(name):
    known = typer.main.get_command(cli).commands
    for command in (SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"][1:]):
        if command[0] == "preflab":
            assert command[1] in known
    assert f'CMD ["preflab", "{SERVICES[name]["command"][1]}"]' in DOCKERFILE


@pytest.mark.parametrize("name", OURS)
def test_the_settings_exist(name):
    fields = {f"PREFLAB_{field.upper()}" for field in Settings.model_fields}
    assert {key for key in SERVICES[name]["environment"] if key.startswith("PREFLAB_")} <= fields
    assert {"PREFLAB_DATABASE_URL", "PREFLAB_BROKER_URL"} <= set(SERVICES[name]["environment"])


def test_redis_keeps_what_it_was_told_and_asks_for_a_password():
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command and "--requirepass" in command and "noeviction" in command


def test_nothing_is_published_to_other_machines_and_no_password_has_a_default():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["${PREFLAB_PUBLISH:-127.0.0.1:8321}:8321"]
    text = (ROOT / "docker-compose.yml").read_text()
    assert "PASSWORD:-" not in text
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert used == set(EXAMPLE)
    assert EXAMPLE["POSTGRES_PASSWORD"] == EXAMPLE["REDIS_PASSWORD"] == ""


def test_the_image_gets_every_folder_that_the_wheel_takes():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for folder in (*build["packages"], *build["force-include"]):
        assert f"COPY {folder} {folder}" in DOCKERFILE
        assert f"!{folder}" in (ROOT / ".dockerignore").read_text().splitlines()
