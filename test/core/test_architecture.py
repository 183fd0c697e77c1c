import pytest

from mbnet_perception.core.architecture import (
    Conv,
    make_classifier,
    make_detector,
    round_channels,
)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        pytest.param(64, 64, id="a multiple stays"),
        pytest.param(20, 24, id="half goes up"),
        pytest.param(32 * 0.35, 16, id="11.2 to 8 would lose over a tenth"),
        pytest.param(24 * 0.75, 24, id="18 to 16 would lose over a tenth"),
        pytest.param(96 * 0.35, 32, id="33.6 to 32 loses less than a tenth"),
        pytest.param(3, 8, id="at least 8"),
    ],
)
def test_channels_round_to_a_multiple_of_eight(channels, expected):
    assert round_channels(channels) == expected


@pytest.mark.parametrize(
    ("index", "m", "n", "d_f"),
    [
        pytest.param(1, 32, 64, 112, id="stride 1"),
        pytest.param(2, 64, 128, 56, id="stride 2"),
    ],
)
def test_depthwise_separable_convolution_costs_what_the_paper_says(index, m, n, d_f):
    # arXiv 1704.04861, equation 5; D_F is the side of the output, where stride 2 computes.
    depthwise, pointwise = make_classifier("mobilenet_v1", 1.0).blocks[index].convs
    d_k = 3
    assert depthwise.macs(112, 112) == d_k * d_k * m * d_f * d_f
    assert pointwise.macs(d_f, d_f) == m * n * d_f * d_f
    assert depthwise.parameters + pointwise.parameters == d_k * d_k * m + m * n


def test_only_a_convolution_without_normalisation_has_biases():
    assert Conv(16, 10, norm=True).parameters == 160
    assert Conv(16, 10, norm=False).parameters == 170


def test_padding_rounds_odd_sizes_up():
    assert Conv(3, 8, kernel=3, stride=2).output_size(15, 20) == (8, 10)
    assert Conv(3, 8, kernel=3, stride=2).macs(15, 20) == 8 * 10 * 9 * 3 * 8


@pytest.mark.parametrize(
    ("alpha", "millions"), [(1.4, 582), (1.0, 300), (0.75, 209), (0.5, 97), (0.35, 59)]
)
def test_mobilenet_v2_costs_what_its_authors_state(alpha, millions):
    # The table of released models beside arXiv 1801.04381, which floors.
    assert make_classifier("mobilenet_v2", alpha).macs(224, 224) // 10**6 == millions


@pytest.mark.parametrize(
    ("alpha", "millions", "parameters"),
    [(1.0, 569, 4.2), (0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)],
)
def test_mobilenet_v1_costs_what_its_authors_state(alpha, millions, parameters):
    # arXiv 1704.04861, Table 6.
    network = make_classifier("mobilenet_v1", alpha)
    assert round(network.macs(224, 224) / 1e6) == millions
    assert round(network.parameters / 1e6, 1) == parameters


@pytest.mark.parametrize(
    ("backbone", "millions", "parameters"),
    [("mobilenet_v2", 787.3, 4.270), ("mobilenet_v1", 1307.8, 5.049)],
)
def test_detector_costs_what_the_released_one_does(backbone, millions, parameters):
    network = make_detector(backbone, 1.0, classes=80)
    assert round(network.macs(320, 320) / 1e6, 1) == millions
    assert round(network.parameters / 1e6, 3) == parameters


@pytest.mark.parametrize(
    ("alpha", "classifier", "detector"),
    [
        pytest.param(0.5, 1280, 640, id="a narrow classifier keeps 1280"),
        pytest.param(1.0, 1280, 1280, id="as in the table"),
        pytest.param(1.4, 1792, 1792, id="a wide classifier grows"),
    ],
)
def test_last_convolution(alpha, classifier, detector):
    assert make_classifier("mobilenet_v2", alpha).head.in_channels == classifier
    last = make_detector("mobilenet_v2", alpha, classes=11).blocks[-1].convs[-1]
    assert last.out_channels == detector


@pytest.mark.parametrize(
    ("backbone", "alpha", "channels"),
    [
        # 576 is the sixfold expansion of 96 channels before the first block of 160.
        pytest.param("mobilenet_v2", 1.0, [576, 1280, 512, 256, 256, 128], id="v2"),
        pytest.param("mobilenet_v1", 1.0, [512, 1024, 512, 256, 256, 128], id="v1"),
        # 96 * 0.35 rounds to 32; 1280, 512, 256 and 128 times 0.35 to 448, 176, 88 and 48.
        pytest.param("mobilenet_v2", 0.35, [192, 448, 176, 88, 88, 48], id="v2 narrow"),
        # 128 * 0.05 alone would round to 8.
        pytest.param("mobilenet_v1", 0.05, [24, 48, 24, 16, 16, 16], id="extra maps hold 16"),
    ],
)
def test_heads_sit_on_the_maps(backbone, alpha, channels):
    network = make_detector(backbone, alpha, classes=11)
    for heads, outputs in ((network.box_heads, 4), (network.score_heads, 11)):
        assert [head.convs[0].in_channels for head in heads] == channels
        anchors = (3, 6, 6, 6, 6, 6)
        assert [head.convs[-1].out_channels for head in heads] == [n * outputs for n in anchors]


@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenet_v2"])
def test_layers_fit_each_other(backbone):
    network = make_detector(backbone, 0.5, classes=11)
    channels, stride, strides = 3, 1, {}
    for i, block in enumerate((*network.blocks, *network.extras)):
        entry = channels
        for j, conv in enumerate(block.convs):
            assert conv.in_channels == channels
            channels, stride = conv.out_channels, stride * conv.stride
            strides[i, j] = stride
        assert not block.residual or entry == channels
    assert strides[network.tap] == 16
    assert strides[len(network.blocks) - 1, len(network.blocks[-1].convs) - 1] == 32
    assert stride == 512


def test_residuals_are_where_table_2_repeats_a_block():
    blocks = make_classifier("mobilenet_v2", 1.0).blocks
    # The rows' repeats 1, 2, 3, 4, 3, 3, 1: all but the first of each keep size and channels.
    assert sum(block.residual for block in blocks) == 1 + 2 + 3 + 2 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mobilenet_v3", 1.0, 11), "one of mobilenet_v1, mobilenet_v2, got 'mobilenet_v3'"),
        (("mobilenet_v2", 0.0, 11), "alpha must be positive, got 0.0"),
        (("mobilenet_v2", 1.0, 0), "at least one class, got 0"),
    ],
    ids=["backbone", "alpha", "classes"],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_detector(*arguments)
