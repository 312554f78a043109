"""Weights arrive where they belong, or are refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from contracts.errors import UserError
from evaluation import pretrained_features
from evaluation.pretrained_features import FeatureExtractor, load

State = dict[str, torch.Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of minutes; what is tested does not depend on it."""
    monkeypatch.setattr(pretrained_features, "_LONGEST_SIDE", {"medicalnet": 32, "radimagenet": 40})
    monkeypatch.setattr(pretrained_features, "_CENTRE", 0.15)


def volumes(n: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    out = np.zeros((n, 2, 16, 20, 16), dtype=np.float32)
    out[:, 0, 2:-2, 2:-2, 2:-2] = rng.uniform(0.1, 0.8, size=(n, 12, 16, 12))
    out[:, 1, 2:-2, 2:-2, 2:-2] = 1e-3 * rng.uniform(0.6, 2.0, size=(n, 12, 16, 12))
    return out


def norm(name: str, width: int, rng: torch.Generator) -> State:
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(width, generator=rng),
        f"{name}.bias": 0.1 * torch.randn(width, generator=rng),
        f"{name}.running_mean": 0.1 * torch.randn(width, generator=rng),
        f"{name}.running_var": 1 + 0.1 * torch.rand(width, generator=rng),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def conv(name: str, out: int, into: int, size: tuple[int, ...], rng: torch.Generator) -> State:
    fan = into * int(np.prod(size))
    return {f"{name}.weight": torch.randn(out, into, *size, generator=rng) * (2 / fan) ** 0.5}


def medicalnet(blocks: tuple[int, ...] = (1, 1, 1, 1), shortcut: str = "B") -> State:
    """Names and shapes of Tencent's files with basic blocks (`models/resnet.py` there)."""
    rng = torch.Generator().manual_seed(0)
    state = conv("conv1", 64, 1, (7, 7, 7), rng) | norm("bn1", 64, rng)
    into = 64
    for level, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for i in range(count):
            at = f"layer{level}.{i}"
            state |= conv(f"{at}.conv1", width, into, (3, 3, 3), rng)
            state |= norm(f"{at}.bn1", width, rng)
            state |= conv(f"{at}.conv2", width, width, (3, 3, 3), rng)
            state |= norm(f"{at}.bn2", width, rng)
            if into != width and shortcut == "B":
                state |= conv(f"{at}.downsample.0", width, into, (1, 1, 1), rng)
                state |= norm(f"{at}.downsample.1", width, rng)
            into = width
    return {f"module.{k}": v for k, v in state.items()}


def resnet50(biases: bool = False) -> State:
    """Names and shapes of torchvision's ResNet-50 without its head, or of Keras's."""
    rng = torch.Generator().manual_seed(1)
    state = conv("conv1", 64, 3, (7, 7), rng) | norm("bn1", 64, rng)
    into = 64
    for level, (width, count) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for i in range(count):
            at = f"layer{level}.{i}"
            sizes = ((into, width, 1), (width, width, 3), (width, 4 * width, 1))
            for k, (a, b, size) in enumerate(sizes, 1):
                state |= conv(f"{at}.conv{k}", b, a, (size, size), rng)
                state |= norm(f"{at}.bn{k}", b, rng)
            if i == 0:
                state |= conv(f"{at}.downsample.0", 4 * width, into, (1, 1), rng)
                state |= norm(f"{at}.downsample.1", 4 * width, rng)
            into = 4 * width
    if biases:
        for name in [k for k in state if "conv" in k or "downsample.0" in k]:
            width = len(state[name])
            state[name.replace("weight", "bias")] = 0.1 * torch.randn(width, generator=rng)
    return state


def renamed(state: State) -> State:
    """The authors' layout: torchvision's children by number."""
    numbers = {"conv1": "0", "bn1": "1"} | {f"layer{i}": str(i + 3) for i in range(1, 5)}
    return {
        ".".join(["backbone", numbers[k.split(".")[0]], *k.split(".")[1:]]): v
        for k, v in state.items()
    }


def saved(content: Any, path: Path, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


@pytest.fixture(scope="module")
def medicalnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = medicalnet()
    return saved({"state_dict": state}, tmp_path_factory.mktemp("w") / "resnet_10_23dataset.pth")


@pytest.fixture(scope="module")
def radimagenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(renamed(resnet50()), tmp_path_factory.mktemp("w") / "ResNet50.pt")


class TestMedicalNet:
    def test_each_weight_is_where_it_belongs(self, medicalnet_file: Path) -> None:
        found = load("medicalnet", medicalnet_file).network.state_dict()
        expected = {k.removeprefix("module."): v for k, v in medicalnet().items()}
        assert set(found) == set(expected)
        assert all(torch.equal(found[k], v) for k, v in expected.items())

    def test_files_of_old_torch_are_read(self, tmp_path: Path) -> None:
        state = {k: v for k, v in medicalnet().items() if "num_batches" not in k}
        path = saved(
            {"state_dict": state, "epoch": 3},
            tmp_path / "old.pth",
            _use_new_zipfile_serialization=False,
        )
        assert load("medicalnet", path)(volumes(1)).shape == (1, 1024)

    def test_a_head_is_left_behind(self, tmp_path: Path) -> None:
        head = {"module.conv_seg.0.weight": torch.zeros(3)}
        load("medicalnet", saved(medicalnet() | head, tmp_path / "a.pth"))

    def test_it_computes_what_the_authors_network_computes(self, medicalnet_file: Path) -> None:
        """Written out from their `models/resnet.py`: dilated third and fourth level."""
        from torch.nn.functional import batch_norm, conv3d, max_pool3d, relu

        s = {k.removeprefix("module."): v for k, v in medicalnet().items()}

        def normed(x: torch.Tensor, at: str) -> torch.Tensor:
            mean, var = s[f"{at}.running_mean"], s[f"{at}.running_var"]
            return batch_norm(x, mean, var, s[f"{at}.weight"], s[f"{at}.bias"])

        image = torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(5))
        x = relu(normed(conv3d(image, s["conv1.weight"], stride=2, padding=3), "bn1"))
        x = max_pool3d(x, 3, 2, 1)
        for level, (stride, far) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), 1):
            at = f"layer{level}.0"
            y = conv3d(x, s[f"{at}.conv1.weight"], None, stride, far, far)
            y = conv3d(relu(normed(y, f"{at}.bn1")), s[f"{at}.conv2.weight"], None, 1, far, far)
            y = normed(y, f"{at}.bn2")
            if level > 1:
                skip = conv3d(x, s[f"{at}.downsample.0.weight"], stride=stride)
                x = normed(skip, f"{at}.downsample.1")
            x = relu(y + x)
        with torch.inference_mode():
            found = load("medicalnet", medicalnet_file).network(image)
        torch.testing.assert_close(found, x.mean(dim=(2, 3, 4)), rtol=1e-4, atol=1e-5)

    def test_the_depth_is_read_off_the_names(self, tmp_path: Path) -> None:
        path = saved(medicalnet((2, 2, 2, 2), shortcut="A"), tmp_path / "resnet_18.pth")
        network: Any = load("medicalnet", path).network
        assert [len(level) for level in (network.layer1, network.layer4)] == [2, 2]
        with torch.inference_mode():
            assert network(torch.zeros(1, 1, 24, 24, 24)).shape == (1, 512)


