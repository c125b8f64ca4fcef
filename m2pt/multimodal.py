"""Joint training on several modalities: the classifier of a run, and the method around it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from m2pt import catalog
from m2pt.agm import AdaptiveGradientModulation
from m2pt.agm.methods import MSES, MSLR, OGM, BalancingMethod, GradientBlending, Joint
from m2pt.datasets.layouts import layout_module
from m2pt.errors import InputError
from m2pt.inputs import load_input
from m2pt.models.exchange import load_exchange
from m2pt.models.multimodal import MultimodalClassifier, build_multimodal
from m2pt.models.multimodal_settings import TransformerSettings
from m2pt.plan.plan import Plan
from m2pt.plan.runs import Run
from m2pt.plan.specs import RunSpec


def multimodal_model(run: Run, attach_to: Callable[[Any], None]) -> BalancingMethod:
    """Return a run's method around its classifier; `attach_to` loads what the encoders start from."""
    classifier = build_classifier(run.spec)
    attach_to(classifier)
    return build_method(run, classifier, torch.initial_seed())  # `build.run_model` has seeded torch


def build_classifier(spec: RunSpec) -> MultimodalClassifier:
    """Return the classifier of a run at random weights.

    Raises:
        InputError: the settings are inconsistent, or an encoder does not take the samples of its modality.
    """
    recipe: Any = spec.recipe
    sample = _sample(spec)
    for name, encoder in recipe.model.encoders.items():
        if isinstance(encoder, TransformerSettings) and isinstance(sample[name], Mapping):
            raise InputError(
                f"model.encoders.{name}: dataset {spec.dataset.name} has sequences of vectors, which a "
                "transformer has no tokenizer for; give kind: sequence"
            )
    return build_multimodal(
        recipe.model,
        num_classes=spec.dataset.num_classes,
        shapes=sample_shapes(spec),
        architectures={name: each.stored for name, each in spec.architectures.items()},
        transposed=catalog.layout(spec.dataset.layout).transposed,
    )


def sample_shapes(spec: RunSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of a sample of each modality, as the input settings of the recipe have it."""
    values = {
        name: each["values"] if isinstance(each, Mapping) else each for name, each in _sample(spec).items()
    }
    return {name: tuple(each.shape[1:]) for name, each in values.items()}


def _sample(spec: RunSpec) -> Mapping[str, Any]:
    """Return a batch of one sample without values, by modality."""
    inputs, _ = layout_module(spec.dataset.layout).synthetic_batch(
        1,
        num_classes=spec.dataset.num_classes,
        input=spec.reader_input(),
        augmentation=None,
        device=torch.device("meta"),
    )
    return inputs


def load_encoders(classifier: MultimodalClassifier, plan: Plan, run: Run, seed: int) -> None:
    """Load the encoders that a classifier starts from, if any.

    Raises:
        InputError: a file is missing, damaged, stale, or does not fit.
    """
    weights = plan.input_weights(run.name, seed)
    for modality, name in (run.experiment.balancing.encoders if run.experiment.balancing else {}).items():
        role = f"encoder.{modality}"
        encoder: Any = classifier.encoders[modality]
        state = load_input(plan, weights[role], plan.encoders[name].stored)
        load_exchange(encoder, state, parts=encoder.pretrained_parts, source=str(weights[role]))


def build_method(run: Run, classifier: MultimodalClassifier, seed: int) -> BalancingMethod:
    """Return the method of a run around a classifier; `seed` is of the method's own random draws.

    Raises:
        InputError: the method cannot train this classifier.
    """
    recipe: Any = run.spec.recipe
    ((name, settings),) = recipe.methods.items()
    build = catalog.load(catalog.method(name).build, f"method {name}: build")
    try:
        method: BalancingMethod = build(classifier, settings.model_dump(), seed)
    except ValueError as error:
        raise InputError(f"methods.{name}: {error}") from None
    return method


def joint(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build joint training."""
    return Joint(model)


def agm(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build adaptive gradient modulation."""
    return AdaptiveGradientModulation(model, **settings)


def ogm(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build OGM."""
    return OGM(model, **settings, seed=seed)


def ogm_ge(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build OGM-GE, whose noise is drawn from `seed`."""
    return OGM(model, **settings, enhance=True, seed=seed)


def mslr(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build modality-specific learning rates."""
    return MSLR(model, **settings)


def mses(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build modality-specific early stopping."""
    return MSES(model, **settings)


def gradient_blending(model: nn.Module, settings: Mapping[str, Any], seed: int) -> BalancingMethod:
    """Build Gradient Blending, with a linear classifier on the features of each encoder."""
    classifier: Any = model
    classes = classifier.num_classes
    heads = {name: nn.Linear(each.embed_dim, classes) for name, each in classifier.encoders.items()}
    return GradientBlending(model, heads=heads, **settings)
