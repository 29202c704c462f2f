"""One attempt at one run, from its claim to its end: prepare, start the trainer, watch it, tell the row how it ended.

Each part of the watch is a function that can be called once, with the time passed in; no wall clock decides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlmodel import Session

from app.db import UNREACHABLE, Database
from app.models import Run
from app.runs import lease
from app.settings import Settings
from training.errors import Exit, Failure, Locked
from training.rundir import RunDir, RunFile
from worker import trainer
from worker.devices import Device
from worker.outputs import Incomplete, outputs_of
from worker.preparation import CannotStart, give_answers, remove_what_was_made, run_file, set_aside_anothers
from worker.processes import signal_group
from worker.relay import Relay

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_SECONDS = 0.05  # how often the journal is looked at
LOCK_SECONDS = 10.0  # how long another trainer may take to let go of the run directory
SAID_WHY = frozenset(
    {Exit.INPUT, Exit.DATA, Exit.MODEL, Exit.HUB, Exit.MEMORY, Exit.DISK, Exit.DIVERGED, Exit.ENDPOINT}
)


class Attempt:
    """One attempt. `leaving` says that the worker shuts down; `command` starts a trainer for a run directory."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        run: Run,
        device: Device,
        leaving: Callable[[], bool] = lambda: False,
        command: Sequence[str] = trainer.COMMAND,
    ) -> None:
        assert run.id is not None
        self.database, self.settings, self.device = database, settings, device
        self.run_id, self.number, self.fresh, self.stage = run.id, run.attempt, run.fresh, run.stage
        self.run_dir = RunDir(settings.run_folder(run.id))
        self._relay = Relay(database, run.id, self.run_dir.journal)
        self.content: RunFile | None = None  # what the trainer is told
        self.process: subprocess.Popen[bytes] | None = None
        self.fenced = False
        self.stop_wanted = False
        self.killed: Failure | None = None  # why we killed the trainer, where we did
        self._leaving, self._command = leaving, command
        self._asked: float | None = None  # when it was asked to stop
        now = time.monotonic()
        self._renewed, self._next_beat = now, now
        self._grew, self._size = now, -1
        self._next_ship, self._pause = now, LOOK_SECONDS

    # -- from beginning to end -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Go through the whole attempt. However it ends, no process of it is left."""
        try:
            self._prepare()
            self._start()
            while not self._ended(self._pause):
                self.turn(time.monotonic())
            self.kill()  # what the trainer started, it may have left behind
            self.end()
        except CannotStart as refusal:
            self._fail(refusal.failure)
        except Locked:
            self._give_back(_failure("locked", "Another trainer still holds the run directory."), behind=True)
        except OSError as error:
            self.kill()
            log.exception("Run %s: its directory cannot be used.", self.run_id)
            self._fail(_failure("disk", f"The run directory cannot be used: {error}.", "Free space, then resume."))
        finally:
            self.kill()

    def turn(self, now: float) -> None:
        """One round of the watch."""
        self.beat(now)
        self.relay(now)
        self.watch(now)

    # -- before --------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Put the run directory in order and write config.json. Raises CannotStart or Locked."""
        content = self._steadily(lambda: run_file(self.database, self.settings, self.run_id, self.number))
        patience = min(LOCK_SECONDS, self.settings.lease_seconds / 4)
        set_aside_anothers(self.run_dir, content, patience)
        self.run_dir.create()
        trainer.kill_leftover(self.run_dir, self.number)
        with self.run_dir.locked(patience):
            if self.fresh:
                remove_what_was_made(self.run_dir)
                self._tell(lambda session: lease.begun_afresh(session, self.run_id, self.number))
            self.run_dir.error.unlink(missing_ok=True)
            self.run_dir.write_config(content)
            self._steadily(lambda: give_answers(self.database, content, self.run_dir))
        self.content = content

    def _start(self) -> None:
        assert self.content is not None
        self.process = trainer.start(self.settings, self.device, self.run_dir, self.content, self._command)
        log.info("Run %s, attempt %s: trainer %s on %s.", self.run_id, self.number, self.process.pid, self.device.name)

    # -- while it trains -----------------------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Renew the lease when it is time, and hear whether to stop. A fenced attempt kills its trainer at once."""
        if now < self._next_beat:
            return
        self._next_beat = now + self.settings.beat_seconds
        try:
            with self.database.write() as session:
                heard = lease.beat(session, self.run_id, self.number)
        except UNREACHABLE as error:
            log.warning("Run %s: the database cannot be reached (%s); training goes on.", self.run_id, _first(error))
            self._next_beat = now + min(1.0, self.settings.beat_seconds)
            return
        self._renewed = now
        self.stop_wanted = self.stop_wanted or heard.stop
        if not heard.alive:
            log.warning("Run %s was given to another worker: attempt %s ends.", self.run_id, self.number)
            self.fenced = True
            self.kill()

    def relay(self, now: float) -> bool:
        """Ship what the journal has got since, if it is time. True where there was something."""
        with contextlib.suppress(FileNotFoundError):
            size = self.run_dir.journal.stat().st_size
            if size != self._size:
                self._grew, self._size, self._next_ship = now, size, min(self._next_ship, now)
        if self.fenced or now < self._next_ship:
            return False
        try:
            shipped = self._relay.ship()
        except UNREACHABLE as error:
            self._pause = min(2 * self._pause, 2.0)
            self._next_ship = now + self._pause
            log.warning("Run %s: the journal waits for the database (%s).", self.run_id, _first(error))
            return False
        self._pause = LOOK_SECONDS
        self._next_ship = now if shipped else now + self.settings.beat_seconds
        return shipped > 0

    def watch(self, now: float) -> None:
        """Ask the trainer to stop where somebody wants that, and kill it where it must not go on."""
        if self.process is None or self.fenced:
            return
        if self._asked is None and (self.stop_wanted or self._leaving()):
            self._asked = now
            signal_group(self.process.pid, signal.SIGTERM)
        limits = self.settings
        if now - self._renewed > 0.75 * limits.lease_seconds:
            self._kill_because("lease", "Its worker could not reach the database for too long.")
        elif self._asked is not None and now - self._asked > limits.stop_grace_seconds:
            message = f"It was asked to stop and had not done so after {limits.stop_grace_seconds:.0f} seconds."
            self._kill_because("grace", message)
        elif now - self._grew > limits.stall_seconds:
            self._kill_because("stalled", f"The trainer wrote nothing for {limits.stall_seconds:.0f} seconds.")
        trainer.turn_log(self.run_dir)

    def kill(self) -> None:
        """Kill the trainer and all that it started, and take its exit status."""
        if self.process is None or self.process.returncode is not None:
            return
        signal_group(self.process.pid, signal.SIGKILL)  # not reaped yet, so the pid is no stranger's
        trainer.kill_marked(self.run_dir, (self.number,))
        self.process.wait()

    def _kill_because(self, code: str, message: str) -> None:
        if self.killed is None:
            self.killed = _failure(code, message)
            log.warning("Run %s: %s The trainer is killed.", self.run_id, message)
            self.kill()

    def _ended(self, seconds: float) -> bool:
        """Wait until the trainer ends, at most so long."""
        assert self.process is not None
        if self.process.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.process.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(1000 * seconds))
        finally:
            os.close(descriptor)

    # -- after ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Ship the rest of the journal, then tell the row how the attempt ended (K, J, H or G)."""
        assert self.process is not None
        if self.fenced:
            return
        while self._steadily(self._relay.ship):
            self.beat(time.monotonic())
        if self.fenced:
            return
        code = self.process.returncode
        log.info("Run %s, attempt %s: the trainer ended with %s.", self.run_id, self.number, code)
        if code == Exit.FINISHED:
            self._finished()
        elif code in SAID_WHY:
            self._fail(self.run_dir.read_error() or _unsaid(code))
        elif self.stop_wanted:
            self._tell(lambda session: lease.stopped(session, self.run_id, self.number))
        elif self._asked is not None or code == Exit.STOPPED:
            self._give_back(_failure("worker_left", "Its worker was shut down."))
        elif code == Exit.LOCKED:
            self._give_back(_failure("locked", "Another trainer still holds the run directory."), behind=True)
        else:
            self._died(code)

    def _finished(self) -> None:
        try:
            with outputs_of(self.stage, self.run_dir, self.settings) as outputs:
                self._tell(
                    lambda session: (
                        lease.finish(session, self.run_id, self.number) and outputs.take_in(session, self.settings)
                    )
                )
        except Incomplete as error:
            self._fail(_failure("incomplete", str(error), "Retry the run from nothing."))

    def _died(self, code: int) -> None:
        log.warning("Run %s: the last lines of its trainer:\n%s", self.run_id, trainer.last_lines(self.run_dir))
        failure = self.killed or _failure("died", how_it_died(code), "The worker's log has its last lines.")
        new = trainer.made_progress(self.run_dir, self.number)
        self._tell(lambda session: lease.died(session, self.run_id, self.number, failure, new_checkpoint=new))

    def _fail(self, failure: Failure) -> None:
        self._tell(lambda session: lease.fail(session, self.run_id, self.number, failure))

    def _give_back(self, failure: Failure, *, behind: bool = False) -> None:
        self._tell(lambda session: lease.give_back(session, self.run_id, self.number, failure, behind=behind))

    def _tell(self, verb: Callable[[Session], bool]) -> None:
        """Write to the row; a fenced attempt changes nothing by it."""

        def write() -> bool:
            with self.database.write() as session:
                return verb(session)

        if not self._steadily(write):
            log.warning("Run %s: attempt %s has no say any more.", self.run_id, self.number)

    def _steadily(self, action: Callable[[], T]) -> T:
        """Do it, however long the database is out of reach; unless the worker leaves: then the reaper must."""
        pause, left = 0.1, time.monotonic()
        while True:
            try:
                return action()
            except UNREACHABLE as error:
                if not self._leaving():
                    left = time.monotonic()
                elif time.monotonic() - left > self.settings.stop_grace_seconds:
                    raise
                log.warning("Run %s waits for the database (%s).", self.run_id, _first(error))
                time.sleep(pause)
                pause = min(2 * pause, 5.0)


def how_it_died(code: int) -> str:
    """A sentence about an exit code that is none of ours; negative: a signal's number."""
    if code == -signal.SIGKILL or code == 128 + signal.SIGKILL:
        return "The trainer was killed (SIGKILL): probably memory ran out."
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"The trainer was ended by {signal.Signals(-code).name}."
    return f"The trainer ended without a word (exit code {code})."


def _unsaid(code: int) -> Failure:
    """Where the exit code is all that is known."""
    if code == Exit.DISK:
        hint = "Free some space, then resume: the run goes on from its last checkpoint."
        return _failure("disk", "The disk is full: the trainer could not even write down where.", hint)
    return _failure(Exit(code).name.lower(), "The trainer could not go on, and could not say why.")


def _failure(code: str, message: str, hint: str = "") -> Failure:
    return Failure(code=code, message=message, hint=hint)


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0]
