from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import floor, log
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torchvision.ops import box_iou

from ssdir.errors import InputError
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.consistency import TEMPERATURE, ConsistencyConfig, info_nce
from ssdir.models.detected.elbo import elbo_terms
from ssdir.models.detected.encoders import AlignedEncoder, PyramidEncoderConfig
from ssdir.models.detected.vae import LossConfig
from ssdir.models.detected.views import View, second_view
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.models.losses import LIKELIHOOD_MARGIN, laplacian_l1
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import decode_boxes, to_xyxy
from ssdir.ops.compositing import LEAST_OPACITY
from ssdir.ops.glimpses import crop_glimpses
from ssdir.training.recipe import read_recipe

from .tiny import NAMES, assert_same_objects, detector_config, noise, tiny_model, truth

ALIGNED = {"kind": "aligned", "samples": 4}
WITH_REFINER = {
    "detector": {"refiner": RefinerConfig(size=5, channels=8, hidden=32), "score_threshold": 0.1},
    "encoder": {"kind": "aligned", "samples": 4, "refiner_features": True},
}


def test_encode_detects_objects_with_latents() -> None:
    model = tiny_model()
    objects = model.encode(noise(3))
    assert objects.batch_size == 3
    assert len(objects) > 3
    assert objects.z_what is not None
    assert objects.z_what_scale is not None
    assert objects.z_what.shape == (len(objects), 6)
    assert not objects.z_what.requires_grad
    assert (objects.z_what_scale == torch.tensor(model.config.encoder.what_scale)).all()
    detected = model.detector.encode(noise(3))
    assert torch.equal(objects.z_where, detected.z_where)
    assert len(model.encode(noise(3), score_threshold=0.9)) < len(objects)


@pytest.mark.parametrize("clone", [False, True])
def test_latents_come_from_the_objects_own_cell(clone: bool) -> None:
    model = tiny_model(clone_backbone=clone)
    images = noise(2)
    objects = model.encode(images)
    backbone = model.detector.backbone if model.backbone is None else model.backbone
    posterior = model.encoder(backbone(images))
    assert objects.anchor_index is not None
    assert objects.z_what is not None
    assert objects.z_depth is not None
    for m in range(len(objects)):
        centre = model.detector.anchors[objects.anchor_index[m], :2]
        level = int(objects.anchor_index[m] >= 2 * 16**2)
        side, first = (16, 8)[level], (0, 16**2)[level]
        column, row = (centre * side).long().tolist()
        cell = first + row * side + column
        image = objects.image_index[m]
        torch.testing.assert_close(objects.z_what[m], posterior.what_loc[image, cell])
        torch.testing.assert_close(objects.z_depth[m], posterior.depth_loc[image, cell])


@pytest.mark.parametrize("options", [{}, {"encoder": ALIGNED}, {"alpha": False}])
def test_a_batch_is_encoded_and_decoded_as_its_images_are(options: dict[str, Any]) -> None:
    model, images = tiny_model(**options), noise(4)
    images[1] = 0.3
    together = model.encode(images)
    alone = [model.encode(image[None]) for image in images]
    assert_same_objects(together, Objects.cat(alone))
    reconstructions = torch.cat([model.decode(objects).reconstructions for objects in alone])
    torch.testing.assert_close(model.decode(together).reconstructions, reconstructions, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": ALIGNED},
        {"clone_backbone": True, "encoder": ALIGNED},
        {"clone_backbone": True, **WITH_REFINER},
    ],
)
def test_given_boxes_are_encoded_row_by_row(options: dict[str, Any]) -> None:
    model, images, boxes = tiny_model(**options), noise(3), truth(2, 0, 4)
    objects = model.embed(images, boxes)
    assert torch.equal(objects.z_where, boxes.z_where)
    assert torch.equal(objects.image_index, boxes.image_index)
    assert objects.labels is not None
    assert boxes.labels is not None
    assert torch.equal(objects.labels, boxes.labels)
    assert objects.anchor_index is not None
    overlaps = box_iou(to_xyxy(boxes.z_where), to_xyxy(model.detector.anchors))
    assigned_overlaps = overlaps.gather(1, objects.anchor_index[:, None])[:, 0]
    torch.testing.assert_close(assigned_overlaps, overlaps.amax(dim=1))
    assert objects.z_what is not None
    for m in range(len(boxes)):
        image = boxes.image_index[m]
        single = boxes[[m]].replace(image_index=torch.zeros(1, dtype=torch.int64), batch_size=1)
        alone = model.embed(images[image][None], single)
        torch.testing.assert_close(alone.z_what[0], objects.z_what[m], rtol=1e-3, atol=1e-4)  # type: ignore[index]


