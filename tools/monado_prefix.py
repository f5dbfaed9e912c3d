"""Unpack Monado and Mesa of Debian trixie into a folder, by this machine's apt, without root. Standard library only."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    "monado-service libopenxr1-monado mesa-vulkan-drivers libegl1 libgl1 libegl-mesa0 libglx-mesa0 libgl1-mesa-dri"
)


class MonadoError(Exception):
    """Say why Monado cannot be had here."""


def cache() -> Path:
    """Return the folder that holds the unpacked runtime."""
    chosen = os.environ.get("TWINGUIDE_MONADO")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else home / "twinguide" / "monado"


def debian_mirror() -> str:
    """Return the Debian archive of TWINGUIDE_DEBIAN, or of this machine's apt; else, as on Ubuntu, the public one."""
    named = os.environ.get("TWINGUIDE_DEBIAN")
    if named:
        return named
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        if source.is_file():
            for word in source.read_text(errors="replace").split():
                if "://" in word and word.rstrip("/").endswith("/debian"):
                    return word
    return "http://deb.debian.org/debian"


def fetch(prefix: Path | None = None) -> Path:
    """Unpack the runtime into `prefix`, once; raise MonadoError, with the reason, where it cannot be had."""
    prefix = prefix or cache()
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None and not prefix.is_dir():
            raise MonadoError(f"Monado is unpacked from Debian's packages, which needs {tool}: not on this machine")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with (prefix.parent / f"{prefix.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not prefix.is_dir():
            if not KEYRING.is_file():
                raise MonadoError(f"Debian's packages are checked by {KEYRING}: apt-get install debian-archive-keyring")
            partial = prefix.with_name(f"{prefix.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _download(partial)
            _write_manifests(partial, prefix)
            partial.rename(prefix)
    return prefix


def _download(partial: Path) -> None:
    apt, root = partial / "apt", partial / "root"
    for folder in (apt / "lists/partial", apt / "archives/partial", apt / "none", root):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {debian_mirror()} {SUITE} main\n")
    options = {
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Cache::archives": apt / "archives",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": apt / "none",
        "Dir::Etc::preferencesparts": apt / "none",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 20,
    }
    command = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    for arguments in (["update"], ["-y", "--download-only", "install", *PACKAGES.split()]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise MonadoError(f"apt-get {arguments[0]} of Debian {SUITE} failed: {done.stderr.strip()[-500:]}")
    for package in sorted((apt / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.rmtree(apt)
    for folder in ("doc", "man", "locale", "icons", "lintian"):
        shutil.rmtree(root / "usr/share" / folder, ignore_errors=True)


def libraries(prefix: Path) -> Path:
    """Return the folder of the prefix that holds the libraries of this machine's architecture."""
    return next((prefix / "root/usr/lib").glob("*-linux-gnu"))


def _write_manifests(partial: Path, prefix: Path) -> None:
    """Copy each manifest with its library's final, absolute path."""
    folder = prefix / libraries(partial).relative_to(partial)
    share = partial / "root/usr/share"
    for name, source, kind in (
        ("vulkan.json", share / "vulkan/icd.d/lvp_icd.json", "ICD"),
        ("egl.json", share / "glvnd/egl_vendor.d/50_mesa.json", "ICD"),
        ("openxr.json", share / "openxr/1/openxr_monado.json", "runtime"),
    ):
        manifest = json.loads(source.read_text())
        manifest[kind]["library_path"] = str(folder / Path(manifest[kind]["library_path"]).name)
        (partial / name).write_text(json.dumps(manifest, indent=2))
