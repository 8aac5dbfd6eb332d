from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdir.evaluation.collect import Collector, collect
from ssdir.evaluation.components import project
from ssdir.evaluation.probing import LARGEST_OVERLAP, LATENTS, POOLED_FEATURES, RANDOM_ENCODER, RAW_PIXELS
from ssdir.evaluation.scale import same_instance_metrics
from ssdir.models.backbones.conv import ConvBackbone, ConvConfig
from ssdir.models.detected.encoders import PyramidEncoderConfig
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import AnchorConfig, SSDConfig
from ssdir.models.io import random_encoder
from ssdir.models.registry import build_model
from ssdir.models.ssdir import SSDIRConfig
from ssdir.objects import Objects

from .fakes import SIZE, FakeDataset, FakeModel, boxes_to_objects


def test_images_without_objects_take_no_field_away() -> None:
    one = boxes_to_objects([[0, 0, 0.5, 0.5]], z_depth=torch.ones(1), z_what=torch.ones(1, 3))
    objects = Objects.cat([Objects.empty(2), one, Objects.empty(1), one])
    assert objects.batch_size == 5
    assert objects.image_index.tolist() == [2, 4]
    assert objects.z_depth is not None
    assert objects.z_depth.tolist() == [1, 1]
    assert objects.z_what is not None
    assert objects.z_what.shape == (2, 3)


def test_nothing_but_empty_images() -> None:
    objects = Objects.cat([Objects.empty(2), Objects.empty(3)])
    assert (len(objects), objects.batch_size) == (0, 5)


def test_the_papers_labels_count_parts_of_objects_too() -> None:
    targets = boxes_to_objects([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]])
    # Detected are a whole object, two quarters of the other one, and a box around nothing.
    boxes = [[0, 0, 0.4, 0.4], [0.5, 0.5, 0.75, 0.75], [0.75, 0.75, 1, 1], [0.6, 0, 0.9, 0.2]]
    detections = boxes_to_objects(boxes, scores=torch.ones(4), z_what=torch.arange(4.0)[:, None])
    model = FakeModel({0: detections}, lambda z_where, number: z_where[:, :1])
    collector = Collector(model, 0.5)
    collector.add(torch.zeros(1, 3, SIZE, SIZE), targets, torch.tensor([7, 8]))
    embeddings = collector.finish().embeddings
    assert embeddings[LATENTS].labels.tolist() == [7]
    assert embeddings[LARGEST_OVERLAP].labels.tolist() == [7, 8, 8]
    assert len(embeddings[LARGEST_OVERLAP].latents) == 3


def test_embeddings_alone_are_the_same_and_nothing_is_ranked_or_decoded() -> None:
    targets = boxes_to_objects([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]])
    detections = boxes_to_objects([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]], scores=torch.tensor([0.9, 0.2]))
    model = FakeModel({0: detections}, lambda z_where, _: z_where)
    fresh = FakeModel({}, lambda z_where, _: -z_where)
    whole = Collector(model, 0.5, fresh)
    probed = Collector(model, 0.5, fresh, kept="embeddings")
    for collector in (whole, probed):
        collector.add(torch.zeros(1, 3, SIZE, SIZE), targets, torch.tensor([7, 8]))
    assert whole.decodes
    assert not probed.decodes
    everything, embeddings = whole.finish(), probed.finish()
    assert len(everything.ranked) == 2
    assert len(embeddings.ranked) == 1
    assert everything.reconstruction
    assert not embeddings.reconstruction
    for name, expected in everything.embeddings.items():
        reduced = expected.latents
        if name in (RAW_PIXELS, POOLED_FEATURES):
            reduced = project(embeddings.projections[name], expected.latents)
        assert torch.equal(embeddings.embeddings[name].latents, reduced)
    without = Collector(model, 0.5, fresh, floors=False)
    without.add(torch.zeros(1, 3, SIZE, SIZE), targets, torch.tensor([7, 8]))
    floors = {RAW_PIXELS, POOLED_FEATURES, RANDOM_ENCODER}
    assert without.finish().embeddings.keys() == everything.embeddings.keys() - floors
    # The untrained encoder embeds the boxes that the model detected, and need detect none itself.
    assert torch.equal(embeddings.embeddings[RANDOM_ENCODER].latents, -embeddings.embeddings[LATENTS].latents)


def test_a_batch_passes_each_backbone_once_whatever_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _small_model()
    fresh = random_encoder(model)
    read: list[int] = []
    pyramid = ConvBackbone.pyramid

    def noted(self: ConvBackbone, images: Tensor, finer: bool = False) -> list[Tensor]:
        read.append(len(images))
        return pyramid(self, images, finer)

    monkeypatch.setattr(ConvBackbone, "pyramid", noted)
    true = boxes_to_objects([[0, 0, 0.4, 0.4]], labels=torch.tensor([0]))
    data = FakeDataset([true] * 5, [torch.tensor([1])] * 5, ["one", "two"])
    embeddings = collect(Collector(model, 0.0, fresh), data, batch_size=4).embeddings
    # By the detector's backbone, the model's copy of it, and the copy of the untrained encoder: both batches.
    assert read == [4] * 3 + [1] * 3
    read.clear()
    glyphs = [np.full((8, 8), 255, np.uint8), np.full((8, 4), 255, np.uint8)]
    same_instance_metrics(model, glyphs, batch_size=10)
    assert read == [10] * 2
    images = torch.stack([data[i][0] for i in range(5)]).float() / 255
    targets = Objects.cat([true] * 5)
    assert torch.allclose(embeddings["true_boxes"].latents, model.embed(images, targets).z_what, atol=1e-5)


def _small_model() -> DetectedVAE:
    backbone = ConvConfig(channels=(4, 6, 8), num_levels=2, top_down=4)
    anchors = AnchorConfig(min_sizes=(16, 32), max_sizes=(32, 48), aspect_ratios=(0.5,))
    detector = SSDConfig(image_size=SIZE, backbone=backbone, anchors=anchors, max_objects=5)
    config = SSDIRConfig(ssd=detector, encoder=PyramidEncoderConfig(latent_dim=6), clone_backbone=True)
    model = build_model(config, ["object"]).eval()
    assert isinstance(model, DetectedVAE)
    return model
