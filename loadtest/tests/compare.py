"""What loadtest/compare makes of outcomes, and that it says so when Crossbar cannot be had. Nothing is measured here."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
PATH = pathlib.Path(__file__).resolve().parent.parent / "compare"
LOADER = importlib.machinery.SourceFileLoader("compare", str(PATH))
compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", LOADER))
LOADER.exec_module(compare)

WORK = ("call", ["rpc"], [], "call", 0.55)


def outcomes(*figures):
    names = ["router_cpu_us_per_call", "router_system_us_per_call", "latency_p50_us", "latency_p99_us"]
    return [{"figures": dict(zip(names, each))} for each in figures]


class ClosedLoops(unittest.TestCase):
    def test_the_kernels_part_is_beside_the_whole_and_alone_over_nats(self):
        measured = {
            "Crosspoint": outcomes((3.52, 2.47, 138, 1227), (9.0, 2.40, 140, 1300), (3.0, 2.50, 130, 1100)),
            "NATS": outcomes((4.94, 1.5, 117, 556)),
            "Crossbar": outcomes((178.0, 20.0, 5000, 9000)),
            "bare": [],
        }
        row = compare.closed_loop_row(WORK, measured, ["Crossbar", "bare"])
        self.assertEqual(
            row,
            ["call", "3.52 (2.47)", "4.94 (1.50)", "0.71", "0.50", "<= 0.55", "178.00", "–", "138 / 1,227", "117 / 556"],
        )
        self.assertEqual(len(row), len(compare.closed_loop_head(["Crossbar", "bare"])))

    def test_what_was_not_measured_is_no_number(self):
        row = compare.closed_loop_row(WORK, {"Crosspoint": [], "NATS": []}, [])
        self.assertEqual(row, ["call", "– (–)", "– (–)", "–", "–", "<= 0.55", "– / –", "– / –"])
        self.assertEqual(len(row), len(compare.closed_loop_head([])))


class Sessions(unittest.TestCase):
    def test_each_router_has_its_cpu_time_and_its_memory(self):
        def outcome(cpu, memory):
            names = ["router_cpu_us_per_session", "router_bytes_per_session", "router_resident_bytes"]
            return [{"figures": dict(zip(names, (cpu, memory, 51_200_000)))}]

        measured = {"Crosspoint": outcome(30, 568), "NATS": outcome(120, 24462), "Crossbar": outcome(4300.04, 90000)}
        row = compare.sessions_row("a session", measured, ["Crossbar"])
        self.assertEqual(row, ["a session", "30.0", "120.0", "0.25", "<= 0.4", "4,300.0", "568", "24,462", "90,000", "51.2"])
        self.assertEqual(len(row), len(compare.sessions_head(["Crossbar"])))


class Crossbar(unittest.TestCase):
    def said(self, root):
        compare.ROOT = root
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(compare.crossbar_if_it_can_be_had(root, 19_000), [])
        return said.getvalue()

    def test_one_that_is_not_installed_and_cannot_be_is_said_with_the_reason(self):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            # No environment can be made where a file is in its way.
            (root / ".clients").write_text("")
            said = self.said(root)
        self.assertEqual(said.strip().count("\n"), 0, said)
        self.assertIn("!!! CROSSBAR IS NOT IN THESE TABLES", said)
        self.assertIn(".clients", said)

    def test_one_that_does_not_run_is_said_with_the_reason(self):
        with tempfile.TemporaryDirectory() as name:
            program = pathlib.Path(name) / ".clients" / "crossbar" / "bin" / "crossbar"
            program.parent.mkdir(parents=True)
            program.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
            program.chmod(0o755)
            said = self.said(pathlib.Path(name))
        self.assertIn("!!! CROSSBAR IS NOT IN THESE TABLES", said)
        self.assertIn("ended with 3: no such module", said)


if __name__ == "__main__":
    unittest.main()
