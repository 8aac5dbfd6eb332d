"""Tests of the memory of tracks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssdir.errors import InputWarning
from ssdir.export.onnx import export_model
from ssdir.models.base import Clues
from ssdir.models.detected.memory import MemoryConfig, TrackMemory, TrackViews
from ssdir.models.io import load_model, save_model, weights_fingerprint
from ssdir.models.ssdir import SSDIR

LATENT = 6


def random_memory(seed: int = 0) -> TrackMemory:
    """Returns an untrained memory, whose weights make views count differently."""
    torch.manual_seed(seed)
    memory = TrackMemory(LATENT, MemoryConfig(hidden=8))
    torch.nn.init.normal_(memory.weigh[-1].weight)  # type: ignore[arg-type]
    memory.fit(torch.randn(50, LATENT) * 3 + 1)
    return memory.eval()


def random_views(tracks: int = 4, frames: int = 7, seed: int = 0) -> TrackViews:
    torch.manual_seed(seed)
    return TrackViews(
        z_what=torch.randn(tracks, frames, LATENT),
        scores=torch.rand(tracks, frames),
        visible=torch.rand(tracks, frames),
        seen=torch.rand(tracks, frames) < 0.6,
    )


@torch.no_grad()
def test_frame_by_frame_equals_the_whole_clip() -> None:
    """The memory that `remember` takes and returns is a track's whole state."""
    memory, views = random_memory(), random_views()
    whole = memory.follow(views)
    for track in range(len(views.seen)):
        state, last = torch.zeros(1, LATENT + 1), None
        for frame in range(views.seen.shape[1]):
            if views.seen[track, frame]:
                gap = torch.tensor([1.0 if last is None else frame - last])
                clues = Clues(views.scores[track, frame, None], views.visible[track, frame, None], gap)
                state, last = memory(state, views.z_what[track, frame, None], clues), frame
            torch.testing.assert_close(whole[track, frame], state[0])


@torch.no_grad()
def test_memory_is_the_weighted_mean_of_the_views() -> None:
    memory, views = random_memory(), random_views(seed=1)
    weights = memory.evidence(views.z_what, views.scores, views.visible) * views.seen
    retention = float(memory.retention_logit.sigmoid())
    known = memory.follow(views)
    for track, frame in views.seen.nonzero().tolist():
        ages = frame - torch.arange(frame + 1)
        shares = weights[track, : frame + 1] * retention**ages
        expected = (shares[:, None] * views.z_what[track, : frame + 1]).sum(dim=0) / shares.sum()
        torch.testing.assert_close(known[track, frame, :-1], expected)
        torch.testing.assert_close(known[track, frame, -1], shares.sum())


@torch.no_grad()
def test_the_first_view_is_remembered_as_it_is() -> None:
    memory, z_what = random_memory(), torch.randn(3, LATENT)
    known = memory(torch.zeros(3, LATENT + 1), z_what, Clues(torch.rand(3), torch.rand(3), torch.ones(3)))
    torch.testing.assert_close(known[:, :-1], z_what)
    assert (known[:, -1] > 0).all()


def clip_with_hidden_views(tracks: int, frames: int) -> tuple[TrackViews, Tensor]:
    """Toy tracks: a view shows its object's vector with little noise, or, hidden, one that all objects share.

    Returns:
        The views, without a clue of what is hidden, and bool (N, T), which of them are hidden.
    """
    objects = torch.randn(tracks, 1, LATENT) * torch.tensor([1.0] * (LATENT - 1) + [0.0])
    hidden = torch.rand(tracks, frames) < 0.4
    covering = torch.zeros(LATENT)
    covering[-1] = 3.0
    seen_as = torch.where(hidden[..., None], covering + torch.randn(tracks, frames, LATENT), objects)
    z_what = seen_as + 0.1 * torch.randn(tracks, frames, LATENT)
    everything = torch.ones(tracks, frames)
    return TrackViews(z_what, everything, everything, everything.bool()), hidden


