"""The settings: the only reader of the environment (PREFLAB_*). docs/configuration.md is made from here."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from training.references import NAME, key_variable, parse_reference


class Settings(BaseSettings):
    """One installation. Every field is set by `PREFLAB_<NAME>`, in the environment or in a file `.env`."""

    model_config = SettingsConfigDict(env_prefix="PREFLAB_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(
        Path("~/.preflab"),
        description="Where everything lies: database, queue, run directories, data sets. Private to its owner.",
    )
    database_url: str = Field(
        "",
        description="`postgresql+psycopg://user:password@host/name`. Empty: SQLite under the home.",
    )
    broker_url: str = Field(
        "",
        description="`redis://:password@host:6379/0`. Empty: a queue of files under the home.",
    )
    host: str = Field("127.0.0.1", description="The address that the web server binds.")
    port: int = Field(8321, ge=0, le=65535, description="The port that the web server binds. 0: any free one.")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Names under which browsers reach the server, with commas between. "
        "Needed where it binds another address than this machine's own.",
    )
    https: bool = Field(
        False, description="Browsers reach the server by https (through a proxy): cookies are then sent by https alone."
    )
    allowed_paths: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="Folders that `path:` references may point into, with commas between. "
        "Empty: the folder that Preflab was started in, unless that is /.",
    )
    upload_max_bytes: int = Field(8 << 30, ge=1, description="The largest file that can be uploaded.")
    min_free_disk_bytes: int = Field(
        1 << 30, ge=0, description="Uploads and launches are refused where less than this is free."
    )
    devices: str = Field(
        "auto",
        description="What a worker trains on: `auto` (every GPU, else the CPU), `cpu`, or GPU numbers such as `0,1`. "
        "One run a device at a time.",
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of a training process. 0: torch decides.")
    offline: bool = Field(False, description="Never ask the Hub: use what was downloaded before.")
    endpoints: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="OpenAI-compatible servers that `api:<name>/<model>` means, as `name=url` with commas between, such as "
        "`local=http://127.0.0.1:8000/v1`. The key of one is `PREFLAB_KEY_<NAME>`, and stands nowhere else.",
    )
    embedder: str = Field(
        "",
        description="The sentence-transformers model that tells whether two prompts ask the same: `hf:<repo>` or "
        "`path:<folder>`. Empty: all-MiniLM-L6-v2, of the installed package, else of the Hub.",
    )
    beat_seconds: float = Field(5.0, gt=0, description="How often a worker says that it is alive.")
    lease_seconds: float = Field(
        60.0, gt=0, description="A run whose worker has been silent for so long is given to another."
    )
    stall_seconds: float = Field(
        3600.0, gt=0, description="A trainer that writes nothing for so long is killed, and its run tried again."
    )
    stop_grace_seconds: float = Field(
        120.0, gt=0, description="How long a trainer that was asked to stop may take to save before it is killed."
    )
    ring_seconds: float = Field(
        10.0,
        gt=0,
        description="Queued runs are announced to the workers again after so long, in case a message was lost.",
    )
    log_level: str = Field("info", description="`debug`, `info`, `warning` or `error`.")

    @field_validator("allowed_hosts", "allowed_paths", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("endpoints", mode="before")
    @classmethod
    def _named_urls(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found = {}
        for part in filter(None, map(str.strip, value.split(","))):
            name, _, url = part.partition("=")
            if not NAME.fullmatch(name) or not url.startswith(("http://", "https://")):
                raise ValueError(f"“{part[:100]}” is no endpoint: write name=http://host:port/v1, with commas between")
            parts = urlsplit(url)
            if "@" in parts.netloc or parts.query or parts.fragment:
                raise ValueError(
                    f"the address of {name} holds more than http://host:port/v1: its key belongs into {key_variable(name)}"
                )
            found[name] = url.rstrip("/")
        return found

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 - keeps links as they are

    @field_validator("embedder")
    @classmethod
    def _embedder(cls, value: str) -> str:
        value = value.strip()
        if value:
            reference = parse_reference(value, ("hf", "path"))
            if reference.kind == "path" and not Path(reference.name).expanduser().is_absolute():
                raise ValueError("name the folder by its whole path, as path:/models/embedder")
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("use debug, info, warning or error")
        return value.lower()

    @model_validator(mode="after")
    def _lease_outlives_beats(self) -> Settings:
        if self.lease_seconds < 3 * self.beat_seconds:
            raise ValueError("PREFLAB_LEASE_SECONDS must be at least three times PREFLAB_BEAT_SECONDS")
        return self

    @property
    def database(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite+pysqlite:///{self.home / 'preflab.db'}"

    @property
    def embedded_queue(self) -> bool:
        return not self.broker_url

    @property
    def queue_folder(self) -> Path:
        return self.home / "queue"

    @property
    def runs_folder(self) -> Path:
        return self.home / "runs"

    @property
    def workers_folder(self) -> Path:
        """Locks: which workers there are on a machine, and which devices are taken."""
        return self.home / "workers"

    @property
    def datasets_folder(self) -> Path:
        return self.home / "datasets"

    @property
    def shared_folder(self) -> Path:
        """What runs leave for each other and could compute again: may be deleted at any time."""
        return self.home / "shared"

    @property
    def experiments_folder(self) -> Path:
        """What an experiment's runs share, such as the prompts that it holds out of all training."""
        return self.home / "experiments"

    @property
    def path_roots(self) -> list[Path]:
        """Folders that `path:` references may point into. A service that starts in / has none unless they are named."""
        named = [path.expanduser().resolve() for path in self.allowed_paths]
        here = Path.cwd()
        return named or ([here] if here != Path(here.anchor) else [])

    def endpoint_key(self, endpoint: str) -> str:
        """The secret of an endpoint, from the environment or the file `.env`; empty where it has none."""
        variable, file = key_variable(endpoint), self.model_config.get("env_file")
        kept = dotenv_values(file) if isinstance(file, str | Path) else {}
        return os.environ.get(variable) or kept.get(variable) or ""

    @property
    def loopback(self) -> bool:
        """True where only this machine can reach the web server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def create_home(self) -> None:
        """Make the home and its folders, private to their owner. Raises OSError."""
        inside = (
            self.queue_folder, self.runs_folder, self.datasets_folder, self.workers_folder, self.shared_folder,
            self.experiments_folder,
        )  # fmt: skip
        for folder in (self.home, *inside):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def run_folder(self, run_id: int) -> Path:
        return self.runs_folder / str(run_id)

    def experiment_folder(self, experiment_id: int) -> Path:
        return self.experiments_folder / str(experiment_id)


def load_settings() -> Settings:
    """Read the environment. Raises SystemExit with one sentence a wrong setting."""
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = f"PREFLAB_{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
            lines.append(f"preflab: {name}{problem['msg'].removeprefix('Value error, ')}")
        raise SystemExit("\n".join(lines)) from None
