"""Compare: two models on one picture, side by side."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ssdir.errors import InputError
from ssdir.evaluation.matching import match_greedy
from ssdir.formatting import counted
from ssdir.inference.predictor import Predictor
from ssdir.studio import components, views
from ssdir.studio.look import Look, look
from ssdir.studio.workspace import Studio, Workspace


class CompareTab:
    """Boxes and drawings of the studio's model, and of another one."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio = studio
        self.outputs: list[Any] = []
        if not studio.rivals:
            self.rival = gr.State(None)
            gr.Markdown(
                "Name another model to compare with: `ssdir studio MODEL --compare OTHER`.", elem_classes="empty"
            )
            return
        with gr.Row(elem_classes="buttons"):
            self.rival = gr.Dropdown(
                list(studio.rivals),
                value=studio.rivals[0],
                label=f"Compare {studio.name} with",
                elem_id="compare-model",
            )
            self.verdict = gr.Markdown("", elem_id="compare-verdict")
        self.outputs = [self.verdict]
        with gr.Row(elem_classes="quad"):
            for model in ("first", "second"):
                for part in ("found", "drawn"):
                    self.outputs.append(components.stage(views.nothing("", ""), f"compare-{model}-{part}"))
        self.rival.input(
            components.once_open(self.show),
            [workspace, self.rival],
            self.outputs,
            show_progress="hidden",
            api_visibility="private",
        )

    def show(self, workspace: Workspace, name: str | None) -> list[Any]:
        """Values of `outputs`, for the other model's name; as they are where none is named."""
        if name is None:
            return [gr.skip() for _ in self.outputs]
        try:
            rival = self.studio.rival(name)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        mine, other = workspace.look, look(rival, workspace.look.picture, workspace.look.name)
        return [
            _verdict(mine, other),
            *_stages(self.studio.name, mine, self.studio.predictor),
            *_stages(name, other, rival),
        ]


def _stages(name: str, seen: Look, predictor: Predictor) -> list[views.View]:
    names = views.object_names(seen.objects, predictor.class_names)
    note = f"{counted(len(seen.objects), 'object')}; mean squared error of the drawing {seen.error:.4f}"
    drawn = views.pixels(seen.scene.reconstructions[0])
    return [
        views.stage(f"{name}: found", seen.image, seen.objects, names, note=note),
        views.stage(f"{name}: drawn", drawn, seen.objects[:0], [], proportions=seen.image),
    ]


def _verdict(first: Look, second: Look) -> str:
    both = int((match_greedy(first.objects, second.objects) >= 0).sum())
    return (
        f"**{both}** found by both (boxes overlap by half or more), **{len(first.objects) - both}** by the first "
        f"alone, **{len(second.objects) - both}** by the second alone."
    )
