"""A few small, good networks, and pipelines that read text. Knows nothing of how they are trained or of whom they teach."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from .models.detector import TinyDetector

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def mlp(hidden: int | Sequence[int], *, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Fully connected layers with ReLU between them: f32 `[rows, *input_shape]` to logits `[rows, num_classes]`.

    `hidden` gives the widths of the hidden layers; one number is one layer.
    """
    widths = [math.prod(input_shape), *([hidden] if isinstance(hidden, int) else hidden)]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def linear(*, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """One layer, as `mlp` with `hidden: []`: f32 `[rows, *input_shape]` to logits `[rows, num_classes]`."""
    return mlp([], num_classes=num_classes, input_shape=input_shape)


def conv_net(width: int = 16, depth: int = 1, *, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """A residual network (He et al., 2016): f32 `[rows, C, H, W]` to logits `[rows, num_classes]`.

    Three stages of `depth` blocks with `width`, 2 `width` and 4 `width` channels, each but the first at half the
    resolution; then the mean over all positions. Has batch statistics.
    """
    channels = input_shape[0]
    stages: list[nn.Module] = []
    before = width
    for number, after in enumerate([width, 2 * width, 4 * width]):
        for block in range(depth):
            stages.append(ResidualBlock(before, after, stride=2 if number > 0 and block == 0 else 1))
            before = after
    return nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            stages=nn.Sequential(*stages),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(before, num_classes),
        )
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.convolution_1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(after)
        self.convolution_2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, inputs: Tensor) -> Tensor:
        """f32 `[rows, before, H, W]` to `[rows, after, H / stride, W / stride]`."""
        hidden = F.relu(self.norm_1(self.convolution_1(inputs)))
        return F.relu(self.norm_2(self.convolution_2(hidden)) + self.shortcut(inputs))


def tfidf_words(ngrams: Sequence[int] = (1, 2), C: float = 10.0, random_state: int = 0) -> "Pipeline":
    """A logistic regression on weighted runs of words, from the shorter to the longer of `ngrams`: `str` [rows] to classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(min(ngrams), max(ngrams)), sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=C, max_iter=1000, random_state=random_state))


def tfidf_characters(ngrams: Sequence[int] = (2, 5), C: float = 1.0, cv: int = 3, random_state: int = 0) -> "Pipeline":
    """A linear support vector machine on weighted runs of characters within words, calibrated on `cv` parts (Platt, 1999)."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(min(ngrams), max(ngrams)), sublinear_tf=True)
    return make_pipeline(characters, CalibratedClassifierCV(LinearSVC(C=C, random_state=random_state), cv=cv))


def tiny_detector(width: int = 16, *, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """A detector without anchors: f32 `[rows, C, H, W]` of any size to boxes and class logits at the cells of a grid of stride 8,
    f32 `[rows, H / 8 * W / 8, 6 + num_classes]`. 0.2 million parameters, of `width` 35 0.9 million."""
    return TinyDetector(input_shape[0], width, num_classes)
