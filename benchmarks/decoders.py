"""Compares the decoder of transposed convolutions with the one that interpolates, on objects of photographs.

Small autoencoders of crops at true boxes learn on the train split and are measured on the val split: objects of
CLEVR, faces of at least 4 % of the image, and objects of Pascal VOC, 64×64 pixels each. Only the decoder and the
weight of the loss's details differ. Reported: SSIM and LPIPS (`object_similarity`), the mean squared error, the
accuracy of a linear probe of the embeddings, the strength of the grid (how much larger steps of brightness are at
the borders of a 4×4 grid of cells than between, 1 without a grid), and the time of decoding.

Run: python benchmarks/decoders.py DATA --work build/decoders --out results/bench/decoders.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from ssdir.data.dataset import fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.device import seeded
from ssdir.evaluation.provenance import provenance
from ssdir.evaluation.reconstruction import OBJECT_SIDE, object_similarity
from ssdir.models.decoder import DecoderConfig, build_decoder
from ssdir.models.losses import bernoulli_nll, laplacian_l1, normal_kl
from ssdir.ops.glimpses import crop_glimpses
from ssdir.outputs import atomic_file

DATA: dict[str, tuple[str, ...]] = {
    "clevr": ("clevr-mini",),
    "faces": ("widerface", "widerface-512"),
    "voc": ("voc/VOCdevkit/VOC2012",),
}
OPTIONS: dict[str, dict[str, Any]] = {"faces": {"min_side": 0.04, "drop_empty": True}}
IMAGE_SIZE, LATENT_DIM, WHAT_SCALE, BATCH, LEARNING_RATE, LIKELIHOOD = 256, 128, 0.1, 32, 2e-3, 20.0
COMMON: dict[str, Any] = {"stem": 64, "alpha": True, "norm": True}
ARMS: dict[str, tuple[DecoderConfig, float]] = {
    "transposed": (DecoderConfig(grid=4, channels=(64, 64, 32), icnr=True, **COMMON), 0.0),
    "bilinear, details": (DecoderConfig(upsampling="bilinear", grid=8, channels=(64, 32), **COMMON), 5.0),
    "bilinear, weak details": (
        DecoderConfig(upsampling="bilinear", grid=8, channels=(64, 32), **COMMON),
        1.0,
    ),
    "transposed, details": (DecoderConfig(grid=4, channels=(64, 64, 32), icnr=True, **COMMON), 5.0),
    "bilinear": (DecoderConfig(upsampling="bilinear", grid=8, channels=(64, 32), **COMMON), 0.0),
}

Crops = tuple[Tensor, Tensor]
"""Crops uint8 (N, 3, 64, 64), and the category of each, int64 (N,)."""


class Autoencoder(nn.Module):
    """A small convolutional encoder of crops, a decoder, and one colour behind all objects."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        widths = [3, 32, 64, 128]
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * widths[-1], LATENT_DIM))
        self.decoder = build_decoder(LATENT_DIM, config)
        self.background = nn.Parameter(torch.zeros(3, 1, 1))

    def decode(self, z_what: Tensor) -> Tensor:
        """Decodes embeddings (M, D) to images (M, 3, S, S)."""
        appearances, alpha = self.decoder(z_what)
        pictures: Tensor = appearances + (1 - alpha) * (8 * self.background).sigmoid()
        return pictures


def read_crops(root: Path, name: str, work: Path) -> dict[str, Any]:
    """Returns the crops of the objects of both splits, cached in the folder `work`, and the hash of the data."""
    file = work / f"{name}.pt"
    if not file.is_file():
        crops: dict[str, Any] = {"hash": []}
        for split in ("train", "val"):
            pictures, categories = [], []
            for part in DATA[name]:
                dataset = open_dataset(root / part, split, "all", IMAGE_SIZE, **OPTIONS.get(name, {}))
                crops["hash"].append(fingerprint(dataset))
                for index in range(len(dataset)):
                    image, objects = dataset[index]
                    if len(objects):
                        seen = image[None].float()
                        glimpses = crop_glimpses(seen, objects.boxes, objects.image_index, OBJECT_SIDE)
                        pictures.append(glimpses.round().byte())
                        categories.append(dataset.categories(index))
            crops[split] = torch.cat(pictures), torch.cat(categories)
        work.mkdir(parents=True, exist_ok=True)
        torch.save(crops, file)
    read: dict[str, Any] = torch.load(file)
    return read


