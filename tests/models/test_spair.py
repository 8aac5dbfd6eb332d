from __future__ import annotations

from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from ssdir.device import seeded
from ssdir.models.io import load_model, save_model
from ssdir.models.presence import Schedule
from ssdir.models.spair.cells import Cells, SPAIRCellsConfig, earlier_neighbours, wavefront
from ssdir.models.spair.count_prior import count_distribution, count_prior_kl, presence_table
from ssdir.models.spair.model import SPAIR, WINDOW_MARGIN, SPAIRConfig, SPAIRPriorConfig
from ssdir.models.spair.parts import (
    GridBackbone,
    SPAIRDecoder,
    SPAIRDecoderConfig,
    SPAIRGlimpseConfig,
    SPAIRGridConfig,
)
from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy

from .tiny import assert_same_objects

SIZE = 40
GRID = SPAIRGridConfig(channels=(8, 12), kernels=(4, 3), strides=(4, 2))  # 5 × 5 cells of 8 px


def tiny_spair(present_bias: float = 0.0, prior: dict[str, Any] | None = None, **changes: Any) -> SPAIR:
    """Returns an untrained model whose last layers have large enough weights for cells to differ."""
    cells = changes.pop("cells", {})
    config = SPAIRConfig(
        image_size=SIZE,
        grid=GRID,
        cells=SPAIRCellsConfig(**{"lateral": (16,), "passed": 5, "anchor": 16, **cells}),
        glimpses=SPAIRGlimpseConfig(size=6, channels=(6,), hidden=12, latent_dim=4),
        decoder=SPAIRDecoderConfig(hidden=(12,)),
        prior=SPAIRPriorConfig(**(prior or {})),
        **{"output_boxes": "window", **changes},
    )
    with seeded(3):
        model = SPAIR(config)
    with torch.no_grad():
        for net in (model.cells.where_net, model.cells.depth_net, model.cells.present_net):
            net[-1].weight.mul_(8)
        model.cells.present_net[-1].bias.sub_(run(model, noise(3)).present_logits.median())
        model.cells.present_net[-1].bias.add_(present_bias)
        model.cells.edge.normal_(generator=torch.Generator().manual_seed(4))
    return model.eval()


def noise(batch_size: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 10, 10, generator=g)
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE))


def squares(batch_size: int, seed: int = 0) -> Tensor:
    """Returns images with two bright squares on black each."""
    g = torch.Generator().manual_seed(seed)
    images = torch.zeros(batch_size, 3, SIZE, SIZE)
    for image in images:
        for _ in range(2):
            x, y = torch.randint(0, SIZE - 8, (2,), generator=g).tolist()
            image[:, y : y + 8, x : x + 8] = 1
    return images


def run(model: SPAIR, images: Tensor, temperature: float | None = None) -> Cells:
    cells: Cells = model.cells(images, model.backbone(images), temperature)
    return cells


def fields_of(cells: Cells) -> dict[str, Tensor]:
    return {name: getattr(cells, name) for name in Cells.__dataclass_fields__}


# The grid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "size", "cells"),
    [(GRID, 40, 5), (GRID, 41, 6), (SPAIRGridConfig(), 64, 6), (SPAIRGridConfig(), 128, 11)],
)
def test_the_grid_covers_the_image(config: SPAIRGridConfig, size: int, cells: int) -> None:
    backbone = GridBackbone(config, size)
    assert backbone.cells == cells
    assert backbone(torch.zeros(2, 3, size, size)).shape == (2, cells**2, config.channels[-1])


def test_a_cells_features_see_a_window_centred_on_it() -> None:
    backbone = GridBackbone(GRID, SIZE)
    images = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)
    cell = 2 * 5 + 3  # row 2, column 3
    backbone(images)[0, cell].square().sum().backward()
    assert images.grad is not None
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    assert GRID.receptive_field == 12
    assert (int(rows.min()), int(rows.max())) == (2 * 8 - 2, 3 * 8 + 1)
    assert (int(columns.min()), int(columns.max())) == (3 * 8 - 2, 4 * 8 + 1)


def test_grid_config_wants_equal_lengths() -> None:
    with pytest.raises(ValueError, match="equally many"):
        SPAIRGridConfig(channels=(8,), kernels=(4, 4), strides=(2, 2))


# The sequential pass ---------------------------------------------------------------------------------------


