"""Installs what the tests against foreign software need, into .clients/ of the checkout. Standard library only."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CLIENTS = REPOSITORY / ".clients"


class NotInstalled(Exception):
    """Something could not be installed; the text says what was tried."""


def run(command):
    """Runs an installer; its output matters only when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        line = " ".join(str(word) for word in command)
        raise NotInstalled(f"failed: {line}\n{done.stdout}")


def once(name, wanted_from, install):
    """Calls `install` unless the file `wanted_from` is what was installed last under this name."""
    digest = hashlib.sha256(Path(wanted_from).read_bytes()).hexdigest()
    stamp = CLIENTS / f"{name}.installed"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    CLIENTS.mkdir(exist_ok=True)
    print(f"installing {name} into {CLIENTS.relative_to(REPOSITORY)}/", flush=True)
    install()
    stamp.write_text(digest)


def python_clients(requirements):
    """A virtual environment .clients/venv with these requirements."""

    def install():
        venv = CLIENTS / "venv"
        run([sys.executable, "-m", "venv", "--clear", venv])
        run([venv / "bin/python", "-m", "pip", "install", "--quiet", "--requirement", requirements])

    once("venv", requirements, install)


def node_clients(package):
    """.clients/node_modules with the dependencies of this package.json."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalled("node and npm are needed: apt-get install nodejs npm")

    def install():
        shutil.copy(package, CLIENTS / "package.json")
        run(["npm", "install", "--prefix", CLIENTS, "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"])

    once("node_modules", package, install)
