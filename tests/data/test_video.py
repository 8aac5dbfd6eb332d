"""Clips are read frame by frame, whole or damaged, and single frames by their names."""

from __future__ import annotations

import struct
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_files import moving_squares, write_frames, write_video
from ssdir.data import video_file
from ssdir.data.image_files import find_images
from ssdir.data.images import image_size, read_image
from ssdir.data.video import Frame, ImageFrames, open_frames
from ssdir.errors import InputError, InputWarning
from ssdir.storage import write_bytes

pytest.importorskip("av", reason="PyAV is not installed")


def frames_of(source: Path | str | list[Path]) -> list[Frame]:
    return list(open_frames(source))


def test_a_lossless_video_gives_its_frames(tmp_path: Path) -> None:
    pictures = moving_squares(7)
    clip = open_frames(write_video(tmp_path / "walk.mkv", pictures))
    assert (clip.frame_rate, clip.length) == (25.0, 7)
    for _ in range(2):  # A clip can be read again.
        frames = list(clip)
        assert [frame.index for frame in frames] == list(range(7))
        assert all(np.array_equal(frame.pixels, picture) for frame, picture in zip(frames, pictures, strict=True))
    assert frames[3].name == f"{tmp_path / 'walk.mkv'}#frame=3"
    assert frames[3].size == (48, 64)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
        ("a.webm", "libvpx"),
        ("a.ts", "libx264"),
        ("a.mpg", "mpeg1video"),
        ("a.vob", "mpeg2video"),
        ("a.wmv", "libx264"),
        ("a.mxf", "libx264"),
    ],
)
def test_a_name_reads_the_frame_that_streaming_gave(tmp_path: Path, name: str, codec: str) -> None:
    frames = frames_of(write_video(tmp_path / name, moving_squares(40), codec))
    assert [frame.index for frame in frames] == list(range(40))
    for number in (*np.random.default_rng(0).permutation(40), 5, 6, 7, 6):
        assert np.array_equal(read_image(frames[number].name), frames[number].pixels)
    assert image_size(frames[3].name) == frames[3].size


def test_frames_far_on_are_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "long.mp4", moving_squares(200), "libx264")
    decoded = []
    original = video_file._Numbering.number
    monkeypatch.setattr(
        video_file._Numbering, "number", lambda self, frame: decoded.append(0) or original(self, frame)
    )
    read_image(f"{video}#frame=190")
    read_image(f"{video}#frame=191")
    assert len(decoded) <= 13, "frames are decoded from the keyframe before, one in 12, and not again"


def test_frames_without_times_are_decoded_once_if_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_of(write_video(tmp_path / "a.avi", moving_squares(20), "libx264"))
    decoded, filters = [], list(warnings.filters)
    original = video_file._Numbering.number

    def number(self: object, frame: object) -> int:
        assert warnings.filters == filters, "other threads use them too"
        decoded.append(0)
        return original(self, frame)

    monkeypatch.setattr(video_file._Numbering, "number", number)
    for frame in frames[::2]:
        read_image(frame.name)
    assert len(decoded) == 19


def test_a_name_of_no_frame_is_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving_squares(5), "libx264")
    with pytest.raises(InputError, match=r"has 5 frames, there is no frame 5 \(the first is 0\)"):
        read_image(f"{video}#frame=5")
    with pytest.raises(InputError, match=r"'.*gone\.mp4' does not exist"):
        read_image(tmp_path / "gone.mp4#frame=1")


def test_a_video_is_no_image_but_its_frames_are(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving_squares(3), "libx264")
    with pytest.raises(InputError, match=r"not an image but a video.*a\.mp4#frame=0' is its first frame"):
        read_image(video)
    (tmp_path / "list.txt").write_text("a.mp4#frame=1\na.mp4#frame=2\n")
    assert find_images([f"{video}#frame=2"]) == [Path(f"{video}#frame=2")]
    listed = find_images([tmp_path / "list.txt"])
    assert [np.array_equal(read_image(image), frames_of(video)[n].pixels) for n, image in enumerate(listed, 1)]


def test_clips_may_be_elsewhere(tmp_path: Path, memory_folder: str) -> None:
    pictures = moving_squares(5)
    video, folder = write_video(tmp_path / "a.mkv", pictures), write_frames(tmp_path / "clip", pictures)
    write_bytes(f"{memory_folder}/a.mkv", video.read_bytes())
    for file in folder.iterdir():
        write_bytes(f"{memory_folder}/clip/{file.name}", file.read_bytes())
    for source in (f"{memory_folder}/a.mkv", f"{memory_folder}/clip"):
        frames = frames_of(source)
        assert all(np.array_equal(frame.pixels, picture) for frame, picture in zip(frames, pictures, strict=True))
        assert np.array_equal(read_image(frames[2].name), pictures[2])
    with pytest.raises(InputError, match=r"b\.mkv"):
        open_frames(f"{memory_folder}/b.mkv")