def test_neighbours_are_those_above_and_to_the_left() -> None:
    neighbours = earlier_neighbours(3, 1)
    assert neighbours[4] == [0, 1, 2, 3]
    assert neighbours[0] == [-1, -1, -1, -1]
    assert neighbours[5] == [1, 2, -1, 4]
    assert earlier_neighbours(3, 0) == [[]] * 9
    assert len(earlier_neighbours(3, 2)[0]) == 12


@pytest.mark.parametrize(("side", "lookback"), [(5, 1), (4, 2), (1, 1), (3, 0)])
def test_a_wave_comes_after_all_that_its_cells_see(side: int, lookback: int) -> None:
    waves, neighbours = wavefront(side, lookback), earlier_neighbours(side, lookback)
    done = {-1}
    for wave in waves:
        for cell in wave:
            assert set(neighbours[cell]) <= done
        done |= set(wave)
    assert done == {-1, *range(side**2)}
    assert sum(map(len, waves)) == side**2


@pytest.mark.parametrize("lookback", [0, 1, 2])
def test_waves_give_what_raster_order_gives(lookback: int) -> None:
    model, images = tiny_spair(cells={"lookback": lookback}), noise(3)
    model.cells.waves = wavefront(5, lookback)
    together = fields_of(run(model, images))
    model.cells.waves = [[cell] for cell in range(25)]
    for name, values in fields_of(run(model, images)).items():
        torch.testing.assert_close(together[name], values, msg=name)


def test_without_lateral_weights_cells_are_independent() -> None:
    """The reference encodes all cells at once, without their neighbours."""
    model, images = tiny_spair(), noise(2)
    features = model.backbone(images)
    F, context = features.shape[2], 4 * (4 + 4 + 2)
    with torch.no_grad():
        for net in (model.cells.where_net, model.cells.depth_net, model.cells.present_net):
            net[0].weight[:, F : F + context] = 0
    cells = run(model, images)
    blind = torch.cat([features, torch.zeros(2, 25, context)], dim=2)
    whole = model.cells._read(images, blind, list(range(25)), None, wheels=False)
    for name in ("where", "boxes_cxcywh", "what_loc", "what_scale", "depth", "present_logits", "present"):
        torch.testing.assert_close(getattr(cells, name), getattr(whole, name), msg=name)


@pytest.mark.parametrize("cell", [0, 7, 12, 24])
def test_a_cells_features_change_no_earlier_cell(cell: int) -> None:
    model, images = tiny_spair(), noise(1)
    features = model.backbone(images)
    changed = features.clone()
    changed[:, cell] += 3
    before, after = (model.cells(images, f, None) for f in (features, changed))
    moved = (before.what_loc != after.what_loc).any(dim=2)[0] | (before.where != after.where).any(dim=2)[0]
    assert not moved[:cell].any()
    assert moved[cell]
    direct = [other for other, seen in enumerate(earlier_neighbours(5, 1)) if cell in seen]
    assert moved[direct].all()


def test_samples_are_drawn_around_their_means() -> None:
    model = tiny_spair(cells={"lookback": 0})
    torch.manual_seed(0)
    cells = run(model, noise(1).expand(4000, -1, -1, -1), temperature=0.1)
    for name in ("where", "what"):
        loc, scale, sample = (getattr(cells, name + suffix) for suffix in ("_loc", "_scale", ""))
        deviation = ((sample - loc) / scale).flatten(1)
        assert deviation.mean(dim=0).abs().max() < 0.08, name
        assert (deviation.std(dim=0) - 1).abs().max() < 0.06, name
    # Presence depends on the sampled box and embedding; on average, its samples follow the odds.
    share = (cells.present > 0.5).float().mean(dim=0)
    torch.testing.assert_close(share, cells.present_logits.sigmoid().mean(dim=0), rtol=0, atol=0.04)


# Where -----------------------------------------------------------------------------------------------------


def test_boxes_by_hand() -> None:
    model = tiny_spair()
    box = model.cells.to_boxes(
        torch.tensor([0.0, torch.logit(torch.tensor(0.75)), 0.0, -10.0]), torch.tensor([0.2, 0.4])
    )
    # Cells are a fifth wide, the anchor two fifths: middle of the cell, its lower edge, half the anchor, nothing.
    torch.testing.assert_close(box, torch.tensor([0.3, 0.6, 0.2, 0.0]), atol=1e-4, rtol=0)


