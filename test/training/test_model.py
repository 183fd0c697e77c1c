import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2

from mbnet_perception.core import architecture
from mbnet_perception.core.anchors import CENTRE_VARIANCE, SIZE_VARIANCE, make_anchors
from mbnet_perception.training.model import Classifier, SSDLite, decode_boxes


@pytest.mark.parametrize("alpha", [1.0, 0.35])
def test_classifier_takes_over_torchvision_weights_and_gives_the_same_numbers(alpha):
    torch.manual_seed(0)
    theirs = mobilenet_v2(width_mult=alpha).eval()
    for module in theirs.modules():  # fresh normalisation would hide a mix-up
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = Classifier("mobilenet_v2", alpha).eval()
    ours.load_torchvision(theirs.state_dict())
    images = torch.rand(2, 3, 97, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_loading_weights_of_another_alpha_names_the_tensor():
    with pytest.raises(ValueError, match=r"features\.0\.0\.weight has shape .* is alpha the same"):
        Classifier("mobilenet_v2", 0.5).load_torchvision(mobilenet_v2().state_dict())


def test_loading_weights_of_another_network_says_what_was_expected():
    with pytest.raises(ValueError, match=r"expected \d+ tensors of a mobilenet_v2, got 1"):
        Classifier("mobilenet_v2").load_torchvision({"weight": torch.zeros(1)})


@pytest.mark.parametrize("backbone", architecture.BACKBONES)
def test_the_network_has_the_weights_that_the_table_counts(backbone):
    model = SSDLite(backbone, 0.5, classes=11)
    weights = sum(
        p.numel()
        for m in model.modules()
        if isinstance(m, torch.nn.Conv2d)
        for p in m.parameters(recurse=False)
    )
    assert weights == architecture.make_detector(backbone, 0.5, 11).parameters


@pytest.mark.parametrize("backbone", architecture.BACKBONES)
@pytest.mark.parametrize("size", [(240, 320), (161, 224)])
def test_there_is_a_row_for_each_anchor(backbone, size):
    model = SSDLite(backbone, 0.35, classes=3).eval()
    with torch.no_grad():
        boxes, logits = model(torch.zeros(1, 3, *size))
    anchors = len(make_anchors(*size))
    assert boxes.shape == (1, anchors, 4)
    assert logits.shape == (1, anchors, 3)


def test_rows_come_out_in_the_order_of_the_anchors():
    """Each head emits its own row number: level, then y, then x, then anchor in the cell."""
    model = SSDLite("mobilenet_v2", 0.35, classes=1).eval()
    start = 0

    class Numbers(torch.nn.Module):
        def __init__(self, values, anchors):
            super().__init__()
            self.values, self.anchors = values, anchors

        def forward(self, level):
            nonlocal start
            _, _, rows, columns = level.shape
            numbers = torch.arange(rows * columns * self.anchors) + start
            numbers = numbers.reshape(rows, columns, self.anchors, 1).float()
            if self.values == 1:
                start += numbers.numel()
            numbers = numbers.expand(rows, columns, self.anchors, self.values)
            return numbers.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)

    counts = architecture.ANCHORS_PER_CELL
    model.score_heads = torch.nn.ModuleList(Numbers(1, n) for n in counts)
    with torch.no_grad():
        _, logits = model(torch.zeros(1, 3, 128, 192))
    np.testing.assert_array_equal(logits[0, :, 0], np.arange(logits.shape[1]))


def test_decode_moves_and_scales_the_anchor():
    anchors = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    still = decode_boxes(torch.zeros(1, 4), anchors)
    torch.testing.assert_close(still, torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
    # Right by half a width, up by a quarter of a height; twice as wide, half as high.
    log2 = float(np.log(2))
    regression = torch.tensor(
        [
            [
                0.5 / CENTRE_VARIANCE,
                -0.25 / CENTRE_VARIANCE,
                log2 / SIZE_VARIANCE,
                -log2 / SIZE_VARIANCE,
            ]
        ]
    )
    moved = decode_boxes(regression, anchors)
    torch.testing.assert_close(moved, torch.tensor([[0.4, 0.3, 0.8, 0.5]]))


def test_decode_stays_finite():
    boxes = decode_boxes(torch.full((1, 4), 1e6), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    assert torch.isfinite(boxes).all()
