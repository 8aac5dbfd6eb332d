"""Options of layouts that can be read in more than one way are accepted wherever data is opened."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.data.readers.clevr.reader import read_clevr
from ssdir.data.readers.registry import LAYOUTS, find_layout, open_dataset, read_annotations
from ssdir.data.writers.convert import convert
from ssdir.data_check.check import check_data
from ssdir.data_check.recommendation import recommend
from ssdir.errors import InputError
from ssdir.training.recipe import READ_OPTIONS, Recipe, read_recipe

from .clevr_scenes import OBJECTS, camera_at, make_scene, render_masks, solids_of, write_clevr
from .defects import noise, write_folder


@pytest.fixture(scope="module")
def clevr(tmp_path_factory):
    camera = camera_at((0.2, -0.4, 0.1))
    scene = make_scene(OBJECTS, camera, "0.png")
    _, mask = render_masks(camera, solids_of(scene))
    # Half of the first object is hidden.
    middle = int(np.flatnonzero((mask == 1).any(axis=1)).mean())
    mask[middle:][mask[middle:] == 1] = 0
    root = tmp_path_factory.mktemp("clevr")
    for split in ("train", "val"):
        write_clevr(root, [scene], split, masks=[mask])
    return root


@pytest.fixture
def coco(tmp_path):
    return write_folder(tmp_path / "pets", [("0.png", noise(20, 20, 0))], [(0, "cat", (1, 1, 9, 9))], ["cat"])


def ok(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def refused(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.mark.parametrize("options", [{}, {"extent": "visible"}, {"extent": None, "vocabulary": "full"}])
def test_options_reach_the_reader(clevr, options):
    given = {name: value for name, value in options.items() if value}
    expected, table = read_clevr(clevr, "val", **given), read_annotations(clevr, "val", **options)
    assert np.array_equal(table.boxes_px, expected.boxes_px)
    assert table.category_names == expected.category_names
    assert np.array_equal(open_dataset(clevr, "val", **options).table.boxes_px, expected.boxes_px)


def test_the_snippet_of_the_page_on_clevr_runs(clevr, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "clevr.md").read_text(encoding="utf-8")
    for name in ("CLEVR_v1.0", "clevr-mini"):
        (tmp_path / name).symlink_to(clevr)
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})


def test_boxes_differ_where_something_is_hidden(clevr):
    whole, visible = (read_annotations(clevr, "val", extent=extent).boxes_px for extent in ("whole", "visible"))
    assert np.array_equal(whole, read_annotations(clevr, "val").boxes_px)
    assert np.abs(whole - visible).max() > 1


def test_layouts_without_the_option_refuse_it(clevr, coco):
    for read in (read_annotations, open_dataset):
        with pytest.raises(InputError, match=r"pets' is COCO, which has no option 'extent', only CLEVR has"):
            read(coco, "train", extent="visible")
        assert read(coco, "train", boxes=None) is not None
    with pytest.raises(InputError, match=r"which has no option 'min_sid': leave it out"):
        open_dataset(clevr, "val", min_sid="0.1")
    with pytest.raises(InputError, match=r"unknown value 'visble' of option 'extent'; did you mean 'visible'\?"):
        open_dataset(clevr, "val", extent="visble")
    with pytest.raises(InputError, match=r"value 'x' of option 'vocabulary'; CLEVR has object, shape, full"):
        open_dataset(clevr, "val", vocabulary="x")


def test_options_that_a_layout_lacks_can_be_dropped(clevr, coco):
    options = {"extent": "visible", "vocabulary": "of another layout", "other": None}
    assert find_layout(clevr).known(options) == {"extent": "visible"}
    assert find_layout(coco).known(options) == {}


def test_recipes_have_every_option_of_every_layout():
    assert {name for layout in LAYOUTS for name in layout.options} == set(READ_OPTIONS)
    recipe = read_recipe("tiny", ["extent=visible", "vocabulary=full", "outside=read"])
    assert recipe.read_options == {"extent": "visible", "vocabulary": "full", "outside": "read"}
    assert Recipe().read_options == {"extent": None, "vocabulary": None, "outside": None}


def test_a_check_recommends_what_it_looked_at(clevr, tmp_path):
    check = check_data(clevr, "val", "tiny", extent="visible", vocabulary="object")
    assert check.summary.classes == {"object": 5}
    assert check.as_json()["options"] == {"extent": "visible", "vocabulary": "object"}
    path = tmp_path / "recipe.yaml"
    path.write_text(recommend(check).yaml)
    assert read_recipe(path).read_options == {"extent": "visible", "vocabulary": "object", "outside": None}
    path.write_text(recommend(check_data(clevr, "val", "tiny")).yaml)
    assert read_recipe(path).read_options == dict.fromkeys(READ_OPTIONS)


def test_a_conversion_writes_what_was_asked_for(clevr, tmp_path):
    convert(clevr, "coco", tmp_path / "out", extent="visible", vocabulary="full")
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert len(content["categories"]) == 96
    boxes = [item["bbox"] for item in content["annotations"]]
    x1, y1, x2, y2 = read_clevr(clevr, "val", extent="visible").boxes_px.T
    assert boxes == np.stack([x1, y1, x2 - x1, y2 - y1], 1).tolist()


# The command line ----------------------------------------------------------------------------------------


def test_evaluate_measures_masks_and_properties(agnostic_model_dir, clevr):
    result = ok("evaluate", agnostic_model_dir, clevr, "--split", "val", "--json", "--score-threshold", "0")
    metrics = json.loads(result.stdout)["metrics"]
    assert 0 < metrics["masks/miou"] <= metrics["masks/mbo"] < 1
    assert metrics["masks/fg_ari"] <= 1
    assert {f"properties/{name}/accuracy_end_to_end" for name in ("shape", "colour", "material", "size")} <= set(
        metrics
    )


def test_evaluate_sees_the_boxes_of_the_training(agnostic_model_dir, clevr, coco, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(agnostic_model_dir, run / "model")
    recipe = {"classes": "object", "extent": "visible", "vocabulary": "full"}
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    options = ["--split", "train", "--train-split", "none", "--json"]

    def seen(model, data, *more):
        record = json.loads(ok("evaluate", model, data, *options, *more).stdout)["provenance"]
        return record["config"]["extent"], record["config"]["vocabulary"], record["data_hash"]

    trained, requested, default = (
        seen(run, clevr),
        seen(run, clevr, "--extent", "whole"),
        seen(agnostic_model_dir, clevr),
    )
    assert trained[:2] == ("visible", "full")
    assert requested[:2] == ("whole", "full")
    assert default[:2] == (None, None)
    assert len({trained[2], requested[2], default[2]}) == 3
    assert trained == seen(agnostic_model_dir, clevr, "--extent", "visible", "--vocabulary", "full")
    # Data of another layout have their boxes as they are, unless one asks for others.
    assert seen(run, coco)[:2] == (None, None)
    assert "has no option 'extent'" in refused("evaluate", run, coco, "--extent", "visible")


def test_evaluate_leaves_out_what_training_left_out(clevr, agnostic_model_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(agnostic_model_dir, run / "model")
    (run / "recipe.yaml").write_text(json.dumps({"classes": "object", "min_side": 0.1, "drop_empty": True}))

    def seen(model, *more):
        result = ok("evaluate", model, clevr, "--split", "train", "--train-split", "none", "--json", *more)
        record = json.loads(result.stdout)["provenance"]
        return record["config"]["min_side"], record["config"]["drop_empty"], record["data_hash"]

    trained = seen(run)
    assert trained[:2] == (0.1, True)
    assert trained == seen(agnostic_model_dir, "--min-side", "0.1", "--drop-empty")
    everything = seen(agnostic_model_dir)
    assert everything[:2] == (0, False)
    assert everything == seen(run, "--min-side", "0", "--keep-empty")
    assert everything[2] != trained[2]


def test_check_and_convert_pass_on_how_to_read(clevr, coco, tmp_path):
    out = tmp_path / "out"
    result = ok("data", "check", clevr, "--vocabulary", "full", "--extent", "visible")
    assert "classes (96)" in result.stdout
    assert "--extent visible --vocabulary full --preset tiny --out check" in result.stdout
    ok("data", "convert", clevr, "--to", "yolo", "--out", out, "--vocabulary", "full", "--extent", "visible")
    assert "large gray rubber cube" in (out / "data.yaml").read_text()
    assert "only CLEVR has" in refused("data", "check", coco, "--extent", "visible")
    assert "only CLEVR has" in refused(
        "data", "convert", coco, "--to", "yolo", "--out", out / "new", "--vocabulary", "full"
    )


def test_train_refuses_options_that_the_data_lack(coco, clevr, tmp_path):
    out = tmp_path / "out"
    assert "only CLEVR has" in refused("train", "tiny", "extent=visible", "--data", coco, "--out", out)
    assert "did you mean 'full'?" in refused("train", "tiny", "vocabulary=ful", "--data", clevr, "--out", out)
    assert not out.exists()