def test_a_cell_reaches_its_corners_in_raster_order() -> None:
    corners = tiny_spair().cells.corners
    torch.testing.assert_close(corners[[0, 1, 5]], torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2]]))


@given(
    offset=st.tuples(*[st.floats(-0.49, 1.49)] * 2),
    size=st.tuples(*[st.floats(0.01, 0.99)] * 2),
    cell=st.integers(0, 24),
)
def test_boxes_and_logits_are_each_others_inverse(
    offset: tuple[float, float], size: tuple[float, float], cell: int
) -> None:
    cells = ROUND_TRIP.cells
    corner = cells.corners[cell]
    center = (corner + cells.cell * torch.tensor(offset)).clamp(0, 1)
    box = torch.cat([center, cells.anchor * torch.tensor(size)])
    torch.testing.assert_close(cells.to_boxes(cells.to_logits(box, corner), corner), box, atol=1e-4, rtol=1e-3)


ROUND_TRIP = tiny_spair()


def test_cell_of_is_the_cell_that_holds_the_centre() -> None:
    model = tiny_spair()
    centers = model.cells.corners + 0.07
    boxes = torch.cat([centers, torch.full((25, 2), 0.1)], dim=1)
    assert model.cells.cell_of(boxes).tolist() == list(range(25))
    assert model.cells.cell_of(torch.tensor([[1.0, 1.0, 0.1, 0.1]])).tolist() == [24]


def test_before_training_boxes_are_alike_and_in_the_middle() -> None:
    with seeded(0):
        model = SPAIR(SPAIRConfig(cells=SPAIRCellsConfig(anchor=32, size_init=0.25)))
    cells = run(model, torch.zeros(1, 3, 64, 64))
    expected = torch.cat([model.cells.corners + 6 / 64, torch.full((36, 2), 8 / 64)], dim=1)
    torch.testing.assert_close(cells.boxes_cxcywh[0], expected.clamp(0, 1), atol=0.02, rtol=0)


# The count prior -------------------------------------------------------------------------------------------


def joint(log_odds: float, num_cells: int) -> dict[tuple[int, ...], float]:
    """Returns p(z) of every presence pattern: q^C, shared among the patterns with C objects."""
    q = 1 / (1 + 2.718281828459045**-log_odds)
    weights = [q**count for count in range(num_cells + 1)]
    return {z: weights[sum(z)] / sum(weights) / comb(num_cells, sum(z)) for z in product((0, 1), repeat=num_cells)}


def test_odds_decide_how_many_objects_are_expected() -> None:
    uniform = count_distribution(30.0, 4).exp()
    torch.testing.assert_close(uniform, torch.full((5,), 0.2, dtype=torch.float64))
    few = count_distribution(0.0, 2).exp()  # q = 1/2
    torch.testing.assert_close(few, torch.tensor([4 / 7, 2 / 7, 1 / 7], dtype=torch.float64))


@pytest.mark.parametrize("log_odds", [-4.4, 0.0, 13.8])
def test_presence_given_the_earlier_cells_by_enumeration(log_odds: float) -> None:
    N, patterns = 5, joint(log_odds, 5)
    table = presence_table(log_odds, N)
    for i in range(N):
        for past in product((0, 1), repeat=i):
            matching = {z: p for z, p in patterns.items() if z[:i] == past}
            expected = sum(p for z, p in matching.items() if z[i]) / sum(matching.values())
            assert float(table[i, sum(past)]) == pytest.approx(expected, rel=1e-9)


def test_expected_count_prior_kl_is_that_of_the_joint_distributions() -> None:
    """The expectation over all presence patterns of the posterior is KL(q(z) ‖ p(z)) by its definition."""
    N, log_odds = 4, -1.0
    logits = torch.tensor([0.3, -2.0, 1.5, 0.0], dtype=torch.float64)
    prior, q = joint(log_odds, N), logits.sigmoid()
    expected = by_chain = torch.zeros((), dtype=torch.float64)
    for z, p in prior.items():
        pattern = torch.tensor(z, dtype=torch.float64)
        probability = (q * pattern + (1 - q) * (1 - pattern)).prod()
        expected = expected + probability * (probability / p).log()
        by_chain = by_chain + probability * count_prior_kl(logits[None], pattern[None], log_odds).sum()
    torch.testing.assert_close(by_chain, expected)


