"""The report of a data check: lines for the screen, at most 80 columns where names allow, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from ssdir.data.learnable import Problem
from ssdir.data_check.anchors import DetectorFit, LevelMatches
from ssdir.data_check.annotations import SIZE_NAMES, Summary
from ssdir.data_check.check import DataCheck
from ssdir.data_check.image_grid import draw_image_grid
from ssdir.data_check.recommendation import Recommendation
from ssdir.data_check.size_priors import GridPrior, PriorFit
from ssdir.documents import json_text
from ssdir.formatting import counted, format_seconds
from ssdir.models.detector.ssd import MATCH_IOU
from ssdir.outputs import atomic_dir

CHECK_FILE, RECOMMENDED_FILE, IMAGE_GRID_FILE = "check.json", "recommended.yaml", "image-grid.png"

MAX_CLASSES = 7
_BAR, _NAME, _LINE = 8, 12, 64


def report_json(check: DataCheck, recommendation: Recommendation) -> str:
    """Formats everything but the annotations."""
    return json_text({**check.as_json(), "recommendation": recommendation.as_json()})


def write_report(check: DataCheck, recommendation: Recommendation, out: Path, force: bool = False) -> None:
    """Writes `check.json`, `recommended.yaml` and `image-grid.png` into a folder, all or nothing."""
    with atomic_dir(out, force) as folder:
        (folder / CHECK_FILE).write_text(report_json(check, recommendation), encoding="utf-8")
        (folder / RECOMMENDED_FILE).write_text(recommendation.yaml, encoding="utf-8")
        classes = [name for name, count in check.summary.classes.items() if count]
        grid = draw_image_grid(check.tables, check.split, classes, check.image_size, check.resize)
        Image.fromarray(grid).save(folder / IMAGE_GRID_FILE)


def screen_lines(check: DataCheck, recommendation: Recommendation | None = None) -> list[str]:
    """Formats the result of a check, and the time of the recommended training, with the verdict last."""
    blocks = [
        _overview(check),
        *([_splits(check.summaries)] if len(check.summaries) > 1 else []),
        _histograms(check.summary),
        _priors(check.priors) if check.detector is None else _anchors(check, check.detector),
        _problems(check.problems),
        *([] if recommendation is None or recommendation.time is None else [_time(recommendation)]),
        [_verdict(check)],
    ]
    return [line for block in blocks for line in (*block, "")][:-1]


def _overview(check: DataCheck) -> list[str]:
    summary = check.summary
    (commonest, count), *others = summary.image_sizes.items()
    sizes = commonest if not others else f"{len(others) + 1} sizes, most often {commonest} ({count})"
    per_image = summary.per_image
    counts = ", ".join(f"{per_image[key]:.3g} {key}" for key in ("min", "median", "mean", "max"))
    passed = [
        f"{what}: {number:,}"
        for number, what in (
            (summary.empty_images, "images without objects"),
            (summary.dropped, "boxes left out"),
            (summary.ignored, "ignored (crowds, hidden objects)"),
        )
        if number
    ]
    over = summary.overlapping
    clips, parts = list[str](), "images"
    if summary.clips:
        frames, tracks = f"{summary.images / summary.clips:.4g}", counted(summary.tracks, "track")
        clips, parts = [f"clips      {summary.clips:,}, {frames} frames each in the mean; {tracks}"], "clips"
    return [
        f"{check.root}, split {check.split}: {check.layout} layout",
        f"images     {summary.images:,}, {sizes} px",
        f"objects    {summary.objects:,}; per image {counts}",
        *([f"           {'; '.join(passed)}"] if passed else []),
        *clips,
        *([f"validation no split val: training holds out a tenth of the {parts}"] if check.held_out else []),
        f"overlap    {over['0.3']:.1%} of objects overlap another by IoU > 0.3, {over['0.5']:.1%} by > 0.5",
    ]


def _splits(summaries: Mapping[str, Summary]) -> list[str]:
    """Formats a row per split; the rest of the screen, apart from problems, is about the one to learn from."""
    rows = [["all splits", "", "images", "objects", "per image", "without", "left out", "ignored"]]
    for split, summary in summaries.items():
        mean = f"{summary.per_image['mean']:.3g}"
        counts = (summary.images, summary.objects, summary.empty_images, summary.dropped, summary.ignored)
        images, objects, *rest = (f"{count:,}" for count in counts)
        rows.append([split, "", images, objects, mean, *rest])
    return _aligned(rows)


def _histograms(summary: Summary) -> list[str]:
    """Formats histograms of classes, sizes and proportions side by side."""
    classes = dict(list(summary.classes.items())[:MAX_CLASSES])
    left = _bars(f"classes ({len(summary.classes)})", classes)
    rest = list(summary.classes.values())[MAX_CLASSES:]
    if rest:
        left.append(f"and {len(rest)} more: {sum(rest):,}")
    columns = [left, _bars("longer side", summary.sizes), _bars("width : height", summary.aspects)]
    widths = [max(map(len, column)) for column in columns]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip_longest(*columns, fillvalue="")
    ]


def _bars(title: str, counts: Mapping[str, int]) -> list[str]:
    most, number = max(counts.values(), default=0), max((len(f"{n:,}") for n in counts.values()), default=1)
    names = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in counts]
    width = max(map(len, names), default=0)
    return [
        title,
        *(
            f"{name:<{width}} {n:>{number},} {_bar(n, most)}".rstrip()
            for name, n in zip(names, counts.values(), strict=True)
        ),
    ]


def _bar(count: int, most: int) -> str:
    """Returns a bar, at least one character long unless the count is 0."""
    return "█" * max(int(count > 0), round(_BAR * count / max(most, 1)))


def _anchors(check: DataCheck, fit: DetectorFit) -> list[str]:
    """Formats a row per level of the preset's detector, then the recommended one as a whole."""
    now, better = fit.current, fit.recommended
    title = f"boxes that an anchor matches (IoU >= {MATCH_IOU:g}), by longer side"
    rows = [["", "anchors", "all", *SIZE_NAMES]]
    rows += [[level.name, _sides(level), *_shares(level)] for level in now.levels]
    rows.append([f"{check.preset}, {now.image_size} px", "", *_shares(now.together)])
    rows.append([f"recommended, {better.image_size} px", "", *_shares(better.together)])
    return [title, *_aligned(rows), *_changes(check, fit)]


