"""ssdir: images in, decodable object embeddings out.

>>> import ssdir
>>> [model.name for model in ssdir.list_models() if model.trained]
['photos', 'tiny-digits', 'tiny-mnist']
>>> model = ssdir.load("tiny-digits")
>>> objects = model.encode("picture.png")
>>> report = ssdir.evaluate("tiny-digits", "data/digits")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdir.errors import InputError as InputError
    from ssdir.evaluation.evaluate import EvaluationOptions as EvaluationOptions
    from ssdir.evaluation.evaluate import evaluate as evaluate
    from ssdir.inference.predictor import load as load
    from ssdir.models.catalogue import list_models as list_models
    from ssdir.objects import Objects as Objects
    from ssdir.objects import Scene as Scene
    from ssdir.tracking.options import TrackOptions as TrackOptions
    from ssdir.tracking.output import TrackFiles as TrackFiles
    from ssdir.tracking.track import track_clip as track_clip
    from ssdir.tracking.tracker import Tracker as Tracker

    __version__: str

# Torch takes seconds to import, the version's reader as long as all of the rest: names are fetched on first use.
_EXPORTS = {
    "EvaluationOptions": "ssdir.evaluation.evaluate",
    "InputError": "ssdir.errors",
    "Objects": "ssdir.objects",
    "Scene": "ssdir.objects",
    "TrackFiles": "ssdir.tracking.output",
    "TrackOptions": "ssdir.tracking.options",
    "Tracker": "ssdir.tracking.tracker",
    "evaluate": "ssdir.evaluation.evaluate",
    "list_models": "ssdir.models.catalogue",
    "load": "ssdir.inference.predictor",
    "track_clip": "ssdir.tracking.track",
}
__all__ = [
    "EvaluationOptions",
    "InputError",
    "Objects",
    "Scene",
    "TrackFiles",
    "TrackOptions",
    "Tracker",
    "__version__",
    "evaluate",
    "list_models",
    "load",
    "track_clip",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("ssdir")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ssdir' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)
