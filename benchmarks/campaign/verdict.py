"""Judges a case: its outcome is one of `OUTCOMES`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from campaign.oracles import Counts
from campaign.outputs import BadOutput, check_outputs
from campaign.runner import MOST_BYTES, Observed

ACCEPTED, SENTENCE = "accepted", "one_sentence_error"
OUTCOMES = (
    ACCEPTED,
    SENTENCE,
    "traceback",
    "hang",
    "memory",
    "partial_output",
    "silent_difference",
    "unclear_error",
)
"""`unclear_error`: an error in one sentence that is too long, is not the only one, or doesn't name the file."""

LONGEST = 500
MOST_NAMED = 10
"""Faults of one data set that a sentence may name, each with its file and place."""

OURS = (".ssdir-output", ".lock")
"""Hidden files that belong to an output: a folder's mark, and what keeps a run's folder to one training."""
_SHORT_OF_MEMORY = re.compile(r"MemoryError|can't allocate memory|bad_alloc|out of memory|Cannot allocate memory")


@dataclass(frozen=True)
class Whole:
    """The outcome of the undamaged input.

    Attributes:
        counts: what its output has.
        said: the lines that it printed on stderr.
    """

    counts: Counts
    said: frozenset[str]


@dataclass(frozen=True)
class Verdict:
    """An outcome, and the evidence for it."""

    outcome: str
    detail: str


def judge(
    observed: Observed,
    folder: Path,
    names: set[str],
    whole: Whole | None,
    says: Counts | None,
    as_json: bool,
    counted: set[str] | None,
) -> Verdict:
    """Returns the outcome of a case.

    Args:
        observed: how the command ended.
        folder: the case's, with `out` and `tmp`.
        names: of which an error must hold one.
        whole: what came of the undamaged input.
        says: what the damaged input says that it has.
        as_json: whether the command prints JSON.
        counted: which counts must agree; None for all.
    """
    if observed.timed_out:
        return Verdict("hang", f"ended after {observed.seconds:.0f} s; {_last(observed.stderr)}")
    short = observed.code and _SHORT_OF_MEMORY.search(observed.stderr)
    if observed.peak_bytes > MOST_BYTES or short:
        return Verdict("memory", f"{observed.peak_bytes / 2**30:.1f} GiB; {_last(observed.stderr)}")
    if "Traceback (most recent call last)" in observed.stderr or observed.code < 0:
        return Verdict("traceback", _traceback(observed))
    if (folder / "executed").exists():
        return Verdict("traceback", "a command in the input was executed")
    resumable = "go on with --resume" in observed.stderr  # Then a folder of a run is not an unfinished output.
    if leftovers := _leftovers(folder, failed=observed.code != 0 and not resumable):
        return Verdict("partial_output", f"exit {observed.code}, left: {', '.join(leftovers)[:300]}")
    if observed.code:
        return _judge_error(observed, folder, names)
    return _judge_success(observed, folder, whole, says, as_json, counted)


def _judge_error(observed: Observed, folder: Path, names: set[str]) -> Verdict:
    if observed.code == 1 and ("training stops at" in observed.stdout or _as_diagnosis(observed)):
        return Verdict(SENTENCE, "data check says what is wrong")
    text = " ".join(observed.stderr.split("\n"))
    number = len(re.findall(r"(?m)^error: ", observed.stderr))
    sentence = text[text.find("error: ") :].strip()
    if number != 1 or observed.code not in (1, 2):
        return Verdict("unclear_error", f"exit {observed.code}, {number} errors: {_last(observed.stderr)}")
    named = MOST_NAMED if re.search(r": [\d,]+ faults: ", sentence) else 1
    if len(sentence.replace(str(folder), "")) > LONGEST * named:
        return Verdict("unclear_error", f"{len(sentence)} characters: {sentence[:300]} …")
    if not any(name in sentence for name in names):
        return Verdict("unclear_error", f"names no file: {sentence}")
    return Verdict(SENTENCE, sentence)


def _as_diagnosis(observed: Observed) -> bool:
    """Says whether `data check --json` reports that training would stop."""
    return observed.code == 1 and observed.stdout.startswith("{") and '"problems"' in observed.stdout


def _judge_success(
    observed: Observed,
    folder: Path,
    whole: Whole | None,
    says: Counts | None,
    as_json: bool,
    counted: set[str] | None,
) -> Verdict:
    try:
        counts = check_outputs(folder / "out", observed.stdout, as_json)
    except BadOutput as error:
        return Verdict("silent_difference", str(error))
    said = frozenset(_lines(observed.stderr))
    if whole is None or said - whole.said:
        return Verdict(ACCEPTED, "with a warning" if whole else "whole")
    for key, value in whole.counts.items():
        if counted is not None and key not in counted:
            continue
        now = counts.get(key)
        if now != value and now != (says or {}).get(key, value):
            told = "nothing readable" if says is None else (says or {}).get(key)
            return Verdict("silent_difference", f"{key}: {now} instead of {value}; the input says {told}")
    return Verdict(ACCEPTED, "as the whole input" if counts == whole.counts else "as the input says")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip() and "it/s" not in line]


def _leftovers(folder: Path, failed: bool) -> list[str]:
    """Returns files that should not be there."""
    temporary = [f"tmp/{path.name}" for path in (folder / "tmp").iterdir()]
    hidden = [path.name for path in (folder / "out").rglob(".*") if path.name not in OURS]
    outputs = [path.name for path in (folder / "out").iterdir()] if failed else []
    return [*temporary, *hidden, *outputs]


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "nothing was said"


def _traceback(observed: Observed) -> str:
    if observed.code < 0:
        return f"ended by signal {-observed.code}; {_last(observed.stderr)}"
    places = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', observed.stderr)
    own = [
        f"{path.split('/src/')[-1]}:{line} {name}"
        for path, line, name in places
        if f"{os.sep}ssdir{os.sep}" in path
    ]
    return f"{own[-1] if own else '?'}: {_last(observed.stderr)}"
