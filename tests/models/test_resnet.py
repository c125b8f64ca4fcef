"""ResNet-18 as an encoder, compared with torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from m2pt.errors import InputError
from m2pt.models.resnet import ResNet18


def randomize_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@pytest.mark.parametrize("training", [False, True])
def test_features_equal_torchvisions_for_the_same_weights(training: bool) -> None:
    theirs, ours = resnet18(), ResNet18(3)
    randomize_batch_norms(theirs)
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.double().train(training)
    ours.double().train(training)
    x = torch.randn(2, 3, 40, 56, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def test_convolutions_start_kaiming_normal_in_fan_out_mode_and_batch_norms_neutral() -> None:
    for module in ResNet18(3).modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.flatten()
            std = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert weight.std().item() == pytest.approx(std, rel=0.05)
            assert abs(weight.mean().item()) < 6 * std / len(weight) ** 0.5
            kurtosis = (weight / std).pow(4).mean().item()  # 3 for a normal distribution, 1.8 for a uniform
            assert kurtosis == pytest.approx(3, abs=0.5)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()


@pytest.mark.parametrize(("channels", "width"), [(1, 4), (3, 12), (5, 8)])
def test_any_channels_and_width(channels: int, width: int) -> None:
    encoder = ResNet18(channels, width=width)
    assert encoder.embed_dim == 8 * width
    assert encoder(torch.randn(2, channels, 28, 28)).shape == (2, 8 * width)
    stages = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    assert [stage[1].conv2.out_channels for stage in stages] == [width, 2 * width, 4 * width, 8 * width]


def test_a_small_stem_keeps_the_resolution() -> None:
    sizes = []
    for stem in ("standard", "small"):
        encoder = ResNet18(1, width=4, stem=stem)
        encoder.layer1.register_forward_hook(lambda *args: sizes.append(tuple(args[2].shape[2:])))
        encoder(torch.randn(2, 1, 28, 28))
    assert sizes == [(7, 7), (28, 28)]


def test_frames_are_encoded_one_by_one_and_averaged() -> None:
    encoder = ResNet18(3, width=4).eval()
    randomize_batch_norms(encoder)
    clips = torch.randn(2, 3, 4, 24, 32)
    expected = torch.stack([encoder(clips[:, :, t]) for t in range(4)]).mean(dim=0)
    torch.testing.assert_close(encoder(clips), expected)


def test_batch_norms_see_all_frames_of_the_batch() -> None:
    encoder = ResNet18(3, width=4)
    clips = torch.randn(2, 3, 4, 24, 24)
    seen = []
    encoder.bn1.register_forward_hook(lambda *args: seen.append(args[1][0]))
    encoder(clips)
    torch.testing.assert_close(encoder.bn1.running_mean, 0.1 * seen[0].mean(dim=(0, 2, 3)))
    assert len(seen[0]) == 8


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 1, 8, 8), (2, 3, 0, 8, 8)])
def test_inputs_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"3 channels cannot encode .*\(2, .*give \(B, 3, H, W\)"):
        ResNet18(3, width=4)(torch.zeros(shape))


def test_an_unknown_stem_is_rejected() -> None:
    with pytest.raises(InputError, match="stem 'tiny' is unknown: choose standard or small"):
        ResNet18(3, stem="tiny")  # type: ignore[arg-type]
