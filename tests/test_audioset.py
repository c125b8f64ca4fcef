"""The AudioSet reader: Kaldi's filter bank against two other computations, and every fault of a dataset."""

import json
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch

from m2pt.datasets import audioset
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


def test_sample_is_normalised_padded_and_labelled(root: Path) -> None:
    reader = audioset.Reader(root, "val", num_classes=3, frames=120)
    spectrogram, labels = reader[0]
    wave, _ = soundfile.read(root / "sound/val 0.wav")
    expected = (numpy_filter_bank(wave - wave.mean(), 128) + 4.2677393) / (2 * 4.5689974)
    assert spectrogram.shape == (1, 120, 128) and spectrogram.dtype == torch.float32
    np.testing.assert_allclose(spectrogram[0, :98], expected, atol=5e-3)
    np.testing.assert_allclose(spectrogram[0, 98:], 0.467, atol=1e-3)
    assert labels.tolist() == [1, 1, 0]
    assert len(reader) == 2
    assert torch.equal(audioset.Reader(root, "val", num_classes=3, frames=64)[0][0], spectrogram[:, :64])


def test_other_rates_are_resampled_and_the_first_channel_is_taken(root: Path) -> None:
    stereo = np.stack([chirp(rate=44100), np.zeros(44100, np.float32)], axis=1)
    soundfile.write(root / "high.flac", stereo, 44100)
    resampled = audioset.read_waveform(root / "high.flac", RATE)
    assert len(resampled) == RATE
    np.testing.assert_allclose(resampled[200:-200], chirp()[200:-200], atol=0.01)


def test_roll_magnitude_turns_and_scales(root: Path) -> None:
    plain = audioset.Augmentation()(chirp())
    np.testing.assert_array_equal(plain, chirp())
    np.random.seed(0)
    rolled = audioset.Augmentation(roll_magnitude=True)(chirp())
    spectrum, original = (np.abs(np.fft.rfft(x)) for x in (rolled, chirp()))
    gain = spectrum.sum() / original.sum()
    np.testing.assert_allclose(spectrum, gain * original, atol=0.05)  # a turn changes phases only
    assert 0.5 < gain < 1.5 and gain != pytest.approx(1)
    assert not np.allclose(rolled, gain * chirp(), atol=0.1)


def test_a_sound_dataset_has_no_faults_and_is_described(root: Path) -> None:
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
            "class_labels_indices.csv cannot be read",
        ),
        (lambda r: edit(r / audioset.CLASSES, "mid,", "name,"), False, "begins with"),
        (lambda r: edit(r / audioset.CLASSES, "1,/m/b", "7,/m/b"), False, "row 1 is '7,/m/b"),
        (lambda r: edit(r / audioset.CLASSES, "2,/m/c", "2,/m/a"), False, "row 2 is"),
        (
            lambda r: edit(r / audioset.CLASSES, "2,/m/c,Music\n", ""),
            False,
            "has 2 good rows, not num_classes = 3",
        ),
        (lambda r: (r / "train.json").unlink(), False, "train.json cannot be read"),
        (lambda r: (r / "eval.json").write_text("{"), False, "eval.json cannot be read"),
        (lambda r: (r / "eval.json").write_text('{"data": []}'), False, "eval.json lists no clip"),
        (lambda r: edit(r / "eval.json", '"labels"', '"label"'), False, "eval.json entry 0 is not"),
        (lambda r: edit(r / "train.json", "/m/c", "/m/x"), False, "the label '/m/x', which"),
        (
            lambda r: edit(r / "train.json", "/m/c", "/m/a"),
            False,
            "class 2 (/m/c) is empty: it has no item in",
        ),
        (lambda r: (r / "sound/val 1.wav").unlink(), False, "val 1.wav is missing although"),
        (lambda r: truncate(r / "sound/val 1.wav", 9000), True, "val 1.wav is truncated"),
        (
            lambda r: (r / "sound/val 1.wav").write_text("no sound"),
            True,
            "val 1.wav cannot be read as a sound",
        ),
        (
            lambda r: soundfile.write(r / "sound/val 1.wav", np.zeros(0), RATE),
            True,
            "val 1.wav holds no sound",
        ),
        (
            lambda r: soundfile.write(r / "sound/val 1.wav", np.full(9, np.nan), RATE, subtype="FLOAT"),
            True,
            "val 1.wav holds samples that are infinite",
        ),
    ],
)
def test_every_fault_is_named(root: Path, damage, full: bool, message: str) -> None:
    damage(root)
    faults = audioset.check(root, num_classes=3, full=full)
    assert any(message in fault for fault in faults), faults
    assert not full or audioset.check(root, num_classes=3, full=False) == []


def test_all_faults_are_named_at_once(root: Path) -> None:
    for name in ("train 0", "val 0"):
        (root / f"sound/{name}.wav").unlink()
    truncate(root / "sound/train 1.wav", 100)
    assert len(audioset.check(root, num_classes=3, full=True)) == 3


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="not num_classes = 5"):
        audioset.Reader(root, "train", num_classes=5)
    with pytest.raises(InputError, match="unknown augmentation key 'roll'"):
        audioset.Reader(root, "train", num_classes=3, augmentation={"roll": True})
    (root / "sound/train 0.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"train 0\.wav cannot be read"):
        audioset.Reader(root, "train", num_classes=3)[0]
    edit(root / "train.json", "/m/c", "/m/x")
    with pytest.raises(InputError, match="'/m/x'"):
        audioset.Reader(root, "train", num_classes=3)
