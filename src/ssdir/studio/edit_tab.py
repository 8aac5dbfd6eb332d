"""Edit: objects are moved, copied, restacked and changed; the scene is decoded again after every change."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import gradio as gr
import torch
from torch import Tensor

from ssdir.formatting import counted
from ssdir.objects import Objects, Scene
from ssdir.plots import to_pixels
from ssdir.studio import components, content, scene_editor, scene_files
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import Blend, Workspace, parse_move, parse_number, parse_row

Updates = dict[Any, Any]

_HELP = (
    "Drag an object, or its corner. With the keyboard: Tab to it, arrows move (Shift: further), + and − resize, "
    "D duplicates, F and B bring to front and back, Delete removes, Ctrl+Z undoes."
)
_QUIET: dict[str, Any] = {**components.QUIET, "queue": False}
"""An edit takes less time than waiting in Gradio's queue."""
_EACH: dict[str, Any] = {"trigger_mode": "multiple", **_QUIET}
"""No event is lost while another is answered; Gradio's `always_last` would send the first event's data again."""
_FILE_TYPES: dict[str, tuple[str, str]] = {
    "PNG": (".png", "image/png"),
    "Parquet": (".parquet", "application/vnd.apache.parquet"),
    "JSON": (".json", "application/json"),
}
_COMMANDS = {
    "duplicate": "Duplicate",
    "remove": "Remove",
    "front": "Bring to front",
    "back": "Send to back",
    "larger": "Larger",
    "smaller": "Smaller",
}
_MAX_COORDINATE = 4
_END = 3
"""Standard deviations from the mean to the shown ends of a component."""


@dataclass(frozen=True)
class _Decoded:
    """A workspace with its decoded scene and the names of its objects."""

    workspace: Workspace
    scene: Scene
    names: list[str]


