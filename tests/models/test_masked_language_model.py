"""Masked language modeling of bytes: masking and loss compared with their definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import nn

from m2pt.errors import InputError
from m2pt.modalities.text import MASK, TextTokenizer
from m2pt.models import masked_language_model
from m2pt.models.exchange import load_exchange, to_exchange
from m2pt.models.masked_language_model import MaskedLanguageModel, build_masked_language_model, corrupt
from m2pt.models.transformer import build_encoder
from m2pt.tasks.pretraining import reconstruction_loss

BACKBONE = {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}


def make(length: int = 20, **changed: object) -> MaskedLanguageModel:
    settings = {"input": {"length": length}, "tokenizer": {}, "backbone": BACKBONE, "mask_ratio": 0.15}
    return build_masked_language_model("text", **{**settings, **changed})


def some_bytes(batch: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(1))


def test_tokens_are_scaled_embeddings_beside_vaswanis_sinusoids():
    tokenizer = TextTokenizer(8, length=5)
    x = some_bytes(2, 5)
    tokens = tokenizer(x)
    torch.testing.assert_close(tokens.values[1, 3], tokenizer.embedding.weight[x[1, 3]] * math.sqrt(8))
    for position in range(5):
        angles = [position / 10000 ** (2 * i / 8) for i in range(4)]
        expected = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        np.testing.assert_allclose(tokens.positions[0, position], expected, atol=1e-6)
    assert set(tokenizer.state_dict()) == {"embedding.weight"}


@pytest.mark.parametrize(("length", "chosen"), [(20, 3), (128, 19), (512, 77), (2, 1)])
def test_fifteen_percent_of_every_window_are_chosen(length, chosen):
    tokenizer = TextTokenizer(4, length=length)
    visible, masked = tokenizer.draw_mask(50, 0.15, torch.device("cpu"))
    assert (visible.shape, masked.shape) == ((50, length - chosen), (50, chosen))
    together = torch.cat([visible, masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(length).expand(50, -1))


def test_chosen_bytes_are_masked_random_or_kept_as_in_bert():
    torch.manual_seed(0)
    tokens = torch.full((400, 500), 7)
    chosen = torch.rand(400, 500).argsort(1)[:, :100]
    hidden = corrupt(tokens, chosen)
    assert torch.equal(tokens, torch.full((400, 500), 7))
    untouched = torch.ones(400, 500, dtype=torch.bool).scatter(1, chosen, False)
    assert (hidden[untouched] == 7).all()
    drawn = hidden.gather(1, chosen).flatten()
    masked = int((drawn == MASK).sum())
    kept = int((drawn == 7).sum())  # a random byte is 7 once in 256 times
    assert binomtest(masked, len(drawn), 0.8).pvalue > 1e-3
    assert binomtest(kept, len(drawn), 0.1 + 0.1 / 256).pvalue > 1e-3
    others = torch.bincount(drawn[(drawn != MASK) & (drawn != 7)], minlength=256)
    assert len(others) == 256
    assert chisquare(np.delete(others.numpy(), 7)).pvalue > 1e-3


def test_loss_is_the_cross_entropy_of_the_chosen_bytes():
    model, x = make().double().eval(), some_bytes()
    torch.manual_seed(2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    torch.manual_seed(3)
    loss = model(x).item()
    torch.manual_seed(3)
    _, chosen = model.encoder.tokenizer.draw_mask(3, 0.15, x.device)
    hidden = corrupt(x, chosen)
    embedding, dense, norm = model.encoder.tokenizer.embedding.weight, model.head[0], model.head[2]
    values = []
    with torch.no_grad():
        for sample in range(3):
            state = 4 * embedding[hidden[sample]] + model.encoder.tokenizer.positions[0]
            state = state.unsqueeze(0)
            for block in model.encoder.blocks:
                state = block(state)
            state = model.encoder.norm(state)[0]
            for place in chosen[sample].tolist():
                raised = torch.nn.functional.gelu(dense.weight @ state[place] + dense.bias)
                centered = raised - raised.mean()
                normal = centered / (centered.square().mean() + 1e-6).sqrt() * norm.weight + norm.bias
                logits = (embedding[:256] @ normal + model.bias).numpy()
                values.append(np.log(np.exp(logits).sum()) - logits[int(x[sample, place])])
    assert loss == pytest.approx(np.mean(values), rel=1e-6)


def test_masked_bytes_do_not_reach_the_prediction_and_all_others_do(monkeypatch):
    monkeypatch.setattr(masked_language_model, "MASKED", 1.0)
    model, x = make().eval(), some_bytes(1)
    visible, chosen = model.encoder.tokenizer.draw_mask(1, 0.15, x.device)
    model.encoder.tokenizer.draw_mask = lambda *_: (visible, chosen)
    predictions = []
    model.head.register_forward_hook(lambda module, inputs, output: predictions.append(output))
    model(x)
    model(x.scatter(1, chosen, (x.gather(1, chosen) + 1) % 256))
    assert torch.equal(predictions[0], predictions[1])
    for place in visible[0].tolist():
        changed = x.clone()
        changed[0, place] = (changed[0, place] + 1) % 256
        model(changed)
        assert not torch.equal(predictions[0], predictions[-1])


def test_an_untrained_model_predicts_at_chance():
    loss = make(128)(some_bytes(8, 128)).item()
    assert loss == pytest.approx(math.log(256), abs=1.0)


def test_masks_follow_torchs_global_generator():
    model, x = make().eval(), some_bytes()
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(model(x).item())
    assert losses[0] == losses[1] != losses[2]


def test_every_parameter_gets_a_gradient_and_the_embedding_is_stored_once():
    model = make()
    model(some_bytes()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    sizes = [tuple(tensor.shape) for tensor in model.state_dict().values()]
    assert sizes.count((257, 16)) == 1 and (256, 16) not in sizes


def test_a_text_of_two_words_is_learned():
    """Given its neighbors a masked letter is certain, except for four at which either word fits."""
    torch.manual_seed(0)
    model = make(16, backbone={**BACKBONE, "dim": 32, "num_heads": 4})
    words = torch.tensor(list(b"abcdefgh" + b"stuvwxyz")).view(2, 8)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        batch = words[torch.randint(2, (32, 2))].flatten(1)
        loss, _ = reconstruction_loss(model, (batch, torch.zeros(32)))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.mean(losses[-10:]) < 0.5 < math.log(16) < losses[0]


def test_its_blocks_can_be_the_auxiliary_of_any_modality():
    model = make()
    image = build_encoder("image", input={"image_size": 16}, tokenizer={"patch_size": 8}, backbone=BACKBONE)
    state = to_exchange(model.encoder.state_dict())
    load_exchange(image, state, parts=("blocks",))
    assert torch.equal(image.blocks[1].mlp.fc1.weight, model.encoder.blocks[1].mlp.fc1.weight)
    copy = build_encoder("text", input={"length": 50}, tokenizer={}, backbone=BACKBONE)
    load_exchange(copy, state)  # a longer window needs no other weights
    assert copy(some_bytes(2, 50)).shape == (2, 50, 16)


def test_another_modality_is_rejected():
    with pytest.raises(InputError, match="for text, not for image"):
        build_masked_language_model(
            "image",
            input={"image_size": 16},
            tokenizer={"patch_size": 8},
            backbone=BACKBONE,
            mask_ratio=0.15,
        )
