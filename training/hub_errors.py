"""What the Hub's library raises, as sentences that say what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from training.errors import DiskFull, HubError, TrainingError
from training.references import Reference


@contextlib.contextmanager
def explained(reference: Reference, kind: str) -> Iterator[None]:
    """Turn what the library raises into a sentence that says what to do."""
    try:
        yield
    except TrainingError:
        raise
    except (HTTPError, OSError, RevisionResolutionError, EntryNotFoundError) as error:
        raise _explain(error, reference, kind) from error


def _explain(error: Exception, reference: Reference, kind: str) -> TrainingError:
    name = f"{'data set' if kind == 'dataset' else 'model'} {reference.name}"
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{reference.name}"
    sign_in = "set HF_TOKEN, or run `hf auth login`"
    if isinstance(error, GatedRepoError):
        return HubError(f"The {name} is gated.", f"Accept its licence at {page}, then {sign_in}.")
    if isinstance(error, DisabledRepoError):
        return HubError(f"The {name} has been disabled on the Hub.", "Take another.")
    if isinstance(error, RepositoryNotFoundError):
        return HubError(f"The Hub has no {name}, or it is private.", f"Check the name; if it is private, {sign_in}.")
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"The {name} has no revision “{reference.version or 'main'}”.",
            f"Its branches and tags are listed at {page}.",
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in {401, 403}:
            return HubError(
                f"The Hub refuses the {name} ({status}).", f"The token is wrong, or may not read it: {sign_in}."
            )
        if status == 404:
            return HubError(f"The Hub has no such file of the {name}.", f"See {page}; the repository may have changed.")
        if status == 429:
            return HubError("The Hub says: too many requests.", f"Wait some minutes, then resume; or {sign_in}.")
        return HubError(f"The Hub is out of order ({status}).", "Resume the run later: what was fetched is kept.")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DiskFull(
            f"The disk is full: the {name} could not be fetched.",
            f"Free some space in {constants.HF_HUB_CACHE}, then resume: the download goes on where it was.",
        )
    if isinstance(error, PermissionError):
        return HubError(
            f"The Hub's cache {constants.HF_HUB_CACHE} may not be written.", "Set HF_HOME to a folder of yours."
        )
    if constants.is_offline_mode():
        return HubError(
            f"The {name} is not in the local cache, and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE and resume, or copy the cache from a machine that has it.",
        )
    return HubError(
        f"The Hub at {constants.ENDPOINT} cannot be reached: {first_line(error.__cause__ or error)}.",
        "Check the network, HF_ENDPOINT and the proxy, then resume; what is in the cache is used without it.",
    )


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
