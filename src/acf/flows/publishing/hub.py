"""What flows have for travelling: folders with a model card, and the Hugging Face Hub."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from acf.errors import ConfigError, DataError
from acf.extras import needed_by
from acf.flows.record import CARD, CONFIG, HASHES, ModelFileError, read_record

if TYPE_CHECKING:
    import torch

    from acf.flows.flow import Flow


class HubMethods:
    """Methods of `acf.Flow` by which models are published and fetched.

    A model card, and what was recorded of a training, go with the weights from folder to folder, as long as the weights
    do not change.
    """

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        device: "torch.device | str" = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "Flow":
        """Return a flow from a folder, as `acf.load` does, or from the Hugging Face Hub, in evaluation mode.

        Weights and configuration of one revision are fetched into the cache of huggingface_hub, once, and compared with
        the hashes that the configuration has of both.

        Args:
            name_or_folder: a folder, which comes first, or "owner/name" on the Hub.
            device: where the flow goes.
            revision: branch, tag or commit on the Hub; by default the newest on `main`.
            token: for a model that is not public; by default that of `hf auth login`.
            cache_dir: where downloads are kept; by default where huggingface_hub keeps them.
            force_download: whether files in the cache are fetched again.
            local_files_only: whether to look into the cache alone.

        Raises:
            InputError: there is no such folder, and on the Hub no such name can be.
            MissingPackageError: there is no such folder, and huggingface_hub is not installed.
            ConfigError: config.json has an unknown key or an impossible value.
            DataError: there is no such model, it cannot be fetched, or its files are damaged.
        """
        from acf.flows.storage import load

        if os.path.isdir(name_or_folder):  # false as well for what no file system takes as a name
            return load(name_or_folder, device)
        name = str(name_or_folder)
        with needed_by(f"{name!r} is no folder, and fetching a model of that name from the Hub"):
            from acf.flows.publishing.hub_client import download

        folder = download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        try:
            if HASHES not in read_record(folder):
                raise ModelFileError(f"{folder / CONFIG} has no hashes to compare it and the weights with")
            return load(folder, device)
        except ModelFileError as error:
            raise DataError(
                f"{name} from the Hub: {error.fact}; fetch it again with force_download=True, and if that does not "
                "help, it is damaged on the Hub"
            ) from None
        except ConfigError as error:
            raise ConfigError(f"{name} from the Hub: {error}; it may need a newer acf") from None

    def save_pretrained(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write weights, config.json and a model card into `folder`, as `push_to_hub` would publish them.

        The card and the record of the training are those that the flow was loaded with. Without such a card, or where
        weights have changed since, it is one that says what the library knows: the certificate and the architecture.
        `acf export` writes a card with what was measured.

        Args:
            folder: made if missing; other files in it stay.
            replace: whether files of these names with another content may be replaced.

        Raises:
            NotContractiveError: a block is not proven contractive; names it.
            UnwritableError: there are other files of these names, or a file cannot be written.
        """
        from acf.flows.publishing.model_folder import write_model_folder

        write_model_folder(folder, published_files(cast("Flow", self)), replace)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Add a model of acf",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Publish on the Hugging Face Hub what `save_pretrained` writes, and return the address of the commit.

        The repository is made if it is missing; in one that exists, the files are replaced in one commit.

        Args:
            repo_id: "owner/name".
            commit_message: of the commit.
            private: whether a new repository is private; by default as its owner has it.
            token: by default that of `hf auth login`.
            branch: to commit to; by default `main`.
            create_pr: whether to propose the commit instead.

        Raises:
            InputError: no repository can have this name.
            MissingPackageError: huggingface_hub is not installed.
            NotContractiveError: a block is not proven contractive; names it.
            DataError: the Hub refuses it or cannot be reached.
        """
        with needed_by("publishing a model on the Hub"):
            from acf.flows.publishing.hub_client import upload

        return upload(
            published_files(cast("Flow", self)),
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )


def published_files(flow: "Flow") -> dict[str, bytes]:
    """Return the files of a flow that is published, by name.

    Raises:
        NotContractiveError: a block is not proven contractive; names it.
    """
    from acf.flows.flow import certify
    from acf.flows.publishing.plain_card import plain_card
    from acf.flows.storage import serialise, unchanged_origin

    certificate = certify(flow)
    certificate.require()
    files = serialise(flow)
    origin = unchanged_origin(flow, json.loads(files[CONFIG])[HASHES]["weights"])
    card = origin.card if origin else None
    return {**files, CARD: (card or plain_card(flow, certificate, origin.record if origin else {})).encode()}
