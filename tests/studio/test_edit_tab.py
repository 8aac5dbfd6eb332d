"""The tab Edit without a browser: what its handlers do with a workspace, and what they show of it."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch

gr = pytest.importorskip("gradio")

from ssdir.analysis.projections import PrincipalAxes  # noqa: E402
from ssdir.data.samples import sample_images  # noqa: E402
from ssdir.inference.predictor import Predictor, load  # noqa: E402
from ssdir.models.registry import build_model  # noqa: E402
from ssdir.plots import to_pixels  # noqa: E402
from ssdir.studio import scene_editor  # noqa: E402
from ssdir.studio.content import data_uri  # noqa: E402
from ssdir.studio.edit_tab import EditTab  # noqa: E402
from ssdir.studio.studio import Studio  # noqa: E402
from ssdir.studio.workspace import Workspace  # noqa: E402
from ssdir.training.recipe import read_recipe  # noqa: E402


def opened(predictor: Predictor) -> tuple[EditTab, Workspace]:
    """Returns the tab, and a workspace with the first sample."""
    axes = PrincipalAxes.fit(torch.randn(20, predictor.latent_dim, generator=torch.Generator().manual_seed(0)))
    with gr.Blocks():
        tab = EditTab(cast("Studio", SimpleNamespace(predictor=predictor, axes=axes)), gr.State(None))
    return tab, Workspace.open(predictor, sample_images(1)[0])


def test_edited_scenes_keep_the_background() -> None:
    torch.manual_seed(0)
    predictor = Predictor(build_model(read_recipe("space-64").model, ["object"]))
    tab, workspace = opened(predictor)
    edited = workspace.edit(workspace.objects[:0], "removed all objects", None)
    background = predictor.reconstruct(sample_images(1)[0].image, edited.objects).reconstructions[0]
    assert float(background.mean()) > 0.1
    assert tab.show(edited)[tab.scene]["image"] == data_uri(to_pixels(background))


def test_the_share_of_a_blend_refers_to_the_object_before_it_until_another_edit() -> None:
    tab, now = opened(load("tiny-digits", "cpu"))
    detected = now.objects
    for share in (0.5, 0.8):
        now = tab._blend(now, 1, share)
        assert tab.show(now)[tab.blend]["value"] == share
        assert torch.equal(now.objects.z_what, scene_editor.blend_appearance(detected, 0, 1, share).z_what)
    moved = now.edit(scene_editor.move(now.objects, 0, 0.01, 0), "moved object 1", 0)
    assert tab._show_moved(now, moved)[tab.blend]["value"] == 0, "the slider begins at the object as it is"
    again = tab._blend(moved, 1, 0.02)
    expected = scene_editor.blend_appearance(moved.objects, 0, 1, 0.02)
    assert torch.equal(again.objects.z_what, expected.z_what)
    assert torch.equal(tab._blend(again, 1, 0).objects.z_what, moved.objects.z_what)
    undone = again.with_history(again.history.undo(), 0)
    for other in (undone, again.select(1)):
        assert tab.show(other)[tab.blend]["value"] == 0


def test_each_slider_of_a_component_is_a_step_of_its_own() -> None:
    tab, now = opened(load("tiny-digits", "cpu"))
    for number, value in ((0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0)):
        now = tab._change_component(number, now, value)
    assert len(now.history.past) == 2


def test_a_slider_changes_its_own_component_alone() -> None:
    tab, now = opened(load("tiny-digits", "cpu"))
    far = tab.studio.axes.coordinates(now.objects.z_what[0])
    far[0] = 6.123  # Sliders end at 4.
    z_what = tab.studio.axes.with_coordinates(now.objects.z_what[0], far)
    now = now.edit(scene_editor.set_appearance(now.objects, 0, z_what), "far", 0)
    shown = tab.show(now)
    for number, slider in enumerate(tab.sliders):
        assert tab._change_component(number, now, shown[slider]["value"]) is now, "an unmoved slider is no edit"
    moved = tab._change_component(1, now, 2.5)
    far[1] = 2.5
    torch.testing.assert_close(tab.studio.axes.coordinates(moved.objects.z_what[0]), far, rtol=0, atol=1e-4)