@pytest.mark.parametrize("clone", [False, True])
def test_embeddings_read_refiner_features_where_asked(clone: bool) -> None:
    model, images = tiny_model(clone_backbone=clone, **WITH_REFINER), noise(2)
    encoder, refiner = model.encoder, model.detector.refiner
    assert isinstance(encoder, AlignedEncoder)
    assert encoder.refiner_projection is not None
    assert refiner is not None
    linear = encoder.net[encoder.num_reading - 1]
    assert isinstance(linear, nn.Linear)
    nn.init.zeros_(linear.weight)  # The embedding then depends on the refiner's features alone.
    objects = model.encode(images)
    seen = refiner.hidden_features(model.detector.read(images), objects.z_where, objects.image_index)
    expected = encoder.net[encoder.num_reading :](seen @ encoder.refiner_projection.weight.T)[:, :-1]
    assert len(expected) > 3
    torch.testing.assert_close(objects.z_what, expected)


def test_refiner_features_need_a_refiner() -> None:
    with pytest.raises(ValueError, match=r"encoder\.refiner_features needs ssd\.refiner"):
        tiny_model(encoder={"kind": "aligned", "samples": 4, "refiner_features": True})


def test_detections_given_as_boxes_with_their_anchors_decode_to_themselves() -> None:
    model, images = tiny_model(), noise(2)
    objects = model.encode(images)
    deltas = model.detector(images)[1].box_deltas[objects.image_index, objects.anchor_index]
    decoded = decode_boxes(deltas, model.detector.anchors[objects.anchor_index], (0.1, 0.2))
    torch.testing.assert_close(to_xyxy(decoded).clamp(0, 1), objects.boxes)


@pytest.mark.parametrize("alpha", [False, True])
def test_batches_without_objects_work_throughout(alpha: bool) -> None:
    model = tiny_model(alpha=alpha)
    images = noise(2)
    objects = model.encode(images, score_threshold=0.999999)
    assert len(objects) == 0
    scene = model.decode(objects)
    assert scene.reconstructions.shape == images.shape
    assert not scene.reconstructions.any()
    with torch.no_grad():
        losses = model.loss_of(images, objects, model.detector.backbone(images))
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["nll_objects"] == losses["kl_what"] == losses["kl_depth"] == 0
    assert losses["nll_image"] > 0


def test_decode_needs_latents() -> None:
    with pytest.raises(ValueError, match="need z_what and z_depth"):
        tiny_model().decode(truth(1))


# Equation 7 ------------------------------------------------------------------------------------------------


def pixel_nll(predicted: float, intensity: float) -> float:
    p = LIKELIHOOD_MARGIN + (1 - 2 * LIKELIHOOD_MARGIN) * predicted
    return -(intensity * log(p) + (1 - intensity) * log(1 - p))


