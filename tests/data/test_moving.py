import numpy as np
import pytest
from pydantic import ValidationError

from ssdir.data.scatter.generator import image_rng
from ssdir.data.scatter.glyphs import INK_THRESHOLD, Glyphs, load_glyphs
from ssdir.data.scatter.moving import MovingConfig, moving_clip, moving_values
from ssdir.data.scatter.paths import Walls, sample_path


@pytest.fixture(scope="module")
def digits():
    return load_glyphs("digits", "train")


def configured(difficulty="standard", **values):
    return MovingConfig(**{**moving_values(difficulty), **values})


def clips(digits, count, difficulty="standard", **values):
    config = configured(difficulty, **values)
    return [moving_clip(digits, config, image_rng(0, "train", index)) for index in range(count)]


@pytest.fixture(scope="module")
def standard(digits):
    return clips(digits, 6)


@pytest.fixture(scope="module")
def hard(digits):
    return clips(digits, 12, "hard", frames=40)


def rows_of(clip, track):
    return np.flatnonzero(clip.track_id == track)


def shapes():
    """Returns squares of different intensities, and rings, whose convex hull is a square too."""
    squares = [np.full((12, 12), 60 + 40 * i, np.uint8) for i in range(4)]
    rings = [np.pad(np.zeros((6, 6), np.uint8), 3, constant_values=250) for _ in range(4)]
    return Glyphs(squares + rings, np.repeat([0, 1], 4), ["square", "ring"], "test", np.arange(8))