def test_a_replaced_video_is_read_anew(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", moving_squares(3))
    before = read_image(f"{video}#frame=1")
    write_video(video, moving_squares(3, seed=1)[::-1])
    assert not np.array_equal(before, read_image(f"{video}#frame=1"))


def test_rotation_is_applied(tmp_path: Path) -> None:
    content = bytearray(write_video(tmp_path / "a.mp4", moving_squares(2), "libx264").read_bytes())
    upright = frames_of(tmp_path / "a.mp4")[0].pixels
    matrix = content.find(b"tkhd") + 44  # Turned by a quarter clockwise, as phones write it.
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    turned = frames_of(tmp_path / "turned.mp4")[0].pixels
    assert np.array_equal(turned, np.rot90(upright, -1))
    assert np.array_equal(read_image(f"{tmp_path / 'turned.mp4'}#frame=0"), turned)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")])
def test_a_truncated_video_gives_its_frames_and_a_note(tmp_path: Path, name: str, codec: str) -> None:
    whole = write_video(tmp_path / f"whole_{name}", moving_squares(100), codec)
    expected = frames_of(whole)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 6 // 10])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = frames_of(tmp_path / name)
    assert 20 < len(frames) < 90
    assert all(np.array_equal(one.pixels, expected[one.index].pixels) for one in frames[:20])
    if name != "a.ts":  # A transport stream holds neither its duration nor the number of its frames.
        (message,) = [str(warning.message) for warning in caught]
        assert "is damaged or cut short" in message
        assert f"{len(frames)} " in message


def whole_video(path: Path, codec: str, rate: Fraction, step: int = 1, sound: str = "") -> Path:
    """Writes 12 frames, each shown `step` times as long as the rate says, and perhaps four seconds of sound."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream(sound, rate=48000) if sound else None
        for number, pixels in enumerate(moving_squares(12)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number * step, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 4 * 48000), np.float32), "fltp", "mono")
            samples.sample_rate = 48000
            container.mux(audio.encode(samples))
            container.mux(audio.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate", "step", "sound"),
    [
        ("slow.mkv", "libx264", Fraction(1, 2), 1, ""),
        ("slow.ts", "libx264", Fraction(1, 2), 1, ""),
        ("sound.mkv", "libx264", Fraction(6), 1, "aac"),
        ("repeats.avi", "mpeg4", Fraction(25), 2, ""),
    ],
)
@pytest.mark.filterwarnings("error")
def test_whole_videos_are_not_called_damaged(
    tmp_path: Path, name: str, codec: str, rate: Fraction, step: int, sound: str
) -> None:
    frames = frames_of(whole_video(tmp_path / name, codec, rate, step, sound))
    assert [frame.index for frame in frames] == list(range(12))


def test_names_of_files_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "12.mkv", moving_squares(3)).rename(tmp_path / "12:30.mkv")
    assert len(frames_of("12:30.mkv")) == 3
    first, *others = [Image.fromarray(pixels) for pixels in moving_squares(3)]
    first.save(tmp_path / "a [1].gif", save_all=True, append_images=others, duration=100)
    assert len(frames_of("a [1].gif")) == 3


def test_frames_keep_their_numbers_where_others_are_lost(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", moving_squares(60, 96, 128), "libx264")
    expected = frames_of(whole)
    content = bytearray(whole.read_bytes())
    start, end = len(content) * 4 // 10, len(content) * 6 // 10
    content[start:end] = bytes(end - start)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    with pytest.warns(InputWarning, match=r"damaged or cut short: \d+ of 60 frames can be decoded") as caught:
        frames = frames_of(damaged)
    assert len(caught) == 1
    assert 40 < len(frames) < 60
    assert frames[-1].index == 59
    assert np.array_equal(frames[-1].pixels, expected[-1].pixels)
    for frame in (frames[3], frames[-1]):
        assert np.array_equal(read_image(frame.name), frame.pixels)
    lost = next(number for number in range(60) if number not in {frame.index for frame in frames})
    with pytest.raises(InputError, match=f"no frame {lost} that can be decoded"):
        read_image(f"{damaged}#frame={lost}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a video: the file is empty"),
        (b"no video " * 100, "is not a video in a known format"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        open_frames(tmp_path / "a.mp4")


def test_a_cut_index_and_sound_alone_are_refused(tmp_path: Path) -> None:
    import av

    content = write_video(tmp_path / "a.mp4", moving_squares(20), "libx264").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cut short before its table of contents"):
        open_frames(tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="has no pictures, only sound"):
        open_frames(tmp_path / "sound.mp4")
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = 48, 64
        container.start_encoding()
    with pytest.raises(InputError, match=r"no frames that can be decoded|not a video"):
        frames_of(tmp_path / "none.avi")


def test_folders_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    pictures = moving_squares(12)
    write_frames(tmp_path / "clip", pictures, "frame{}.png")
    clip = open_frames(tmp_path / "clip")
    assert (clip.frame_rate, clip.length) == (None, 12)
    assert all(np.array_equal(frame.pixels, pictures[frame.index]) for frame in clip)
    pattern = frames_of(str(tmp_path / "clip" / "*.png"))
    assert [frame.name for frame in pattern] == [str(tmp_path / "clip" / f"frame{n}.png") for n in range(1, 13)]
    given = [tmp_path / "clip" / f"frame{number}.png" for number in (3, 1, 2)]
    assert [frame.name for frame in frames_of(given)] == [str(file) for file in given]


def test_numbers_in_motchallenge_text_are_those_of_the_names(tmp_path: Path) -> None:
    pictures = moving_squares(3)
    for first, expected in ((6, [6, 7, 8]), (0, [1, 2, 3])):
        clip = open_frames(write_frames(tmp_path / f"from{first}", pictures, first=first))
        assert [clip.number(frame.index) for frame in clip] == expected
    named = open_frames(write_frames(tmp_path / "named", pictures, "frame{}.png", first=6))
    assert [named.number(frame.index) for frame in named] == [6, 7, 8]
    assert isinstance(named, ImageFrames)
    assert named.numbers({7, 8}) == [6, 7, 8]
    assert named.numbers({1, 3}) == [1, 2, 3]  # The text counts the frames that were cut out of a longer video.
    Image.fromarray(pictures[0]).save(tmp_path / "from6" / "000007.jpg")
    with pytest.raises(InputError, match=r"'.*from6' has two images of one frame, such as 7: keep one"):
        open_frames(tmp_path / "from6")


def test_gaps_in_the_numbers_are_counted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", moving_squares(12))
    for number in (4, 5, 9):
        (folder / f"{number:06d}.png").unlink()
    with pytest.warns(InputWarning, match=r"'.*clip' are not numbered .*: 3 numbers missing, the first 4"):
        clip = open_frames(folder)
    assert [frame.index for frame in clip] == list(range(9))


def test_unreadable_frames_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", moving_squares(5))
    (folder / "000002.png").write_bytes(b"broken")
    with pytest.warns(InputWarning, match=r"1 frame of 5 in '.*' can't be read"):
        assert [frame.index for frame in frames_of(folder)] == [0, 2, 3, 4]
    for file in folder.iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match="none of the 5 frames can be read"):
        frames_of(folder)


def test_frames_may_have_several_sizes(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", moving_squares(2))
    Image.fromarray(moving_squares(1, 20, 30)[0]).save(folder / "000003.png")
    assert [frame.size for frame in open_frames(folder)] == [(48, 64), (48, 64), (20, 30)]


def test_a_folder_of_several_clips_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_frames(tmp_path / name, moving_squares(2))
    with pytest.raises(InputError, match=r"holds 2 clips, give one of them: '.*one', '.*two'"):
        open_frames(tmp_path)


def test_sequences_of_motchallenge(tmp_path: Path) -> None:
    write_frames(tmp_path / "walk" / "img1", moving_squares(3))
    description = tmp_path / "walk" / "seqinfo.ini"
    description.write_text("[Sequence]\nname=Walk-01\nimDir=img1\nframeRate=14\nseqLength=3\n")
    clip = open_frames(tmp_path / "walk")
    assert (clip.frame_rate, clip.length) == (14.0, 3)
    assert next(frame.name for frame in clip) == str(tmp_path / "walk" / "img1" / "000001.png")
    description.write_text("[Sequence]\nseqLength=5\n")
    with pytest.warns(InputWarning, match="counts 5 frames, and there are 3"):
        open_frames(tmp_path / "walk")
    description.write_text("frames: many")
    with pytest.raises(InputError, match="not the description of a sequence"):
        open_frames(tmp_path / "walk")


def test_without_pyav_one_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    video = write_video(tmp_path / "a.mkv", moving_squares(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'ssdir\[video\]'"):
        open_frames(video)
