"""Merged classifiers in the forms that other tools read, compared with the model that they are made of."""

import copy
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from m2pt.atomic import replacing
from m2pt.checkpoints.conversion import convert
from m2pt.checkpoints.stated import Stated
from m2pt.errors import InputError, RunError
from m2pt.formats.weights import save_weights
from m2pt.modalities.audio import AudioTokenizer
from m2pt.modalities.image import ImageTokenizer
from m2pt.modalities.patches import PatchTokenizer
from m2pt.modalities.settings import NORM_EPS
from m2pt.modalities.video import VideoTokenizer
from m2pt.models.classifier import Classifier
from m2pt.models.exchange import load_exchange, to_exchange

ROUNDING = 1e-4
"""Largest difference of the logits, relative to the largest of them, between a form and the model."""

OFFICIAL_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads of the official models (small, base, large, huge) by their width; weights do not show them."""

State = dict[str, Tensor]


def export_classifier(model: Classifier, form: str, target: Path) -> str:
    """Write a merged classifier in one of `FORMS` and return how to load it.

    Args:
        model: in evaluation mode, on the CPU.
        form: "timm", a state dict for timm's VisionTransformer; "transformers", a folder for
            `from_pretrained`; "onnx"; "official", a checkpoint for MAE's, AudioMAE's or VideoMAE's scripts.
        target: file or, for transformers, folder to write.

    Raises:
        InputError: the form has no such model or another kind of file, or needs a package that is not
            installed.
        RunError: what was written computes something else.
    """
    _check_target(form, target)
    return FORMS[form](model, target)


def _check_target(form: str, target: Path) -> None:
    """Check that readers of the form will take `target` for what it is."""
    ending = {"timm": ".safetensors", "official": ".pth", "onnx": ".onnx"}.get(form)
    if ending is None and target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, but the {form} form is a folder: give another --output")
    if ending is not None and (target.suffix != ending or target.is_dir()):
        raise InputError(f"--output {target}: the {form} form is a file whose name ends in {ending}")


def example(model: Classifier) -> Tensor:
    """Return a batch of two random inputs of a classifier."""
    tokenizer, generator = model.tokenizer, torch.Generator().manual_seed(0)
    if isinstance(tokenizer, VideoTokenizer):
        sizes = [count * size for count, size in zip(tokenizer.grid, tokenizer.cube, strict=True)]
        return torch.randn(2, 3, *sizes, generator=generator)
    if isinstance(tokenizer, PatchTokenizer):
        sizes = [(count - 1) * tokenizer.stride + tokenizer.patch_size for count in tokenizer.grid]
        if isinstance(tokenizer, AudioTokenizer) and tokenizer.frequency_major:
            sizes.reverse()
        channels = tokenizer.patch_embed.proj.in_channels
        return torch.randn(2, channels, *sizes, generator=generator)
    raise InputError(
        f"{type(tokenizer).__name__}: only classifiers of images, sounds and videos have other forms"
    )


def _num_heads(model: Classifier) -> int:
    return int(cast(Any, model.blocks[0]).attn.num_heads)


def _compare(model: Classifier, form: str, run: Callable[[Tensor], Tensor]) -> None:
    x = example(model)
    with torch.no_grad():
        expected, got = model(x), run(x)
    difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if got.shape != expected.shape or difference > ROUNDING:
        raise RunError(f"the {form} form computes other logits: relative difference {difference:.1e}")


def _timm_settings(model: Classifier) -> dict[str, Any]:
    """Return the arguments that make timm's `vit_base_patch16_224` the classifier.

    Raises:
        InputError: timm has no such model.
    """
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, ImageTokenizer | AudioTokenizer) or tokenizer.stride != tokenizer.patch_size:
        raise InputError("timm's VisionTransformer takes images and sounds, in patches without overlap")
    _check_tokens(tokenizer, "timm's VisionTransformer")
    mlp = cast(nn.Linear, model.blocks[0].get_submodule("mlp.fc1"))
    return {
        "img_size": tuple(count * tokenizer.patch_size for count in tokenizer.grid),
        "patch_size": tokenizer.patch_size,
        "in_chans": tokenizer.patch_embed.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": _num_heads(model),
        "mlp_ratio": mlp.out_features / mlp.in_features,
        "global_pool": model.pool,
    }


def _check_tokens(tokenizer: PatchTokenizer, reader: str) -> None:
    """Check that there is no distillation token, as in MAE and AudioMAE."""
    if tokenizer.dist_token is not None:
        raise InputError(f"{reader} has no distillation token: give --to onnx")


def _check_norms(model: Classifier, form: str) -> None:
    """Check that the norms are those of a form that has no setting for them."""
    if model.norm_eps != NORM_EPS:
        raise InputError(
            f"the {form} form has norms with an epsilon of {NORM_EPS:g}, but this model's have "
            f"{model.norm_eps:g} (norm_eps of its modality): give another --to"
        )


def _timm_model(model: Classifier) -> tuple[nn.Module, dict[str, Any]]:
    settings = _timm_settings(model)
    norms: dict[str, Any] = {"norm_layer": partial(nn.LayerNorm, eps=model.norm_eps)}
    plain = timm.create_model("vit_base_patch16_224", num_classes=model.num_classes, **settings, **norms)
    plain.load_state_dict(to_exchange(model.state_dict()), strict=True)
    return plain.eval(), settings


def _to_timm(model: Classifier, target: Path) -> str:
    plain, settings = _timm_model(model)
    _compare(model, "timm", plain)
    save_weights(target, plain.state_dict(), Stated(settings["num_heads"], model.norm_eps).metadata)
    words = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    if model.norm_eps != NORM_EPS:
        words += f", norm_layer=functools.partial(torch.nn.LayerNorm, eps={model.norm_eps!r})"
    return (
        f'timm.create_model("vit_base_patch16_224", num_classes={model.num_classes}, {words}), then '
        f"load_state_dict(safetensors.torch.load_file({str(target)!r}))"
    )


def _to_transformers(model: Classifier, target: Path) -> str:
    transformers = _package("transformers")
    if isinstance(model.tokenizer, VideoTokenizer):
        made = _videomae(model, transformers)
        name = "VideoMAEForVideoClassification"
        _compare(model, "transformers", lambda x: made(x.transpose(1, 2)).logits)
    else:
        _check_norms(model, "transformers")
        plain, settings = _timm_model(model)
        config = transformers.TimmWrapperConfig(
            architecture="vit_base_patch16_224", num_labels=model.num_classes, model_args=settings
        )
        made = transformers.TimmWrapperForImageClassification(config).eval()
        made.timm_model.load_state_dict(plain.state_dict())
        name = "AutoModelForImageClassification"
        _compare(model, "transformers", lambda x: made(x).logits)
    made.save_pretrained(target)
    return f"transformers.{name}.from_pretrained({str(target)!r})"


def _videomae(model: Classifier, transformers: Any) -> Any:
    """Return VideoMAE of transformers. It has no bias of keys, which a softmax over keys cancels."""
    if model.pool != "avg":
        raise InputError("VideoMAE averages its tokens: only a classifier with pool avg has this form")
    tokenizer = cast(VideoTokenizer, model.tokenizer)
    mlp = cast(nn.Linear, model.blocks[0].get_submodule("mlp.fc1"))
    config = transformers.VideoMAEConfig(
        image_size=tokenizer.grid[1] * tokenizer.cube[1],
        patch_size=tokenizer.cube[1],
        num_frames=tokenizer.grid[0] * tokenizer.cube[0],
        tubelet_size=tokenizer.cube[0],
        hidden_size=model.embed_dim,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=_num_heads(model),
        intermediate_size=mlp.out_features,
        layer_norm_eps=model.norm_eps,
        num_labels=model.num_classes,
    )
    made = transformers.VideoMAEForVideoClassification(config)
    made.load_state_dict(_videomae_state(to_exchange(model.state_dict())), strict=True)
    return made.eval()


_VIDEOMAE = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _videomae_state(state: Mapping[str, Tensor]) -> State:
    renamed = {}
    for key, tensor in state.items():
        words = key.split(".")
        if words[0] != "blocks":
            start = key.replace("patch_embed.proj", "videomae.embeddings.patch_embeddings.projection")
            renamed[start.replace("head.", "classifier.")] = tensor
            continue
        block, layer, kind = f"videomae.encoder.layer.{words[1]}", ".".join(words[2:-1]), words[-1]
        if layer != "attn.qkv":
            renamed[f"{block}.{_VIDEOMAE[layer]}.{kind}"] = tensor
            continue
        for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            if (name, kind) != ("key", "bias"):
                renamed[f"{block}.attention.attention.{name}.{kind}"] = part
    return renamed


def _to_onnx(model: Classifier, target: Path) -> str:
    _package("onnx"), _package("onnxscript")
    runtime = _package("onnxruntime")
    x = example(model)
    with replacing(target) as temporary:
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            model,
            (x,),
            temporary,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        for size in (2, 1):
            _compare(model, "ONNX", partial(_logits, session, size))
    return f"onnxruntime.InferenceSession({str(target)!r}), input `input`, output `logits`"


def _logits(session: Any, size: int, x: Tensor) -> Tensor:
    """Return the logits of a batch, in parts of `size`."""
    return torch.cat(
        [torch.from_numpy(session.run(None, {"input": part.numpy()})[0]) for part in x.split(size)]
    )


def _to_official(model: Classifier, target: Path) -> str:
    state, tokenizer = to_exchange(model.state_dict()), model.tokenizer
    if isinstance(tokenizer, VideoTokenizer):
        code, state = "VideoMAE's run_class_finetuning.py", _with_separate_biases(state)
    elif isinstance(tokenizer, AudioTokenizer):
        code = "AudioMAE's main_finetune_as.py"
    elif isinstance(tokenizer, ImageTokenizer):
        code = f"MAE's main_finetune.py{' --cls_token' if model.pool == 'token' else ''}"
    else:
        raise InputError("only classifiers of images, sounds and videos have an official evaluation script")
    if model.pool != "avg" and not isinstance(tokenizer, ImageTokenizer):
        raise InputError(f"{code} averages the tokens: only a classifier with pool avg has this form")
    if isinstance(tokenizer, PatchTokenizer):
        _check_tokens(tokenizer, code)
    _check_norms(model, "official")
    heads, own = OFFICIAL_HEADS.get(model.embed_dim), _num_heads(model)
    if heads is not None and heads != own:
        raise InputError(
            f"{code} builds a model of width {model.embed_dim} with {heads} heads, but this one has {own}: "
            "give another --to"
        )
    again = copy.deepcopy(model)  # the scripts are not at hand
    load_exchange(again, convert(state, "the official form").state)
    _compare(model, "official", again)
    with replacing(target) as temporary:
        torch.save({"model": state}, temporary)
    return f"{code} --eval, with this file as the model to finetune or to resume"


def _with_separate_biases(state: Mapping[str, Tensor]) -> State:
    """Return VideoMAE's q_bias and v_bias. A bias of keys changes nothing: a softmax over keys cancels it."""
    separate: State = {}
    for key, tensor in state.items():
        if key.endswith("attn.qkv.bias"):
            path = key.removesuffix("qkv.bias")
            query, _, value = tensor.chunk(3)
            separate |= {f"{path}q_bias": query.clone(), f"{path}v_bias": value.clone()}
        else:
            separate[key] = tensor
    return separate


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"this form needs the package {name}: pip install {name}") from None


FORMS: dict[str, Callable[[Classifier, Path], str]] = {
    "timm": _to_timm,
    "transformers": _to_transformers,
    "onnx": _to_onnx,
    "official": _to_official,
}