class EditTab:
    """The reconstruction with boxes to drag, and the controls of the selected object."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio, self.workspace = studio, workspace
        self._saves = itertools.count(1)
        with gr.Row(elem_classes="edit-row"):
            with gr.Column(scale=3, min_width=320):
                self.scene = components.boxed_image(content.placeholder("Scene", "Loading …"), "edit-scene")
                with gr.Row(elem_classes=["buttons", "thirds"]):
                    self.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="edit-undo")
                    self.redo = gr.Button("Redo", size="sm", interactive=False, elem_id="edit-redo")
                    self.restart = gr.Button("Start over", size="sm", interactive=False, elem_id="edit-restart")
                self.status = gr.Markdown("", elem_id="edit-status")
            with gr.Column(scale=2, min_width=300):
                self._build_controls()
        self.outputs = [
            *(self.scene, self.status, self.undo, self.redo, self.restart, self.cards),
            *(*self.commands.values(), self.swap, self.other, self.blend, *self.sliders, *self.ends),
        ]
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
        limits = (-_MAX_COORDINATE, _MAX_COORDINATE, 0)
        with gr.Accordion("Principal components (share of the variance)", open=True):
            self.sliders, self.ends = [], []
            for number, share in enumerate(self.studio.axes.explained.tolist(), start=1):
                with gr.Row(elem_classes="component"):
                    label = f"Component {number} ({share:.0%})"
                    name = f"edit-component-{number}"
                    self.sliders.append(
                        gr.Slider(*limits, step=0.05, label=label, buttons=[], elem_id=name, scale=3)
                    )
                    self.ends.append(components.gallery({"cards": [], "empty": ""}, f"edit-ends-{number}", "ends"))
        gr.Markdown("#### Save")
        with gr.Row(elem_classes="buttons"):
            self.saves = {
                kind: gr.Button(kind, size="sm", min_width=80, elem_id=f"save-{kind}") for kind in _FILE_TYPES
            }
        self.saver = components.saver("edit-saver")

    def _listen(self) -> None:
        state, outputs = self.workspace, [self.workspace, *self.outputs]
        edits: list[tuple[Callable[..., Any], Callable[..., Workspace]]] = [
            (self.scene.pick, self._pick),
            (self.cards.pick, self._pick),
            (self.scene.command, self._key),
            *((button.click, partial(_run, name)) for name, button in self.commands.items()),
            (self.undo.click, partial(_run, "undo")),
            (self.redo.click, partial(_run, "redo")),
            (self.restart.click, partial(_run, "restart")),
        ]
        for listen, edit in edits:
            listen(components.edit_in_order(edit, self._show_after), state, outputs, **_EACH)
        move = components.edit_in_order(self._move, self._show_moved)
        self.scene.move(move, state, outputs, **_EACH)
        choose = components.edit_in_order(
            lambda workspace: replace(workspace, blend=None),
            lambda before, after: {self.workspace: after, self.blend: gr.update(value=0)},
        )
        self.other.input(choose, state, outputs, **_EACH)
        swap = components.edit_in_order(self._swap, self._show_after)
        self.swap.click(swap, [state, self.other], outputs, **_EACH)
        # A slider that is being dragged must not be set by the answer, so each is left out of its own updates.
        blend = components.edit_in_order(
            self._blend, lambda before, after: self._updates(after, self._scene, self._objects, self._components)
        )
        latest = {"trigger_mode": "always_last", **_QUIET}
        self.blend.input(blend, [state, self.other, self.blend], outputs, **latest)
        for number, slider in enumerate(self.sliders):
            act = partial(self._change_component, number)
            change = components.edit_in_order(
                act, lambda before, after: self._updates(after, self._scene, self._objects, self._blending)
            )
            slider.input(change, [state, slider], outputs, **latest)
            end = components.edit_in_order(
                partial(_finish, act),
                lambda before, after: self._updates(after, self._scene, self._objects, self._ends),
            )
            slider.release(end, [state, slider], outputs, **_EACH)
        end_blend = components.edit_in_order(
            partial(_finish, self._blend), lambda before, after: {self.workspace: after}
        )
        self.blend.release(end_blend, [state, self.other, self.blend], outputs, **_EACH)
        for number, ends in enumerate(self.ends):
            jump = components.edit_in_order(self._jump_along(number), self._show_after)
            ends.pick(jump, state, outputs, **_EACH)
        for kind, button in self.saves.items():
            button.click(components.when_open(partial(self._save, kind)), state, self.saver, **_QUIET)

    def show(self, workspace: Workspace) -> Updates:
        """Returns the updates for a workspace."""
        parts = self._scene, self._objects, self._other_objects, self._components, self._ends
        return self._updates(workspace, *parts)

    def _show_after(self, before: Workspace, after: Workspace) -> Updates:
        return self.show(after)

    def _show_moved(self, before: Workspace, after: Workspace) -> Updates:
        """Returns the updates after a move: while the selected object is dragged, only the scene changes."""
        if before.row == after.row and before.encoded is after.encoded:
            return self._updates(after, self._scene, self._blending)
        return self.show(after)

    def _updates(self, workspace: Workspace, *parts: Callable[[_Decoded], Updates]) -> Updates:
        names = content.object_names(workspace.objects, self.studio.predictor.class_names)
        decoded = _Decoded(workspace, self._decode(workspace), names)
        updates: Updates = {self.workspace: workspace}
        for part in parts:
            updates |= part(decoded)
        return updates

    def _decode(self, workspace: Workspace) -> Scene:
        return self.studio.predictor.reconstruct(workspace.encoded.square, workspace.objects)

    def _scene(self, decoded: _Decoded) -> Updates:
        workspace, history = decoded.workspace, decoded.workspace.history
        title = history.present.title
        scene = content.image_with_boxes(
            "Scene",
            to_pixels(decoded.scene.reconstructions[0]),
            workspace.objects,
            decoded.names,
            shape_of=workspace.encoded.shown,
            selected=workspace.row,
            moved_at=workspace.window.moved_at,
            note=_HELP if decoded.names else "The scene is empty.",
        )
        return {
            self.scene: scene,
            self.status: f"{title[0].upper()}{title[1:]}; {counted(len(history.past), 'step')} to undo",
            self.undo: gr.update(interactive=bool(history.past)),
            self.redo: gr.update(interactive=bool(history.future)),
            self.restart: gr.update(interactive=bool(history.past)),
        }

    def _objects(self, decoded: _Decoded) -> Updates:
        row = decoded.workspace.row
        return {
            self.cards: content.small_cards(decoded.scene, decoded.names, row),
            **{button: gr.update(interactive=row is not None) for button in self.commands.values()},
            self.swap: gr.update(interactive=len(decoded.names) > 1),
        }

    def _other_objects(self, decoded: _Decoded) -> Updates:
        others = [(name, row) for row, name in enumerate(decoded.names) if row != decoded.workspace.row]
        blend = decoded.workspace.blend
        other = blend.other if blend else others[0][1] if others else None
        update = gr.update(choices=others, value=other, interactive=bool(others))
        return {self.other: update, **self._blending(decoded)}

    def _blending(self, decoded: _Decoded) -> Updates:
        blend = decoded.workspace.blend
        return {self.blend: gr.update(value=blend.share if blend else 0, interactive=len(decoded.names) > 1)}

    def _components(self, decoded: _Decoded) -> Updates:
        row, z_what = decoded.workspace.row, decoded.workspace.objects.z_what
        if row is None or z_what is None:
            return {slider: gr.update(interactive=False) for slider in self.sliders}
        shown = _shown(self.studio.axes.coordinates(z_what[row]))
        return {
            slider: gr.update(value=value, interactive=True)
            for slider, value in zip(self.sliders, shown, strict=True)
        }

    def _ends(self, decoded: _Decoded) -> Updates:
        """Shows the selected object at both ends of each component."""
        row, objects = decoded.workspace.row, decoded.workspace.objects
        if row is None or objects.z_what is None:
            return {ends: {"cards": [], "empty": ""} for ends in self.ends}
        axes, pictures = self.studio.axes, torch.arange(2 * len(self.ends))
        coordinates = axes.coordinates(objects.z_what[row]).repeat(len(pictures), 1)
        coordinates[pictures, pictures // 2] = torch.where(pictures % 2 == 0, -_END, _END).to(coordinates)
        z_what = axes.with_coordinates(objects.z_what[row], coordinates)
        copies = objects[torch.full((len(z_what),), row)].replace(z_what=z_what)
        appearances = self.studio.predictor.decode(copies).appearances
        return {
            ends: content.end_cards(appearances[2 * number : 2 * number + 2], _END)
            for number, ends in enumerate(self.ends)
        }

    def _jump_along(self, number: int) -> Callable[..., Workspace]:
        """Returns the edit that moves the selected object to an end of a component."""

        def jump(workspace: Workspace, event: gr.EventData) -> Workspace:
            row, end, z_what = workspace.row, parse_row(event._data, 2), workspace.objects.z_what
            if row is None or end is None or z_what is None:
                return workspace
            coordinates = self.studio.axes.coordinates(z_what[row])
            coordinates[number] = (-_END, _END)[end]
            return self._set_coordinates(workspace, row, coordinates)

        return jump

    def _pick(self, workspace: Workspace, event: gr.EventData) -> Workspace:
        row = parse_row(event._data, len(workspace.objects))
        return workspace if row is None else workspace.select(row)

    def _move(self, workspace: Workspace, event: gr.EventData) -> Workspace:
        move = parse_move(event._data, len(workspace.objects))
        if move is None or not workspace.window.accepts(move):
            return workspace
        moved = scene_editor.set_box(workspace.objects, move.row, move.z_where)
        return workspace.edit(moved, f"moved object {move.row + 1}", move.row, move.gesture)

    def _key(self, workspace: Workspace, event: gr.EventData) -> Workspace:
        data = event._data if isinstance(event._data, dict) else {}
        name, row = str(data.get("name")), parse_row(data, len(workspace.objects))
        if name in ("undo", "redo"):
            return _run(name, workspace)
        return workspace if name not in _COMMANDS or row is None else _run(name, workspace.select(row))

    def _swap(self, workspace: Workspace, chosen: Any) -> Workspace:
        row, other = workspace.row, parse_row(chosen, len(workspace.objects))
        if row is None or other is None:
            return workspace
        swapped = scene_editor.swap_appearances(workspace.objects, row, other)
        return workspace.edit(swapped, f"swapped objects {row + 1} and {other + 1}", row)

    def _blend(self, workspace: Workspace, chosen: Any, sent: Any) -> Workspace:
        row, blend = workspace.row, workspace.blend
        other, share = parse_row(chosen, len(workspace.objects)), parse_number(sent, 0, 1)
        if row is None or other is None or share is None:
            return workspace
        # The share refers to the object before it was blended.
        start = blend.start if blend and blend.other == other else workspace.objects
        blended = scene_editor.blend_appearance(start, row, other, share)
        if _have_same_embeddings(blended, workspace.objects):
            return workspace
        title = f"blended object {row + 1} with {other + 1}"
        return replace(workspace.edit(blended, title, row, title), blend=Blend(start, other, share))

    def _change_component(self, number: int, workspace: Workspace, sent: Any) -> Workspace:
        row, z_what = workspace.row, workspace.objects.z_what
        value = parse_number(sent, -_MAX_COORDINATE, _MAX_COORDINATE)
        if row is None or z_what is None or value is None:
            return workspace
        coordinates = self.studio.axes.coordinates(z_what[row])
        if abs(value - _shown(coordinates)[number]) < 1e-6:
            return workspace  # The last value of a slider is sent twice, and one that is not moved is rounded.
        coordinates[number] = value
        return self._set_coordinates(workspace, row, coordinates, ("component", row, number))

    def _set_coordinates(
        self, workspace: Workspace, row: int, coordinates: Tensor, gesture: Hashable = None
    ) -> Workspace:
        """Returns the workspace after an edit of an object's coordinates along the principal components."""
        assert workspace.objects.z_what is not None
        changed = self.studio.axes.with_coordinates(workspace.objects.z_what[row], coordinates)
        edited = scene_editor.set_appearance(workspace.objects, row, changed)
        return workspace.edit(edited, f"changed components of object {row + 1}", row, gesture)

    def _save(self, kind: str, workspace: Workspace) -> content.Content:
        objects, predictor, encoded = workspace.objects, self.studio.predictor, workspace.encoded
        if kind == "PNG":
            file = scene_files.scene_png(self._decode(workspace))
        elif kind == "Parquet":
            file = scene_files.scene_parquet(objects, encoded.name, encoded.size, self.studio.identity)
        else:
            file = scene_files.scene_json(objects, encoded.name, encoded.size, predictor.class_names)
        suffix, mime = _FILE_TYPES[kind]
        source = f"data:{mime};base64,{base64.b64encode(file).decode()}"
        return {"name": f"{workspace.file_stem}-edited{suffix}", "source": source, "number": next(self._saves)}


