"""What loadtest/compare makes of outcomes, and that it says so when Crossbar cannot be had. Nothing is measured here."""

import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
PATH = pathlib.Path(__file__).resolve().parent.parent / "compare"
LOADER = importlib.machinery.SourceFileLoader("compare", str(PATH))
compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", LOADER))
LOADER.exec_module(compare)

WORK = compare.Work("call", ["rpc"], "call", 0.55, {"both on core 0": ["--on", "0"], "apart": ["--on", "0,1"]})


def outcomes(*figures):
    names = ["router_cpu_us_per_call", "router_system_us_per_call", "latency_p50_us", "latency_p99_us"]
    return [{"figures": dict(zip(names, each))} for each in figures]


class ClosedLoops(unittest.TestCase):
    def test_a_figure_is_the_mean_of_the_medians_of_the_placements(self):
        measured = {
            "Crosspoint": {
                "both on core 0": outcomes((2.0, 1.5, 100, 1000), (9.0, 1.4, 140, 1300), (2.2, 1.6, 110, 1100)),
                "apart": outcomes((4.0, 2.5, 200, 2000), (4.2, 2.4, 210, 2200), (3.8, 2.6, 190, 1900)),
            },
            "NATS": outcomes((5.0, 1.5, 117, 556), (5.2, 1.5, 117, 556), *[(5.0, 1.5, 117, 556)] * 4),
            "Crossbar": outcomes((178.0, 20.0, 5000, 9000)),
            "bare": [],
        }
        row = compare.closed_loop_row(WORK, measured, ["Crossbar", "bare"])
        expected = ["call", "3.10 (2.00)", "5.00 (1.50)", "0.62", "0.59–1.32", "0.40", "<= 0.55", "178.00", "–"]
        self.assertEqual(row, [*expected, "155 / 1,550", "117 / 556"])
        self.assertEqual(len(row), len(compare.closed_loop_head(["Crossbar", "bare"])))

    def test_what_was_not_measured_is_no_number(self):
        nothing = {"both on core 0": [], "apart": outcomes((2.0, 1.5, 100, 1000))}
        row = compare.closed_loop_row(WORK, {"Crosspoint": nothing, "NATS": []}, [])
        self.assertEqual(row, ["call", "– (–)", "– (–)", "–", "–", "–", "<= 0.55", "– / –", "– / –"])
        self.assertEqual(len(row), len(compare.closed_loop_head([])))

    def test_every_placement_has_its_own_line_and_what_each_core_did(self):
        names = ["router_cpu_us_per_call", "router_core0_us_per_call", "router_core1_us_per_call"]
        measured = [{"figures": dict(zip(names, each))} for each in [(2.0, 2.0, 0.0), (3.0, 2.9, 0.1), (2.5, 2.4, 0.1)]]
        rows = compare.placement_rows(WORK, {"both on core 0": measured, "apart": [None]})
        self.assertEqual(rows[1], ["  both on core 0", "2.50 (2.00–3.00)", "2.40", "0.10", "– / –"])
        self.assertEqual(rows[2], ["  apart", "–", "–", "–", "– / –"])
        self.assertEqual({len(row) for row in rows}, {len(compare.PLACEMENTS_HEAD)})

    def test_every_placement_is_measured_beside_every_other_router(self):
        asked = []

        def run(_loadtest, _command, options, _duration):
            asked.append(options)
            return {"figures": {}}

        own = argparse.Namespace(name="Crosspoint", options=["own"], rounds=None)
        nats = argparse.Namespace(name="NATS", options=["nats"], rounds=None)
        slow = argparse.Namespace(name="slow", options=["slow"], rounds=1)
        with unittest.mock.patch.object(compare, "run", run):
            found = compare.closed_loop(WORK, argparse.Namespace(rounds=3, duration=1), "", own, [nats, slow])
        self.assertEqual({name: len(each) for name, each in found["Crosspoint"].items()}, {"both on core 0": 3, "apart": 3})
        self.assertEqual((len(found["NATS"]), len(found["slow"])), (6, 1))
        self.assertEqual(asked.count(["own", "--on", "0"]), 3)
        self.assertEqual(asked.count(["own", "--on", "0,1"]), 3)


class Works(unittest.TestCase):
    def test_parties_are_as_often_on_the_same_core_as_on_another(self):
        for work in compare.WORKS[1:3]:
            same = [options[1] == options[3] for options in work.placements.values()]
            self.assertEqual(sorted(same), [False, False, True, True], work.name)


class Sessions(unittest.TestCase):
    def test_each_router_has_its_cpu_time_and_its_memory(self):
        def outcome(cpu, memory):
            names = ["router_cpu_us_per_session", "router_bytes_per_session", "router_resident_bytes"]
            return [{"figures": dict(zip(names, (cpu, memory, 51_200_000)))}]

        measured = {
            "Crosspoint": outcome(30, 568) + outcome(30, 560) + outcome(30, 600),
            "NATS": outcome(120, 24462),
            "Crossbar": outcome(4300.04, 90000),
        }
        row = compare.sessions_row("a session", measured, ["Crossbar"])
        expected = ["a session", "30.0", "120.0", "0.25", "<= 0.4", "4,300.0"]
        self.assertEqual(row, [*expected, "568 (560–600)", "24,462", "90,000", "51.2"])
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