def bilinear(channel: Tensor, y: float, x: float) -> float:
    """Returns the value of a channel (H, W) at a point in pixels, with the border repeated."""
    height, width = channel.shape
    total = 0.0
    for row in (floor(y), floor(y) + 1):
        for column in (floor(x), floor(x) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            total += weight * float(channel[min(max(row, 0), height - 1), min(max(column, 0), width - 1)])
    return total


def crop(image: Tensor, box: Tensor, size: int) -> Tensor:
    """Crops a box (xyxy) of an image and enlarges it to `size`, one pixel at a time."""
    _, height, width = image.shape
    x1, y1, x2, y2 = box.tolist()
    glimpse = torch.zeros(3, size, size)
    for i in range(size):
        for j in range(size):
            y = (y1 + (i + 0.5) / size * (y2 - y1)) * height - 0.5
            x = (x1 + (j + 0.5) / size * (x2 - x1)) * width - 0.5
            glimpse[:, i, j] = torch.tensor([bilinear(channel, y, x) for channel in image])
    return glimpse


def terms_by_loops(images: Tensor, latents: Objects, scene: Scene, depth_scale: float) -> dict[str, float]:
    assert latents.z_what is not None
    assert latents.z_what_scale is not None
    assert latents.z_depth is not None
    B, S = len(images), scene.appearances.shape[-1]
    terms = dict.fromkeys(("nll_image", "nll_objects", "kl_what", "kl_depth"), 0.0)
    for image in range(B):
        pairs = zip(scene.reconstructions[image].flatten(), images[image].flatten(), strict=True)
        terms["nll_image"] += sum(pixel_nll(float(p), float(x)) for p, x in pairs) / B
        rows = [m for m in range(len(latents)) if latents.image_index[m] == image]
        for m in rows:
            seen = crop(images[image], latents.boxes[m], S).flatten()
            predicted = scene.appearances[m]
            if scene.background is not None and scene.alpha is not None:
                predicted = predicted + (1 - scene.alpha[m]) * crop(scene.background[image], latents.boxes[m], S)
            pairs = zip(predicted.flatten(), seen, strict=True)
            terms["nll_objects"] += sum(pixel_nll(float(p), float(x)) for p, x in pairs) / len(rows) / B
            for loc, scale in zip(latents.z_what[m], latents.z_what_scale[m], strict=True):
                terms["kl_what"] += float(kl_divergence(Normal(loc, scale), Normal(0.0, 1.0))) / B
            posterior = Normal(latents.z_depth[m], depth_scale)
            terms["kl_depth"] += float(kl_divergence(posterior, Normal(0.0, 1.0))) / B
    return terms


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("counts", [(2, 0, 1), (0, 0)])
def test_terms_of_eq_7_equal_loops(counts: tuple[int, ...], background: bool) -> None:
    g = torch.Generator().manual_seed(0)
    targets = truth(*counts)
    M, size = len(targets), 8
    images = torch.rand(len(counts), 3, size, size, generator=g)
    latents = targets.replace(
        z_what=torch.randn(M, 5, generator=g),
        z_what_scale=0.1 + torch.rand(M, 5, generator=g),
        z_depth=torch.randn(M, generator=g),
    )
    # Appearances as large as the image: every crop is an enlargement.
    scene = Scene(torch.rand(images.shape, generator=g), torch.rand(M, 3, size, size, generator=g))
    if background:
        alpha = torch.rand(M, 1, size, size, generator=g)
        scene = replace(
            scene,
            appearances=scene.appearances * alpha,
            alpha=alpha,
            background=torch.rand(images.shape, generator=g),
        )
    terms = elbo_terms(images, latents, scene, PyramidEncoderConfig(depth_scale=0.3))
    expected = terms_by_loops(images, latents, scene, 0.3)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name


def test_a_hidden_objects_likelihood_does_not_count_what_hides_it() -> None:
    """Of two objects in one box, the far one's likelihood counts the share of pixels that the near one leaves."""
    z_where = torch.full((2, 4), 0.5)
    latents = Objects(
        torch.zeros(2, dtype=torch.int64),
        1,
        z_where,
        z_what=torch.zeros(2, 5),
        z_what_scale=torch.ones(2, 5),
        z_depth=torch.tensor([1.0, 0.0]),
    )
    g = torch.Generator().manual_seed(0)
    alpha = torch.ones(2, 1, 8, 8)
    scene = Scene(torch.rand(1, 3, 16, 16, generator=g), torch.rand(2, 3, 8, 8, generator=g), alpha)
    images = torch.rand(1, 3, 16, 16, generator=g)
    config = PyramidEncoderConfig()
    alone = [
        elbo_terms(images, latents[row : row + 1], replace(scene, appearances=part, alpha=alpha[:1]), config)
        for row, part in enumerate(scene.appearances.split(1))
    ]
    near, far = (terms["nll_objects"] for terms in alone)
    odds = torch.exp(torch.tensor(1.0))  # of the near one against the far one
    least = 1 + LEAST_OPACITY
    expected = (near * least * odds / (least * odds + 1) + far * least / (least + odds)) / 2
    shared = elbo_terms(images, latents, scene, config, shared_pixels=True)
    torch.testing.assert_close(shared["nll_objects"], expected, rtol=0.01, atol=0)
    with pytest.raises(ValueError, match=r"needs decoder\.alpha"):
        tiny_model(alpha=False, loss=LossConfig(shared_pixels=True))


def test_details_are_averaged_over_an_images_objects_and_shared_like_their_likelihoods() -> None:
    images, latents = noise(2), truth(3, 1)
    M, g = len(latents), torch.Generator().manual_seed(0)
    latents = latents.replace(z_what=torch.zeros(M, 5), z_what_scale=torch.ones(M, 5), z_depth=torch.zeros(M))
    scene = Scene(images, torch.rand(M, 3, 16, 16, generator=g), torch.ones(M, 1, 16, 16))
    crops = crop_glimpses(images, latents.boxes, latents.image_index, 16)
    each = laplacian_l1(scene.appearances, crops)
    assert "details" not in elbo_terms(images, latents, scene, PyramidEncoderConfig())
    details = elbo_terms(images, latents, scene, PyramidEncoderConfig(), details=True)["details"]
    torch.testing.assert_close(details, (each[:3].mean() + each[3]) / 2)
    shared = elbo_terms(images, latents, scene, PyramidEncoderConfig(), True, details=True)["details"]
    assert shared < details
    with pytest.raises(ValueError, match=r"loss\.details needs objects of 8 pixels"):
        SSDIRConfig(
            ssd=detector_config(),
            encoder=PyramidEncoderConfig(),
            decoder=DecoderConfig(channels=(4, 4)),
            loss=LossConfig(details=1),
        )


@dataclass
class LossOfSample:
    """The terms of a loss, and the latents, views and samples that it was computed from."""

    losses: dict[str, Tensor]
    latents: Objects
    views: list[View]
    sampled: Objects


def loss_and_its_sample(model: SSDIR, images: Tensor) -> LossOfSample:
    torch.manual_seed(5)
    losses = model.loss(images)
    torch.manual_seed(5)
    objects, features = model.detector.detect(images)
    latents, views = model.infer_in_views(objects, images, features)
    return LossOfSample(losses, latents, views, model.sample(latents))


@pytest.mark.parametrize("shared", [False, True])
def test_loss_weighs_the_terms_of_one_sample(shared: bool) -> None:
    loss = LossConfig(image=3, objects=5, kl_what=7, kl_depth=11, details=13, shared_pixels=shared)
    model = tiny_model(loss=loss)
    images = noise(2)
    with torch.no_grad():
        computed = loss_and_its_sample(model, images)
        losses, latents, scene = computed.losses, computed.latents, model.decode(computed.sampled)
        terms = elbo_terms(images, latents, scene, model.config.encoder, shared, details=True)
    assert len(latents) > 0
    torch.testing.assert_close(latents.z_what, model.encode(images).z_what)
    for name, value in terms.items():
        torch.testing.assert_close(losses[name], value)
    expected = 3 * terms["nll_image"] + 5 * terms["nll_objects"] + 7 * terms["kl_what"] + 11 * terms["kl_depth"]
    torch.testing.assert_close(losses["total"], expected + 13 * terms["details"])


@pytest.mark.parametrize(
    "consistency",
    [
        ConsistencyConfig(),
        ConsistencyConfig(weight=2, view="copy_paste"),
        ConsistencyConfig(weight=2, views=2, view="copy_paste"),
    ],
)
def test_classes_are_predicted_from_the_embeddings_of_all_views(consistency: ConsistencyConfig) -> None:
    model = tiny_model(loss=LossConfig(classes=3), consistency=consistency, encoder=ALIGNED)
    assert model.classifier is not None
    images = noise(2)
    with torch.no_grad():
        computed = loss_and_its_sample(model, images)
        losses, latents, seen = computed.losses, computed.latents, [computed.sampled]
        assert len(computed.views) == (consistency.views if consistency.weight else 0)
        for view in computed.views:
            assert not torch.equal(view.rows, torch.arange(len(view.rows)))
            seen.append(view.objects.replace(labels=latents.labels[view.rows]))  # type: ignore[index]
        z_what, labels = (torch.cat([getattr(objects, name) for objects in seen]) for name in ("z_what", "labels"))
        expected = -model.classifier(z_what).log_softmax(dim=1).gather(1, labels[:, None]).mean()
    assert len(labels.unique()) > 1
    torch.testing.assert_close(losses["classes"], expected)
    per_image = len(latents) / 2
    rest = 10 * losses["nll_image"] + 10 * losses["nll_objects"] + losses["kl_what"] + losses["kl_depth"]
    rest = rest + 2 * per_image * losses.get("consistency", torch.tensor(0.0))
    torch.testing.assert_close(losses["total"], rest + 3 * per_image * expected)


@pytest.mark.parametrize("views", [1, 2])
def test_consistency_compares_the_embeddings_of_one_object(views: int) -> None:
    consistency = ConsistencyConfig(weight=2, views=views, view="copy_paste", decoupled=True)
    model = tiny_model(consistency=consistency, encoder=ALIGNED)
    assert model.projection is not None
    with torch.no_grad():
        computed = loss_and_its_sample(model, noise(2))
        projected = [model.projection(computed.latents.z_what)]
        for view in computed.views:  # Each has all objects, in an order of its own.
            order = view.rows.argsort()
            assert not torch.equal(order, torch.arange(len(order)))
            projected.append(model.projection(view.objects.z_what)[order])
        pairs = [info_nce(one, other, TEMPERATURE, decoupled=True) for one, other in combinations(projected, 2)]
    assert len(projected[0]) > 3
    torch.testing.assert_close(computed.losses["consistency"], torch.stack(pairs).mean())


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("parts", [{"clone_backbone": True, "encoder": ALIGNED}, WITH_REFINER])
def test_further_views_are_read_as_images_by_themselves(parts: dict[str, Any], views: int) -> None:
    model, images = tiny_model(consistency=ConsistencyConfig(weight=1, views=views), **parts), noise(3)
    with torch.no_grad():
        objects, features = model.detector.detect(images)
        torch.manual_seed(1)
        latents, seen = model.infer_in_views(objects, images, features)
        torch.manual_seed(1)
        read = [(latents, model.infer(objects, images, features))]
        assert len(seen) == views
        for again in seen:
            view = second_view(images, objects, model.config.consistency, min_side=6 / model.image_size)
            moved = view.objects.replace(anchor_index=model.detector.assign(view.objects.z_where))
            read.append((again.objects, model.infer(moved, view.images, model.detector.read(view.images))))
            assert len(again.objects) == len(again.rows) > 3
            assert torch.equal(again.rows, view.rows)
    for one, other in read:
        for name in ("z_what", "z_depth"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-4, rtol=1e-4)


def test_batch_norm_keeps_the_statistics_that_embeddings_were_computed_with() -> None:
    parts: dict[str, Any] = {
        "consistency": ConsistencyConfig(weight=1, view="copy_paste"),
        "encoder": ALIGNED,
    }
    model, images = tiny_model(clone_backbone=True, **parts), noise(4)
    assert model.backbone is not None
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        objects, features = model.detector.detect(images)
        model.train()
        latents, _ = model.infer_in_views(objects, images, features)
        after = model.eval().infer(objects, images, features)
    assert norms
    torch.testing.assert_close(after.z_what, latents.z_what, atol=0.02, rtol=0.02)


def test_embeddings_learn_the_detector_s_classes_where_asked() -> None:
    loss = LossConfig(image=0, objects=0, kl_what=0, kl_depth=0, classes=1)
    model = tiny_model(loss=loss, clone_backbone=True, encoder=ALIGNED).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(0)
    history = []
    for _ in range(25):
        losses = model.loss(noise(3))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append(losses["classes"].item())
    assert history[-1] < 0.5 * history[0]
    with torch.no_grad():
        nothing = model.encode(noise(2), score_threshold=1.1)
        features = model.detector.read(noise(2))
        assert model.loss_of(noise(2), nothing, features)["classes"] == 0


def test_one_class_is_none_to_learn() -> None:
    config = SSDIRConfig(ssd=detector_config(), loss=LossConfig(classes=1))
    with pytest.raises(InputError, match=r"loss\.classes needs a detector of several classes"):
        SSDIR(config, ["object"])


def test_samples_have_the_posteriors_moments() -> None:
    model = tiny_model(encoder={"what_scale": 0.3, "depth_scale": 0.2})
    M = 4000
    latents = Objects(
        torch.zeros(M, dtype=torch.int64),
        1,
        torch.full((M, 4), 0.5),
        z_what=torch.full((M, 6), 2.0),
        z_what_scale=torch.full((M, 6), 0.3),
        z_depth=torch.full((M,), -1.0),
    )
    torch.manual_seed(0)
    sampled = model.sample(latents)
    assert sampled.z_what is not None
    assert sampled.z_depth is not None
    assert sampled.z_what.mean().item() == pytest.approx(2.0, abs=0.02)
    assert sampled.z_what.std().item() == pytest.approx(0.3, rel=0.05)
    assert sampled.z_depth.mean().item() == pytest.approx(-1.0, abs=0.02)
    assert sampled.z_depth.std().item() == pytest.approx(0.2, rel=0.05)


# What is trained -------------------------------------------------------------------------------------------


def training_step(model: SSDIR) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(0)
    model.loss(noise(3))["total"].backward()
    optimizer.step()


def test_all_levels_are_all_stages_of_the_copy() -> None:
    frozen = tiny_model(encoder={"kind": "aligned", "samples": 4, "levels": "all"})
    assert len(frozen.encoder.inputs) == 2  # without a copy, the detector's levels
    deeper = {"backbone": ConvConfig(channels=(6, 8, 12, 16), num_levels=2, top_down=0)}
    own, every = (
        tiny_model(deeper, clone_backbone=True, encoder={"kind": "aligned", "samples": 4, "levels": levels})
        for levels in ("own", "all")
    )
    assert own.backbone is not None
    assert every.backbone is not None
    assert own.backbone.channels == [8, 12]
    assert every.backbone.channels == [6, 8, 12]
    assert len(every.encoder.inputs) == 3


@pytest.mark.parametrize("encoder", [{}, ALIGNED, {**ALIGNED, "levels": "all"}])
@pytest.mark.parametrize("clone", [False, True])
def test_a_step_changes_all_but_the_frozen_detector(clone: bool, encoder: dict[str, Any]) -> None:
    model = tiny_model(clone_backbone=clone, encoder=encoder).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training_step(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("detector.") for name in changed)
    assert any(name.startswith("encoder.") for name in changed)
    assert any(name.startswith("decoder.") for name in changed)
    cloned = {name for name in changed if name.startswith("backbone.")}
    assert bool(cloned) == clone
    # The copy trains whole, batch statistics included.
    assert not clone or any(name.endswith("running_mean") for name in cloned)


def test_detector_stays_frozen_in_training_mode() -> None:
    model = tiny_model().train()
    assert model.training
    assert model.encoder.training
    assert not any(module.training for module in model.detector.modules())
    fresh = SSDIR(model.config, NAMES)
    assert not any(p.requires_grad for p in fresh.detector.parameters())


def test_training_learns_what_objects_look_like() -> None:
    model = tiny_model(detector={"max_objects": 8}).train()
    g = torch.Generator().manual_seed(1)
    images = torch.nn.functional.interpolate(torch.rand(3, 3, 2, 2, generator=g).round(), model.image_size)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    torch.manual_seed(0)
    history = []
    for _ in range(40):
        losses = model.loss(images)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append((losses["nll_objects"].item(), losses["nll_image"].item()))
    assert history[-1][0] < 0.75 * history[0][0]
    assert history[-1][1] < history[0][1]


def test_a_learned_background_is_seen_around_objects_and_learned_there() -> None:
    model = tiny_model(background="learned").train()
    images = torch.full((2, 3, model.image_size, model.image_size), 0.2)
    images[:, 1] = 0.8
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    nothing = model.encode(images, score_threshold=1.1)
    assert len(nothing) == 0
    for _ in range(30):
        loss = model.loss_of(images, nothing, model.detector.backbone(images))["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scene = model.decode(nothing)
    assert scene.background is not None
    assert torch.equal(scene.reconstructions, scene.background)
    assert (scene.reconstructions - images).abs().max() < 0.02
    # One opaque object hides it, inside its box alone.
    one = truth(1, 0).replace(z_what=torch.zeros(1, model.latent_dim), z_depth=torch.zeros(1))
    torch.nn.init.zeros_(model.decoder.head.weight)
    model.decoder.head.bias.data = torch.tensor([9.0, -9.0, -9.0, 9.0])
    reconstructions = model.decode(one).reconstructions
    x1, y1, x2, y2 = (one.boxes[0] * model.image_size).round().int().tolist()
    assert (reconstructions[0, :, (y1 + y2) // 2, (x1 + x2) // 2] - torch.tensor([1.0, 0, 0])).abs().max() < 0.01
    outside = torch.ones(reconstructions.shape[-2:], dtype=torch.bool)
    outside[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = False
    assert torch.equal(reconstructions[0][:, outside], scene.reconstructions[0][:, outside])


def test_a_learned_background_needs_alpha() -> None:
    with pytest.raises(ValueError, match=r"needs decoder\.alpha=true"):
        SSDIRConfig(background="learned")


def test_pooled_features_follow_the_boxes() -> None:
    model, images, boxes = tiny_model(), noise(2), truth(2, 1)
    pooled = model.pooled_features(images, boxes)
    assert pooled.shape == (3, (12 + 16) * 9)
    alone = model.pooled_features(images[1:], boxes.split()[1])
    torch.testing.assert_close(pooled[2:], alone, rtol=1e-4, atol=1e-5)


# The paper's model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_model() -> SSDIR:
    return SSDIR(read_recipe("paper-mnist").model, NAMES)


def shapes(model: SSDIR, part: str) -> list[tuple[int, ...]]:
    return [
        tuple(tensor.shape)
        for name, tensor in model.named_parameters()
        if name.startswith(part) and name.endswith("weight")
    ]


def test_paper_mnist_has_the_papers_anchors(paper_model: SSDIR) -> None:
    assert paper_model.detector.feature_sizes == [18, 9, 5, 3, 1]
    assert len(paper_model.detector.anchors) == 880
    assert not paper_model.config.ssd.nms


def test_paper_mnist_has_the_papers_decoder(paper_model: SSDIR) -> None:
    widths = [1024, 512, 256, 128, 64, 32, 16]
    doubling = [(low, high, 2, 2) for low, high in pairwise(widths)]
    assert shapes(paper_model, "decoder.") == [(1024, 64, 1, 1), *doubling, (3, 16, 1, 1)]
    assert all(
        m.stride == (2, 2) for m in paper_model.decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)
    )


def test_paper_mnist_has_the_papers_encoders(paper_model: SSDIR) -> None:
    channels = [512, 512, 512, 256, 256]
    hidden = paper_model.config.encoder.hidden_channels
    expected = []
    for c in channels:
        expected += [(hidden, c, 1, 1), *[(hidden, hidden, 3, 3)] * 3, (64, hidden, 1, 1)]
    assert shapes(paper_model, "encoder.what") == expected
    assert shapes(paper_model, "encoder.depth") == [(1, c, 3, 3) for c in channels]
    assert paper_model.config.loss == LossConfig(image=10, objects=10, kl_what=1, kl_depth=1)
