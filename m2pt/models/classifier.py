"""An encoder with a classification head, laid out as timm's `VisionTransformer`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from timm.layers import LayerNorm
from torch import Tensor, nn

from m2pt.errors import InputError
from m2pt.modalities.tokenizer import Tokenizer
from m2pt.models.exchange import BATCHNORM_EPS
from m2pt.models.settings import ClassifierSettings, Head, Pool, TokenDrop
from m2pt.models.token_dropping import build_token_dropping
from m2pt.models.transformer import Encoder, build_tokenizer


def build_head(kind: Head, dim: int, num_classes: int) -> nn.Module:
    """Build a head, initialized as in MAE for finetuning (std 2e-5) or for linear probing (std 0.01).

    `batchnorm_linear` standardizes the features of the frozen encoder before the linear layer
    (MAE, `main_linprobe.py`).

    Raises:
        InputError: the kind is unknown.
    """
    linear = nn.Linear(dim, num_classes)
    nn.init.zeros_(linear.bias)
    if kind == "linear":
        nn.init.trunc_normal_(linear.weight, std=2e-5)
        return linear
    if kind == "batchnorm_linear":
        nn.init.trunc_normal_(linear.weight, std=0.01)
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=BATCHNORM_EPS), linear)
    raise InputError(f"head {kind!r} is unknown: choose linear or batchnorm_linear")


class Classifier(Encoder):
    """Encoder, pooling and classification head.

    Args:
        tokenizer: tokenizer of the modality.
        num_classes: number of classes.
        pool: "avg" takes the mean of the tokens without prefix, then `fc_norm`, and has no final `norm`;
            "token" takes the class token after the final `norm`.
        head: see `build_head`.
        token_drop: tokens dropped in training (see `token_dropping`), for audio only.
        dim: width of the tokens.
        **body: as for `Encoder`.

    Raises:
        InputError: unknown pool or head, no class token for pool "token", or `token_drop` for another
            modality than audio.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        num_classes: int,
        pool: Pool,
        head: Head,
        token_drop: TokenDrop | None = None,
        dim: int,
        **body: Any,
    ) -> None:
        super().__init__(tokenizer, dim=dim, **body)
        if pool not in ("avg", "token"):
            raise InputError(f"pool {pool!r} is unknown: choose avg or token")
        if pool == "token" and not self.num_prefix_tokens:
            raise InputError(
                "pool 'token' needs a class token, which this modality does not have: choose avg"
            )
        self.pool = pool
        self.num_classes = num_classes
        if pool == "avg":
            self.norm = nn.Identity()
        self.token_drop = build_token_dropping(tokenizer, token_drop)
        self.fc_norm = LayerNorm(dim, eps=self.norm_eps) if pool == "avg" else nn.Identity()
        self.head = build_head(head, dim, num_classes)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts (see `exchange`) to load from a pretrained encoder, without `fc_norm` and head."""
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
    token_drop: Mapping[str, float] | None = None,
    **settings: Any,
) -> Classifier:
    """Build a classifier.

    Args:
        modality: a modality of the catalog; see `m2pt.catalog.MODALITIES`.
        input: as for `build_encoder`.
        tokenizer: as for `build_encoder`.
        backbone: as for `build_encoder`.
        num_classes: number of classes.
        token_drop: fields of `TokenDrop`, for audio only.
        **settings: fields of `ClassifierSettings`.

    Raises:
        InputError: unknown names or inconsistent settings.
    """
    return Classifier(
        build_tokenizer(modality, dim=backbone["dim"], input=input, settings=tokenizer),
        num_classes=num_classes,
        token_drop=None if token_drop is None else TokenDrop(**token_drop),
        **asdict(ClassifierSettings(**settings)),
        **backbone,
    )
