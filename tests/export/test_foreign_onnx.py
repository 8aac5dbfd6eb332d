"""ONNX files that `ssdir export` has not written are refused in one sentence, before they are run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ssdir.errors import InputError
from ssdir.export.runtime import OnnxEncoder
from ssdir.object_arrays import ObjectArrays

DIM = 3
ABOUT: dict[str, Any] = {
    "format": 1,
    "part": "encoder",
    "kind": "SSDIR",
    "description": "made by hand",
    "class_names": ["cat", "dog"],
    "image_size": 16,
    "latent_dim": DIM,
    "score_threshold": 0.5,
    "nms_threshold": 0.45,
    "max_objects": 10,
    "ssdir_version": "1",
    "fingerprint": "weights",
}
DETECTIONS: dict[str, NDArray[Any]] = {
    "image_index": np.array([0, 1], np.int64),
    "z_where": np.full((2, 4), 0.5, np.float32),
    "scores": np.array([0.75, 1], np.float32),
    "labels": np.array([1, 0], np.int64),
    "z_what": np.ones((2, DIM), np.float32),
    "z_what_scale": np.ones((2, DIM), np.float32),
    "z_depth": np.zeros(2, np.float32),
    "anchor_index": np.array([5, 6], np.int64),
}
PIXELS = np.zeros((2, 16, 16, 3), np.uint8)


def encoder(
    changes: dict[str, NDArray[Any] | None] | None = None,
    about: object = ABOUT,
    images: tuple[int, list[Any]] = (TensorProto.UINT8, ["images", "height", "width", 3]),
) -> ModelProto:
    """Returns a graph that outputs `DETECTIONS` for any images; `changes` replaces outputs, or removes them."""
    outputs_by_name = {
        name: values for name, values in {**DETECTIONS, **(changes or {})}.items() if values is not None
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
        for name, values in outputs_by_name.items()
    ]
    inputs = [
        helper.make_tensor_value_info("images", *images),
        helper.make_tensor_value_info("score_threshold", TensorProto.FLOAT, []),
    ]
    outputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), [None] * values.ndim)
        for name, values in outputs_by_name.items()
    ]
    default = numpy_helper.from_array(np.array(0.5, np.float32), "score_threshold")
    graph = helper.make_graph(nodes, "fake", inputs, outputs, [default])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if about is not None:
        model.metadata_props.add(key="ssdir", value=about if isinstance(about, str) else json.dumps(about))
    return model


def opened(model: ModelProto, folder: Path) -> OnnxEncoder:
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return OnnxEncoder(folder / "m.onnx", "cpu")


def test_an_encoder_made_by_hand_is_run(tmp_path: Path) -> None:
    objects = opened(encoder(), tmp_path).encode_pixels(PIXELS)
    for name, values in DETECTIONS.items():
        np.testing.assert_array_equal(getattr(objects, name), values)
    assert objects.batch_size == 2


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("", 0), ("4,2", 0)])
def test_threads_are_as_many_as_those_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    options = opened(encoder(), tmp_path)._session.get_session_options()
    assert options.intra_op_num_threads == threads  # 0 is all cores.


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        (None, "that ssdir did not write"),
        ("", "not valid JSON"),
        ("[" * 50_000, "too deep"),
        ("[]", "expected keys and values"),
        ({**ABOUT, "format": 7}, "has format 7"),
        ({**ABOUT, "part": "decoder"}, "holds a decoder"),
        ({**ABOUT, "part": "toaster"}, "'part' must (be|have) "),
        ({**ABOUT, "class_names": []}, "'class_names' must (be|have) "),
        ({**ABOUT, "image_size": 10**9}, "'image_size' must (be|have) "),
        ({**ABOUT, "image_size": "16"}, "'image_size' must (be|have) "),
        ({**ABOUT, "latent_dim": -1}, "'latent_dim' must (be|have) "),
        ({**ABOUT, "score_threshold": float("nan")}, "'score_threshold' must (be|have) "),
        ({**ABOUT, "max_objects": None}, "'max_objects' must (be|have) "),
        ({name: value for name, value in ABOUT.items() if name != "fingerprint"}, "'fingerprint' is missing"),
    ],
)
def test_metadata_is_checked_on_opening(tmp_path: Path, about: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        opened(encoder(about=about), tmp_path)
    assert "m.onnx" in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    raw = encoder(about="A" * 40).SerializeToString().replace(b"A" * 40, b"\xff" * 40)
    (tmp_path / "m.onnx").write_bytes(raw)
    with pytest.raises(InputError, match="its metadata is not UTF-8 text"):
        OnnxEncoder(tmp_path / "m.onnx", "cpu")


def without_inputs() -> ModelProto:
    model = encoder()
    del model.graph.input[:]
    return model


def with_another_input() -> ModelProto:
    model = encoder()
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))
    return model


def with_a_renamed_input() -> ModelProto:
    model = encoder()
    model.graph.input[0].name = "pixels"
    return model


def without_a_default() -> ModelProto:
    model = encoder()
    del model.graph.initializer[:]
    return model


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (without_inputs(), "is no encoder of ssdir: its inputs are none; expected images, score_threshold"),
        (with_another_input(), "its inputs are extra, images, score_threshold; expected"),
        (with_a_renamed_input(), "its inputs are pixels, score_threshold; expected"),
        (without_a_default(), "score_threshold has no default"),
        (encoder({"z_what": None}), "its outputs are anchor_index, .*; expected image_index"),
        (encoder({"further": np.ones(1, np.float32)}), "its outputs are .*further.*; expected"),
        (encoder({"labels": np.ones(2, np.float32)}), r"labels is tensor\(float\) .*expected tensor\(int64\)"),
        (encoder({"z_what": np.ones(2, np.float32)}), "z_what is .* with 1 dimensions, expected .* with 2"),
        (encoder({"scores": np.ones(2, np.float64)}), r"scores is tensor\(double\)"),
        (encoder(images=(TensorProto.FLOAT, ["images", "h", "w", 3])), r"images is tensor\(float\)"),
        (encoder(images=(TensorProto.UINT8, ["images", 3])), "images is .* with 2 dimensions, expected .* with 4"),
    ],
)
def test_the_signature_is_checked_on_opening(tmp_path: Path, model: ModelProto, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        opened(model, tmp_path)
    assert "\n" not in str(error.value)


NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("z_what", np.full((2, DIM), NAN), "z_what holds a number that is not finite"),
        ("z_depth", np.array([0, np.inf], np.float32), "z_depth holds a number that is not finite"),
        ("scores", np.array([NAN, 1], np.float32), "scores holds a number that is not finite"),
        ("scores", np.array([0.5, 1.5], np.float32), "scores holds a value outside 0 ... 1"),
        ("z_where", np.full((2, 4), NAN), "z_where holds a number that is not finite"),
        ("z_where", np.full((2, 4), -0.5, np.float32), "z_where has a negative size"),
        ("z_where", np.full((2, 5), 0.5, np.float32), r"z_where has the shape \(2, 5\), expected \(2, 4\)"),
        ("z_what", np.ones((2, 9), np.float32), r"z_what has the shape \(2, 9\), expected \(2, 3\)"),
        ("z_what", np.ones((1, DIM), np.float32), r"z_what has the shape \(1, 3\)"),
        ("labels", np.array([0, 2], np.int64), "labels holds a value outside 0 ... 1"),
        ("image_index", np.array([0, 2], np.int64), "image_index is outside 0 ... 1"),
        ("image_index", np.array([1, 0], np.int64), "image_index decreases"),
    ],
)
def test_what_comes_out_is_checked(tmp_path: Path, name: str, values: NDArray[Any], sentence: str) -> None:
    fake = opened(encoder({name: values}), tmp_path)
    with pytest.raises(InputError, match=rf"m.onnx' gave wrong objects: {sentence}"):
        fake.encode_pixels(PIXELS)
    assert ObjectArrays(batch_size=2, **DETECTIONS).problem(2, DIM) is None


def test_what_fails_while_it_runs_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The graph makes a tensor of 40 GB, which is refused before it takes any memory."""
    model = encoder({"z_depth": None})
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["images"], ["shape"], end=1),
            helper.make_node("Mul", ["shape", "many"], ["long"]),
            helper.make_node("ConstantOfShape", ["long"], ["z_depth"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**10 // 2], np.int64), "many"))
    model.graph.output.insert(6, helper.make_tensor_value_info("z_depth", TensorProto.FLOAT, [None]))
    fake = opened(model, tmp_path)
    with pytest.raises(InputError, match=r"m.onnx' can't be run: .*memory.*40000000000") as error:
        fake.encode_pixels(PIXELS)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_tensor_that_is_declared_but_not_there_is_one_sentence(tmp_path: Path) -> None:
    model = encoder()
    model.graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[10**10], raw_data=b"1234")
    )
    model.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["sum"]))
    with pytest.raises(InputError, match="damaged or not an ONNX file"):
        opened(model, tmp_path)


def test_damage_is_an_input_error_or_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoder().SerializeToString()
    rng, path = np.random.default_rng(0), tmp_path / "m.onnx"
    for place in rng.integers(0, len(whole), 60).tolist():
        for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :]):
            path.write_bytes(changed)
            with contextlib.suppress(InputError):
                OnnxEncoder(path, "cpu").encode_pixels(PIXELS)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