def test_a_clip_follows_from_seed_split_and_number(digits):
    first, again = (moving_clip(digits, configured(), image_rng(3, "val", 5)) for _ in range(2))
    for name in ("images", "frame", "track_id", "boxes_px", "labels", "source_index", "draw_order", "visible"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    other = moving_clip(digits, configured(), image_rng(3, "val", 6))
    assert not np.array_equal(first.images, other.images)


def test_a_track_is_one_glyph_with_one_place_in_the_draw_order(hard, digits):
    for clip in hard:
        tracks = np.unique(clip.track_id)
        seen = []
        for track in tracks:
            rows = rows_of(clip, track)
            for name in ("labels", "source_index", "draw_order"):
                assert len(np.unique(getattr(clip, name)[rows])) == 1, name
            place = int(np.flatnonzero(digits.indices == clip.source_index[rows[0]])[0])
            assert digits.labels[place] == clip.labels[rows[0]]
            seen.append((clip.source_index[rows[0]], clip.draw_order[rows[0]]))
        glyphs, orders = zip(*seen, strict=True)
        assert len({*glyphs}) == len({*orders}) == len(tracks)
        assert tracks.min() >= 1
        assert (np.lexsort((clip.track_id, clip.frame)) == np.arange(len(clip.frame))).all()


def test_standard_clips_keep_all_digits_inside_and_hide_little(standard):
    for clip in standard:
        count = len(np.unique(clip.track_id))
        assert 2 <= count <= 8
        assert len(clip.frame) == count * 30
        assert (clip.boxes_px[:, :2] >= 0).all()
        assert (clip.boxes_px[:, 2:] <= 128).all()
    assert np.concatenate([clip.visible for clip in standard]).mean() > 0.95


def test_hard_clips_hide_digits_let_them_leave_and_repeat_classes(hard):
    visible = np.concatenate([clip.visible for clip in hard])
    assert 0.1 < (visible < 0.5).mean() < 0.4
    assert (visible == 0).any()
    gaps, twins, ratios = [], 0, []
    for clip in hard:
        tracks = [rows_of(clip, track) for track in np.unique(clip.track_id)]
        labels = [clip.labels[rows[0]] for rows in tracks]
        twins += len(labels) - len({*labels})
        sides = (clip.boxes_px[:, 2:] - clip.boxes_px[:, :2]).max(axis=1)
        ratios.append(sides.max() / sides[clip.visible > 0.9].min())
        for rows in tracks:
            steps = np.diff(clip.frame[rows])
            gaps += (steps[steps > 1] - 1).tolist()
    assert len(gaps) >= len(hard) / 2
    assert max(gaps) <= 20
    assert twins >= len(hard)
    assert np.median(ratios) > 4


def test_boxes_visible_shares_and_pixels_are_those_of_the_painters_algorithm():
    """An image of opaque shapes equals their boxes painted from far to near."""
    glyphs = shapes()
    config = configured("hard", size_factors=(1, 1), min_size=0.15, max_size=0.3, frames=20)
    hidden = cut = 0
    for index in range(6):
        clip = moving_clip(glyphs, config, image_rng(1, "train", index))
        areas = np.prod(clip.boxes_px[:, 2:] - clip.boxes_px[:, :2], axis=1)
        whole = {track: areas[rows_of(clip, track)].max() for track in np.unique(clip.track_id)}
        for frame in range(20):
            rows = np.flatnonzero(clip.frame == frame)
            owner = np.full((128, 128), -1)
            for row in rows[np.argsort(clip.draw_order[rows])]:
                x1, y1, x2, y2 = clip.boxes_px[row]
                owner[y1:y2, x1:x2] = row
            for row in rows[clip.labels[rows] == 0]:
                shown = (owner == row).sum()
                assert clip.visible[row] == pytest.approx(shown / whole[clip.track_id[row]], abs=1e-6)
                assert (clip.images[frame][owner == row] == 60 + 40 * clip.source_index[row]).all()
                hidden += clip.visible[row] < 0.5
                cut += areas[row] < whole[clip.track_id[row]]
            assert (clip.images[frame][owner == -1] == 0).all()
    assert hidden > 20
    assert cut > 20


def test_only_ink_hides_unless_glyphs_are_opaque():
    ring = np.pad(np.zeros((18, 18), np.uint8), 1, constant_values=250)
    glyphs = Glyphs([ring] * 8, np.zeros(8, np.int64), ["ring"], "test", np.arange(8))
    values = {"objects": (8, 8), "min_size": 0.2, "max_size": 0.6, "size_factors": (1, 1), "paths": 1}
    shares = []
    for opaque in ("ink", "hull"):
        clip = moving_clip(glyphs, configured(opaque=opaque, **values), image_rng(0, "train", 0))
        shares.append(clip.visible)
        assert clip.images.max() == 250
    assert (shares[0] >= shares[1]).all()
    assert shares[0].mean() > shares[1].mean() + 0.2


@pytest.mark.parametrize("opaque", ["ink", "hull"])
def test_lines_that_are_too_thin_at_a_small_size_have_no_rows_there(opaque):
    line = 255 * np.eye(250, dtype=np.uint8)
    glyphs = Glyphs([line] * 4, np.zeros(4, np.int64), ["line"], "test", np.arange(4))
    with np.errstate(all="raise"):
        clip = moving_clip(glyphs, configured(opaque=opaque, min_size=0.1, max_size=0.1), image_rng(0, "train", 0))
    assert not clip.images.any()
    assert len(clip.track_id) == 0


def test_ink_is_what_scattered_images_take_for_ink(digits):
    clip = clips(digits, 1)[0]
    assert set(np.unique(clip.images)) <= {0, *range(INK_THRESHOLD, 256)}


def test_walls_reflect_a_path_and_keep_its_speed():
    half = np.tile([8.0, 12.0], (300, 1))
    path = sample_path(half, 3.0, Walls(100, 0.0, (1, 1)), np.random.default_rng(0))
    assert (path >= half - 3.0).all()
    assert (path <= 100 - half + 3.0).all()
    steps = np.diff(path, axis=0)
    turns = (np.sign(steps[1:]) != np.sign(steps[:-1])).any(axis=1)
    assert turns.sum() > 4
    straight = np.linalg.norm(steps[1:][~turns], axis=1)
    assert np.median(straight) == pytest.approx(3.0)


@pytest.mark.parametrize("absence", [1, 7, 20])
def test_a_path_that_leaves_comes_back_after_the_frames_asked_for(absence):
    half = np.full((600, 2), 10.0)
    walls = Walls(100, 1.0, (absence, absence))
    lengths = []
    for seed in range(5):
        path = sample_path(half, 4.0, walls, np.random.default_rng(seed))
        outside = ((path <= -half) | (path >= 100 + half)).any(axis=1)
        runs = np.flatnonzero(np.diff(np.concatenate([[0], outside, [0]])))
        starts, ends = runs[::2], runs[1::2]
        lengths += [end - start for start, end in zip(starts, ends, strict=True) if end < 600]
    assert len(lengths) > 10
    assert {*lengths} == {absence}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objects": (3, 2)}, "objects must be a range within 1 ... 250, got 3 to 2"),
        ({"min_size": 0.05}, "the smallest glyph would have 5.1 px, below 8 px"),
        ({"max_size": 0.9}, "max_size times the largest of size_factors exceeds the canvas"),
        ({"min_size": 0.3}, "min_size 0.3 must not exceed max_size 0.28"),
        ({"absence": (0, 3)}, "absence must be a range"),
    ],
)
def test_parameters_that_fit_no_clip_are_refused(values, message):
    with pytest.raises(ValidationError, match=message.replace("...", r"\.\.\.")):
        configured(**values)
