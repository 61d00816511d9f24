"""The pins of `constraints.txt` with the SHA-256 of each file that pip takes for them, from pip's own report:

    python -m pip install --dry-run --ignore-installed --no-deps --quiet --report report.json -r constraints.txt
    python deploy/pin_hashes.py report.json > constraints-hashed.txt

`make hashes` does both. No index is named in the result; any one that serves the same files will do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """\
# What constraints.txt pins, with the files' hashes (Linux, x86-64, Python 3.11). Made by `make hashes`. To install nothing else:
#   pip install --require-hashes --requirement constraints-hashed.txt && pip install --no-deps --no-build-isolation .
"""


def hashed(report: dict[str, Any]) -> str:
    """The lines of the file, by name.

    Raises:
        KeyError: A package has no hash: pip took it from a folder, not from an archive.
    """
    pins = []
    for taken in report["install"]:
        name, version = (taken["metadata"][key] for key in ("name", "version"))
        pins.append(f"{name.lower()}=={version} --hash=sha256:{taken['download_info']['archive_info']['hashes']['sha256']}\n")
    return HEAD + "".join(sorted(pins))


if __name__ == "__main__":
    sys.stdout.write(hashed(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
