import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdir.ops.boxes import (
    around_parts,
    clip_cxcywh,
    decode_boxes,
    encode_boxes,
    grow_boxes,
    inside_windows,
    tight_boxes,
    to_cxcywh,
    to_xyxy,
)

coordinate = st.floats(0, 1, width=32)
side = st.floats(2**-7, 1, width=32)
box = st.tuples(coordinate, coordinate, side, side)


@given(st.lists(st.tuples(box, box), min_size=1, max_size=8))
def test_decoding_inverts_encoding(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    boxes = torch.tensor([first for first, _ in pairs])
    anchors = torch.tensor([second for _, second in pairs])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-5)


def test_encoding_by_hand() -> None:
    anchor = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    moved = torch.tensor([[0.54, 0.44, 0.2 * 2.718281828, 0.4]])
    expected = torch.tensor([[0.04 / 0.2 / 0.1, -0.06 / 0.4 / 0.1, 1 / 0.2, 0.0]])
    torch.testing.assert_close(encode_boxes(moved, anchor), expected)


def test_variances_scale_centres_and_sizes_apart() -> None:
    anchor = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    deltas = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    expected = torch.tensor([[0.5 + 0.3 * 0.2, 0.5, 0.2, 0.4 * 2.718281828**0.7]])
    torch.testing.assert_close(decode_boxes(deltas, anchor, (0.3, 0.7)), expected)


def test_formats_by_hand() -> None:
    corners = torch.tensor([[0.1, 0.2, 0.5, 0.4]])
    centred = torch.tensor([[0.3, 0.3, 0.4, 0.2]])
    torch.testing.assert_close(to_cxcywh(corners), centred)
    torch.testing.assert_close(to_xyxy(centred), corners)


def test_clipping_keeps_the_part_inside() -> None:
    outside = torch.tensor([[0.0, 0.5, 0.4, 0.2], [0.5, 0.95, 2.0, 0.2], [0.5, 0.5, 0.1, 0.1]])
    expected = torch.tensor([[0.1, 0.5, 0.2, 0.2], [0.5, 0.925, 1.0, 0.15], [0.5, 0.5, 0.1, 0.1]])
    torch.testing.assert_close(clip_cxcywh(outside), expected)


def test_tight_boxes_by_hand() -> None:
    shapes = torch.zeros(3, 1, 5, 5)
    shapes[0, 0, 1:3, 4] = 0.6
    shapes[0, 0, 3, 0] = 0.2  # too faint
    shapes[1, 0, 2, 2] = 0.1  # faint, but the brightest there is
    expected = torch.tensor([[0.8, 0.2, 1.0, 0.6], [0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(tight_boxes(shapes, 0.5), expected)
    assert tight_boxes(shapes[:0], 0.5).shape == (0, 4)


@given(box, box)
def test_parts_of_windows_lie_in_them(window: tuple[float, ...], part: tuple[float, ...]) -> None:
    windows, parts = to_xyxy(torch.tensor([window, part])).split(1)
    placed = inside_windows(windows, parts)
    by_hand = windows[:, :2] + parts[:, :2] * (windows[:, 2:] - windows[:, :2])
    torch.testing.assert_close(placed[:, :2], by_hand)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(inside_windows(windows, whole), windows, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(around_parts(placed, parts), windows, rtol=1e-2, atol=1e-3)


def test_grown_boxes_keep_their_centre_and_have_more_room_on_each_side() -> None:
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    grown = to_xyxy(grow_boxes(boxes, 1.5))
    assert torch.allclose(grown, to_xyxy(boxes) + torch.tensor([[-0.05, -0.025, 0.05, 0.025]]))
