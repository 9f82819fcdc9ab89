"""Whether the files of a run folder are its own, before a run writes into the folder."""

from __future__ import annotations

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.folder import RunFolder


def check_links(folder: RunFolder) -> None:
    """Checks that no file and no folder inside a run folder is a symbolic link.

    A run goes on in these files, so a link in a folder from somebody else would lead what the run writes to any
    other place. The run folder itself may be reached through links.

    :raises RunFolderError: naming the first link and where it leads.
    """
    for path in sorted(folder.path.rglob("*")):
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a symbolic link to {path.readlink()}; a run writes into its own folder alone: "
                "put the file or folder itself in place of the link, or remove the link"
            )
