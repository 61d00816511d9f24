"""Runs the Dockerfile's steps in a clean root instead of an engine: `python deploy/container/in_a_root.py FOLDER` (as root).

The base image is a fresh Debian bookworm by debootstrap with Python, whose 3.11 is the image's. RUN steps run by chroot; COPY,
ENV, USER and WORKDIR do what their names say. At the end the entry point runs as the image's user on a read-only root, with
what follows FOLDER as its arguments. Knows the instructions that our Dockerfile uses, and refuses others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2]
PACKAGES = "python3,python3-venv,ca-certificates"


def main(folder: Path, arguments: list[str]) -> int:
    """Build both stages, run the second; the exit code of what ran."""
    roots: dict[str, Path] = {}
    for number, stage in enumerate(stages((SOURCE / "Dockerfile").read_text("utf-8"))):
        root = folder / f"stage-{number}"
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME": "/root"}
        name, user, place, entry = str(number), "0:0", "/", []
        for word, rest in stage:
            print(f"-- {word} {rest}", flush=True)
            if word == "FROM":
                name = rest.partition(" AS ")[2] or name
                fresh_root(root)
            elif word == "ENV":
                environment |= {key: value.replace("$PATH", environment["PATH"]) for key, value in pairs(rest)}
            elif word == "RUN":
                inside(root, ["/bin/sh", "-c", f"cd {place} && {rest}"], environment | build_environment())
            elif word == "COPY":
                copy(root, place, rest, roots)
            elif word == "WORKDIR":
                place = rest
                (root / place.lstrip("/")).mkdir(exist_ok=True)
            elif word == "USER":
                user = rest
            elif word == "ENTRYPOINT":
                entry = json.loads(rest)
            elif word not in ("ARG", "EXPOSE", "HEALTHCHECK", "CMD"):
                raise SystemExit(f"the instruction {word} is not known here")
        roots[name] = root
    return read_only(root, user, place, [*entry, *arguments], environment)


def stages(text: str) -> list[list[tuple[str, str]]]:
    """(instruction, rest) by stage."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    lines = [line.partition(" ")[::2] for line in joined.splitlines() if line.strip()]
    starts = [place for place, (word, _) in enumerate(lines) if word == "FROM"]
    return [
        [(word, rest.strip()) for word, rest in lines[first:last]]
        for first, last in zip(starts, [*starts[1:], None], strict=True)
    ]


def pairs(rest: str) -> list[tuple[str, str]]:
    """The settings of an ENV line."""
    return [(key, value.strip('"')) for key, value in re.findall(r"(\w+)=(\S+)", rest)]


def build_environment() -> dict[str, str]:
    """What pip needs to know of this machine's registries."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_NO_CACHE_DIR"}


def fresh_root(root: Path) -> None:
    """A Debian with Python and this machine's certificates, names and pip settings."""
    if root.exists():
        raise SystemExit(f"{root} is there already: name an empty folder")
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name in ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if (Path("/") / name).exists():
            shutil.copy(Path("/") / name, root / name)


def inside(root: Path, command: list[str], environment: dict[str, str]) -> None:
    """Run a step as root of that root."""
    subprocess.run(["/usr/sbin/chroot", str(root), *command], env=environment, check=True)


def copy(root: Path, place: str, rest: str, roots: dict[str, Path]) -> None:
    """COPY from the source or from a stage."""
    words = rest.split()
    origin = roots[words.pop(0).partition("=")[2]] if words[0].startswith("--from=") else SOURCE
    *sources, target = words
    into = root / target.lstrip("/") if target.startswith("/") else root / place.lstrip("/") / target
    for source in sources:
        found = origin / source.lstrip("/")
        if found.is_dir():
            shutil.copytree(
                found, into, symlinks=True, ignore=shutil.ignore_patterns("__pycache__") if origin == SOURCE else None
            )
        else:
            shutil.copy(found, into / found.name if into.is_dir() else into)


def read_only(root: Path, user: str, place: str, command: list[str], environment: dict[str, str]) -> int:
    """Run the entry point in namespaces of its own: root read-only, /tmp empty, /proc its own, no capability."""
    number, group = user.split(":")
    script = (
        f"mount --bind {root} {root} && mount -o remount,ro,bind {root} && mount -t tmpfs tmpfs {root}/tmp"
        f" && mount -t proc proc {root}/proc && mount --bind /dev {root}/dev"
        f" && exec chroot {root} setpriv --reuid={number} --regid={group} --clear-groups --bounding-set=-all --no-new-privs"
        f' env -C {place} "$@"'
    )
    wrapped = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", *command]
    return subprocess.run(wrapped, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