def _shown(coordinates: Tensor) -> list[float]:
    """Returns the values of the sliders of an object's coordinates (n,)."""
    return [round(value, 2) for value in coordinates.clamp(-_MAX_COORDINATE, _MAX_COORDINATE).tolist()]


def _have_same_embeddings(one: Objects, other: Objects) -> bool:
    """Returns whether an edit changed nothing: the last value of a slider is sent twice."""
    assert one.z_what is not None
    assert other.z_what is not None
    return torch.allclose(one.z_what, other.z_what, atol=1e-4)


def _finish(edit: Callable[..., Workspace], workspace: Workspace, *args: Any) -> Workspace:
    """Runs the last edit of a slider's drag; the next drag is a step of its own."""
    after = edit(workspace, *args)
    return replace(after, history=after.history.end_gesture())


def _run(command: str, workspace: Workspace) -> Workspace:
    """Runs a command on the workspace, or on its selected object."""
    history, row = workspace.history, workspace.row
    if command in ("undo", "redo"):
        return workspace.with_history(history.undo() if command == "undo" else history.redo(), row)
    if command == "restart":
        return workspace.edit(workspace.encoded.objects, "started over", row)
    return workspace if row is None else workspace.edit(*_edit_object(command, workspace.objects, row))


def _edit_object(command: str, objects: Objects, row: int) -> tuple[Objects, str, int]:
    """Runs a command of `_COMMANDS`; returns the scene, the title of the edit, and the row to select."""
    number = row + 1
    if command == "duplicate":
        return scene_editor.duplicate(objects, row), f"duplicated object {number}", row + 1
    if command == "remove":
        return scene_editor.remove(objects, row), f"removed object {number}", row
    if command in ("larger", "smaller"):
        factor = 1.15 if command == "larger" else 1 / 1.15
        return scene_editor.scale(objects, row, factor), f"resized object {number}", row
    to = cast("Literal['front', 'back']", command)
    return scene_editor.restack(objects, row, to), f"brought object {number} to the {to}", row
