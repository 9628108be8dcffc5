"""Fetching models from the Hugging Face Hub and publishing them there, by huggingface_hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from acf.errors import AcfError, DataError, InputError
from acf.flows.publishing.model_folder import write_model_folder
from acf.flows.record import CARD, CONFIG, LIBRARY, WEIGHTS

FORM = 'a name there has the form "owner/name"'
LOG_IN = "log in with `hf auth login`, or pass token=..."


class Published(ModelHubMixin, library_name=LIBRARY):
    """The files of a model as huggingface_hub's mixin publishes them: it makes the repository and one commit.

    Args:
        files: content by name.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model_folder(save_directory, self.files)


def upload(files: Mapping[str, bytes], name: str, **options: Any) -> str:
    """Publish the files of a model and return the address of the commit.

    Args:
        files: content by name.
        name: of the repository.
        options: as `acf.Flow.push_to_hub` has them.

    Raises:
        InputError: no repository can have this name.
        DataError: the Hub refuses it or cannot be reached.
    """
    with _explained(f"{name} cannot be published", name):
        commit = Published(files).push_to_hub(name, **options)
        return str(getattr(commit, "commit_url", commit))  # the text is another address in some versions


def download(name: str, **options: Any) -> Path:
    """Fetch the files of a model, all of one revision, and return their folder in the cache of huggingface_hub.

    Of the mixin this does without `from_pretrained`, which takes what it needs of a configuration before anybody has
    compared it with its hash, and may take weights from a later revision.

    Args:
        name: of the repository.
        options: as `acf.Flow.from_pretrained` has them.

    Raises:
        InputError: no repository can have this name.
        DataError: there is no such model, or it cannot be fetched.
    """
    with _explained(f"{name!r} is no folder, and cannot be fetched from the Hub", name):
        options |= {"library_name": LIBRARY, "library_version": version("acf")}
        folder = Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, CARD], **options))
        if absent := [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]:
            lacks = f"{constants.ENDPOINT}/{name} has no {' and no '.join(absent)}"
            raise DataError(f"{lacks}, so it is no model of this library")
        return folder


@contextmanager
def _explained(failure: str, name: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that begins with `failure`."""
    hub = constants.ENDPOINT
    try:
        yield
    except AcfError:
        raise
    except HFValidationError:
        raise InputError(f"{failure}: {FORM}") from None
    except GatedRepoError:
        raise DataError(f"{failure}: its owner gives access to those who ask at {hub}/{name}; then {LOG_IN}") from None
    except RepositoryNotFoundError:
        raise DataError(f"{failure}: {hub} has no such model, or it is not public: {LOG_IN}") from None
    except RevisionNotFoundError:
        raise DataError(f"{failure}: {hub}/{name} has no such revision") from None
    except LocalTokenNotFoundError:
        raise DataError(f"{failure}: there is no token; {LOG_IN}") from None
    except LocalEntryNotFoundError as error:
        why = error.__cause__
        reached = f"{hub} is not reached ({_line(why)})" if why else "nothing is fetched with local_files_only"
        raise DataError(f"{failure}: {reached}, and the cache does not have it") from None
    except HfHubHTTPError as error:
        refused = error.response.status_code in (401, 403)
        raise DataError(f"{failure}: {hub}: {_line(error)}{(refused and f'; {LOG_IN}') or ''}") from error
    except Exception as error:  # of the network, of the Hub, of a full disk: whatever huggingface_hub lets through
        raise DataError(f"{failure}: {hub}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if status is None else f"{status}, {text}"
