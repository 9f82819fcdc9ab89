"""Whether the files of a run folder are its own, before a run writes into the folder."""

from __future__ import annotations

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.folder import RunFolder


def check_links(folder: RunFolder) -> None:
    """Checks that no file or folder of a run is a symbolic link.

    A resumed run appends to some of these files and makes others in these folders. A link in a folder that
    comes from somebody else could lead what is written to any other place. The run folder itself may be
    reached through links, and files that a run does not write may be links.

    :raises RunFolderError: naming the first link and where it leads.
    """
    own = [
        *(folder.checkpoints, folder.best, folder.last, folder.snapshot),
        *(folder.config, folder.progress, folder.result, folder.curves, folder.lock),
        *(folder.tensorboard, *folder.tensorboard.glob("*")),
    ]
    for path in own:
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a symbolic link to {path.readlink()}, and a run writes into its own folder "
                "alone; put the file or folder itself in the place of the link"
            )
