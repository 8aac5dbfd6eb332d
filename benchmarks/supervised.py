"""Measures the accuracy of a convolutional classifier that is supervised with the labels, at the true boxes.

It is a ceiling for probes of embeddings that are learned without labels: the network only classifies, and need not
detect objects, share features among them, or keep the information that a decoder needs.

Run: python benchmarks/supervised.py DATA --out results/reference/supervised.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.data.dataset import ObjectDataset, collate, fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.evaluation.provenance import provenance
from ssdir.ops.boxes import grow_boxes, to_xyxy
from ssdir.ops.glimpses import crop_glimpses
from ssdir.outputs import atomic_file, claim

SIZE, MARGIN, WIDTHS, BATCH, PEAK_LR = 32, 1.15, (16, 32, 64, 64, 128), 256, 2e-3
READ_AT_ONCE = 64


def crops(split: ObjectDataset, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns crops uint8 (n, 1, S, S) of the objects of the first images, their labels and longer sides (n,)."""
    batches: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, min(images, len(split)), READ_AT_ONCE):
        indices = range(start, min(start + READ_AT_ONCE, images, len(split)))
        pixels, objects = collate([split[index] for index in indices])
        around = to_xyxy(grow_boxes(objects.z_where, MARGIN))
        pictures = crop_glimpses(pixels[:, :1], around, objects.image_index, SIZE)
        assert objects.labels is not None
        batches.append(((255 * pictures).byte(), objects.labels, objects.z_where[:, 2:].amax(dim=1)))
    pictures, labels, sizes = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return pictures, labels, sizes


def build_net(classes: int) -> nn.Sequential:
    """Builds a network of five convolutions, two of which halve the resolution."""
    layers: list[nn.Module] = []
    before = 1
    for number, width in enumerate(WIDTHS):
        stride = 2 if number in (1, 3) else 1
        layers += [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    cells = (SIZE // 4) ** 2
    head = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(before * cells, 256), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *head, nn.Dropout(0.3), nn.Linear(256, classes))


def distorted(pictures: Tensor) -> Tensor:
    """Warps each crop by a random affine map close to the identity."""
    maps = 0.08 * torch.randn(len(pictures), 2, 3)
    maps[:, 0, 0] += 1
    maps[:, 1, 1] += 1
    return F.grid_sample(pictures, F.affine_grid(maps, list(pictures.shape), False), align_corners=False)


def fit(pictures: Tensor, labels: Tensor, classes: int, epochs: int) -> nn.Sequential:
    """Trains the network."""
    net = build_net(classes)
    steps = epochs * (len(pictures) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(pictures))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(net(distorted(pictures[rows].float() / 255)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return net.eval()


@torch.no_grad()
def right(net: nn.Sequential, pictures: Tensor, labels: Tensor) -> Tensor:
    """Returns whether the network predicts each label, bool (n,)."""
    parts = [net(part.float() / 255).argmax(dim=1) for part in pictures.split(BATCH)]
    return torch.cat(parts) == labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000, help="of the training split")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    claim(arguments.out, arguments.force)
    torch.manual_seed(arguments.seed)
    started = time.perf_counter()
    train, test = (open_dataset(arguments.data, name, "all", arguments.image_size) for name in ("train", "test"))
    pictures, labels, sizes = crops(train, arguments.images)
    net = fit(pictures, labels, len(train.class_names), arguments.epochs)
    unseen, truth, unseen_sizes = crops(test, len(test))
    correct = right(net, unseen, truth)
    thirds = torch.bucketize(unseen_sizes, sizes.quantile(torch.tensor([1 / 3, 2 / 3])))
    metrics = {"accuracy": float(correct.float().mean())}
    for number, name in enumerate(("small", "medium", "large")):
        metrics[f"accuracy_{name}"] = float(correct[thirds == number].float().mean())
    print(json.dumps(metrics))
    config = {"images": min(arguments.images, len(train)), "objects": len(labels), "epochs": arguments.epochs}
    record = provenance(config, arguments.seed, fingerprint(test), "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, arguments.force) as file:
        file.write_text(json.dumps({"metrics": metrics, "provenance": record}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
