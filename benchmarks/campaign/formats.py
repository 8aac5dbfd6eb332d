"""Every format that ssdir reads: a whole input of it, which of its files may be damaged, and what reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from campaign import headers, models, samples, tables
from campaign.damage import BYTES, LINES, XML, Damage
from campaign.documents import JSON, YAML

Build = Callable[[Path, Path], None]
"""Writes the whole input into a folder; receives the folder of `base.make_base`, too."""

FAMILIES: Mapping[str, Mapping[str, Damage]] = {
    "bytes": BYTES,
    "json": JSON,
    "yaml": YAML,
    "lines": LINES,
    "xml": XML,
    "png": headers.PNG,
    "jpeg": headers.JPEG,
    "tiff": headers.TIFF,
    "gif": headers.GIF,
    "bmp": headers.BMP,
    "webp": headers.WEBP,
    "idx": headers.IDX,
    "records": headers.RECORDS,
    "parquet": tables.PARQUET,
    "safetensors": models.SAFETENSORS,
    "onnx": models.ONNX,
    "checkpoint": models.CHECKPOINT,
}


@dataclass(frozen=True)
class Command:
    """A call of ssdir; `{in}`, `{out}` and `{base}` stand for folders.

    Attributes:
        line: the arguments, by blanks.
        weight: how often it is chosen, relative to the format's other commands.
        counts: whether its output has to say how many images and objects there are.
    """

    line: str
    weight: int = 1
    counts: bool = True

    @property
    def is_quick(self) -> bool:
        """Says whether the command neither trains, nor needs what takes long to make."""
        slow = ("train", "evaluate", "bench", "reproduce depth", "studio", "data check {in} --out")
        needs = ("model.onnx", "scene.parquet", "{in}/run")
        return not self.line.startswith(slow) and not any(each in self.line for each in needs)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        build: writes a whole input.
        victims: a pattern of its files that may be damaged, and the family of damage, by `FAMILIES`.
        commands: what reads it.
        layout: what the naive reader in `campaign.oracles` takes it for.
    """

    build: Build
    victims: Mapping[str, str]
    commands: tuple[Command, ...]
    layout: str = ""

    @property
    def kinds(self) -> list[str]:
        """Returns the kinds of damage that fit the format."""
        return list(dict.fromkeys(kind for family in self.victims.values() for kind in FAMILIES[family]))


def _only(build: Callable[[Path], None]) -> Build:
    return lambda root, base: build(root)


def _copied(*names: str) -> Build:
    """Copies files of `make_base`."""

    def build(root: Path, base: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = base / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)

    return build


PICTURES = (
    Command("encode {base}/model {in}/photos --out {out}/o.parquet", 3),
    Command("encode {base}/model {in}/photos --strict --out {out}/o.parquet", counts=False),
    Command("reconstruct {base}/model {in}/photos --out {out}/s.png", counts=False),
    Command("search {base}/index {in}/photos/b.{suffix} --json", counts=False),
)


def _pictures(suffix: str, family: str, wide: bool = False) -> Format:
    commands = tuple(
        Command(command.line.replace("{suffix}", suffix), command.weight, command.counts) for command in PICTURES
    )

    def build(root: Path, base: Path) -> None:
        samples.photos(root / "photos", f".{suffix}", wide)

    return Format(build, {f"photos/b.{suffix}": family}, commands, "photos")


DATA_SET = (
    Command("data convert {in} --to coco --out {out}/o", 5),
    Command("data convert {in} --to voc --out {out}/o", counts=False),
    Command("data convert {in} --to yolo --out {out}/o", counts=False),
    Command("data check {in} --json", 2, counts=False),
    Command("data check {in} --out {out}/check", counts=False),
    Command(
        "train {base}/recipe.yaml detector.epochs=1 representation.epochs=1 --data {in} --out {out}/run",
        counts=False,
    ),
)


def _data_set(build: Callable[[Path], None], victims: Mapping[str, str], layout: str) -> Format:
    measured = Command("evaluate {base}/agnostic {in} --split train --train-split none --json", counts=False)
    return Format(_only(build), victims, (*DATA_SET, measured), layout)


