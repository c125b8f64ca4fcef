"""An encoder with a classification head, laid out as timm's `VisionTransformer`."""

from collections.abc import Mapping
from typing import Any, Literal

from timm.layers import LayerNorm
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.tokenizer import Tokenizer
from m2pt.models.head_folding import EPSILON
from m2pt.models.token_dropping import build_token_dropping
from m2pt.models.transformer import Encoder, build_tokenizer

Pool = Literal["avg", "token"]
Head = Literal["linear", "batchnorm_linear"]


def build_head(kind: Head, dim: int, num_classes: int) -> nn.Module:
    """Make a head, initialised as MAE does for finetuning (std 2e-5) or for linear probing (std 0.01).

    `batchnorm_linear` standardises the features of the frozen encoder before the linear layer
    (MAE, `main_linprobe.py`).

    Raises:
        InputError: unknown kind.
    """
    linear = nn.Linear(dim, num_classes)
    nn.init.zeros_(linear.bias)
    if kind == "linear":
        nn.init.trunc_normal_(linear.weight, std=2e-5)
        return linear
    if kind == "batchnorm_linear":
        nn.init.trunc_normal_(linear.weight, std=0.01)
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=EPSILON), linear)
    raise InputError(f"head {kind!r} is unknown: choose linear or batchnorm_linear")


class Classifier(Encoder):
    """Pooled tokens to class logits.

    `pool="avg"`: mean of the tokens without prefix, then `fc_norm`; there is no final `norm`.
    `pool="token"`: final `norm`, then the class token.
    `token_drop`: shares {time, frequency} of the tokens that training leaves out (see `token_dropping`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        num_classes: int,
        pool: Pool,
        head: Head,
        token_drop: Mapping[str, float] | None = None,
        dim: int,
        **body: Any,
    ) -> None:
        super().__init__(tokenizer, dim=dim, **body)
        if pool not in ("avg", "token"):
            raise InputError(f"pool {pool!r} is unknown: choose avg or token")
        if pool == "token" and not self.num_prefix_tokens:
            raise InputError("pool 'token' needs a class token, which this modality has not: choose avg")
        self.pool = pool
        self.num_classes = num_classes
        if pool == "avg":
            self.norm = nn.Identity()
        self.token_drop = build_token_dropping(tokenizer, token_drop)
        self.fc_norm = LayerNorm(dim) if pool == "avg" else nn.Identity()
        self.head = build_head(head, dim, num_classes)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """The parts (see `exchange`) that a pretrained encoder provides: `fc_norm` and head start anew."""
        return ("tokenizer", "blocks") if self.pool == "avg" else ("tokenizer", "blocks", "norm")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        tokens = self.token_drop(self.tokenizer(x))
        encoded = self.encode(tokens.values, tokens.positions)
        pooled = encoded[:, 0] if self.pool == "token" else encoded[:, self.num_prefix_tokens :].mean(dim=1)
        return self.head(self.fc_norm(pooled))


def build_classifier(
    modality: str,
    *,
    input: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
    pool: Pool,
    head: Head,
    drop_path: float = 0.0,
    token_drop: Mapping[str, float] | None = None,
) -> Classifier:
    """Make a classifier; the settings of the body are those of `build_encoder`.

    Raises:
        InputError: unknown names, or settings that do not fit each other.
    """
    made = build_tokenizer(modality, dim=backbone["dim"], input=input, settings=tokenizer)
    return Classifier(
        made,
        num_classes=num_classes,
        pool=pool,
        head=head,
        token_drop=token_drop,
        drop_path=drop_path,
        **backbone,
    )
