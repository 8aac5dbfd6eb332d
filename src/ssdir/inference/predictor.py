"""`Predictor`: a loaded model that encodes images of any kind and size, and decodes objects."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from einops import rearrange
from huggingface_hub import ModelHubMixin
from torch import Tensor

from ssdir.data.images import Image8, ImageSource, to_tensor
from ssdir.data.letterbox import Letterbox, Resize, read_square
from ssdir.device import choose_device, device_name
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.inference.files import READERS, Precision, check_threshold, chunks, map_ahead
from ssdir.inference.given_boxes import as_objects
from ssdir.inference.sources import Images, fetch_sources, image_sources, source_size
from ssdir.models.base import EmbeddingModel, GenerativeModel, ObjectModel
from ssdir.models.hub import fetch_model
from ssdir.models.inference_form import inference_form
from ssdir.models.io import load_model, save_model, weights_fingerprint
from ssdir.object_arrays import BoxUnit
from ssdir.objects import Objects, Scene

if TYPE_CHECKING:
    from ssdir.inference.given_boxes import GivenBoxes


def load(
    name_or_dir: str | Path, device: str | torch.device | None = None, precision: Precision = "single"
) -> Predictor:
    """Loads a model by the name of a shipped one, from a folder, or from the Hugging Face Hub.

    Args:
        name_or_dir: see `ssdir models`; a folder that `ssdir train` or `save_model` wrote; `hf://USER/NAME`.
        device: None takes the accelerator, if there is one.
        precision: precision of encoding, see `Predictor`.

    Raises:
        InputError: for an unknown name, damaged files, a device that is not available, or a precision that the
            model can't have.
    """
    return Predictor(load_model(name_or_dir, choose_device(device)), precision=precision)


CARD = """---
{{ card_data }}
---

# {{ repo_id | default("A model of ssdir", true) }}

Detects the objects of images, each with a box, a class, an embedding that can be decoded, and a depth.

