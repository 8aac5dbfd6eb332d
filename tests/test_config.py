from pathlib import Path

import pytest

from ssdir.config import merge, presets, read_values
from ssdir.errors import InputError
from ssdir.training.recipe import Recipe, read_recipe

PRESET = "paper-mnist"


def message(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        read_recipe(PRESET, overrides)
    return str(caught.value)


def test_every_preset_is_a_valid_recipe() -> None:
    assert PRESET in presets()
    for name in presets():
        assert read_recipe(name).name == name


def test_unknown_keys_name_the_nearest() -> None:
    assert message("sede=1") == f"{PRESET}: unknown key 'sede'; did you mean 'seed'?"
    assert message("detector.epoch=1") == (f"{PRESET}: unknown key 'detector.epoch'; did you mean 'epochs'?")
    assert "'model.encoder.latent_dims'; did you mean 'latent_dim'" in message("model.encoder.latent_dims=3")
    assert "known keys: " in message("detector.zzzzzz=1")


def test_unknown_keys_below_a_choice_of_backbones() -> None:
    """The reported path is the one that the user wrote, without the tag of the union."""
    error = message("model.ssd.backbone.weigths=hub")
    assert error == f"{PRESET}: unknown key 'model.ssd.backbone.weigths'; did you mean 'weights'?"


def test_wrong_values_name_their_dotted_path() -> None:
    assert message("detector.epochs=many") == f"{PRESET}: 'detector.epochs' must be a whole number, got 'many'"
    assert message("detector.epochs=0") == f"{PRESET}: 'detector.epochs' must be at least 1, got 0"
    assert message("representation.lr=-1") == f"{PRESET}: 'representation.lr' must be more than 0, got -1"
    stages = "all, detector, representation or memory"
    assert message("stage=nothing") == f"{PRESET}: 'stage' must be {stages}, got 'nothing'"
    assert message("model.ssd=3") == f"{PRESET}: 'model.ssd' must be keys and values, got 3"
    assert "min_sizes and max_sizes" in message("model.ssd.anchors.min_sizes=[1, 2]")


def test_wrong_value_of_a_key_of_several_types() -> None:
    assert message("classes=5").startswith(f"{PRESET}: 'classes' must be ")


@pytest.mark.parametrize("text", ["5e-4", "5.0e-4", "0.0005"])
def test_numbers_may_be_written_as_people_do(text: str) -> None:
    assert read_values(PRESET, [f"detector.lr={text}"])["detector"]["lr"] == 5e-4
    recipe = read_recipe(PRESET, [f"detector.lr={text}"])
    assert recipe.detector.lr == 5e-4
    assert recipe.representation == read_recipe(PRESET).representation


def test_overrides_take_yaml_values_and_the_last_wins() -> None:
    overrides = ["classes=[seven, nine]", "detector.grad_clip=null", "seed=1", "seed=2"]
    recipe = read_recipe(PRESET, [*overrides, "model.ssd.nms=true"])
    assert recipe.classes == ("seven", "nine")
    assert recipe.detector.grad_clip is None
    assert recipe.seed == 2
    assert recipe.model.ssd.nms is True


def test_overrides_of_another_kind_come_in_any_order() -> None:
    overrides = ["model.encoder.latent_dim=32", "model.encoder.kind=pyramid"]
    assert read_recipe("tiny").model.encoder.kind != "pyramid"
    for ordered in (overrides, overrides[::-1]):
        assert read_recipe("tiny", ordered).model.encoder.latent_dim == 32


@pytest.mark.parametrize("preset", presets())
def test_an_override_of_the_models_kind_drops_the_settings_of_the_presets(preset: str) -> None:
    other = "SPACE" if read_recipe(preset).model.kind == "SPAIR" else "SPAIR"
    assert read_values(preset, [f"model.kind={other}"])["model"] == {"kind": other}


@pytest.mark.parametrize("text", ["seed", "=1", "classes=[seven"])
def test_malformed_overrides_are_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="must look like key=value") as caught:
        read_recipe(PRESET, [text])
    assert text in str(caught.value)


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'paper-mnist'"):
        read_recipe("paper-mnits")


def test_file_builds_on_its_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: paper-mnist\nseed: 7\nmodel: {encoder: {latent_dim: 9}}\n")
    recipe, base = read_recipe(file, ["detector.epochs=2"]), read_recipe(PRESET)
    assert (recipe.seed, recipe.model.encoder.latent_dim, recipe.detector.epochs) == (7, 9, 2)
    assert recipe.model.decoder == base.model.decoder
    assert recipe.model.encoder.num_hidden == base.model.encoder.num_hidden
    # What a run writes down is read back as the same recipe.
    stored = Recipe.model_validate(recipe.model_dump(mode="json"))
    assert stored == recipe


def test_merging_goes_deep_and_replaces_lists() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merge(base, {"a": {"c": [3]}, "e": 5}) == {"a": {"b": 1, "c": [3]}, "d": 4, "e": 5}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a: [1\nb: 2\n", "not valid YAML at line"), ("- 1\n- 2\n", "expected keys and values, got a list")],
)
def test_broken_files_are_one_sentence(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=expected):
        read_values(file)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml' does not exist"):
        read_values(tmp_path / "none.yaml")