class TestRadImageNet:
    def test_each_weight_is_where_it_belongs(self, radimagenet_file: Path) -> None:
        found = load("radimagenet", radimagenet_file).network.state_dict()
        expected = resnet50()
        assert set(found) == set(expected)
        assert all(torch.equal(found[k], v) for k, v in expected.items())

    def test_torchvision_names_are_the_same_network(
        self, radimagenet_file: Path, tmp_path: Path
    ) -> None:
        head = {"fc.weight": torch.zeros(165, 2048), "fc.bias": torch.zeros(165)}
        plain = load("radimagenet", saved(resnet50() | head, tmp_path / "b.pt"))
        numbered = load("radimagenet", radimagenet_file)
        np.testing.assert_array_equal(plain(volumes(1)), numbered(volumes(1)))

    def test_conversions_from_keras_keep_their_biases_and_strides(self, tmp_path: Path) -> None:
        """Written out: a bias per convolution, the stride in the first of a block."""
        from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

        s = resnet50(biases=True)
        path = saved(s, tmp_path / "RadImageNet-ResNet50_notop.pth")

        def step(x: torch.Tensor, at: str, norm: str, stride: int, pad: int) -> torch.Tensor:
            x = conv2d(x, s[f"{at}.weight"], s[f"{at}.bias"], stride, pad)
            mean, var = s[f"{norm}.running_mean"], s[f"{norm}.running_var"]
            return batch_norm(x, mean, var, s[f"{norm}.weight"], s[f"{norm}.bias"], eps=1.001e-5)

        image = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(5))
        x = max_pool2d(relu(step(image, "conv1", "bn1", 2, 3)), 3, 2, 1)
        for level, count in enumerate((3, 4, 6, 3), 1):
            for i in range(count):
                at, stride = f"layer{level}.{i}", 2 if level > 1 and i == 0 else 1
                y = relu(step(x, f"{at}.conv1", f"{at}.bn1", stride, 0))
                y = relu(step(y, f"{at}.conv2", f"{at}.bn2", 1, 1))
                y = step(y, f"{at}.conv3", f"{at}.bn3", 1, 0)
                skip = at + ".downsample"
                x = relu(y + (step(x, f"{skip}.0", f"{skip}.1", stride, 0) if i == 0 else x))
        extractor = load("radimagenet", path)
        with torch.inference_mode():
            found = extractor.network(image)
        torch.testing.assert_close(found, x.mean(dim=(2, 3)), rtol=1e-3, atol=1e-4)
        assert extractor.keras