```python
import ssdir

model = ssdir.load("hf://{{ repo_id | default("USER/NAME", true) }}")
objects = model.encode("picture.png")
```
"""


class Predictor(ModelHubMixin, library_name="ssdir", tags=["object-centric"], model_card_template=CARD):
    """A model in evaluation mode, for images of any kind and size.

    Images are resized to the model's square, as `resize` says; `z_where` is relative to the image, so it needs no
    conversion.
    Results are on the CPU.

    Args:
        model: the model, on the device to run on. Encoding uses a copy of it as it is now, see `inference_form`:
            load or train first.
        batch_size: maximum number of images that are encoded at once.
        precision: precision of the products in encoding, see `ObjectModel`; decoding stays in single precision.

    Attributes:
        model: the model as it was given, which decodes and is saved.
        encoder: the copy that encodes, and whose results are to be measured.

    Raises:
        InputError: for bf16 of a model without a detector, whose thin windows it would misplace.
    """

    def __init__(self, model: ObjectModel, batch_size: int = 32, precision: Precision = "single") -> None:
        if precision == "bf16" and not model.supports_bfloat16:
            raise InputError(
                f"a {model.config.kind} model encodes in single precision only: leave out precision bf16"
            )
        self.model = model.eval()
        self.batch_size = batch_size
        self.encoder = inference_form(self.model)
        self.encoder.in_bfloat16 = precision == "bf16"

    def __repr__(self) -> str:
        classes = counted(len(self.class_names), "class", "classes")
        about = f"{self.image_size} px, {self.latent_dim} latents, {classes}; {self.device}"
        return f"Predictor({self.model.config.kind}: {about})"

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""
        return self.model.class_names

    @property
    def image_size(self) -> int:
        """Side of the model's square input, in pixels."""
        return self.model.image_size

    @property
    def resize(self) -> Resize:
        """How images become square: `stretch` or `letterbox`."""
        return self.model.resize

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`; 0 for a detector."""
        return self.model.latent_dim

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights, see `weights_fingerprint`."""
        return weights_fingerprint(self.model)

    @property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return self.model.device

    @property
    def device_name(self) -> str:
        """The product name of the GPU that the model runs on, or the kind of device."""
        return device_name(self.device)

    def encode(
        self,
        images: Images,
        score_threshold: float | None = None,
        boxes: GivenBoxes | None = None,
        *,
        box_unit: BoxUnit | None = None,
    ) -> Objects:
        """Detects and embeds the objects of one or several images.

        Args:
            images: a path or URI, the bytes of a file, a file opened in binary mode, a PIL image, array
                (H, W[, C]) or tensor (C, H, W), see `read_image`; a folder, a pattern such as "photos/*.jpg" or a
                list, whose images are in the order of `find_images`; a sequence of these, of any sizes and kinds;
                or a batch: tensor (B, 3, H, W), array (B, H, W, C).
            score_threshold: minimum score, in [0, 1]; None takes the model's.
            boxes: boxes of your own detector or tracker, see `as_objects`, which are embedded instead of detecting
                any. The result is row-aligned with them, and has their scores, labels and tracks.
            box_unit: unit of boxes that are arrays: "pixels" of the image after EXIF orientation, or "relative" to
                it.

        Raises:
            InputError: if an image cannot be read, or there is none; if boxes don't fit their image.
        """
        check_threshold(score_threshold)
        if boxes is None:
            return Objects.cat(
                [
                    letterbox.to_image(self.encode_batch(batch, score_threshold))
                    for batch, letterbox in self._batches(images, self.resize)
                ]
            )
        sources = image_sources(images)
        given = as_objects(boxes, [source_size(source) for source in sources], box_unit).to("cpu")
        parts = chunks(given.split(), self.batch_size)
        encoded = [
            self.encode_batch(batch, boxes=letterbox.to_square(Objects.cat(part)))
            for (batch, letterbox), part in zip(self._batches(sources, self.resize), parts, strict=True)
        ]
        return Objects.cat(encoded).replace(z_where=given.z_where, track_id=given.track_id)

    def to(self, device: str | torch.device) -> Self:
        """Moves the model to a device, and returns the same predictor.

        Raises:
            InputError: if the device is not available.
        """
        chosen = choose_device(device)
        self.model.to(chosen)
        self.encoder.to(chosen)
        return self

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Loads a model from a folder or, by `USER/NAME`, from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: the folder, or the name.
            options: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`: see `fetch_model`; and
                `batch_size`.

        Raises:
            InputError: as `fetch_model` and `load_model`.
        """
        batch_size = options.pop("batch_size", 32)
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = fetch_model(str(pretrained_model_name_or_path), **options)
        return cls(load_model(folder, choose_device()), batch_size)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes the model's folder, for `save_pretrained` and `push_to_hub`."""
        save_model(self.model, save_directory)

    def encode_pixels(
        self, pixels: Image8, score_threshold: float | None = None, boxes: Objects | None = None
    ) -> Objects:
        """Encodes like `encode_batch`, for uint8 (B, image_size, image_size, 3), RGB; B may be 0."""
        if not len(pixels):
            return Objects.empty(0)
        batch = rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").contiguous().float().div_(255)
        return self.encode_batch(batch, score_threshold, boxes)

    @torch.no_grad()
    def decode(self, objects: Objects) -> Scene:
        """Decodes objects: reconstructions (B, 3, image_size, image_size), and each object alone.

        A reconstruction shows the image that boxes are relative to, stretched to the square, without padding.

        Raises:
            InputError: if the model has no decoder.
        """
        return as_generative(self.model).decode(objects.to(self.device)).to("cpu")

    @torch.no_grad()
    def reconstruct(self, images: Images, objects: Objects | None = None) -> Scene:
        """Decodes the objects of images, over the background for models that infer one.

        Args:
            images: see `encode`.
            objects: their objects; None encodes the images.

        Raises:
            InputError: if the model has no decoder.
        """
        model, sources = as_generative(self.model), image_sources(images)
        prepared = self.prepare(sources)
        objects = self.encode(sources) if objects is None else objects
        return model.reconstruct(prepared.to(self.device), objects.to(self.device)).to("cpu")

    def prepare(self, images: Images, resize: Resize | None = None) -> Tensor:
        """Converts images to squares: float (B, 3, image_size, image_size) in [0, 1].

        Args:
            images: see `encode`.
            resize: None makes the model's input; `stretch` makes what `decode` reconstructs.
        """
        return torch.cat([batch for batch, _ in self._batches(images, resize or self.resize)])

    def encode_batch(
        self, batch: Tensor, score_threshold: float | None = None, boxes: Objects | None = None
    ) -> Objects:
        """Encodes the model's input, float (B, 3, image_size, image_size) in [0, 1], as one batch.

        All boxes are relative to the square: `prepare` may have padded it.
        """
        images = batch.to(self.device, memory_format=torch.channels_last)
        if boxes is None:
            objects = self.encoder.encode(images, score_threshold).to("cpu")
            return objects.replace(class_names=tuple(self.class_names))
        if not isinstance(self.encoder, EmbeddingModel):
            raise InputError("the model is a detector: it gives no embeddings of boxes, so give it images alone")
        return self.encoder.embed(images, boxes.to(self.device)).to("cpu")

    def _batches(self, images: Images, resize: Resize) -> Iterator[tuple[Tensor, Letterbox]]:
        """Makes batches of squares, and where the images lie in them."""
        sources = image_sources(images)
        if not len(sources):
            raise InputError("there are no images to encode")
        fetched = fetch_sources(sources)
        # A PIL image can't be decoded by several threads, and may be given twice.
        are_files = len(sources) > 1 and all(isinstance(source, (str, Path, bytes)) for source in sources)
        readers = READERS if are_files else 0
        squares = map_ahead(partial(self._prepare_one, resize), fetched, readers, self.batch_size)
        for chunk in chunks(squares, self.batch_size):
            letterbox = Letterbox.of([size for size, _ in chunk], self.image_size, resize)
            yield torch.stack([square for _, square in chunk]), letterbox

    def _prepare_one(self, resize: Resize, source: ImageSource) -> tuple[tuple[int, int], Tensor]:
        side = self.image_size
        if isinstance(source, Tensor) and source.is_floating_point() and source.shape == (3, side, side):
            return (side, side), _check_range(source.detach().float().cpu())
        size, pixels = read_square(source, side, resize)
        return size, to_tensor(pixels)


def as_generative(model: ObjectModel) -> GenerativeModel:
    """The model as one that decodes; raises InputError if it has no decoder."""
    if not isinstance(model, GenerativeModel):
        raise InputError(
            f"{model.config.kind} has no decoder, so nothing can be reconstructed: take another model for pictures"
        )
    return model


def _check_range(image: Tensor) -> Tensor:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"tensor: float images must be within [0, 1], got {low:g} ... {high:g}")
    return image


__all__ = ["Predictor", "choose_device", "load"]
