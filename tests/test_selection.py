"""Selection on the validation split: which epoch is kept, and what a method is told."""

import pytest
import torch
from balancing_models import CLASSES, Late

from m2pt.agm import Joint
from m2pt.selection import SelectedOnValidation
from m2pt.tasks.multimodal_classification import MultimodalClassification
from m2pt.training.method import Step, check_method

TASK = MultimodalClassification()


class Fusion(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head(x)


class Scripted(Joint):
    """Sets the bias of the head so that all samples are predicted as the class of the epoch."""

    def after_epoch(self, epoch, validation=None):
        self.told = validation


def batches(labels):
    inputs = {name: torch.zeros(len(labels), 5, dtype=torch.double) for name in ("a", "b")}
    return lambda rank, world: [(inputs, labels)]


def predict(model, label):
    with torch.no_grad():
        model.fusion.head.bias.copy_(torch.eye(CLASSES, dtype=torch.double)[label] * 100)


@pytest.fixture
def model():
    late = Late("a", "b")
    late.fusion = Fusion(late.fusion)
    return late


def test_the_first_of_the_best_epochs_is_kept(model):
    labels = torch.tensor([0, 1, 1, 1, 2, 2])
    method = Scripted(model)
    selected = SelectedOnValidation(method, TASK, batches(labels), None)
    check_method(selected)
    accuracies = []
    for epoch, label in enumerate((0, 1, 1, 2), start=1):
        predict(model, label)
        accuracies.append(selected.after_epoch(method, epoch)["val_top1"])
    assert accuracies == pytest.approx([100 / 6, 50, 50, 100 / 3])
    assert (selected.best_epoch, selected.best_accuracy) == (2, 0.5)
    assert selected.best["fusion.head.bias"].argmax() == 1
    assert method.told.accuracy == pytest.approx(1 / 3) and method.training


class Restoring(Joint):
    """Replaces the weights after each epoch, as MSES does when an encoder is finished."""

    def after_epoch(self, epoch, validation=None):
        predict(self.model, 0)


def test_the_weights_that_were_measured_are_kept(model):
    selected = SelectedOnValidation(Restoring(model), TASK, batches(torch.tensor([1, 1])), None)
    predict(model, 1)
    assert selected.after_epoch(selected.method, 1)["val_top1"] == 100
    assert selected.best["fusion.head.bias"].argmax() == 1


def test_the_state_survives_a_restart(model):
    selected = SelectedOnValidation(Scripted(model), TASK, batches(torch.tensor([1, 1])), None)
    predict(model, 1)
    selected.after_epoch(selected.method, 1)
    again = SelectedOnValidation(Scripted(model), TASK, batches(torch.tensor([1, 1])), None)
    again.load_state_dict(selected.state_dict())
    predict(model, 0)
    again.after_epoch(again.method, 2)
    assert again.best_epoch == 1 and again.best["fusion.head.bias"].argmax() == 1


def test_gradients_are_clipped_after_the_method(model):
    selected = SelectedOnValidation(Scripted(model), TASK, batches(torch.tensor([1])), 1.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    scalars = selected.before_step(selected.method, Step(1, 1, {}))
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
    assert scalars["clipped"] == 1 and norm.item() == pytest.approx(1.0, rel=1e-4)