@pytest.mark.parametrize(("kind", "width"), [("medicalnet", 512), ("radimagenet", 3 * 2048)])
class TestFeatures:
    @pytest.fixture
    def extractor(self, kind: Any, request: pytest.FixtureRequest) -> FeatureExtractor:
        return load(kind, request.getfixturevalue(f"{kind}_file"))

    def test_do_not_depend_on_the_batch(self, extractor: FeatureExtractor, width: int) -> None:
        images = volumes(3)
        together = extractor(images)
        assert together.shape == (3, 2 * width)
        assert together.dtype == np.float64
        alone = np.concatenate([extractor(image[None]) for image in images])
        np.testing.assert_allclose(together, alone, atol=1e-5)

    def test_tell_volumes_apart(self, extractor: FeatureExtractor, width: int) -> None:
        one, other = extractor(volumes(2))
        assert np.abs(one - other).max() > 1e-2 * np.abs(one).max()

    def test_see_each_map_by_itself(self, extractor: FeatureExtractor, width: int) -> None:
        images = volumes(1)
        brighter = images * np.array([1, 1.1], dtype=np.float32)[:, None, None, None]
        one, other = extractor(images)[0], extractor(brighter)[0]
        np.testing.assert_array_equal(one[:width], other[:width])
        assert np.abs(one[width:] - other[width:]).max() > 0

    def test_impossible_voxels_are_clipped(self, extractor: FeatureExtractor, width: int) -> None:
        images = volumes(1)
        images[0, :, 8, 8, 8] = np.nan
        assert np.isfinite(extractor(images)).all()

    def test_of_other_maps_are_refused(self, extractor: FeatureExtractor, width: int) -> None:
        with pytest.raises(ValueError, match=r"expected \(n, 2, X, Y, Z\)"):
            extractor(volumes(1)[:, :1])


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "source"), [("medicalnet", "Tencent"), ("radimagenet", "BMEII-AI")]
    )
    def test_no_file(self, kind: Any, source: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"no .* weights at .*nothing.pth: get .*{source}"):
            load(kind, tmp_path / "nothing.pth")

    @pytest.mark.parametrize("share", [0, 0.1, 0.9])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_truncated_file(self, share: float, zipped: bool, tmp_path: Path) -> None:
        path = tmp_path / "cut.pth"
        saved({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(UserError, match=r"cut.pth is damaged .*: get"):
            load("medicalnet", path)

    def test_a_file_that_would_run_code(self, tmp_path: Path) -> None:
        path = saved(nn.Linear(1, 1), tmp_path / "model.pth")
        with pytest.raises(UserError, match="is damaged or no file of weights"):
            load("medicalnet", path)

    def test_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="found a Tensor"):
            load("medicalnet", saved(torch.zeros(3), tmp_path / "a.pth"))

    def test_the_other_network(self, medicalnet_file: Path, radimagenet_file: Path) -> None:
        with pytest.raises(UserError, match=r"conv1.weight is \(64, 1, 7, 7, 7\), expected"):
            load("radimagenet", medicalnet_file)
        with pytest.raises(UserError, match=r"conv1.weight is missing"):
            load("medicalnet", radimagenet_file)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda s: s.pop("module.layer2.0.bn1.bias"), "layer2.0.bn1.bias is missing;"),
            (lambda s: s.update({"module.extra": s["module.bn1.bias"]}), "extra has no place;"),
            (
                lambda s: s.update({"module.bn1.bias": torch.zeros(3)}),
                r"bn1.bias is \(3,\), expected \(64,\);",
            ),
        ],
    )
    def test_a_name_that_does_not_fit(self, change: Any, words: str, tmp_path: Path) -> None:
        state = medicalnet()
        change(state)
        with pytest.raises(UserError, match=words) as caught:
            load("medicalnet", saved(state, tmp_path / "a.pth"))
        assert "\n" not in str(caught.value)


def test_importing_is_cheap() -> None:
    modules = "evaluation.networks, evaluation.pretrained_features"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
