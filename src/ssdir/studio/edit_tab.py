"""Edit: objects moved, copied, restacked and given other looks; every change is drawn again at once."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr
import torch

from ssdir.objects import Objects, Scene
from ssdir.studio import components, scene_editor, scene_files, views
from ssdir.studio.workspace import Studio, Workspace, number_of, place_of, row_of

_HELP = (
    "Drag an object, or its corner. With the keyboard: Tab to it, arrows move (Shift: further), + and − resize, "
    "D duplicates, F and B bring to front and back, Delete removes, Ctrl+Z undoes."
)
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
"""An edit takes less time than a place in Gradio's queue."""
_EACH: dict[str, Any] = {"trigger_mode": "multiple", **_QUIET}
"""None is lost while another is on its way; by Gradio's `always_last` the first's data would be sent again."""
_SAVED: dict[str, tuple[str, str]] = {
    "PNG": (".png", "image/png"),
    "Parquet": (".parquet", "application/vnd.apache.parquet"),
    "JSON": (".json", "application/json"),
}


def _command(name: str, objects: Objects, row: int) -> tuple[Objects, str, int]:
    """A one-step edit by its name: the scene, what to call it, and the row to choose next."""
    number = row + 1
    if name == "duplicate":
        return scene_editor.duplicate(objects, row), f"duplicated object {number}", row + 1
    if name == "remove":
        return scene_editor.remove(objects, row), f"removed object {number}", row
    if name in ("larger", "smaller"):
        factor = 1.15 if name == "larger" else 1 / 1.15
        return scene_editor.resize(objects, row, factor), f"resized object {number}", row
    to: Any = name
    return scene_editor.restack(objects, row, to), f"brought object {number} to the {name}", row


_COMMANDS = {
    "duplicate": "Duplicate",
    "remove": "Remove",
    "front": "Bring to front",
    "back": "Send to back",
    "larger": "Larger",
    "smaller": "Smaller",
}


