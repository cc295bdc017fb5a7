"""A router of our own for a test: free ports, a configuration in a temporary folder, start, stop. Standard library only."""

import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
POLL_S = 0.05
# Below it are the ports of services that everybody knows.
FIRST_PORT = 20_000
# The names of ports that are ours; they go with the process.
MARKS = []


class RouterError(Exception):
    """The router did not start or stop as it should; the text says how and quotes its log."""


def free_ports(count):
    """Ports of loopback on which nobody listens, our own until this process ends (tests/harness/ports.rs does the same).

    They are below those that the kernel gives to clients, and who asks like this binds a name of the kernel first.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = list(range(FIRST_PORT if end > FIRST_PORT else min(end, 1024), end))
    random.shuffle(ports)
    found = []
    while len(found) < count:
        if not ports:
            raise RouterError("no port is free")
        port, mark = ports.pop(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0crosspoint-port-{port}")
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        MARKS.append(mark)
        found.append(port)
    return found


def accepts(address):
    """Whether somebody listens at a (host, port) or at the path of a Unix socket."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address if isinstance(address, tuple) else str(address)) == 0


class Router:
    """`crosspoint start --config FILE`, from entering the context to leaving it. `exit_code` is known afterwards."""

    def __init__(self, binary, config, folder, addresses):
        self.binary = Path(binary)
        self.config = config
        self.folder = Path(folder)
        self.addresses = addresses
        self.log_path = self.folder / "router.log"
        self.exit_code = None

    def __enter__(self):
        if not self.binary.is_file():
            raise RouterError(f"there is no {self.binary}; build it with: cargo build --release")
        config_path = self.folder / "config.toml"
        config_path.write_text(self.config)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "start", "--config", config_path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_until_listening()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def wait_until_listening(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        missing = list(self.addresses)
        while missing:
            if self.process.poll() is not None:
                raise RouterError(f"the router ended at once with exit code {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise RouterError(f"the router does not listen at {missing} after {START_TIMEOUT_S} s:\n{self.log()}")
            missing = [address for address in missing if not accepts(address)]
            if missing:
                time.sleep(POLL_S)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.exit_code = None

    def log(self, lines=40):
        """The end of what the router wrote."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def wait_for_log(self, text):
        """Waits until it has written this."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while text not in self.log_path.read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RouterError(f"the router does not say `{text}`:\n{self.log()}")
            time.sleep(POLL_S)

    def counter(self, name):
        """A counter, summed over all cores, as SIGUSR1 writes it to the log."""
        seen = self.log_path.stat().st_size
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with open(self.log_path, errors="replace") as log:
                log.seek(seen)
                found = re.search(rf"counters: .*\b{name}=(\d+) ", log.read())
            if found:
                return int(found.group(1))
            time.sleep(POLL_S)
        raise RouterError(f"the router does not say its counters:\n{self.log()}")

    def ending(self):
        """What was wrong with the way it stopped, or None."""
        if self.exit_code == 0:
            return None
        if self.exit_code is None:
            return f"the router did not stop within {STOP_TIMEOUT_S} s after SIGTERM; its log ends:\n{self.log()}"
        return f"the router stopped with exit code {self.exit_code}, not 0; its log ends:\n{self.log()}"
