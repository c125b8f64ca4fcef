"""The AudioSet reader: Kaldi's filter bank against two other computations, augmentation, every problem."""

import json
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from m2pt.config.architecture import AudioInput
from m2pt.datasets import audioset
from m2pt.datasets.audio_augmentation import draw_mixup, mask, mix, roll_and_scale
from m2pt.datasets.augmentations import SpectrogramAugmentation, WaveformAugmentation
from m2pt.datasets.fbank import log_mel
from m2pt.errors import InputError

RATE = 16000
FLOOR = np.log(np.finfo(np.float32).eps)


def chirp(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * time + 1500 * time**2))).astype(np.float32)


def write_dataset(root: Path) -> Path:
    root.mkdir()
    rows = ["index,mid,display_name", "0,/m/a,Speech", '1,/m/b,"Male speech, man speaking"', "2,/m/c,Music"]
    (root / audioset.CLASSES).write_text("\n".join(rows) + "\n")
    (root / "sound").mkdir()
    for split, file in audioset.LISTS.items():
        entries = []
        for number, labels in enumerate(["/m/a,/m/b", "/m/c"]):
            name = f"sound/{split} {number}.wav"
            soundfile.write(root / name, chirp(), RATE, subtype="PCM_16")
            entries.append({"wav": name, "labels": labels})
        (root / file).write_text(json.dumps({"data": entries}))
    return root


def open_reader(root: Path, split: str, *, frames: int = 1024, **settings: Any) -> audioset.Reader:
    return audioset.Reader(root, split, **AudioInput(frames=frames).model_dump(), **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "audio set")


def numpy_filter_bank(wave: np.ndarray, bins: int) -> np.ndarray:
    """Kaldi's definition in float64, frame by frame and filter by filter."""
    rows = []
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), bins + 2)
    mels = 1127 * np.log(1 + np.arange(257) * RATE / 512 / 700)
    for start in range(0, len(wave) - 400 + 1, 160):
        frame = wave[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        frame = frame * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399))
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        row = [np.interp(mels, edges[i : i + 3], [0, 1, 0], left=0, right=0) @ power for i in range(bins)]
        rows.append(np.log(np.maximum(row, np.finfo(np.float32).eps)))
    return np.array(rows)


def kaldi_filter_bank(wave: np.ndarray, bins: int, low: float, high: float) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type = 0, "hanning"
    options.use_energy, options.htk_compat = False, True
    options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = bins, low, high
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(RATE, wave)
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