STORED = (
    Command("convert {in}/{file} --to csv --out {out}/o.csv", 2),
    Command("convert {in}/{file} --to coco --out {out}/o.json", 2),
    Command("convert {in}/{file} --to npz --out {out}/o.npz", counts=False),
    Command("convert {in}/{file} --to fiftyone --out {out}/o.json", counts=False),
    Command("cluster {in}/{file} -k 2 --out {out}/o.csv --image-grid {out}/s.png"),
    Command("outliers {in}/{file} --embeddings-only --out {out}/o.json", counts=False),
    Command("outliers {in}/{file} --model {base}/model --out {out}/o.parquet", counts=False),
    Command("index {in}/{file} --out {out}/index", counts=False),
    Command("classify fit {in}/{file} --column class --out {out}/c.json", counts=False),
    Command("classify predict {base}/classifier.json {in}/{file} --out {out}/o.csv"),
    Command("encode {base}/model {base}/photos --boxes {in}/{file} --out {out}/o.parquet", counts=False),
    Command("studio {base}/model --objects {in}/{file} --no-browser --port 0", counts=False),
)


def _stored(file: str, build: Build) -> Format:
    commands = tuple(Command(each.line.replace("{file}", file), each.weight, each.counts) for each in STORED)
    return Format(build, {file: "parquet"}, commands, "objects")


def _encode_boxes(arguments: str) -> Command:
    return Command(f"encode {{base}}/model {{in}}/photos --boxes {{in}}/{arguments} --out {{out}}/o.parquet")


RESUME = "train {base}/recipe.yaml --data {base}/coco --out {in}/run --resume"