def _changes(check: DataCheck, fit: DetectorFit) -> list[str]:
    now, better, lines = fit.current, fit.recommended, []
    if better.image_size != now.image_size:
        factor = (better.image_size / now.image_size) ** 2
        lines.append(
            f"image_size {now.image_size} -> {better.image_size}: {factor:.3g} times the pixels, and time"
        )
    if fit.full_size > better.image_size:
        lines.append(f"           at {fit.full_size:,} px, 90 % of the objects would have 8 px to each side")
    sizes = ", ".join("/".join(f"{side:.0f}" for side in level.sizes) for level in better.levels)
    ratios = ", ".join(f"{ratio:g}" for ratio in better.anchors.aspect_ratios)
    lines.append(f"anchors    {sizes} px" + f"; width : height {ratios}" * bool(ratios))
    if fit.nms:
        cost = check.summary.nms_cost
        thresholds = f"{now.nms_threshold:g} -> {better.nms_threshold:g}"
        lines.append(f"NMS        {thresholds}: suppresses {cost:.1%} of the true objects")
    return lines


def _priors(fits: Mapping[str, PriorFit]) -> list[str]:
    """Formats two rows per preset: its own prior and grid, and the recommended ones."""
    title = "size priors of models that learn without boxes, in their recipes' units; shares of objects"
    rows = [["", "window", "mean", "std", "anchor", "too large", "cells", "cell taken"]]
    for preset, fit in fits.items():
        rows.append([f"{preset}, {fit.current.image_size} px", *_prior(fit.current)])
        rows.append(["recommended", *_prior(fit.recommended)])
    return [title, *_aligned(rows)]


