"""Small models of the libraries that pathways are used with: random weights, equal sizes, three blocks."""

from collections.abc import Callable
from typing import Any

import open_clip
import timm
import torch
import torchvision
import transformers as hf
from torch import nn

DIM, DEPTH, HEADS, HIDDEN = 32, 3, 2, 64

_SIZES: dict[str, Any] = {
    "hidden_size": DIM,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
}
_PICTURE: dict[str, Any] = {"image_size": 32, "patch_size": 8}
_DECODER: dict[str, Any] = {
    "decoder_hidden_size": DIM,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": HEADS,
    "decoder_intermediate_size": HIDDEN,
}
_WORDS: dict[str, Any] = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def picture() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def words() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, 50, (2, 7))}


def _timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(
        name, img_size=32, patch_size=8, embed_dim=DIM, num_heads=HEADS, depth=DEPTH, **settings
    )


def _open_clip() -> nn.Module:
    vision = {
        "layers": DEPTH,
        "width": DIM,
        "head_width": DIM // HEADS,
        "mlp_ratio": HIDDEN / DIM,
        **_PICTURE,
    }
    text = {"context_length": 8, "vocab_size": 50, "width": DIM, "heads": HEADS, "layers": DEPTH}
    return open_clip.model.CLIP(16, vision, text).visual


def _speech(model: Any, config: Any) -> nn.Module:
    return model(
        config(
            conv_dim=(DIM, DIM),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            **_SIZES,
        )
    )


