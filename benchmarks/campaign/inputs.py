"""Damaged inputs: made by seed, run through a command that reads them, and judged."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from campaign import base as base_inputs
from campaign.formats import FAMILIES, FORMATS, Command, Format
from campaign.oracles import says
from campaign.outputs import check_outputs
from campaign.runner import Observed, Task, command, fresh, run_all
from campaign.verdict import ACCEPTED, OUTCOMES, SENTENCE, Verdict, Whole, judge

COUNTED = {"photos": {"images"}}
"""The counts that must agree, where not all must: damaged pixels may show other objects."""


@dataclass(frozen=True)
class Case:
    """A damaged input, as it can be made again: everything else is sampled from these and the campaign's seed."""

    format: str
    kind: str
    number: int

    def entropy(self, seed: int) -> list[int]:
        """Returns the entropy that the case is sampled with."""
        return [seed, zlib.crc32(f"{self.format}/{self.kind}".encode()), self.number]


@dataclass(frozen=True)
class Finding:
    """The outcome of a case."""

    format: str
    kind: str
    number: int
    command: str
    outcome: str
    detail: str
    seconds: float


def cases_of(total: int, seed: int, only: Sequence[str] = (), *, quick: bool = False) -> list[Case]:
    """Returns cases of all formats in turn, of each all kinds of damage, in a random order.

    Args:
        total: how many.
        seed: of the order.
        only: the formats; none: all.
        quick: leave out formats that no quick command reads.
    """
    rng = np.random.default_rng([seed, 1])
    chosen = {name: form for name, form in FORMATS.items() if not only or name in only}
    if quick:
        chosen = {name: form for name, form in chosen.items() if any(line.is_quick for line in form.commands)}
    kinds = {
        name: [form.kinds[place] for place in rng.permutation(len(form.kinds))] for name, form in chosen.items()
    }
    rounds = range(max(map(len, kinds.values())))
    order = [(name, kinds[name][turn]) for turn in rounds for name in kinds if turn < len(kinds[name])]
    return [Case(*order[number % len(order)], number // len(order)) for number in range(total)]


class Campaign:
    """Makes damaged inputs in a folder, runs them, and judges the outcomes.

    Args:
        folder: for all that is made; gone when `close` is called.
        seed: of all that is drawn.
        workers: commands at once.
        quick: run quick commands only.
    """

    def __init__(self, folder: Path, seed: int, workers: int, *, quick: bool = False) -> None:
        self.folder, self.seed, self.workers, self.quick = folder, seed, workers, quick
        self.base = folder / "base"
        self.refused: dict[str, str] = {}
        self._whole: dict[tuple[str, str], Whole] = {}

    def prepare(self) -> None:
        """Makes the base, in a child, so that this process stays one that has computed nothing."""
        task = Task("base", self.folder / "making", lambda: base_inputs.make_base(self.base, quick=self.quick))
        for _, observed in run_all(iter([task]), 1):
            if observed.code:
                raise RuntimeError(f"the base can't be made: {observed.stderr[-2000:]}")
        for name, form in FORMATS.items():
            try:
                form.build(self.folder / "whole" / name, self.base)
            except FileNotFoundError as error:
                if self.quick:
                    continue
                self.refused[name] = f"not made: {error}"
                print(f"refused undamaged: {name}: {self.refused[name]}", flush=True)

    def run(self, cases: Sequence[Case]) -> Iterator[Finding]:
        """Runs the undamaged inputs through the commands of these cases, then the cases."""
        chosen = {case: self._choose(case) for case in cases}
        needed = sorted({(each.format, line.line) for each, (_, line) in chosen.items()})
        needed = [(name, line) for name, line in needed if name not in self.refused]
        tasks = (self._task(("whole", name, line), name, line) for name, line in needed)
        for task, observed in run_all(tasks, self.workers):
            _, name, line = task.key
            if (whole := self._judge_whole(task.folder, name, line, observed)) is not None:
                self._whole[name, line] = whole
            shutil.rmtree(task.folder)
        ready = [case for case in cases if (case.format, chosen[case][1].line) in self._whole]
        again = []
        for finding, case in self._run_damaged(ready, chosen):
            if finding.outcome == "hang":
                again.append(case)
            else:
                yield finding
        # A child that is forked while a thread of a library holds a lock waits for ever: what hangs hangs twice.
        yield from (finding for finding, _ in self._run_damaged(again, chosen))

    def _run_damaged(
        self, cases: Sequence[Case], chosen: Mapping[Case, tuple[str, Command]]
    ) -> Iterator[tuple[Finding, Case]]:
        for task, observed in run_all((self._damaged(case, *chosen[case]) for case in cases), self.workers):
            yield self._finding(task, observed, *chosen[task.key]), task.key
            shutil.rmtree(task.folder)

    def _choose(self, case: Case) -> tuple[str, Command]:
        """Chooses the file to damage and the command."""
        form, rng = FORMATS[case.format], np.random.default_rng(case.entropy(self.seed))
        victims = [name for name, family in form.victims.items() if case.kind in FAMILIES[family]]
        commands = [each for each in form.commands for _ in range(each.weight) if each.is_quick or not self.quick]
        return victims[int(rng.integers(len(victims)))], commands[int(rng.integers(len(commands)))]

    def _task(self, key: Any, name: str, line: str) -> Task:
        """Makes a copy of a whole input, and the command."""
        slug = zlib.crc32(repr(key).encode())
        folder = fresh(self.folder / "cases" / f"{slug:08x}")
        (folder / "out").mkdir()
        shutil.copytree(self.folder / "whole" / name, folder / "in", symlinks=True)
        places = {"{in}": folder / "in", "{out}": folder / "out", "{base}": self.base}
        arguments = line.split()
        for mark, place in places.items():
            arguments = [argument.replace(mark, str(place)) for argument in arguments]
        return Task(key, folder, command(arguments))

    def _damaged(self, case: Case, victim: str, line: Command) -> Task:
        task = self._task(case, case.format, line.line)
        shutil.copy(self.base / "photos" / "a.png", task.folder / "outside.png")
        files = sorted(path for path in (task.folder / "in").glob(victim) if path.is_file())
        rng = np.random.default_rng([*case.entropy(self.seed), 1])
        path = files[int(rng.integers(len(files)))]
        FAMILIES[FORMATS[case.format].victims[victim]][case.kind](path, rng)
        return task

    def _judge_whole(self, folder: Path, name: str, line: str, observed: Observed) -> Whole | None:
        """Returns the outcome of an undamaged input; None, with a note, if it was not accepted."""
        as_json = "--json" in line
        verdict = judge(observed, folder, {""}, None, None, as_json, None)
        if verdict.outcome != ACCEPTED:
            self.refused[f"{name}: {line}"] = f"{verdict.outcome}: {verdict.detail}"
            print(f"refused undamaged: {name}: {line}: {verdict.detail[:500]}", flush=True)
            return None
        said = frozenset(line.strip() for line in observed.stderr.splitlines())
        return Whole(check_outputs(folder / "out", observed.stdout, as_json), said)

    def _finding(self, task: Task, observed: Observed, victim: str, line: Command) -> Finding:
        case: Case = task.key
        form: Format = FORMATS[case.format]
        names = {Path(victim).name, Path(victim).parts[0], "/in/", str(task.folder / "in")}
        names.add(f"plan '{Path(victim).stem}'")
        whole = self._whole[case.format, line.line]
        said = says(form.layout, task.folder / "in") if line.counts else None
        if not line.counts:
            whole = Whole({}, whole.said)
        args = (names, whole, said, "--json" in line.line, COUNTED.get(form.layout))
        verdict: Verdict = judge(observed, task.folder, *args)
        detail = verdict.detail.replace(str(task.folder), "").replace(str(self.folder), "")
        return Finding(
            **asdict(case),
            command=line.line,
            outcome=verdict.outcome,
            detail=detail,
            seconds=round(observed.seconds, 2),
        )


def summarise(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns counts by format, by kind of damage and in total, and all failures."""

    def counts(group: Sequence[Finding]) -> dict[str, int]:
        found = Counter(each.outcome for each in group)
        return {"tried": len(group), **{name: found[name] for name in OUTCOMES if found[name]}}

    def by(name: str) -> Mapping[str, dict[str, int]]:
        values = dict.fromkeys(getattr(each, name) for each in findings)
        return {value: counts([each for each in findings if getattr(each, name) == value]) for value in values}

    total = Counter(each.outcome for each in findings)
    wrong = [each for each in findings if each.outcome not in (ACCEPTED, SENTENCE)]
    return {
        "total": {"tried": len(findings), **{name: total[name] for name in OUTCOMES}},
        "by_format": by("format"),
        "by_kind": by("kind"),
        "failures": [asdict(each) for each in wrong],
    }
