"""Clips in the studio: the frames and tracks that are shown, paths on the map, and what the browser receives."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import ssdir.studio.clip as clip_module
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.studio import clip_content
from ssdir.studio.clip import Clip, clip_of
from ssdir.studio.collection import Collection, decode_alone

FRAMES = 20


@pytest.fixture
def clip(predictor: Predictor) -> Clip:
    """Returns a clip of twenty frames, the last of which is missing.

    Track 2 is in all frames, track 7 in every second one, and one object has no track.
    """
    rows = sorted(
        [(frame, 2) for frame in range(FRAMES)] + [(frame, 7) for frame in range(0, FRAMES, 2)] + [(3, 0)]
    )
    frame, track = (torch.tensor(values) for values in zip(*rows, strict=True))
    count, rng = len(rows), torch.Generator().manual_seed(0)
    objects = Objects(
        image_index=frame,
        batch_size=FRAMES,
        z_where=torch.tensor([0.5, 0.5, 0.2, 0.4]).repeat(count, 1),
        scores=torch.full((count,), 0.9),
        labels=torch.zeros(count, dtype=torch.int64),
        z_what=torch.randn(count, predictor.latent_dim, generator=rng),
        z_depth=torch.zeros(count),
        track_id=track,
        visible=torch.linspace(0.1, 1, count),
    )
    pixels = [np.full((60, 80, 3), 10 * number, dtype=np.uint8) for number in range(FRAMES - 1)]
    names = [f"{number:06d}.png" for number in range(FRAMES)]
    clip = clip_of(Collection(objects, names, [*pixels, None], ["object"]))
    assert clip is not None
    return clip


def pixels_of(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_the_longest_tracks_come_first_and_views_are_in_the_order_of_time(clip: Clip) -> None:
    assert (clip.longest, clip.num_tracks) == ([2, 7], 2)
    index = clip.objects.image_index
    assert index[clip.rows_of(7)].tolist() == list(range(0, FRAMES, 2))
    assert index[clip.shown_views(2)].tolist() == [0, 2, 3, 5, 7, 9, 10, 12, 14, 16, 17, 19]
    assert index[clip.clearest(2)] == FRAMES - 1
    assert not clip.is_clear(int(clip.rows_of(2)[0]))
    assert clip.is_clear(int(clip.rows_of(2)[-1]))


def test_frames_are_numbered_as_their_video_numbers_them(clip: Clip, predictor: Predictor) -> None:
    """A file without the rows of the first frames is played too."""
    names = [f"clip.mp4#frame={number + 5}" for number in range(FRAMES)]
    later = Clip(replace(clip.collection, names=names))
    assert clip_content.player_content(later, predictor)["frames"][0]["title"] == "frame 5"
    assert clip_content.track_cards(later, predictor)["cards"][1]["lines"] == ["10 views", "frame 5 to frame 23"]
    assert clip_content.view_cards(later, predictor, 7)["cards"][1]["title"] == "frame 7"


def test_a_path_joins_the_points_of_one_track(clip: Clip) -> None:
    mapped = np.array([0, 2, 3, 4, 5, 20])  # a sample of the rows, rising
    assert clip.path(2, mapped) == [point for point, row in enumerate(mapped) if clip.track_id[row] == 2]
    assert clip.path(None, mapped) == []
    everything = clip.path(7, np.arange(len(clip.objects)))
    assert everything == clip.rows_of(7).tolist()


def test_every_frame_has_its_boxes_and_the_objects_decoded_in_it(clip: Clip, predictor: Predictor) -> None:
    played = clip_content.player_content(clip, predictor)
    assert (played["width"], played["height"], len(played["frames"])) == (80, 60, FRAMES)
    assert [[box["track"] for box in frame["boxes"]] for frame in played["frames"][:4]] == [
        [2, 7],
        [2],
        [2, 7],
        [2],
    ]
    assert played["frames"][5]["boxes"][0]["title"] == "track 2: object, 90%"
    assert played["frames"][-1]["image"] == ""
    np.testing.assert_allclose(pixels_of(played["frames"][7]["image"]), 70, atol=2)
    one = clip.objects[clip.objects.image_index == 6].replace(image_index=torch.zeros(2, dtype=torch.int64))
    expected = predictor.decode(one.replace(batch_size=1)).reconstructions[0].permute(1, 2, 0) * 255
    shown = pixels_of(played["frames"][6]["reconstruction"]).astype(float)
    assert np.abs(shown - expected.numpy()).mean() < 4  # JPEG


def test_long_clips_are_sampled_with_a_note(
    clip: Clip, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clip_content.summary(clip).startswith("2 tracks in 20 frames. 1 frame can't be read: give")
    monkeypatch.setattr(clip_module, "MAX_FRAMES", 8)
    monkeypatch.setattr(clip_module, "MAX_TRACKS", 1)
    long = Clip(clip.collection)
    assert long.frames.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert long.frame_near(10) == 3
    assert long.longest == [2]
    assert "7 of the frames are played: the clip is long, so one of every 3 is." in clip_content.summary(long)
    assert len(clip_content.player_content(long, predictor)["frames"]) == 7


def test_cards_show_the_views_of_the_track_that_is_followed(clip: Clip, predictor: Predictor) -> None:
    tracks = clip_content.track_cards(clip, predictor, followed=7)
    assert [card["title"] for card in tracks["cards"]] == ["track 2", "track 7"]
    assert tracks["selected"] == 1
    assert tracks["cards"][1]["lines"] == ["10 views", "000000.png to 000018.png"]
    views = clip_content.view_cards(clip, predictor, 7)["cards"]
    assert [card["title"] for card in views] == [f"{number:06d}.png" for number in range(0, FRAMES, 2)]
    assert views[0]["lines"] == ["13% visible", "not a clear view"]
    row = int(clip.rows_of(7)[3])
    (decoded,) = decode_alone(predictor, clip.objects[[row]])
    shown = pixels_of(views[3]["images"][1]["source"]).astype(float)
    np.testing.assert_allclose(shown, decoded.permute(1, 2, 0).numpy() * 255, atol=1)
    assert clip_content.followed_title(clip, 2) == "#### Track 2: 20 views, 12 of them shown"
    assert "5 of its 20 views in the order of time" in clip_content.path_note(clip, 2, 5)


def test_objects_without_tracks_are_no_clip(clip: Clip) -> None:
    objects = clip.objects
    none = Collection(objects.replace(track_id=None), clip.collection.names, [None] * FRAMES, ["object"])
    assert clip_of(none) is None
    zeros = objects.replace(track_id=torch.zeros_like(objects.image_index))
    assert clip_of(Collection(zeros, clip.collection.names, [None] * FRAMES, ["object"])) is None