def test_one_cell_by_hand() -> None:
    kl = count_prior_kl(torch.tensor([[1.2]]), torch.tensor([[1.0]]), log_odds=0.0)
    # Of one cell, p(0) : p(1) = 1 : 1/2.
    expected = kl_divergence(Bernoulli(logits=torch.tensor(1.2)), Bernoulli(probs=torch.tensor(1 / 3)))
    torch.testing.assert_close(kl[0, 0], expected)


def test_presence_table_stays_a_probability_in_large_grids() -> None:
    for log_odds in (-10.0, 13.8, 40.0):
        table = presence_table(log_odds, 256)
        assert table.isfinite().all()
        assert ((table >= 0) & (table <= 1)).all()


# Encode and decode -----------------------------------------------------------------------------------------


def test_encode_returns_what_the_cells_hold() -> None:
    model, images = tiny_spair(), noise(3)
    objects, cells = model.encode(images), run(model, images)
    scores = cells.present_logits.sigmoid()
    assert 0 < len(objects) < 75
    assert len(objects) == int((scores >= 0.5).sum())
    assert objects.anchor_index is not None
    assert objects.labels is not None
    chosen = (objects.image_index, objects.anchor_index)
    for got, expected in [
        (objects.z_where, cells.boxes_cxcywh),
        (objects.scores, scores),
        (objects.z_what, cells.what_loc),
        (objects.z_what_scale, cells.what_scale),
        (objects.z_depth, cells.depth_loc),
    ]:
        torch.testing.assert_close(got, expected[chosen])
    assert not objects.labels.any()
    assert ((objects.z_where >= 0) & (objects.z_where <= 1)).all()
    assert objects.z_what is not None
    assert objects.z_what.shape == (len(objects), model.latent_dim)
    assert not objects.z_what.requires_grad


def test_a_threshold_selects_and_changes_nothing_else() -> None:
    model, images = tiny_spair(), noise(2)
    every = model.encode(images, score_threshold=0.0)
    assert len(every) == 50
    some = model.encode(images, score_threshold=0.6)
    assert every.scores is not None
    assert some.scores is not None
    assert torch.equal(some.z_where, every[every.scores >= 0.6].z_where)
    assert 0 < len(some) < 50


def test_boxes_of_the_models_own_give_its_own_embeddings() -> None:
    model, images = tiny_spair(), noise(2)
    objects = model.encode(images)
    assert objects.anchor_index is not None
    # A box whose centre lies outside its cell is encoded by another cell, which may give it another depth.
    home = model.cells.cell_of(objects.z_where) == objects.anchor_index
    assert home.any()
    again = model.embed(images, objects)
    for name in ("z_what", "z_what_scale"):
        torch.testing.assert_close(getattr(again, name), getattr(objects, name), atol=1e-4, rtol=1e-3)
    assert objects.z_depth is not None
    assert again.z_depth is not None
    torch.testing.assert_close(again.z_depth[home], objects.z_depth[home], atol=1e-3, rtol=1e-3)
    assert torch.equal(again.z_where, objects.z_where)
    assert torch.equal(again.scores, objects.scores)  # type: ignore[arg-type]


def test_given_boxes_are_encoded_row_by_row() -> None:
    model, images = tiny_spair(), noise(3)
    boxes = Objects(
        torch.tensor([0, 0, 2]),
        3,
        torch.tensor([[0.5, 0.5, 0.3, 0.2], [0.02, 0.9, 0.5, 0.5], [0.4, 0.1, 0.0, 0.9]]),
        labels=torch.tensor([4, 5, 6]),
    )
    objects = model.embed(images, boxes)
    assert torch.equal(objects.z_where, boxes.z_where)
    assert objects.labels is not None
    assert objects.labels.tolist() == [4, 5, 6]
    assert objects.scores is None
    for m in range(3):
        single = boxes[[m]].replace(image_index=torch.zeros(1, dtype=torch.int64), batch_size=1)
        alone = model.embed(images[boxes.image_index[m]][None], single)
        for name in ("z_what", "z_what_scale", "z_depth", "anchor_index"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(objects, name)[m], msg=name)
        assert alone.z_what is not None
        assert alone.z_what.isfinite().all()


def test_a_batch_is_encoded_and_decoded_as_its_images_are() -> None:
    model, images = tiny_spair(), noise(3)
    together = model.encode(images)
    alone = Objects.cat([model.encode(image[None]) for image in images])
    assert torch.equal(together.anchor_index, alone.anchor_index)  # type: ignore[arg-type]
    torch.testing.assert_close(together.z_what, alone.z_what, atol=1e-5, rtol=1e-4)
    decoded = torch.cat([model.decode(model.encode(image[None])).reconstructions for image in images])
    torch.testing.assert_close(model.decode(together).reconstructions, decoded, atol=1e-4, rtol=1e-3)