FORMATS: dict[str, Format] = {
    "PNG": _pictures("png", "png"),
    "PNG of 16 bits": _pictures("png", "png", wide=True),
    "JPEG": _pictures("jpg", "jpeg"),
    "TIFF": _pictures("tif", "tiff"),
    "TIFF of 16 bits": _pictures("tif", "tiff", wide=True),
    "GIF": _pictures("gif", "gif"),
    "WebP": _pictures("webp", "webp"),
    "BMP": _pictures("bmp", "bmp"),
    "COCO": _data_set(samples.coco, {"annotations/instances_train.json": "json"}, "coco"),
    "COCO, one file": _data_set(samples.coco_single, {"result.json": "json"}, "coco"),
    "COCO beside pictures": _data_set(samples.coco_beside, {"train/_annotations.coco.json": "json"}, "coco"),
    "YOLO": _data_set(samples.yolo, {"labels/train/a.txt": "lines", "data.yaml": "yaml"}, "yolo"),
    "Darknet": _data_set(
        samples.darknet,
        {"obj_train_data/a.txt": "lines", "obj.data": "lines", "obj.names": "lines", "train.txt": "lines"},
        "darknet",
    ),
    "Pascal VOC": _data_set(
        samples.voc,
        {"Annotations/a.xml": "xml", "ImageSets/Main/train.txt": "lines", "classes.txt": "lines"},
        "voc",
    ),
    "WIDER FACE": _data_set(
        samples.widerface, {"wider_face_split/wider_face_train_bbx_gt.txt": "lines"}, "widerface"
    ),
    "CLEVR": _data_set(samples.clevr, {"scenes/CLEVR_train_scenes.json": "json"}, "clevr"),
    "CLEVRTEX": _data_set(
        samples.clevrtex,
        {
            "clevrtex_full/0/CLEVRTEX_full_000004.json": "json",
            "clevrtex_full/0/CLEVRTEX_full_000004_flat.png": "png",
        },
        "clevrtex",
    ),
    "index masks": _data_set(
        samples.mask_folder, {"objects/train.jsonl": "json", "masks/train/b.png": "png"}, "masks"
    ),
    "TFRecord": Format(
        _only(samples.records),
        {"tetrominoes_train.tfrecords": "records"},
        (Command("data unpack {in}/tetrominoes_train.tfrecords --out {out}/o --train 2 --val 1 --test 1"),),
        "records",
    ),
    "MNIST": Format(
        _only(samples.mnist),
        {"train-images-idx3-ubyte.gz": "idx", "t10k-labels-idx1-ubyte.gz": "idx"},
        (
            Command(
                "data scatter --source mnist --root {in} --canvas 64 --grids 2 --train 4 --val 2 --test 2 "
                "--out {out}/o"
            ),
        ),
        "scattered",
    ),
    "cut-outs": Format(
        _only(samples.glyphs),
        {"a/3.png": "png"},
        (Command("data scatter --source {in} --canvas 64 --grids 2 --train 4 --val 2 --test 2 --out {out}/o"),),
        "scattered",
    ),
    "boxes as CSV": Format(
        _only(samples.box_tables), {"boxes.csv": "lines"}, (_encode_boxes("boxes.csv"),), "boxes.csv"
    ),
    "boxes as Parquet": Format(
        _only(samples.box_tables), {"boxes.parquet": "parquet"}, (_encode_boxes("boxes.parquet"),), "boxes.parquet"
    ),
    "boxes as COCO": Format(
        _only(samples.box_tables), {"boxes.json": "json"}, (_encode_boxes("boxes.json"),), "boxes.json"
    ),
    "results of COCO": Format(
        _only(samples.box_tables),
        {"results.json": "json", "annotations.json": "json"},
        (
            _encode_boxes("results.json --annotations {in}/annotations.json"),
            Command(
                "convert {base}/objects.parquet --to coco --annotations {in}/annotations.json --out {out}/o.json"
            ),
        ),
        "results.json",
    ),
    "objects": _stored("objects.parquet", _copied("objects.parquet")),
    "scene of the studio": _stored("scene.parquet", _copied("scene.parquet")),
    "index": Format(
        _copied("index"),
        {"index/ssdir.json": "json", "index/objects.lance/**/*": "bytes"},
        (
            Command("search {in}/index --row 0 -k 3 --json", 2),
            Command("search {in}/index {base}/photos/a.png#0 -k 3 --json"),
            Command("search {in}/index --row 1 --image-grid {out}/s.png", counts=False),
        ),
    ),
    "classifier": Format(
        _copied("classifier.json"),
        {"classifier.json": "json"},
        (Command("classify predict {in}/classifier.json {base}/objects.parquet --out {out}/o.csv"),),
    ),
    "labels": Format(
        _copied("labels.csv"),
        {"labels.csv": "lines"},
        (Command("classify fit {base}/objects.parquet --labels {in}/labels.csv --out {out}/c.json --json"),),
    ),
    "model": Format(
        _copied("model"),
        {"model/config.json": "json", "model/model.safetensors": "safetensors"},
        (
            Command("encode {in}/model {base}/photos --out {out}/o.parquet", 4, counts=False),
            Command("reconstruct {in}/model {base}/photos/a.png --out {out}/s.png", counts=False),
            Command("evaluate {in}/model {base}/coco --train-split none --json", counts=False),
            Command("outliers {base}/objects.parquet --model {in}/model --out {out}/o.csv", counts=False),
            Command("studio {in}/model --no-browser --port 0", counts=False),
        ),
    ),
    "exported model": Format(
        _copied("model.onnx"),
        {"model.onnx": "onnx"},
        (
            Command("encode {in}/model.onnx {base}/photos --out {out}/o.parquet", 3, counts=False),
            Command("evaluate {in}/model.onnx {base}/coco --train-split none --json", counts=False),
        ),
    ),
    "recipe": Format(
        _copied("recipe.yaml"),
        {"recipe.yaml": "yaml"},
        (
            Command(
                "train {in}/recipe.yaml detector.epochs=1 representation.epochs=1 --data {base}/coco "
                "--out {out}/run",
                counts=False,
            ),
        ),
    ),
    "plan": Format(
        lambda root, base: (root.mkdir(parents=True), shutil.copy(_plan(), root / "plan.yaml"))[0],
        {"plan.yaml": "yaml"},
        (Command("reproduce all --scale {in}/plan.yaml --runs {out}/runs --dry-run --json", counts=False),),
    ),
    "run": Format(
        _copied("run"),
        {
            "run/recipe.yaml": "yaml",
            "run/data.json": "json",
            "run/detector/summary.json": "json",
            "run/representation/summary.json": "json",
            "run/representation/checkpoints/last.ckpt": "checkpoint",
        },
        (
            Command(RESUME, 3, counts=False),
            Command("encode {in}/run/detector {base}/photos --out {out}/o.parquet", counts=False),
            Command("evaluate {in}/run/detector/model {base}/coco --train-split none --json", counts=False),
        ),
    ),
    "results": Format(
        _copied("results", "runs"),
        {"results/plan/depth.json": "json", "runs/plan/*/evaluation/*.json": "json"},
        (
            Command(
                "reproduce depth --scale {base}/plan.yaml --so-far --out {in}/results --runs {in}/runs",
                counts=False,
            ),
            Command(
                "reproduce depth --scale {base}/plan.yaml --so-far --out {in}/results --runs {in}/more",
                counts=False,
            ),
        ),
    ),
    "timings": Format(
        _copied("bench.json"),
        {"bench.json": "json"},
        (
            Command(
                "bench {base}/model --objects 1 --batch-size 1 --repeats 1 --no-memory --no-engines --json "
                "--out {in}/bench.json --force",
                counts=False,
            ),
        ),
    ),
}


def _plan() -> Path:
    import ssdir

    return Path(ssdir.__file__).parent / "plans" / "smoke.yaml"