def fit(config: DecoderConfig, details: float, crops: Tensor, steps: int, seed: int) -> Autoencoder:
    """Trains an autoencoder."""
    with seeded(seed):
        model = Autoencoder(config)
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
        for _ in range(steps):
            batch = crops[torch.randint(len(crops), (BATCH,))].float() / 255
            batch = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, batch.flip(3), batch)
            target = F.interpolate(batch, size=(config.size, config.size), mode="area")
            loc = model.encoder(batch)
            decoded = model.decode(loc + WHAT_SCALE * torch.randn_like(loc))
            errors = bernoulli_nll(decoded, target).sum(dim=(1, 2, 3)) + details * laplacian_l1(decoded, target)
            loss = LIKELIHOOD * errors.mean() + normal_kl(loc, WHAT_SCALE).sum() / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def measure(model: Autoencoder, train: Crops, test: Crops, cell: int) -> tuple[dict[str, float], Tensor]:
    """Computes the metrics of an autoencoder, and its reconstructions of the test crops."""
    known, unseen = (
        torch.cat([model.encoder(part.float() / 255) for part in crops.split(128)]) for crops, _ in (train, test)
    )
    decoded = torch.cat([model.decode(part) for part in unseen.split(128)])
    shown = F.interpolate(decoded, size=(OBJECT_SIDE, OBJECT_SIDE), mode="bilinear")
    truth = test[0].float() / 255
    ssim, lpips = object_similarity(shown, truth)
    metrics = {
        "ssim": float(ssim.mean()),
        "lpips": float(lpips.mean()),
        "mse": float((shown - truth).square().mean()),
        "grid": grid_strength(decoded, cell),
    }
    if len(train[1].unique()) > 1:
        mean, scale = known.mean(dim=0), known.std(dim=0) + 1e-6
        probe = LogisticRegression(max_iter=300, C=0.1).fit(((known - mean) / scale).numpy(), train[1].numpy())
        metrics["probe_accuracy"] = float(probe.score(((unseen - mean) / scale).numpy(), test[1].numpy()))
    return metrics, shown


def grid_strength(pictures: Tensor, cell: int) -> float:
    """Computes the mean brightness step at cell borders over that between other pixels; 1 without a grid."""
    size = pictures.shape[-1]
    border = torch.arange(1, size) % cell == 0
    ratios = []
    for dim in (2, 3):
        steps = pictures.diff(dim=dim).abs().movedim(dim, 0)
        ratios.append(float(steps[border].mean() / steps[~border].mean()))
    return sum(ratios) / len(ratios)


@torch.inference_mode()
def decode_milliseconds(models: Mapping[str, nn.Module], objects: int = 128, rounds: int = 20) -> dict[str, float]:
    """Measures the least time of decoding a batch, per object; decoders take turns, so that loads are equal."""
    z_what = torch.randn(objects, LATENT_DIM)
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            model(z_what)
            best[name] = min(best[name], 1e3 * (time.perf_counter() - started) / objects)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with clevr-mini, widerface, widerface-512 and voc")
    parser.add_argument("--work", type=Path, required=True, help="where crops, and pictures of objects, are kept")
    parser.add_argument("--out", type=Path, required=True, help="runs that it has are kept, others are added")
    parser.add_argument("--names", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    done = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"runs": []}
    times = done.get("decode_ms_per_object")
    if not times:
        decoders = {arm: build_decoder(LATENT_DIM, config).eval() for arm, (config, _) in list(ARMS.items())[:2]}
        times = decode_milliseconds(decoders)
    hashes: dict[str, Any] = {}
    for seed in range(options.seeds):
        for name in options.names:
            crops = read_crops(options.data, name, options.work)
            if crops["hash"]:
                hashes[name] = crops["hash"]
            rows = [crops["val"][0][:16].float() / 255]
            for arm in options.arms:
                key = {"data": name, "decoder": arm, "seed": seed, "steps": options.steps}
                if any(key.items() <= run.items() for run in done["runs"]):
                    continue
                config, details = ARMS[arm]
                model = fit(config, details, crops["train"][0], options.steps, seed)
                metrics, shown = measure(model, crops["train"], crops["val"], config.size // 4)
                done["runs"].append(key | {metric: round(value, 4) for metric, value in metrics.items()})
                print(done["runs"][-1], flush=True)
                rows.append(shown[:16])
                about = {
                    "arms": {arm: [config.model_dump(), details] for arm, (config, details) in ARMS.items()},
                    "data": done.get("provenance", {}).get("config", {}).get("data", {}) | hashes,
                }
                record = provenance(about, None, None, "cpu", time.perf_counter() - started)
                content = {"runs": done["runs"], "decode_ms_per_object": times, "provenance": record}
                with atomic_file(options.out, force=True) as file:
                    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            picture = make_grid(torch.cat(rows), nrow=16).mul(255).byte().permute(1, 2, 0)
            Image.fromarray(picture.numpy()).save(options.work / f"{name}-{seed}.png")


if __name__ == "__main__":
    main()