@pytest.fixture
def wave() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(RATE // 2).astype(np.float32)
    return chirp(0.5) + 0.01 * noise


@pytest.mark.parametrize("bins", [40, 128])
def test_filter_bank_equals_the_definition(wave: np.ndarray, bins: int) -> None:
    ours = log_mel(torch.from_numpy(wave), sample_rate=RATE, mel_bins=bins)
    assert ours.shape == (1 + (len(wave) - 400) // 160, bins)
    np.testing.assert_allclose(ours, numpy_filter_bank(wave, bins), atol=2e-3)


def test_filter_bank_equals_kaldi_native_fbank(wave: np.ndarray) -> None:
    ours = log_mel(torch.from_numpy(wave), sample_rate=RATE, mel_bins=80)
    np.testing.assert_allclose(ours, kaldi_filter_bank(wave, 80, 20, 8000), atol=5e-3)


def test_the_filter_that_kaldi_refuses_has_the_floor_value(wave: np.ndarray) -> None:
    """Filter 3 of 128 covers no FFT bin; those on either side equal banks of kaldi-native-fbank."""
    ours = log_mel(torch.from_numpy(wave), sample_rate=RATE, mel_bins=128)
    with pytest.raises(ValueError, match="num_mel_bins too large"):
        kaldi_filter_bank(wave, 128, 20, 8000)
    low, high = (1127 * np.log(1 + f / 700) for f in (20, 8000))
    between = 700 * (np.exp((low + 4 * (high - low) / 129) / 1127) - 1)
    np.testing.assert_allclose(ours[:, 3], FLOOR)
    np.testing.assert_allclose(ours[:, :3], kaldi_filter_bank(wave, 3, 20, between), atol=5e-3)
    np.testing.assert_allclose(ours[:, 4:], kaldi_filter_bank(wave, 124, between, 8000), atol=5e-3)


def test_a_waveform_shorter_than_a_frame_has_no_frames() -> None:
    assert log_mel(torch.zeros(399), sample_rate=RATE, mel_bins=128).shape == (0, 128)


def test_sample_is_normalized_padded_and_labeled(root: Path) -> None:
    reader = open_reader(root, "val", num_classes=3, frames=120)
    spectrogram, labels = reader[0]
    wave, _ = soundfile.read(root / "sound/val 0.wav")
    expected = (numpy_filter_bank(wave - wave.mean(), 128) + 4.2677393) / (2 * 4.5689974)
    assert spectrogram.shape == (1, 120, 128) and spectrogram.dtype == torch.float32
    np.testing.assert_allclose(spectrogram[0, :98], expected, atol=5e-3)
    np.testing.assert_allclose(spectrogram[0, 98:], 0.467, atol=1e-3)
    assert labels.tolist() == [1, 1, 0]
    assert len(reader) == 2
    assert torch.equal(open_reader(root, "val", num_classes=3, frames=64)[0][0], spectrogram[:, :64])


def test_other_rates_are_resampled_and_the_first_channel_is_taken(root: Path) -> None:
    stereo = np.stack([chirp(rate=44100), np.zeros(44100, np.float32)], axis=1)
    soundfile.write(root / "high.flac", stereo, 44100)
    resampled = audioset.read_waveform(root / "high.flac", RATE)
    assert len(resampled) == RATE
    np.testing.assert_allclose(resampled[200:-200], chirp()[200:-200], atol=0.01)


def test_roll_magnitude_rolls_and_scales() -> None:
    np.testing.assert_array_equal(roll_and_scale(chirp(), WaveformAugmentation()), chirp())
    np.random.seed(0)
    rolled = roll_and_scale(chirp(), WaveformAugmentation(roll_magnitude=True))
    spectrum, original = (np.abs(np.fft.rfft(x)) for x in (rolled, chirp()))
    gain = spectrum.sum() / original.sum()
    np.testing.assert_allclose(spectrum, gain * original, atol=0.05)  # a roll changes phases only
    assert 0.5 < gain < 1.5 and gain != pytest.approx(1)
    assert not np.allclose(rolled, gain * chirp(), atol=0.1)


def test_a_mixture_is_as_long_as_its_first_clip_and_has_no_mean() -> None:
    first, second = np.full(10, 2, np.float32), np.arange(10, dtype=np.float32)
    for other in (second[:6], np.append(second, 50).astype(np.float32)):
        expected = 0.3 * first + 0.7 * np.pad(other, (0, 10))[:10]
        mixture = mix(first, other, 0.3)
        assert mixture.dtype == np.float32
        np.testing.assert_allclose(mixture, expected - expected.mean(), rtol=1e-6)
    assert first.tolist() == [2] * 10


def test_mixup_mixes_waveforms_and_labels_alike(root: Path) -> None:
    soundfile.write(root / "sound/train 1.wav", chirp()[::-1] + np.float32(0.2), RATE)
    waves = [soundfile.read(root / f"sound/train {i}.wav")[0] for i in (0, 1)]
    waves = [wave - wave.mean() for wave in waves]
    labels = np.array([[1, 1, 0], [0, 0, 1]])
    reader = open_reader(
        root, "train", num_classes=3, frames=98, augmentation=SpectrogramAugmentation(mixup=1.0)
    )
    partners, shares = set(), []
    for epoch in range(12):
        spectrogram, soft = reader[epoch, 0]
        partner = int(soft[2] > 0)
        share = float(soft[0]) if partner else 1.0
        partners.add(partner)
        shares += [share] if partner else []
        np.testing.assert_allclose(soft, share * labels[0] + (1 - share) * labels[partner], atol=1e-6)
        mixture = share * waves[0] + (1 - share) * waves[partner]
        expected = (numpy_filter_bank(mixture, 128) + 4.2677393) / (2 * 4.5689974)
        # rounding of float32 shows where a filter has hardly any energy
        assert np.quantile(np.abs(spectrogram[0].numpy() - expected), 0.99) < 0.01
    assert partners == {0, 1}
    assert len(set(shares)) == len(shares) and all(0 < share < 1 for share in shares)


def test_mixup_is_as_frequent_and_as_even_as_asked() -> None:
    np.random.seed(0)
    drawn = [draw_mixup(SpectrogramAugmentation(mixup=0.5)) for _ in range(4000)]
    shares = np.array([share for share in drawn if share is not None])
    assert len(shares) / 4000 == pytest.approx(0.5, abs=0.03)
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.std() == pytest.approx(1 / np.sqrt(4 * 21), abs=0.01)  # of Beta(10, 10)
    assert draw_mixup(SpectrogramAugmentation()) is None


def test_masks_are_stretches_of_every_length_and_place() -> None:
    np.random.seed(0)
    lengths, hit = [], np.zeros(100)
    for _ in range(1000):
        spectrogram = torch.ones(100, 40)
        mask(spectrogram, SpectrogramAugmentation(time_mask=24, frequency_mask=8))
        for axis in (0, 1):
            (masked,) = np.nonzero((spectrogram == 0).all(dim=1 - axis).numpy())
            assert (np.diff(masked) == 1).all()
            lengths.append((axis, len(masked)))
            if axis == 0:
                hit[masked] += 1
    assert {length for axis, length in lengths if axis == 0} == set(range(24))
    assert {length for axis, length in lengths if axis == 1} == set(range(8))
    assert hit[:-1].min() > 0  # rounding down hardly ever reaches the last one


def test_masks_become_what_a_zero_is_after_normalization(root: Path) -> None:
    settings = SpectrogramAugmentation(time_mask=60, frequency_mask=48)
    plain = open_reader(root, "train", num_classes=3, frames=98)
    masked = open_reader(root, "train", num_classes=3, frames=98, augmentation=settings)
    original = plain[0][0][0]
    for epoch in range(8):
        view = masked[epoch, 0][0][0]
        changed = view != original
        rows, columns = changed.all(dim=1), changed.all(dim=0)
        assert torch.equal(changed, rows[:, None] | columns)
        np.testing.assert_allclose(view[changed], 4.2677393 / (2 * 4.5689974))
        assert rows.sum() < 60 and columns.sum() < 48


def test_a_mask_longer_than_its_axis_is_refused(root: Path) -> None:
    for augmentation, message in (
        (
            SpectrogramAugmentation(time_mask=99),
            "time_mask = 99 exceeds the 98 of the spectrogram; give at most 98",
        ),
        (SpectrogramAugmentation(frequency_mask=129), "frequency_mask = 129"),
    ):
        with pytest.raises(InputError, match=message):
            open_reader(root, "train", num_classes=3, frames=98, augmentation=augmentation)


def test_an_augmented_sample_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    everything = SpectrogramAugmentation(roll_magnitude=True, mixup=0.5, time_mask=20, frequency_mask=20)

    def reader(seed: int) -> audioset.Reader:
        return open_reader(root, "train", num_classes=3, frames=98, seed=seed, augmentation=everything)

    keys = [(epoch, index) for epoch in range(4) for index in (1, 0)]
    alone = [reader(0)[key] for key in keys]
    assert any(((labels > 0) & (labels < 1)).any() for _, labels in alone), "some are mixed"
    for workers in (0, 2):
        loader = DataLoader(reader(0), sampler=keys, batch_size=None, num_workers=workers)
        for (view, labels), (expected_view, expected_labels) in zip(loader, alone, strict=True):
            assert torch.equal(view, expected_view) and torch.equal(labels, expected_labels)
    assert not torch.equal(alone[0][0], alone[2][0]), "another epoch, another view"
    assert not torch.equal(alone[0][0], reader(1)[keys[0]][0]), "another seed, another view"


def test_a_sound_dataset_has_no_problems_and_is_described(root: Path) -> None:
    assert audioset.check(root, num_classes=3, full=True) == []
    assert audioset.classes(root) == ["Speech", "Male speech, man speaking", "Music"]
    assert audioset.counts(root) == {"train": 2, "val": 2}
    assert {path for path in root.rglob("*") if path.is_file()} == set(audioset.files(root))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "full", "message"),
    [
        (
            lambda r: (r / "class_labels_indices.csv").unlink(),
            False,
            "class_labels_indices.csv: cannot be read",
        ),
        (lambda r: edit(r / audioset.CLASSES, "mid,", "name,"), False, "must begin with"),
        (
            lambda r: edit(r / audioset.CLASSES, "1,/m/b", "7,/m/b"),
            False,
            "<name>`, got '7,/m/b",
        ),
        (lambda r: edit(r / audioset.CLASSES, "2,/m/c", "2,/m/a"), False, "row 2 must be"),
        (
            lambda r: edit(r / audioset.CLASSES, "2,/m/c,Music\n", ""),
            False,
            "has 2 valid rows, not num_classes = 3",
        ),
        (lambda r: (r / "train.json").unlink(), False, "train.json: cannot be read"),
        (lambda r: (r / "eval.json").write_text("{"), False, "eval.json: not valid JSON"),
        (lambda r: (r / "eval.json").write_text('{"data": []}'), False, "eval.json lists no clip"),
        (lambda r: edit(r / "eval.json", '"labels"', '"label"'), False, "eval.json entry 0 must be"),
        (lambda r: edit(r / "train.json", "/m/c", "/m/x"), False, "the label '/m/x', which"),
        (
            lambda r: edit(r / "train.json", "/m/c", "/m/a"),
            False,
            "class 2 (/m/c) is empty: ",
        ),
        (lambda r: (r / "sound/val 1.wav").unlink(), False, "val 1.wav is missing, but"),
        (lambda r: truncate(r / "sound/val 1.wav", 9000), True, "val 1.wav is truncated"),
        (
            lambda r: (r / "sound/val 1.wav").write_text("no sound"),
            True,
            "val 1.wav cannot be read as a sound",
        ),
        (
            lambda r: soundfile.write(r / "sound/val 1.wav", np.zeros(0), RATE),
            True,
            "val 1.wav has no samples",
        ),
        (
            lambda r: soundfile.write(r / "sound/val 1.wav", np.full(9, np.nan), RATE, subtype="FLOAT"),
            True,
            "val 1.wav has samples that are infinite",
        ),
    ],
)
def test_every_problem_is_named(root: Path, damage, full: bool, message: str) -> None:
    damage(root)
    problems = audioset.check(root, num_classes=3, full=full)
    assert any(message in problem for problem in problems), problems
    if full:  # of so few clips, the quick form reads all
        assert audioset.check(root, num_classes=3, full=False) == problems


def test_all_problems_are_named_at_once(root: Path) -> None:
    for name in ("train 0", "val 0"):
        (root / f"sound/{name}.wav").unlink()
    truncate(root / "sound/train 1.wav", 100)
    assert len(audioset.check(root, num_classes=3, full=True)) == 3


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="not num_classes = 5"):
        open_reader(root, "train", num_classes=5)
    (root / "sound/train 0.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"train 0\.wav cannot be read"):
        open_reader(root, "train", num_classes=3)[0]
    edit(root / "train.json", "/m/c", "/m/x")
    with pytest.raises(InputError, match="'/m/x'"):
        open_reader(root, "train", num_classes=3)
