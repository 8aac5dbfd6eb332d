"""Principal components of pretrained features are fitted before the representation is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA

from ssdir.data.transforms import AugmentConfig
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig
from ssdir.models.io import load_model
from ssdir.models.ssdir import SSDIR
from ssdir.training.fit import train
from ssdir.training.loading import CachedDataset
from ssdir.training.pooling import fit_pooled_stages
from ssdir.training.recipe import Recipe

from .common import changed, with_detector


@pytest.fixture(scope="module")
def pretrained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Returns a recipe that embeds objects from the stages of a network with own weights, and augments images."""
    weights = tmp_path_factory.mktemp("weights") / "network.safetensors"
    with seeded(0):
        save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    backbone = TimmConfig(
        name="test_efficientnet", weights=str(weights), frozen_norm=True, num_levels=2, top_down=16, neck_depth=1
    )
    other = changed(with_detector(recipe, backbone=backbone, score_threshold=0.05), "representation", epochs=1)
    encoder = AlignedEncoderConfig(
        latent_dim=8, features="pretrained", samples=4, hidden_channels=16, mlp_channels=32
    )
    model = other.model.model_copy(update={"encoder": encoder})
    augment = AugmentConfig(flip=0.5, photometric=0.5, representation=True)
    return other.model_copy(update={"model": model, "augment": augment})


def test_a_training_fits_the_components_of_its_detections_as_they_are(
    pretrained: Recipe, scattered: Path, tmp_path: Path
) -> None:
    train(pretrained, scattered, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert isinstance(model, SSDIR)
    assert model.backbone is not None
    assert model.pooled_stages is not None
    dataset = pretrained.open_data(scattered, "train")
    pooled, embedded = [], []
    with torch.no_grad():
        for index in range(len(dataset)):
            image = dataset.image(index)[None].float() / 255
            objects = model.encode(image)
            assert objects.z_what is not None
            maps = model.backbone(image)[-2:]
            pooled.append(model.pooled_stages.pool(maps, objects.image_index, objects.boxes))
            embedded.append(objects.z_what)
    embeddings, features = torch.cat(embedded), torch.cat(pooled)
    expected = torch.from_numpy(PCA(8, random_state=0).fit_transform(features.numpy())).float()
    assert len(embeddings) > 20
    scale = embeddings.square().mean().sqrt() / expected.square().mean().sqrt()
    torch.testing.assert_close(embeddings, scale * expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_detections_have_no_components(pretrained: Recipe, scattered: Path, count: int) -> None:
    with seeded(0):
        model = SSDIR(pretrained.model, ["object"]).eval()
    dataset = pretrained.open_data(scattered, "train")
    cached = CachedDataset(dataset, dataset.all_objects()[:count], [])
    with pytest.raises(InputError, match=f"the detector detects {count} objects in the training split"):
        fit_pooled_stages(model, cached, seed=0)
