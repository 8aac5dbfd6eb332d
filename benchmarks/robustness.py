"""Runs ssdir on damaged inputs and under adverse conditions, and counts violations of its robustness promise.

At least 500 damaged inputs of all formats that ssdir reads, each run through a command that reads it within limits
of time and memory; at least 50 kills of commands that write; full disks, two
commands at once, many clients, many images. The promise, and how to read the result, are in docs/robustness.md.

Run: python benchmarks/robustness.py --out results/robustness.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from campaign.clients import try_clients
from campaign.inputs import Campaign, Case, Finding, cases_of, summarise
from campaign.kills import Killer
from campaign.kills import summarise as summarise_kills
from campaign.places import Trial, can_mount, memory_of_many, try_disks, try_two_at_once
from campaign.runner import warm_up
from campaign.verdict import ACCEPTED, OUTCOMES, SENTENCE

from ssdir.documents import json_text
from ssdir.evaluation.provenance import provenance
from ssdir.outputs import atomic_file

PARTS = ("inputs", "kills", "disks", "two", "clients", "memory")


def try_inputs(campaign: Campaign, cases: Sequence[Case], *, show_all: bool) -> dict[str, Any]:
    """Runs damaged inputs; prints each failure when it occurs."""
    findings: list[Finding] = []
    for finding in campaign.run(cases):
        findings.append(finding)
        if not len(findings) % 100:
            print(f"{len(findings)} of {len(cases)} inputs", flush=True)
        if show_all or finding.outcome not in (ACCEPTED, SENTENCE):
            print(f"{finding.outcome}: {finding.format}/{finding.kind}/{finding.number}: {finding.command}")
            print(f"    {finding.detail}", flush=True)
    return {**summarise(findings), "refused_undamaged": campaign.refused}


def try_kills(campaign: Campaign, total: int) -> dict[str, Any]:
    """Kills commands while they write."""
    killer = Killer(campaign.folder / "kills", campaign.base, campaign.seed, campaign.workers)
    kills = []
    for kill in killer.run(total):
        kills.append(kill)
        print(
            f"kill {kill.number}: {kill.command}, {kill.signal} at {kill.share}: {kill.outcome} {kill.detail}",
            flush=True,
        )
    return summarise_kills(kills)


def try_places(trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns counts of trials, and each failure."""
    outcomes = Counter(trial.outcome for trial in trials)
    failures = [vars(trial) for trial in trials if trial.outcome not in (ACCEPTED, SENTENCE)]
    for failure in failures:
        print(failure, flush=True)
    return {"tried": len(trials), **{name: outcomes[name] for name in OUTCOMES}, "failures": failures}


def run(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields name and results of each requested part when it has ended."""
    campaign = Campaign(scratch, arguments.seed, arguments.workers, quick=arguments.quick)
    campaign.prepare()
    cases = cases_of(arguments.inputs, arguments.seed, arguments.only, quick=arguments.quick)
    if arguments.case:
        name, kind, number = arguments.case.rsplit("/", 2)
        cases = [Case(name, kind, int(number))]
    if "inputs" in arguments.parts:
        yield "inputs", try_inputs(campaign, cases, show_all=arguments.list)
    if "kills" in arguments.parts:
        yield "kills", try_kills(campaign, arguments.kills)
    if "disks" in arguments.parts:
        reason = can_mount(scratch)
        trials = [] if reason else list(try_disks(scratch, campaign.base, arguments.workers))
        yield "disks", {"skipped": reason} if reason else try_places(trials)
    if "two" in arguments.parts:
        yield "two_at_once", try_places(list(try_two_at_once(scratch, campaign.base)))
    if "clients" in arguments.parts:
        yield "studio", try_clients(scratch)
    if "memory" in arguments.parts:
        yield "memory", memory_of_many(scratch, campaign.base)


def save(result: dict[str, Any], arguments: argparse.Namespace, seconds: float) -> None:
    """Writes the parts so far."""
    config = {name: getattr(arguments, name) for name in ("inputs", "kills", "workers")}
    record = provenance({**config, "parts": list(result)}, arguments.seed, None, "cpu", seconds)
    with atomic_file(arguments.out, force=True) as temporary:
        temporary.write_text(json_text({**result, "provenance": record}, 1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file to write, replaced if it exists")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=640)
    parser.add_argument("--kills", type=int, default=56)
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="FORMAT", help="formats of inputs; by default all"
    )
    parser.add_argument("--case", help="one input, such as 'COCO/cut/0'")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", action="store_true", help="keep the other parts of the file that is there")
    parser.add_argument("--workers", type=int, default=2, help="commands at once")
    parser.add_argument("--quick", action="store_true", help="only what is quick: no training, no export")
    parser.add_argument("--list", action="store_true", help="print the outcome of every input")
    arguments = parser.parse_args()
    if arguments.only or arguments.case:
        arguments.parts = ("inputs",)
    started = time.perf_counter()
    warm_up()
    result: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.keep else {}
    result.pop("provenance", None)
    with tempfile.TemporaryDirectory(prefix="ssdir-robustness-", ignore_cleanup_errors=True) as scratch:
        for name, part in run(arguments, Path(scratch)):
            result[name] = part
            if arguments.out:
                save(result, arguments, time.perf_counter() - started)
            short = part.get("total", {key: value for key, value in part.items() if key != "failures"})
            print(f"{name}: {json.dumps(short)}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