def test_hidden_views_come_to_count_little() -> None:
    """The memory learns without labels of hidden views: their weight falls, and it stays with the object."""
    torch.manual_seed(0)
    memory = TrackMemory(LATENT, MemoryConfig(hidden=16))
    views, _ = clip_with_hidden_views(64, 10)
    memory.fit(views.z_what.flatten(0, 1))
    optimizer = torch.optim.Adam(memory.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        memory.loss(clip_with_hidden_views(64, 10)[0])["total"].backward()
        optimizer.step()
    with torch.no_grad():
        views, hidden = clip_with_hidden_views(64, 10)
        weights = memory.evidence(views.z_what, views.scores, views.visible)
        assert weights[hidden].mean() < 0.2 * weights[~hidden].mean()
        known = memory.follow(views)[:, :-1, -1]
        gains = weights[:, 1:] / (weights[:, 1:] + known)
        assert gains[hidden[:, 1:]].mean() < 0.3 * gains[~hidden[:, 1:]].mean()


def test_loss_of_tracks_with_one_view_is_zero() -> None:
    views = random_views(tracks=5, frames=1)
    loss = random_memory().loss(views)["total"]
    assert loss == 0
    loss.backward()


def test_clues_change_what_a_view_counts() -> None:
    memory, z_what = random_memory(), torch.randn(4, LATENT)
    full, none = torch.ones(4), torch.zeros(4)
    known = memory.evidence(z_what, full, full)
    assert (memory.evidence(z_what, full, none) != known).all()
    assert (memory.evidence(z_what, none, full) != known).all()


def test_models_without_a_memory_are_as_they_were(tiny_model_dir: Path) -> None:
    model = load_model(tiny_model_dir)
    assert isinstance(model, SSDIR)
    assert model.memory_dim == 0
    assert not [name for name in model.state_dict() if name.startswith("memory.")]
    with pytest.raises(
        ValueError, match=r"has no memory: train one with model\.memory, see the preset tiny-video"
    ):
        model.remember(torch.zeros(1, 9), torch.zeros(1, 8), Clues(*torch.ones(3, 1)))


@pytest.mark.parametrize("name", ["tiny-mnist", "tiny-digits", "photos"])
def test_shipped_models_have_the_fingerprints_that_they_were_written_with(name: str) -> None:
    """`load_model` compares stored fingerprints with those of the weights as this version names them."""
    assert load_model(name).config.model_dump()["memory"] is None


@torch.no_grad()
def test_a_model_with_a_memory_can_be_saved_and_loaded(tiny_model_dir: Path, tmp_path: Path) -> None:
    frame_model = load_model(tiny_model_dir)
    assert isinstance(frame_model, SSDIR)
    config = frame_model.config.model_copy(update={"memory": MemoryConfig(hidden=8)})
    torch.manual_seed(0)
    model = SSDIR(config, frame_model.class_names).eval()
    assert model.memory is not None
    torch.nn.init.normal_(model.memory.weigh[-1].weight)  # type: ignore[arg-type]
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, SSDIR)
    assert weights_fingerprint(loaded) == weights_fingerprint(model)
    assert loaded.memory_dim == model.latent_dim + 1
    state, z_what = torch.randn(3, model.memory_dim).abs(), torch.randn(3, model.latent_dim)
    clues = Clues(torch.rand(3), torch.rand(3), torch.ones(3))
    torch.testing.assert_close(loaded.remember(state, z_what, clues), model.remember(state, z_what, clues))


def test_initial_weights_of_all_else_do_not_depend_on_the_memory(tiny_model_dir: Path) -> None:
    config = load_model(tiny_model_dir).config
    assert config.kind == "SSDIR"
    torch.manual_seed(0)
    without = SSDIR(config, ["object"]).state_dict()  # type: ignore[arg-type]
    torch.manual_seed(0)
    memory = MemoryConfig()
    with_memory = SSDIR(config.model_copy(update={"memory": memory}), ["object"]).state_dict()  # type: ignore[attr-defined]
    for name, weights in without.items():
        torch.testing.assert_close(with_memory[name], weights, rtol=0, atol=0)


def test_an_exported_file_leaves_the_memory_out_with_a_note(tiny_model_dir: Path, tmp_path: Path) -> None:
    frame_model = load_model(tiny_model_dir)
    assert isinstance(frame_model, SSDIR)
    config = frame_model.config.model_copy(update={"memory": MemoryConfig(hidden=8)})
    model = SSDIR(config, frame_model.class_names, frame_model.detector).eval()
    with pytest.warns(InputWarning, match="encodes each frame alone: the model's memory of tracks is left out"):
        export_model(model, tmp_path / "model.pt2", pt2=True)
    assert (tmp_path / "model.pt2").exists()
