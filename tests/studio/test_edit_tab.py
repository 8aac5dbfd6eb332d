"""The tab Edit without a browser: what its handlers do with a workspace, and what they show of it."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch

gr = pytest.importorskip("gradio")

from ssdir.analysis.projections import PrincipalAxes  # noqa: E402
from ssdir.data.samples import sample_images  # noqa: E402
from ssdir.inference.predictor import Predictor  # noqa: E402
from ssdir.models.registry import build_model  # noqa: E402
from ssdir.plots import to_pixels  # noqa: E402
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