def _prior(prior: GridPrior) -> list[str]:
    return [
        f"{prior.window:.1f} px",
        f"{prior.size_loc:.2f}",
        f"{prior.size_scale:.2f}",
        "-" if prior.anchor is None else f"{prior.anchor:g} px",
        f"{prior.too_large:.1%}",
        f"{prior.cells}x{prior.cells}",
        f"{prior.shared:.1%}",
    ]


def _sides(level: LevelMatches) -> str:
    return f"{'/'.join(f'{side:.0f}' for side in level.sizes)} px, {level.cells}x{level.cells}"


def _shares(level: LevelMatches) -> list[str]:
    shares = (level.share, *level.by_size.values())
    return ["-" if share is None else f"{share:.0%}" for share in shares]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _problems(problems: Sequence[Problem]) -> list[str]:
    lines = []
    for problem in problems:
        mark = "error" if problem.stops else "note"
        lines.append(f"{mark}: {problem.sentence}: {len(problem.names):,}")
        lines.append(f"    {_examples(problem.names)}")
    return lines or ["nothing broken, nothing suspicious"]


def _time(recommendation: Recommendation) -> list[str]:
    """Formats how long the recommended training takes, and what that assumes."""
    time, recipe = recommendation.time, recommendation.recipe
    assert time is not None
    threads = counted(time.threads, "thread")
    lines = [f"training   {format_seconds(time.seconds(recipe))} on {time.device}, {threads}"]
    for stage in time.stages:
        epochs = counted(getattr(recipe, stage).epochs, "epoch")
        repeated = f" ({epochs})" if time.stages[stage].epoch else ""
        lines.append(f"           {stage} {format_seconds(time.of_stage(stage, recipe))}{repeated}")
    lines.append("           estimated from a few steps, for a machine as busy as now, all objects detected")
    lines.append("           and no early stop; downloads of weights are not included")
    minutes = recommendation.minutes
    if minutes is not None and time.seconds(recipe) > 1.05 * 60 * minutes:
        lines.append(f"           this exceeds --minutes {minutes:g}, since fewer epochs would train too little")
    return lines


def _examples(names: Sequence[str]) -> str:
    """Lists as many names as fit in a line, at least one."""
    shown = list(names[:1])
    for name in names[1:]:
        if len("; ".join([*shown, name])) > _LINE:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return "; ".join(shown) + f" and {rest:,} more" * bool(rest)


def _verdict(check: DataCheck) -> str:
    stops = [problem for problem in check.problems if problem.stops]
    if stops:
        reasons = "; ".join(f"{problem.sentence} ({len(problem.names):,})" for problem in stops)
        what = "training or measuring" if len(check.summaries) > 1 else "training"
        return f"{what} on this would stop: {reasons}"
    preset = check.preset
    if check.detector is None:
        return f"ready to train{_advice_on_prior(check.priors[preset], preset)}"
    return f"ready to train{_advice_on_anchors(check.detector, preset)}"


def _advice_on_anchors(fit: DetectorFit, preset: str) -> str:
    share, better = fit.current.together.share, fit.recommended.together.share
    if better - share > 0.05:
        return f", but {preset}'s anchors match {share:.0%} of the boxes; the recommended ones {better:.0%}"
    return f": the anchors of {preset} match {share:.0%} of the boxes"


def _advice_on_prior(fit: PriorFit, preset: str) -> str:
    now, better = fit.current, fit.recommended
    reasons = []
    if abs(better.window / now.window - 1) > 0.15:
        reasons.append(f"windows should be {better.window:.1f} px instead of {now.window:.1f} px")
    if now.shared - better.shared > 0.05:
        reasons.append(f"{now.shared:.0%} find their cell taken (recommended: {better.shared:.0%})")
    if reasons:
        return f", but {'; '.join(reasons)}"
    return f": {preset}'s windows of {now.window:.1f} px and its {now.cells}x{now.cells} cells suit the objects"