def _whisper() -> nn.Module:
    sizes = {"d_model": DIM, "encoder_layers": DEPTH, "encoder_attention_heads": HEADS}
    config = hf.WhisperConfig(encoder_ffn_dim=HIDDEN, num_mel_bins=8, max_source_positions=20, **sizes)
    return hf.models.whisper.modeling_whisper.WhisperEncoder(config)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "timm ViT": (_timm("vit_tiny_patch16_224", mlp_ratio=2), lambda: torch.randn(2, 3, 32, 32)),
    "timm DeiT III": (_timm("deit3_small_patch16_224", mlp_ratio=2), lambda: torch.randn(2, 3, 32, 32)),
    "timm BEiT": (_timm("beit_base_patch16_224", mlp_ratio=2), lambda: torch.randn(2, 3, 32, 32)),
    "timm EVA-02": (_timm("eva02_tiny_patch14_224", mlp_ratio=2), lambda: torch.randn(2, 3, 32, 32)),
    "timm MLP-Mixer": (
        lambda: timm.models.mlp_mixer.MlpMixer(
            img_size=32, patch_size=8, embed_dim=DIM, num_blocks=DEPTH, mlp_ratio=(0.5, 2)
        ),
        lambda: torch.randn(2, 3, 32, 32),
    ),
    "torchvision ViT": (
        lambda: torchvision.models.VisionTransformer(32, 8, DEPTH, HEADS, DIM, HIDDEN),
        lambda: torch.randn(2, 3, 32, 32),
    ),
    "torch TransformerEncoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(DIM, HEADS, HIDDEN, dropout=0.0, batch_first=True), DEPTH
        ),
        lambda: torch.randn(2, 7, DIM),
    ),
    "open_clip vision": (_open_clip, lambda: torch.randn(2, 3, 32, 32)),
    "open_clip text": (
        lambda: open_clip.transformer.TextTransformer(8, 50, DIM, HEADS, DEPTH, HIDDEN / DIM),
        lambda: torch.randint(1, 49, (2, 8)),
    ),
    "transformers ViT": (lambda: hf.ViTModel(hf.ViTConfig(**_PICTURE, **_SIZES)), picture),
    "transformers DeiT": (lambda: hf.DeiTModel(hf.DeiTConfig(**_PICTURE, **_SIZES)), picture),
    "transformers BEiT": (lambda: hf.BeitModel(hf.BeitConfig(**_PICTURE, **_SIZES)), picture),
    "transformers DINOv2": (
        lambda: hf.Dinov2Model(hf.Dinov2Config(**_PICTURE, **(_SIZES | {"mlp_ratio": HIDDEN // DIM}))),
        picture,
    ),
    "transformers ViTMAE": (
        lambda: hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**_PICTURE, **_SIZES, **_DECODER)),
        lambda: picture() | {"noise": torch.linspace(0, 1, 16).expand(2, 16)},
    ),
    "transformers VideoMAE": (
        lambda: hf.VideoMAEModel(hf.VideoMAEConfig(**_PICTURE, **_SIZES, **_DECODER, num_frames=4)),
        lambda: {"pixel_values": torch.randn(2, 4, 3, 32, 32)},
    ),
    "transformers AST": (
        lambda: hf.ASTModel(hf.ASTConfig(max_length=64, num_mel_bins=32, **_SIZES)),
        lambda: {"input_values": torch.randn(2, 64, 32)},
    ),
    "transformers BERT": (lambda: hf.BertModel(hf.BertConfig(**_WORDS, **_SIZES)), words),
    "transformers RoBERTa": (lambda: hf.RobertaModel(hf.RobertaConfig(**_WORDS, **_SIZES)), words),
    "transformers GPT-2": (
        lambda: hf.GPT2Model(
            hf.GPT2Config(n_embd=DIM, n_layer=DEPTH, n_head=HEADS, n_inner=HIDDEN, **_WORDS)
        ),
        words,
    ),
    "transformers Llama": (lambda: hf.LlamaModel(hf.LlamaConfig(**_WORDS, **_SIZES)), words),
    "transformers Qwen2": (
        lambda: hf.Qwen2Model(hf.Qwen2Config(num_key_value_heads=1, **_WORDS, **_SIZES)),
        words,
    ),
    "transformers Gemma": (
        lambda: hf.GemmaModel(
            hf.GemmaConfig(num_key_value_heads=1, head_dim=DIM // HEADS, **_WORDS, **_SIZES)
        ),
        words,
    ),
    "transformers ModernBERT": (
        lambda: hf.ModernBertModel(hf.ModernBertConfig(cls_token_id=3, sep_token_id=4, **_WORDS, **_SIZES)),
        words,
    ),
    "transformers DistilBERT": (
        lambda: hf.DistilBertModel(
            hf.DistilBertConfig(vocab_size=50, dim=DIM, n_layers=DEPTH, n_heads=HEADS, hidden_dim=HIDDEN)
        ),
        words,
    ),
    "transformers T5": (
        lambda: hf.T5EncoderModel(
            hf.T5Config(
                vocab_size=50, d_model=DIM, d_kv=DIM // HEADS, d_ff=HIDDEN, num_layers=DEPTH, num_heads=HEADS
            )
        ),
        words,
    ),
    "transformers Wav2Vec2": (
        lambda: _speech(hf.Wav2Vec2Model, hf.Wav2Vec2Config),
        lambda: {"input_values": torch.randn(2, 400)},
    ),
    "transformers HuBERT": (
        lambda: _speech(hf.HubertModel, hf.HubertConfig),
        lambda: {"input_values": torch.randn(2, 400)},
    ),
    "transformers Whisper encoder": (_whisper, lambda: {"input_features": torch.randn(2, 8, 40)}),
    "transformers CLIP vision": (
        lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**_PICTURE, **_SIZES)),
        picture,
    ),
    "transformers SigLIP vision": (
        lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**_PICTURE, **_SIZES)),
        picture,
    ),
}


def build(family: str, seed: int) -> nn.Module:
    """Return a model in evaluation mode; no two of its values are equal by construction."""
    torch.manual_seed(seed)
    model = FAMILIES[family][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(family: str) -> Any:
    torch.manual_seed(9)
    return FAMILIES[family][1]()


def output(model: nn.Module, given: Any) -> torch.Tensor:
    """Return the main output of a model."""
    result = model(**given) if isinstance(given, dict) else model(given)
    return (
        result
        if isinstance(result, torch.Tensor)
        else result[0]
        if isinstance(result, tuple)
        else next(value for value in result.values() if isinstance(value, torch.Tensor) and value.ndim > 1)
    )
