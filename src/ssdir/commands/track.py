"""`ssdir track`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, BatchSize, Device, Force, ModelOrExport
from ssdir.console import next_step, print_json, progress, say
from ssdir.errors import InputError

GIVEN_BOXES = "Boxes of another detector"


def track(
    model: ModelOrExport,
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP", help="Video, folder of frames, MOTChallenge sequence, 'pattern*' or list of images."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Table to write (.parquet): a row per object, with its track.")
    ] = None,
    mot: Annotated[Path | None, typer.Option(help="Text file to write, in MOTChallenge's format.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Video to write (.mp4): the frames with boxes and tracks.")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Minimum score of an object that starts a track; by default in the middle between the model's "
            "threshold and 1: for photos, whose threshold is 0.3, at 0.65.",
        ),
    ] = None,
    motion_only: Annotated[
        bool, typer.Option("--motion-only", help="Associate by motion alone, without embeddings.")
    ] = False,
    max_gap: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of frames that an object may be unseen and keep its track; by default 30."
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Boxes to track instead of detecting any: MOTChallenge's .txt, COCO's .json, .csv or .parquet.",
            rich_help_panel=GIVEN_BOXES,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO annotations that name the frames, if --boxes is a file of COCO results.",
            rich_help_panel=GIVEN_BOXES,
        ),
    ] = None,
    box_unit: Annotated[
        Literal["pixels", "relative"],
        typer.Option(help="Unit of the boxes of a .csv or .parquet table.", rich_help_panel=GIVEN_BOXES),
    ] = "pixels",
    batch_size: BatchSize = 16,
    device: Device = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Detect and embed the objects of a clip, and follow each through its frames.

    Write any of --out, --mot and --video. Memory doesn't grow with the length of the clip. With --boxes, the boxes
    of your own detector are tracked instead.
    """
    if boxes is None and (annotations is not None or box_unit != "pixels"):
        raise InputError("--annotations and --box-unit describe a file of boxes: give it by --boxes")
    from ssdir.encoding.options import BoxFile
    from ssdir.tracking.options import TrackOptions
    from ssdir.tracking.output import TrackFiles
    from ssdir.tracking.track import track_clip

    started = time.perf_counter()
    chosen = {} if max_gap is None else {"max_gap": max_gap}
    options = TrackOptions(appearance=not motion_only, score_threshold=score_threshold, **chosen)
    given = None if boxes is None else BoxFile(boxes, annotations, box_unit)
    files = TrackFiles(out, mot, video, force)
    with progress("tracking") as advance:
        tracked = track_clip(
            model, clip, files, options, boxes=given, batch_size=batch_size, device=device, on_progress=advance
        )
    seconds = time.perf_counter() - started
    written = [path for path in (out, mot, video) if path is not None]
    if as_json:
        print_json({**asdict(tracked), "seconds": round(seconds, 2), "out": out, "mot": mot, "video": video})
        return
    say(f"{tracked.summary()}, {seconds:.1f} s: {', '.join(map(str, written))}")
    if tracked.tracks and out is not None:
        next_step("index", out, "--out", "index")
