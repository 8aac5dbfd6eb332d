"""Compare: the detections and reconstructions of two models on one image."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ssdir.errors import InputError
from ssdir.evaluation.matching import match_greedy
from ssdir.formatting import counted
from ssdir.inference.predictor import Predictor
from ssdir.plots import to_pixels
from ssdir.studio import components, content
from ssdir.studio.images import EncodedImage, encode_image
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import Workspace


class CompareTab:
    """The studio's model beside another one."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio = studio
        self.outputs: list[Any] = []
        self.is_open = gr.State(False)
        if not studio.other_models:
            self.other_model = gr.State(None)
            gr.Markdown(
                "Name another model to compare with: `ssdir studio MODEL --compare OTHER`.", elem_classes="empty"
            )
            return
        with gr.Row(elem_classes="buttons"):
            self.other_model = gr.Dropdown(
                list(studio.other_models),
                value=studio.other_models[0],
                label=f"Compare {studio.name} with",
                elem_id="compare-model",
            )
            self.outputs.append(gr.Markdown("", elem_id="compare-summary"))
        with gr.Row(elem_classes="quad"):
            for model in ("first", "second"):
                for part in ("detections", "reconstruction"):
                    placeholder = content.placeholder("", "Loading …")
                    self.outputs.append(components.boxed_image(placeholder, f"compare-{model}-{part}"))
        inputs = [workspace, self.other_model, self.is_open]
        self.other_model.input(self.show, inputs, self.outputs, **components.QUIET)

    def show(self, workspace: Workspace | None, name: str | None, is_open: bool) -> dict[Any, Any]:
        """Returns the updates for the other model's name; none while there is no image, or the tab is closed."""
        if name is None or workspace is None or not is_open:
            return dict.fromkeys(self.outputs, gr.skip())
        first = workspace.encoded
        try:
            other_model = self.studio.other_model(name)
            second = encode_image(other_model, first.named)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        values = [
            _summary(first, second, name),
            *_images(self.studio.name, first, self.studio.predictor),
            *_images(name, second, other_model),
        ]
        return dict(zip(self.outputs, values, strict=True))


def _images(name: str, encoded: EncodedImage, predictor: Predictor) -> list[content.Content]:
    names = content.object_names(encoded.objects, predictor.class_names)
    note = f"{counted(len(encoded.objects), 'object')}; mean squared error {encoded.error:.4f}"
    reconstruction = to_pixels(encoded.scene.reconstructions[0])
    title, nothing = f"{name}: reconstruction", encoded.objects[:0]
    return [
        content.image_with_boxes(f"{name}: detections", encoded.shown, encoded.objects, names, note=note),
        content.image_with_boxes(title, reconstruction, nothing, [], shape_of=encoded.shown),
    ]


def _summary(first: EncodedImage, second: EncodedImage, second_name: str) -> str:
    both = int((match_greedy(first.objects, second.objects) >= 0).sum())
    summary = (
        f"**{both}** detected by both (boxes overlap by half or more), **{len(first.objects) - both}** by the "
        f"first alone, **{len(second.objects) - both}** by the second alone."
    )
    unlike = second.domain.sentence(second_name) if second.domain else None
    return f"{summary}\n\n{content.warning(unlike)}" if unlike else summary
