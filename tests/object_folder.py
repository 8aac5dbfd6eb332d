"""Folders of parts that hold the rows of a file of objects."""

from pathlib import Path

from ssdir.objects import Objects
from ssdir.store.folder import FORMAT, EncodingManifest, EncodingOptions, part_name, write_manifest
from ssdir.store.objects_file import read_stored
from ssdir.store.writer import ObjectWriter


def split_into_parts(file: Path, folder: Path, parts: int = 3, manifest: bool = True) -> Path:
    """Writes the objects of a file, whose rows are in the order of the images, as a folder of parts."""
    stored = read_stored(file)
    table, images = stored.by_image()
    info, (objects, _) = stored.info, stored.to_objects()
    rows = table.select(["image_index", "image_height", "image_width"]).to_pylist()
    sizes = {row["image_index"]: (row["image_height"], row["image_width"]) for row in rows}
    by_image, per_part = objects.split(), -(-len(images) // parts)
    folder.mkdir()
    for number in range(-(-len(images) // per_part)):
        numbers = range(number * per_part, min((number + 1) * per_part, len(images)))
        with ObjectWriter(
            folder / part_name(number), info.model, info.class_names, info.latent_dim, info.fingerprint
        ) as writer:
            for index in numbers:
                one = Objects.cat([by_image[index]])
                writer.write(one, [images[index]], [sizes.get(index, (1, 1))], numbers=[index])
    if manifest:
        options = EncodingOptions(batch_size=1)
        about = {"format": FORMAT, "images": len(images), "images_per_part": per_part, "images_digest": "digest"}
        write_manifest(folder, EncodingManifest(**info.identity.model_dump(), **about, options=options))
    return folder
