"""Prediction with a trained model, and which model of a run is taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoseg
from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.errors import UserError
from autoseg.predict.segmenter import Segmenter, find_model, load
from autoseg.runfolder import write_json
from autoseg.train.compute import Compute
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec

UNET = ModelSpec("small", "baseline", model="unet", options={"width": 2, "depth": 2})
COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
GREY = DatasetInfo("levels", 1, ("low", "middle", "high"), COLORS)
COLOUR = DatasetInfo("photos", 3, ("low", "middle", "high"), COLORS)


class Levels(nn.Module):
    """The class of a pixel is the mean of its channels, rounded."""

    size_divisor = 4

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0
        return -(x.mean(1, keepdim=True) - torch.arange(3.0).view(1, 3, 1, 1)).square()


def levels(info: DatasetInfo) -> Segmenter:
    channels = info.channels
    described = ModelFile(UNET, info, Normalisation((100.0,) * channels, (50.0,) * channels), {})
    return Segmenter(described, Levels(), Compute("cpu", "32", 1))


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1), (3, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_every_pixel_of_any_size_and_type(size: tuple[int, int], dtype: type) -> None:
    expected = np.random.default_rng(0).integers(0, 3, size)
    image = (expected * 50 + 100).astype(dtype)
    model = levels(GREY)
    found = model.predict(image)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert np.array_equal(model.predict(image[..., None]), expected)
    assert np.array_equal(levels(COLOUR).predict(np.stack([image] * 3, axis=-1)), expected)


def test_probabilities() -> None:
    image = np.array([[100, 150], [200, 175]], np.uint8)  # 0, 1, 2 and 1.5 standard deviations above the mean
    found = levels(GREY).probabilities(image)
    assert found.shape == (3, 2, 2) and found.dtype == np.float32
    assert found.sum(0) == pytest.approx(np.ones((2, 2)))
    expected = np.exp([0.0, -1.0, -4.0])
    assert found[:, 0, 0] == pytest.approx(expected / expected.sum(), rel=1e-5)
    assert found[1, 1, 1] == pytest.approx(found[2, 1, 1], rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 5, 3), (5,), (2, 5, 5, 1), (0, 5), (5, 5, 2)])
def test_an_image_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        levels(GREY).predict(np.zeros(shape, np.uint8))
    assert str(shape) in str(caught.value) and "1 channel(s)" in str(caught.value)
    assert "same kind" in caught.value.problems[0].fix


def test_a_grey_image_for_a_colour_model() -> None:
    with pytest.raises(UserError, match=r"\(5, 5\).*3 channel"):
        levels(COLOUR).predict(np.zeros((5, 5), np.uint8))


def make_model(folder: Path, role: str = "finalist", best_miou: float = 0.5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = UNET.build(1, 3)
    spec = ModelSpec("small", role, model="unet", options=UNET.options)
    training = {"seed": seed, "best_miou": best_miou}
    ModelFile(spec, GREY, Normalisation((100.0,), (50.0,)), training).save(folder, network)
    return network.eval()


def test_the_finalist_with_the_best_validation_score_is_taken(tmp_path: Path) -> None:
    scores = {"searched/seed-0": 0.60, "searched/seed-1": 0.63, "searched/seed-10": 0.61, "unet/seed-0": 0.9}
    for name, score in scores.items():
        make_model(tmp_path / "models" / name, "finalist" if "searched" in name else "baseline", score)
        # The test scores say the opposite, and have no say.
        write_json(tmp_path / "models" / name / "test.json", {"miou": 1 - score})
    assert find_model(tmp_path) == tmp_path / "models/searched/seed-1"


def test_equal_scores_do_not_depend_on_the_file_system(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        make_model(tmp_path / f"models/searched/seed-{seed}")
    assert find_model(tmp_path) == tmp_path / "models/searched/seed-0"


def test_without_a_finalist_the_best_other_model_is_taken(tmp_path: Path) -> None:
    make_model(tmp_path / "models/unet/seed-0", "baseline", 0.4)
    make_model(tmp_path / "models/random/seed-0", "control", 0.5)
    assert find_model(tmp_path) == tmp_path / "models/random/seed-0"


@pytest.mark.parametrize("place", ["", "model.json", "weights.safetensors"])
def test_one_training_may_be_named(tmp_path: Path, place: str) -> None:
    make_model(tmp_path / "models/unet/seed-0", "baseline")
    make_model(tmp_path / "models/searched/seed-0")
    assert find_model(tmp_path / "models/unet/seed-0" / place) == tmp_path / "models/unet/seed-0"


def test_no_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "weights.safetensors"):
        with pytest.raises(UserError, match="holds no trained model"):
            find_model(path)


@pytest.mark.parametrize("content", [{}, [], {"build": {"role": "finalist"}, "training": {"best_miou": None}}])
def test_a_damaged_description_is_named(tmp_path: Path, content: object) -> None:
    path = write_json(tmp_path / "models/searched/seed-0/model.json", content)
    with pytest.raises(UserError, match="is not a model description") as caught:
        find_model(tmp_path)
    assert caught.value.problems[0].where == str(path)


def test_loading_gives_the_network_back(tmp_path: Path) -> None:
    network = make_model(tmp_path / "models/searched/seed-0", seed=4)
    make_model(tmp_path / "models/unet/seed-0", "baseline", 0.9)
    model = autoseg.load(tmp_path, device="cpu")
    assert model.info == GREY and model.description.training["seed"] == 4
    assert not model.network.training
    image = np.random.default_rng(0).integers(0, 255, (13, 22)).astype(np.uint8)
    x = torch.from_numpy((image.astype(np.float32) - 100) / 50)[None, None]
    with torch.no_grad():
        expected = network(x)[0].softmax(0).numpy()
    assert model.probabilities(image) == pytest.approx(expected, abs=1e-5)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    make_model(tmp_path)
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        load(tmp_path, device="tpu")
    with pytest.raises(UserError, match="'cuda:99' is not there"):
        load(str(tmp_path), device="cuda:99")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"autoseg": "0.1.0"}))
    with pytest.raises(UserError, match="is not a model description"):
        load(tmp_path)