def test_a_batch_without_images_has_no_objects() -> None:
    objects = tiny_spair().encode(noise(0))
    assert (len(objects), objects.batch_size) == (0, 0)


def test_batches_without_objects_work_throughout() -> None:
    model, images = tiny_spair(present_bias=-100), noise(2)
    objects = model.encode(images)
    assert len(objects) == 0
    assert objects.batch_size == 2
    scene = model.decode(objects)
    assert scene.reconstructions.shape == images.shape
    assert not scene.reconstructions.any()
    assert scene.appearances.shape == (0, 3, 6, 6)
    assert scene.alpha is not None
    assert scene.alpha.shape == (0, 1, 6, 6)
    empty = model.embed(images, Objects.empty(2))
    assert empty.z_what is not None
    assert empty.z_what.shape == (0, 4)
    with pytest.raises(ValueError, match="need z_what and z_depth"):
        model.decode(Objects.empty(2))


def scene_of(model: SPAIR, boxes: list[list[float]], what: Tensor, depth: list[float]) -> tuple[Tensor, Tensor]:
    M = len(boxes)
    objects = Objects(torch.zeros(M, dtype=torch.int64), 1, torch.tensor(boxes), z_what=what)
    scene = model.decode(objects.replace(z_depth=torch.tensor(depth)))
    return scene.reconstructions[0], scene.appearances


def test_a_lone_object_is_decoded_as_its_appearance() -> None:
    model = tiny_spair()
    decoded, appearances = scene_of(model, [[0.5, 0.5, 0.15, 0.15]], torch.randn(1, 4), [-2.0])
    # A box as many pixels wide as the picture has samples, at whole pixels.
    torch.testing.assert_close(decoded[:, 17:23, 17:23], appearances[0], atol=1e-5, rtol=1e-4)
    assert not decoded[:, :16].any()
    assert not decoded[:, :, 24:].any()