class EditTab:
    """The drawn scene with boxes to drag, and the controls of the chosen object."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio, self.workspace = studio, workspace
        self._saves = itertools.count(1)
        with gr.Row(elem_classes="edit-row"):
            with gr.Column(scale=3, min_width=320):
                self.stage = components.stage(views.nothing("Scene", "Loading …"), "edit-stage")
                with gr.Row(elem_classes=["buttons", "thirds"]):
                    self.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="edit-undo")
                    self.redo = gr.Button("Redo", size="sm", interactive=False, elem_id="edit-redo")
                    self.restart = gr.Button("Start over", size="sm", interactive=False, elem_id="edit-restart")
                self.status = gr.Markdown("", elem_id="edit-status")
            with gr.Column(scale=2, min_width=300):
                self._build_controls()
        self.changing = [self.stage, self.status, self.undo, self.redo, self.restart, self.cards, *self.buttons]
        self.outputs = [*self.changing, self.other, self.blend, *self.knobs]
        self._listen()

    def _build_controls(self) -> None:
        gr.Markdown("#### Object")
        self.cards = components.gallery({"cards": [], "empty": ""}, "edit-objects", "small")
        with gr.Row(elem_classes=["buttons", "thirds"]):
            self.commands = {
                name: gr.Button(text, size="sm", min_width=90, elem_id=f"edit-{name}")
                for name, text in _COMMANDS.items()
            }
        gr.Markdown("#### Appearance")
        with gr.Row(elem_classes="buttons"):
            self.other = gr.Dropdown([], label="Other object", scale=2, min_width=140, elem_id="edit-other")
            self.swap = gr.Button("Swap the two", size="sm", scale=1, min_width=110, elem_id="edit-swap")
        self.blend = gr.Slider(0, 1, 0, step=0.02, label="Blend towards it", buttons=[], elem_id="edit-blend")
        self.knobs = []
        with gr.Accordion("Directions that matter most in the data", open=True):
            for number, share in enumerate(self.studio.axes.explained.tolist(), start=1):
                label = f"Direction {number}: {share:.0%} of what varies"
                knob = gr.Slider(-4, 4, 0, step=0.05, label=label, buttons=[], elem_id=f"edit-knob-{number}")
                self.knobs.append(knob)
        self.buttons = [*self.commands.values(), self.swap]
        gr.Markdown("#### Save")
        with gr.Row(elem_classes="buttons"):
            self.saves = {
                kind: gr.Button(kind, size="sm", min_width=80, elem_id=f"save-{kind}") for kind in _SAVED
            }
        self.saver = components.saver("edit-saver")

    def _listen(self) -> None:
        state, everything = self.workspace, [self.workspace, *self.outputs]
        edits: list[tuple[Callable[..., Any], Callable[..., list[Any]]]] = [
            (self.stage.pick, self._pick),
            (self.cards.pick, self._pick),
            (self.stage.place, self._place),
            (self.stage.command, self._key),
            *((button.click, self._run(name)) for name, button in self.commands.items()),
            (self.undo.click, self._history("undo")),
            (self.redo.click, self._history("redo")),
            (self.restart.click, self._start_over),
        ]
        for listen, edit in edits:
            listen(components.in_turn(edit, self._shown), state, everything, **_EACH)
        self.swap.click(components.in_turn(self._swap, self._shown), [state, self.other], everything, **_EACH)
        # What a hand is on is left alone: only the rest is shown anew.
        still = {"trigger_mode": "always_last", **_QUIET}
        blending = [state, *self.changing, *self.knobs]
        self.blend.input(
            components.in_turn(self._blend, self._blended), [state, self.other, self.blend], blending, **still
        )
        turning = [state, *self.changing]
        for knob in self.knobs:
            knob.input(components.in_turn(self._turn, self._turned), [state, *self.knobs], turning, **still)
        for kind, button in self.saves.items():
            button.click(components.once_open(self._save(kind)), state, self.saver, **_QUIET)

    def show(self, workspace: Workspace) -> list[Any]:
        """Values of `outputs`."""
        objects, row = workspace.objects, workspace.row
        names = views.object_names(objects, self.studio.predictor.class_names)
        others = [(name, other) for other, name in enumerate(names) if other != row]
        other = gr.update(choices=others, value=others[0][1] if others else None, interactive=bool(others))
        return [
            *self._show_changing(workspace),
            other,
            gr.update(value=0, interactive=bool(others)),
            *self._knobs(workspace),
        ]

    def _show_changing(self, workspace: Workspace) -> list[Any]:
        """Values of `changing`: all but the controls that may be in use."""
        objects, row = workspace.objects, workspace.row
        scene = self.studio.predictor.decode(objects)
        names = views.object_names(objects, self.studio.predictor.class_names)
        enabled = [gr.update(interactive=row is not None) for _ in self.commands]
        return [
            *self._show_place(workspace, scene, names),
            views.small_cards(scene, names, row),
            *enabled,
            gr.update(interactive=len(objects) > 1),
        ]

    def _show_moved(self, workspace: Workspace) -> list[Any]:
        """Values of `outputs` after a move of the chosen object."""
        scene = self.studio.predictor.decode(workspace.objects)
        names = views.object_names(workspace.objects, self.studio.predictor.class_names)
        shown = self._show_place(workspace, scene, names)
        return [*shown, *(gr.skip() for _ in self.outputs[len(shown) :])]

    def _show_place(self, workspace: Workspace, scene: Scene, names: list[str]) -> list[Any]:
        """The stage, and what says where in its history the scene is."""
        history = workspace.history
        stage = views.stage(
            "Scene",
            views.pixels(scene.reconstructions[0]),
            workspace.objects,
            names,
            selected=workspace.row,
            proportions=workspace.look.image,
            editable=True,
            placed=workspace.turn.placed,
            note=_HELP if names else "The scene is empty: undo, or start over.",
        )
        steps = len(history.past)
        status = f"{history.present.title}; {steps} step{'' if steps == 1 else 's'} to undo"
        return [
            stage,
            status[0].upper() + status[1:],
            gr.update(interactive=bool(history.past)),
            gr.update(interactive=bool(history.future)),
            gr.update(interactive=bool(history.past)),
        ]

    def _knobs(self, workspace: Workspace) -> list[Any]:
        codes = workspace.objects.z_what
        if workspace.row is None or codes is None:
            return [gr.update(interactive=False) for _ in self.knobs]
        settings = self.studio.axes.coordinates(codes[workspace.row])
        return [gr.update(value=round(float(each), 2), interactive=True) for each in settings.clamp(-4, 4)]

    def _shown(self, workspace: Workspace) -> list[Any]:
        return [workspace, *self.show(workspace)]

    def _blended(self, workspace: Workspace) -> list[Any]:
        return [workspace, *self._show_changing(workspace), *self._knobs(workspace)]

    def _turned(self, workspace: Workspace) -> list[Any]:
        return [workspace, *self._show_changing(workspace)]

    def _pick(self, workspace: Workspace, event: gr.EventData) -> list[Any]:
        row = row_of(event._data, len(workspace.objects))
        return self._shown(replace(workspace, row=workspace.row if row is None else row))

    def _place(self, workspace: Workspace, event: gr.EventData) -> list[Any]:
        place = place_of(event._data, len(workspace.objects))
        if place is None or not workspace.turn.heeds(place):
            return self._shown(workspace)
        row, chosen = place.row, workspace.row == place.row
        placed = scene_editor.place(workspace.objects, row, place.z_where)
        workspace = workspace.edited(placed, f"moved object {row + 1}", row, going_on=True)
        # While the chosen object is dragged, nothing about it but its place changes.
        return [workspace, *(self._show_moved(workspace) if chosen else self.show(workspace))]

    def _key(self, workspace: Workspace, event: gr.EventData) -> list[Any]:
        data = event._data if isinstance(event._data, dict) else {}
        name, row = str(data.get("name")), row_of(data, len(workspace.objects))
        if name in ("undo", "redo"):
            return self._history(name)(workspace)
        if name not in _COMMANDS or row is None:
            return self._shown(workspace)
        return self._run(name)(replace(workspace, row=row))

    def _run(self, name: str) -> Callable[[Workspace], list[Any]]:
        def run(workspace: Workspace) -> list[Any]:
            if workspace.row is None:
                return self._shown(workspace)
            return self._shown(workspace.edited(*_command(name, workspace.objects, workspace.row)))

        return run

    def _history(self, name: str) -> Callable[[Workspace], list[Any]]:
        def go(workspace: Workspace) -> list[Any]:
            history = workspace.history
            return self._shown(workspace.at(history.undo() if name == "undo" else history.redo()))

        return go

    def _start_over(self, workspace: Workspace) -> list[Any]:
        found = workspace.look.objects
        return self._shown(workspace.edited(found, "started over", workspace.row))

    def _swap(self, workspace: Workspace, chosen: Any) -> list[Any]:
        row, other = workspace.row, row_of(chosen, len(workspace.objects))
        if row is None or other is None:
            return self._shown(workspace)
        swapped = scene_editor.swap_appearances(workspace.objects, row, other)
        return self._shown(workspace.edited(swapped, f"swapped objects {row + 1} and {other + 1}", row))

    def _blend(self, workspace: Workspace, chosen: Any, sent: Any) -> list[Any]:
        row, history = workspace.row, workspace.history
        other, share = row_of(chosen, len(workspace.objects)), number_of(sent, 0, 1)
        if row is not None and other is not None and share is not None:
            title = f"blended object {row + 1} with {other + 1}"
            # While the slider moves, shares are of what the object was before.
            start = history.past[-1].objects if history.present.title == title else history.objects
            blended = scene_editor.blend_appearance(start, row, other, share)
            workspace = workspace.edited(blended, title, row, going_on=True)
        return self._blended(workspace)

    def _turn(self, workspace: Workspace, *sent: Any) -> list[Any]:
        row, codes = workspace.row, workspace.objects.z_what
        settings = [number for each in sent if (number := number_of(each, -4, 4)) is not None]
        if row is not None and codes is not None and len(settings) == len(sent):
            turned = self.studio.axes.with_coordinates(codes[row], torch.tensor(settings, dtype=codes.dtype))
            changed = scene_editor.set_appearance(workspace.objects, row, turned)
            workspace = workspace.edited(changed, f"turned knobs of object {row + 1}", row, going_on=True)
        return self._turned(workspace)

    def _save(self, kind: str) -> Callable[[Workspace], views.View]:
        suffix, mime = _SAVED[kind]

        def save(workspace: Workspace) -> views.View:
            objects, predictor, name = workspace.objects, self.studio.predictor, workspace.look.name
            size = workspace.look.picture.shape[:2]
            if kind == "PNG":
                content = scene_files.scene_png(predictor, objects)
            elif kind == "Parquet":
                content = scene_files.scene_parquet(objects, name, size, self.studio.identity)
            else:
                content = scene_files.scene_json(objects, name, size, predictor.class_names)
            source = f"data:{mime};base64,{base64.b64encode(content).decode()}"
            return {"name": f"{workspace.stem}-edited{suffix}", "source": source, "number": next(self._saves)}

        return save
