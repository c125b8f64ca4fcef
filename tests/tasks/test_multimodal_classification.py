"""Accuracies of all modalities and of each one's response, against a count by hand."""

import numpy as np
import pytest
import torch
from balancing_models import CLASSES, Late

from m2pt.agm import Joint
from m2pt.errors import InputError
from m2pt.tasks.multimodal_classification import ALL, MultimodalClassification

TASK = MultimodalClassification()


def batch(samples, *modalities, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(samples, 5, generator=generator, dtype=torch.double) for name in modalities}
    return inputs, torch.randint(CLASSES, (samples,), generator=generator)


def test_responses_of_two_modalities_are_counted():
    model, (inputs, labels) = Late("a", "b").eval(), batch(50, "a", "b")
    measured = TASK.measure(model, (inputs, labels))
    zeros = torch.zeros_like(inputs["a"])
    with torch.no_grad():
        both, a, b = (
            model({"a": x, "b": y}).numpy()
            for x, y in ((inputs["a"], inputs["b"]), (inputs["a"], zeros), (zeros, inputs["b"]))
        )
    logits = {ALL: both, "a": (both - b + a) / 2, "b": (both - a + b) / 2}
    for name, values in logits.items():
        assert measured.correct[name] == (values.argmax(1) == labels.numpy()).sum()
        log = values - np.log(np.exp(values).sum(1, keepdims=True))
        assert measured.loss[name] == pytest.approx(-log[np.arange(50), labels].sum(), rel=1e-6)


def test_accuracies_are_those_of_all_samples_not_means_of_batches():
    model = Late("a", "b").eval()
    parts = [TASK.measure(model, batch(samples, "a", "b", seed=samples)) for samples in (30, 7)]
    whole = TASK.summarize(parts, None)
    assert whole.keys() == {"top1", "top1_a", "top1_b"}
    assert whole["top1"] == pytest.approx(100 * sum(part.correct[ALL] for part in parts) / 37)


def test_one_modality_has_one_accuracy():
    measured = TASK.measure(Late("a").eval(), batch(9, "a", "b"))
    assert TASK.summarize([measured], None).keys() == {"top1"}


def test_nothing_to_evaluate_is_named():
    with pytest.raises(InputError, match="the split is empty"):
        TASK.summarize([], None)


def test_the_loss_is_the_method_s():
    method, (inputs, labels) = Joint(Late("a", "b")), batch(8, "a", "b")
    loss, scalars = TASK.loss(method, (inputs, labels))
    expected = torch.nn.functional.cross_entropy(method.model(inputs), labels)
    assert torch.equal(loss, expected) and not scalars