def test_the_nearer_object_is_seen() -> None:
    model = tiny_spair()
    what = 5 * torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    boxes = [[0.5, 0.5, 0.15, 0.15]] * 2
    window = (slice(None), slice(17, 23), slice(17, 23))
    (first, pictures), (second, _) = (scene_of(model, boxes, what, depth) for depth in ([9.0, -9.0], [-9.0, 9.0]))
    assert (pictures[0] - pictures[1]).abs().max() > 0.3
    torch.testing.assert_close(first[window], pictures[0], atol=0.02, rtol=0)
    torch.testing.assert_close(second[window], pictures[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_presence_and_opacity_dim_an_object_that_is_alone(alpha: float) -> None:
    model = tiny_spair()
    pictures, opacity = torch.full((1, 3, 6, 6), 0.8 * alpha), torch.full((1, 1, 6, 6), alpha)
    box = torch.tensor([[17 / 40, 17 / 40, 23 / 40, 23 / 40]])
    for present in (1.0, 0.5):
        decoded = model._render(pictures, opacity, torch.tensor([present]), torch.zeros(1), box, [1])
        torch.testing.assert_close(decoded[0, :, 17:23, 17:23], torch.full((3, 6, 6), 0.8 * alpha * present))


def test_appearances_are_premultiplied() -> None:
    decoder = SPAIRDecoder(4, 6, SPAIRDecoderConfig(hidden=(12,), colour_bias=9.0))
    with torch.no_grad():
        decoder.net[-1].bias[108:] = -80  # opacity's logits, to be scaled by ALPHA_SCALE
    appearances, alpha = decoder(torch.randn(3, 4))
    assert alpha.max() < 0.1
    assert (appearances <= alpha).all()
    assert (appearances >= 0.9 * alpha).all()


def test_absent_cells_leave_no_trace() -> None:
    model, images = tiny_spair(), noise(2)
    objects = model.encode(images)
    cells = run(model, images)
    torch.testing.assert_close(
        model._decode_cells(cells), model.decode(objects).reconstructions, atol=1e-5, rtol=1e-4
    )


# Tight boxes -----------------------------------------------------------------------------------------------


def bright_model() -> tuple[SPAIR, Tensor]:
    """Returns a model that decodes every embedding to a bright block, and the block's box within the window.

    The block covers rows 1 ... 3 and columns 2 ... 3 of the appearance, which has six of each.
    """
    model = tiny_spair(output_boxes="tight")
    picture = torch.full((4, 6, 6), -9.0)
    picture[:3, 1:4, 2:4] = 9.0
    picture[3] = 100.0
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()
        model.decoder.net[-1].bias.copy_(picture.flatten())
    return model, torch.tensor([2 / 6, 1 / 6, 4 / 6, 4 / 6])


def test_tight_boxes_surround_what_is_bright_in_the_window() -> None:
    model, part = bright_model()
    images = noise(2)
    tight = model.encode(images)
    window = SPAIR(model.config.model_copy(update={"output_boxes": "window"}))
    window.load_state_dict(model.state_dict())
    loose = window.eval().encode(images)
    assert 0 < len(tight) == len(loose)
    low, high = loose.z_where[:, :2] - loose.z_where[:, 2:] / 2, loose.z_where[:, 2:]
    expected = torch.cat([low + part[:2] * high, low + part[2:] * high], dim=1).clamp(0, 1)
    torch.testing.assert_close(tight.boxes, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(tight.z_what, loose.z_what)  # type: ignore[arg-type]


def test_objects_of_tight_boxes_are_decoded_in_their_windows() -> None:
    model, _ = bright_model()
    box = torch.tensor([[0.5, 0.5, 0.1, 0.15]])  # of a window 12 px wide: 4 and 6 px
    objects = Objects(torch.zeros(1, dtype=torch.int64), 1, box, z_what=torch.zeros(1, 4), z_depth=torch.zeros(1))
    scene = model.decode(objects)
    window = Objects(objects.image_index, 1, torch.tensor([[0.5, 0.525, 0.3, 0.3]]), z_what=objects.z_what)
    loose = SPAIR(model.config.model_copy(update={"output_boxes": "window"}))
    loose.load_state_dict(model.state_dict())
    expected = loose.decode(window.replace(z_depth=objects.z_depth))
    torch.testing.assert_close(scene.reconstructions, expected.reconstructions, atol=1e-4, rtol=1e-3)
    assert scene.reconstructions[0, :, 18:22, 19:21].min() > 0.95
    # Alone, it fills its own box: the middle is far from any edge of the block.
    assert scene.appearances[0, :, 1:-1, 2:-2].min() > 0.8


def test_tight_boxes_are_embedded_through_a_larger_window() -> None:
    model, images = tiny_spair(output_boxes="tight"), noise(1)
    usual = 16 / (1 + 2.718281828**2.2) / SIZE  # the anchor times the size prior's mean
    boxes = Objects(torch.zeros(1, dtype=torch.int64), 1, torch.tensor([[0.5, 0.5, usual / 2, 0.3]]))
    looked = model.embed(images, boxes)
    window = to_xyxy(torch.tensor([[0.5, 0.5, usual, 0.3 / (1 - WINDOW_MARGIN)]]))
    expected, _ = model.cells.encode_packed(images, window, boxes.image_index)
    torch.testing.assert_close(looked.z_what, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(looked.z_where, boxes.z_where)


# The loss --------------------------------------------------------------------------------------------------


def test_the_total_is_the_sum_of_its_terms() -> None:
    model = tiny_spair()
    torch.manual_seed(0)
    losses = model.loss(noise(2))
    names = {"nll_image", "kl_where", "kl_what", "kl_depth", "kl_present"}
    assert losses.keys() == names | {"total", "mse"}
    kl = sum(losses[name] for name in names if name.startswith("kl_"))
    torch.testing.assert_close(losses["total"], losses["nll_image"] + kl)
    assert all(losses[name] > 0 for name in names)


def test_kl_counts_where_an_object_is() -> None:
    absent, present = (tiny_spair(present_bias=bias).loss(noise(2)) for bias in (-100, 100))
    for name in ("kl_where", "kl_what", "kl_depth"):
        assert absent[name] < 1e-3 * present[name], name


def test_steps_count_in_training_mode_and_drive_the_prior() -> None:
    schedule = Schedule(start=20.0, end=-20.0, to_step=2)
    model = tiny_spair(present_bias=100, prior={"count_log_odds": schedule}, wheels_steps=0)
    images, kl = noise(2), []
    model.loss(images)
    assert int(model.step) == 0
    model.train()
    for expected in (1, 2, 3):
        kl.append(float(model.loss(images)["kl_present"].detach()))
        assert int(model.step) == expected
    # Every cell is present, so the KL term grows as the prior falls.
    assert kl[0] < kl[1] < kl[2]
    assert model.state_dict()["step"] == 3


def test_wheels_leave_boxes_and_presence_alone() -> None:
    model = tiny_spair(wheels_steps=1).train()
    undecided = [model.cells.where_net, model.cells.depth_net, model.cells.present_net]

    def gradients() -> list[bool]:
        model.zero_grad()
        model.loss(noise(2))["total"].backward()
        return [any(p.grad is not None and bool(p.grad.any()) for p in net.parameters()) for net in undecided]

    assert not any(p is None for p in undecided)
    first = gradients()
    # The last layers get none; what is passed on to the depth and presence nets' inputs reaches nothing else.
    assert first == [False, False, False]
    assert any(p.grad is not None and p.grad.any() for p in model.cells.encoder.parameters())
    assert gradients() == [True, True, True]


def test_gradients_reach_every_parameter() -> None:
    model = tiny_spair(wheels_steps=0).train()
    torch.manual_seed(0)
    model.loss(noise(4))["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images_stay_finite(value: float) -> None:
    model = tiny_spair(wheels_steps=0).train()
    images = torch.full((2, 3, SIZE, SIZE), value)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        losses = model.loss(images)
        assert all(term.isfinite() for term in losses.values())
        optimiser.zero_grad()
        losses["total"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimiser.step()
    scene = model.eval()(images)
    assert scene.reconstructions.isfinite().all()
    assert ((scene.reconstructions >= 0) & (scene.reconstructions <= 1)).all()


def test_training_on_one_batch_lowers_the_loss() -> None:
    images = squares(8)
    with seeded(0):
        model = SPAIR(
            SPAIRConfig(
                image_size=SIZE,
                grid=GRID,
                cells=SPAIRCellsConfig(lateral=(32,), passed=8, anchor=16),
                glimpses=SPAIRGlimpseConfig(size=8, channels=(8,), hidden=32, latent_dim=8),
                decoder=SPAIRDecoderConfig(hidden=(32,)),
                wheels_steps=5,
            )
        ).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        totals = []
        for _ in range(30):
            losses = model.loss(images)
            optimiser.zero_grad()
            losses["total"].backward()
            optimiser.step()
            totals.append(float(losses["total"].detach()))
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])


def test_means_are_deterministic_and_leave_the_generator_alone() -> None:
    model, images = tiny_spair(), noise(2)
    state = torch.get_rng_state()
    first, second = model.encode(images), model.encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.z_where, second.z_where)


def test_glimpses_of_windows_beyond_the_image_show_black_there() -> None:
    model = tiny_spair()
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.4]])
    glimpse = torch.ones(1, 3, 6, 6)
    glimpse[:, :, :3] = 0
    glimpse[:, :, :, :3] = 0
    loc, _ = model.cells.encode_packed(
        torch.ones(1, 3, SIZE, SIZE), to_xyxy(boxes), torch.zeros(1, dtype=torch.int64)
    )
    expected, _ = model.cells.encoder(glimpse).chunk(2, dim=1)
    torch.testing.assert_close(loc, expected, atol=0.05, rtol=0.05)


def test_saved_and_loaded_it_is_the_same_model(tmp_path: Path) -> None:
    model, images = tiny_spair(), noise(2)
    model.step.fill_(123)
    save_model(model, tmp_path / "spair", "untrained")
    loaded = load_model(tmp_path / "spair")
    assert isinstance(loaded, SPAIR)
    assert loaded.config == model.config
    assert loaded.class_names == ["object"]
    assert (loaded.image_size, loaded.latent_dim, loaded.score_threshold) == (SIZE, 4, 0.5)
    assert loaded.step == 123
    assert_same_objects(loaded.encode(images), model.encode(images))


def test_annealing_goes_on_where_a_checkpoint_was() -> None:
    schedule = Schedule(start=20.0, end=-20.0, to_step=4)
    first = tiny_spair(prior={"count_log_odds": schedule}).train()
    second = tiny_spair(prior={"count_log_odds": schedule}).train()
    for _ in range(3):
        first.loss(noise(2))
    second.load_state_dict(first.state_dict())
    losses = []
    for model in (first, second):
        torch.manual_seed(0)
        losses.append(model.loss(noise(2))["kl_present"])
    assert torch.equal(*losses)
