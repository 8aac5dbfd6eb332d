import pickle

import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms import v2

from ssdir.data.transforms import AugmentConfig, build_augmentation
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

# Each object is a rectangle of its own brightness on black; xyxy in pixels.
BOXES = torch.tensor([[8, 10, 30, 26], [40, 6, 60, 50], [5, 40, 20, 60], [30, 34, 36, 44]])
BRIGHTNESS = (60, 110, 170, 240)
SIDE = 64


def scene():
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    for (x1, y1, x2, y2), value in zip(BOXES.tolist(), BRIGHTNESS, strict=True):
        image[:, y1:y2, x1:x2] = value
    count = len(BOXES)
    objects = Objects(
        image_index=torch.zeros(count, dtype=torch.int64),
        batch_size=1,
        z_where=to_cxcywh(BOXES / SIDE),
        labels=torch.tensor([3, 1, 4, 1]),
        z_depth=torch.arange(count).float(),
        source_index=torch.tensor(BRIGHTNESS),
    )
    return image, objects


def bounds(mask):
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


GEOMETRIC = [
    {"flip": 1},
    {"zoom_out": 1},
    {"iou_crop": 1},
    {"flip": 0.5, "zoom_out": 0.5, "iou_crop": 0.5},
    {"scale_jitter": 1},
]


@pytest.mark.parametrize("size", [64, 100])
@pytest.mark.parametrize("config", GEOMETRIC)
def test_boxes_still_bound_their_objects(config, size):
    augment = build_augmentation(AugmentConfig(**config), size)
    torch.manual_seed(0)
    lost = 0
    for row in [0, 1, 2] * 20:
        _, objects = scene()
        x1, y1, x2, y2 = BOXES[row].tolist()
        image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        image[:, y1:y2, x1:x2] = 255
        new_image, kept = augment(image, objects[[row]])
        assert new_image.shape == (3, size, size)
        assert new_image.dtype == torch.uint8
        assert type(new_image) is torch.Tensor
        if not len(kept):  # A window may be beside the only object.
            lost += 1
            continue
        assert (bounds(new_image[0] > 127) - kept.boxes_px((size, size))[0]).abs().max() <= 1
    assert lost <= (20 if "scale_jitter" in config else 0)


@pytest.mark.parametrize("config", GEOMETRIC)
def test_objects_keep_their_identity(config):
    augment = build_augmentation(AugmentConfig(**config), SIDE)
    image, objects = scene()
    torch.manual_seed(0)
    for _ in range(60):
        new_image, kept = augment(image, objects)
        for box, brightness in zip(kept.boxes_px((SIDE, SIDE)), kept.source_index, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).int().tolist()
            if (box[2:] - box[:2]).min() > 6:  # Smaller ones are blurred to their middle.
                assert abs(int(new_image[0, y, x]) - int(brightness)) <= 2


@pytest.mark.parametrize("name", ["flip", "zoom_out", "iou_crop", "photometric", "scale_jitter"])
def test_each_augmentation_changes_images_with_its_probability(name):
    image, objects = scene()
    image[0] //= 2  # Colour, so that a change of hue shows.
    torch.manual_seed(0)
    for probability, low, high in ((1.0, 0.65, 1.0), (0.3, 0.1, 0.5)):
        augment = build_augmentation(AugmentConfig(**{name: probability}), SIDE)
        changed = sum(not torch.equal(augment(image, objects)[0], image) for _ in range(60)) / 60
        assert low <= changed <= high, probability


def test_flips_mirror_exactly():
    image, objects = scene()
    flipped, kept = build_augmentation(AugmentConfig(flip=1), SIDE)(image, objects)
    assert torch.equal(flipped, image.flip(2))
    expected = objects.z_where.clone()
    expected[:, 0] = 1 - expected[:, 0]
    assert torch.allclose(kept.z_where, expected, atol=1e-6)


def test_photometric_distortion_moves_no_box():
    image, objects = scene()
    kept = build_augmentation(AugmentConfig(photometric=1), SIDE)(image, objects)[1]
    assert torch.allclose(kept.z_where, objects.z_where, atol=1e-6)


def test_every_field_stays_with_its_object():
    image, objects = scene()
    augment = build_augmentation(AugmentConfig(iou_crop=1), SIDE)
    torch.manual_seed(1)
    counts = set()
    for _ in range(50):
        kept = augment(image, objects)[1]
        rows = kept.z_depth.long()
        counts.add(len(kept))
        for field in ("labels", "source_index", "z_depth"):
            assert torch.equal(getattr(kept, field), getattr(objects, field)[rows]), field
        assert kept.batch_size == 1
    assert min(counts) < 4 == max(counts)


def test_crops_keep_an_object():
    image, objects = scene()
    augment = build_augmentation(AugmentConfig(iou_crop=1), SIDE)
    torch.manual_seed(2)
    assert all(len(augment(image, objects)[1]) for _ in range(100))


def test_scale_jitter_makes_scenes_smaller_and_larger_and_keeps_centres():
    image, objects = scene()
    augment = build_augmentation(AugmentConfig(scale_jitter=1), SIDE)
    torch.manual_seed(3)
    factors, counts = [], set()
    for _ in range(400):
        kept = augment(image, objects)[1]
        counts.add(len(kept))
        low, high = kept.boxes[:, :2], kept.boxes[:, 2:]
        whole = ((low > 0.01) & (high < 0.99)).all(dim=1)
        sides = objects.z_where[kept.z_depth.long(), 2:]
        factors += (kept.z_where[whole, 2:] / sides[whole]).mean(dim=1).tolist()
        # Half of each side is there where the centre is.
        assert (kept.z_where[:, 2:] >= 0.45 * torch.minimum(0.5 * sides, sides)).all()
    assert min(factors) == pytest.approx(0.5, abs=0.05)
    assert max(factors) == pytest.approx(2, abs=0.1)
    smaller = sum(factor < 1 for factor in factors) / len(factors)
    assert 0.45 < smaller < 0.75  # Where scenes become larger, fewer objects are left whole.
    assert min(counts) < 4 == max(counts)


def test_images_without_objects(monkeypatch):
    def search_for_an_object(*args):
        raise AssertionError("there is none")

    monkeypatch.setattr(v2.RandomIoUCrop, "make_params", search_for_an_object)
    image, objects = scene()
    augment = build_augmentation(AugmentConfig(flip=1, photometric=1, zoom_out=1, iou_crop=1), 32)
    for _ in range(20):
        new_image, kept = augment(image, objects[:0])
        assert new_image.shape == (3, 32, 32)
        assert len(kept) == 0
        assert kept.labels is not None


def test_the_input_is_left_alone():
    image, objects = scene()
    augment = build_augmentation(AugmentConfig(flip=1, photometric=1, zoom_out=1, iou_crop=1), SIDE)
    augment(image, objects)
    original_image, original = scene()
    assert torch.equal(image, original_image)
    assert torch.equal(objects.z_where, original.z_where)


def test_nothing_to_do_and_pickling():
    assert build_augmentation(AugmentConfig(), 64) is None
    image, objects = scene()
    augment = pickle.loads(pickle.dumps(build_augmentation(AugmentConfig(flip=1), SIDE)))
    assert torch.equal(augment(image, objects)[0], image.flip(2))


def test_probabilities_are_checked():
    with pytest.raises(ValidationError):
        AugmentConfig(flip=1.5)
