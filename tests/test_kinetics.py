"""The Kinetics reader: frames found by number in real files, views by definition, and every fault."""

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch.nn import functional as F
from torch.utils.data import DataLoader

from m2pt.datasets import kinetics
from m2pt.datasets.images import MEAN, STD
from m2pt.datasets.seeded import seed_generators
from m2pt.datasets.video import clip_frames, count_starts, kept_frames, read_frames, spread
from m2pt.datasets.video_augmentation import (
    ClipErasing,
    ClipRandAugment,
    FinetuningAugmentation,
    PretrainingAugmentation,
    finetuning_transform,
)
from m2pt.datasets.video_views import MultiView, central_square
from m2pt.errors import InputError

LENGTH = 60
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"
FINETUNING = {"scale": [0.3, 1], "auto_augment": RAND_AUGMENT, "color_jitter": 0.4, "reprob": 0.5}


def picture(number: int) -> np.ndarray:
    """Return six stripes, black or white as the digits of the number in base 2: compression keeps them."""
    digits = [255 * (number >> digit & 1) for digit in range(6)]
    return np.broadcast_to(np.repeat(np.uint8(digits), 8)[None, :, None], (48, 48, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """Read the stripes of frames (T, H, W, 3)."""
    stripe = frames.shape[2] // 6
    rows = frames[:, frames.shape[1] // 2, stripe // 2 :: stripe, 0][:, :6]
    return ((rows > 127) @ (1 << np.arange(6))).tolist()


def pixels(clip: torch.Tensor) -> np.ndarray:
    """Undo the normalisation of a clip (3, T, H, W): frames (T, H, W, 3) in 0 to 255."""
    return (255 * (clip.permute(1, 2, 3, 0) * torch.tensor(STD) + torch.tensor(MEAN))).numpy()


def write_video(path: Path, times: Sequence[int] = range(LENGTH)) -> None:
    """Write one numbered frame per time (in 1/25 s), a key frame every 15."""
    container = av.open(str(path), "w")
    stream = container.add_stream("mpeg4", rate=25)
    stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
    stream.codec_context.gop_size, stream.codec_context.time_base = 15, Fraction(1, 25)
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
    container.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "some videos").mkdir(exist_ok=True)
        names = [f"some videos/{split}{label}.mp4" for label in range(2)]
        for name in names:
            write_video(tmp_path / name)
        (tmp_path / f"{split}.csv").write_text(
            "".join(f"{name} {label}\n" for label, name in enumerate(names))
        )
    (tmp_path / "test.csv").write_text((tmp_path / "val.csv").read_text())
    return tmp_path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "video.mp4")
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("wanted", [[0], [59], [0, 1, 2], [14, 15, 16], [31, 35, 39, 43], [7, 7, 50, 59, 59]])
def test_frames_are_found_by_number(video: Path, wanted: list[int]) -> None:
    frames = read_frames(video, lambda length: wanted)
    assert frames.shape == (len(wanted), 48, 48, 3) and frames.dtype == np.uint8
    assert numbers(frames) == wanted


def test_only_the_frames_in_between_are_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = av.container.InputContainer.decode

    class Container:
        def __init__(self, container: av.container.InputContainer) -> None:
            self.container = container

        def __getattr__(self, name: str):
            return getattr(self.container, name)

        def decode(self, *streams):
            for frame in original(self.container, *streams):
                decoded.append(frame.pts)
                yield frame

        def __enter__(self):
            return self

        def __exit__(self, *details) -> None:
            self.container.close()

    opened = av.open
    monkeypatch.setattr(av, "open", lambda path: Container(opened(path)))
    assert numbers(read_frames(video, lambda length: [33, 35])) == [33, 35]
    assert len(decoded) <= 6, "from the key frame 30, or a later one, to frame 35"


def test_a_variable_frame_rate_is_followed_in_time(tmp_path: Path) -> None:
    """Twenty frames in forty ticks, half of them after a pause: number w is the first at 2 w ticks, about."""
    times = [*range(10), *range(30, 40)]
    write_video(tmp_path / "pause.mp4", times)
    frames = read_frames(tmp_path / "pause.mp4", range)
    expected = [next(i for i, time in enumerate(times) if time >= 2 * wanted - 1) for wanted in range(20)]
    assert numbers(frames) == expected


def test_sampling_is_that_of_videomae() -> None:
    assert clip_frames(3, 4, 2, 60) == [3, 5, 7, 9]
    assert clip_frames(0, 4, 4, 10) == [0, 4, 8, 9]
    assert clip_frames(0, 3, 4, 1) == [0, 0, 0]
    assert [count_starts(16, 4, length) for length in (10, 63, 64, 65, 300)] == [1, 1, 1, 2, 237]


def test_evaluation_takes_the_middle_and_the_central_square(root: Path) -> None:
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=24, frames=8, stride=4)
    clip, label = reader[1]
    assert clip.shape == (3, 8, 24, 24) and clip.dtype == torch.float32 and label == 1
    assert numbers(pixels(clip)) == [14 + 4 * step for step in range(8)]
    columns = torch.arange(48).expand(2, 3, 32, 48)
    assert central_square(columns)[0, 0, 0].tolist() == list(range(8, 40))
    assert central_square(columns.transpose(2, 3))[0, 0, :, 0].tolist() == list(range(8, 40))


def test_training_takes_every_start(root: Path) -> None:
    reader = kinetics.Reader(
        root, "train", num_classes=2, image_size=48, frames=2, stride=28, augmentation={}
    )
    starts = set()
    for epoch in range(60):
        clip = reader[(epoch, 0)][0]
        first, second = numbers(pixels(clip))
        assert second == first + 28
        starts.add(first)
    assert starts == {0, 1, 2, 3, 4}


def test_a_short_video_repeats_its_last_frame(root: Path) -> None:
    write_video(root / "some videos/val0.mp4", range(5))
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=16, frames=16, stride=4)
    assert reader[0][0].shape == (3, 16, 16, 16)
    assert numbers(read_frames(root / "some videos/val0.mp4", lambda n: clip_frames(0, 4, 2, n))) == [
        0,
        2,
        4,
        4,
    ]


def test_multi_scale_crops_have_thirteen_places_and_neighbouring_scales() -> None:
    scales = (1, 0.875, 0.75, 0.66)
    crop = PretrainingAugmentation(crop_scales=scales)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    clip = torch.stack([rows, columns]).expand(3, 2, 64, 96)
    torch.manual_seed(0)
    seen: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for _ in range(3000):
        view = crop(clip)
        assert torch.equal(view[0], view[2]), "all frames are cropped alike"
        seen.setdefault((view.shape[2], view.shape[3]), set()).add(
            (int(view[0, 0, 0, 0]), int(view[0, 1, 0, 0]))
        )
    sizes = [int(64 * scale) for scale in scales]
    assert set(seen) == {(a, b) for i, a in enumerate(sizes) for j, b in enumerate(sizes) if abs(i - j) <= 1}
    corners_to_centre = {(0, 0), (0, 48), (16, 0), (16, 48), (8, 24)}
    assert corners_to_centre <= seen[(48, 48)] and len(seen[(48, 48)]) == 13
    assert (4, 12) in seen[(48, 48)]


def test_flips_and_resizing() -> None:
    clip = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(PretrainingAugmentation(hflip=1)(clip), clip.flip(-1))
    assert torch.equal(PretrainingAugmentation()(clip), clip)
    small = F.interpolate(clip, (16, 16), mode="bilinear", antialias=True)
    exact = F.interpolate(clip.double(), (16, 16), mode="bilinear", antialias=True)
    assert (small - exact).abs().max() <= 1, "uint8 resizing rounds and does no more"


def test_offsets_are_spread_from_end_to_end() -> None:
    assert spread(1, 9) == [4] and spread(2, 9) == [0, 9] and spread(3, 9) == [0, 4, 9]
    assert spread(5, 0) == [0] * 5
    for count, room in ((5, 59), (10, 7), (3, 160)):
        step = Fraction(room, count - 1)
        assert spread(count, room) == [int(step * number) for number in range(count)]


def test_test_frames_are_every_strideth_of_the_whole_video() -> None:
    assert kept_frames(4, 4, 18) == [0, 4, 8, 12, 16]
    assert kept_frames(4, 4, 5) == [0, 4, 4, 4]
    assert kept_frames(2, 3, 1) == [0, 0]


def test_windows_of_test_clips_reach_both_ends() -> None:
    view = MultiView(4, 2, 8, clips=5, crops=1)
    chosen = view.choose(21)
    assert chosen == list(range(0, 21, 2))
    frames = torch.tensor(chosen, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    seen = [pixels(clip)[:, 0, 0, 0].round().tolist() for clip in view.look(frames)]
    assert seen == [[0, 2, 4, 6], [2, 4, 6, 8], [6, 8, 10, 12], [10, 12, 14, 16], [14, 16, 18, 20]]


@pytest.mark.parametrize("tall", [False, True])
def test_test_crops_slide_along_the_long_side(tall: bool) -> None:
    places = torch.arange(21, dtype=torch.uint8).expand(2, 3, 8, 21)
    seen = MultiView(2, 1, 8, clips=1, crops=3).look(places.transpose(2, 3) if tall else places)
    assert seen.shape == (3, 3, 2, 8, 8)
    lines = [pixels(clip)[0, :, 0, 0] if tall else pixels(clip)[0, 0, :, 0] for clip in seen]
    starts = [0, 6, 13]  # left (or top), centre, right (or bottom)
    np.testing.assert_allclose(lines, [np.arange(start, start + 8) for start in starts], atol=1e-4)


def test_the_shorter_side_is_scaled_before_the_crops() -> None:
    frames = torch.randint(256, (4, 3, 24, 40), dtype=torch.uint8)
    seen = MultiView(2, 1, 12, clips=2, crops=2).look(frames)
    scaled = F.interpolate(frames.double(), (12, 20), mode="bilinear", antialias=True)
    expected = [scaled[start : start + 2, :, :, left : left + 12] for start in (0, 2) for left in (0, 8)]
    for clip, exact in zip(seen, expected, strict=True):
        np.testing.assert_allclose(pixels(clip), exact.permute(0, 2, 3, 1), atol=1)


def test_views_of_a_short_video_repeat_its_last_frame(root: Path) -> None:
    write_video(root / "some videos/val0.mp4", range(5))
    views = {"clips": 2, "crops": 1}
    reader = kinetics.Reader(root, "val", num_classes=2, image_size=48, frames=4, stride=2, views=views)
    assert [numbers(pixels(clip)) for clip in reader[0][0]] == [[0, 2, 4, 4]] * 2


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    original = av.open

    def counting(file: str, *arguments: object, **options: object):
        opened.append(file)
        return original(file, *arguments, **options)

    monkeypatch.setattr(av, "open", counting)
    return opened


def test_a_video_is_decoded_once_for_all_of_its_views(root: Path, decodings: list[str]) -> None:
    settings = {"num_classes": 2, "image_size": 48, "frames": 8, "stride": 4}
    views, label = kinetics.Reader(root, "val", **settings, views={"clips": 3, "crops": 2})[1]
    assert views.shape == (6, 3, 8, 48, 48) and label == 1
    assert [numbers(pixels(clip))[0] for clip in views] == [0, 0, 12, 12, 28, 28]
    repeated = kinetics.Reader(root, "train", **settings, augmentation={**FINETUNING, "samples": 3})[1]
    assert [label for _, label in repeated] == [1, 1, 1]
    assert decodings == [str(root / "some videos/val1.mp4"), str(root / "some videos/train1.mp4")]


def finetuning_reader(root: Path, **augmentation: object) -> kinetics.Reader:
    settings = {"image_size": 48, "frames": 2, "stride": 4, "augmentation": augmentation}
    return kinetics.Reader(root, "train", num_classes=2, **settings)


def test_repeated_samples_show_the_same_frames_differently(root: Path) -> None:
    undisturbed = {"scale": [1, 1], "ratio": [1, 1], "hflip": 0, "samples": 2}
    one, other = finetuning_reader(root, **undisturbed)[0]
    assert torch.equal(one[0], other[0]), "without augmentation the repetition shows"
    epochs = [finetuning_reader(root, **undisturbed)[epoch, 0][0][0] for epoch in range(9)]
    assert len({numbers(pixels(clip))[0] for clip in epochs}) > 4, "the clip itself starts anywhere"
    one, other = finetuning_reader(root, **FINETUNING, samples=2)[0]
    assert not torch.equal(one[0], other[0])


def test_a_repeated_sample_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    reader = finetuning_reader(root, **FINETUNING, samples=2)
    keys = [(epoch, index) for epoch in (0, 3) for index in (1, 0)]
    alone = [reader[key] for key in keys]
    for workers in (0, 2):
        loader = DataLoader(reader, sampler=keys, batch_size=None, num_workers=workers)
        for samples, expected in zip(loader, alone, strict=True):
            for (clip, label), (expected_clip, expected_label) in zip(samples, expected, strict=True):
                assert torch.equal(clip, expected_clip) and label == expected_label
    assert not torch.equal(alone[0][0][0], alone[2][0][0]), "another epoch, another view"


def test_rand_augment_does_to_each_frame_what_timm_does_to_it_alone() -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, 24, 32, 3), dtype=np.uint8)
    alone = rand_augment_transform(RAND_AUGMENT, {"interpolation": Image.Resampling.BICUBIC})
    together = ClipRandAugment(RAND_AUGMENT)
    seen = set()
    for seed in range(12):
        seed_generators(seed)
        clip = together(torch.from_numpy(frames).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        after = random.random(), np.random.random()
        for frame, augmented in zip(frames, clip, strict=True):
            seed_generators(seed)
            np.testing.assert_array_equal(augmented, np.asarray(alone(Image.fromarray(frame))))
        assert after == (random.random(), np.random.random()), "a clip costs the draws of one frame"
        seen.add(clip.tobytes())
    assert len(seen) > 8, "other operations for other clips"


def test_finetuning_treats_all_frames_alike() -> None:
    frame = torch.randint(256, (1, 3, 40, 56), dtype=torch.uint8)
    augment = finetuning_transform(32, FinetuningAugmentation(**{**FINETUNING, "reprob": 0}))
    clips = [augment(frame.expand(4, -1, -1, -1)) for _ in range(4)]
    for clip in clips:
        assert clip.shape == (3, 4, 32, 32) and clip.dtype == torch.float32
        assert torch.equal(clip, clip[:, :1].expand(-1, 4, -1, -1))
    assert not any(torch.equal(clips[0], clip) for clip in clips[1:])


def test_crops_have_the_area_and_aspect_asked_for() -> None:
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(140), indexing="ij")
    clip = torch.stack([rows, columns, columns]).expand(1, 3, 100, 140).to(torch.uint8)
    augment = finetuning_transform(64, FinetuningAugmentation(scale=(0.2, 0.3), ratio=(0.5, 0.5), hflip=0.5))
    torch.manual_seed(0)
    flips = 0
    for _ in range(60):
        view = pixels(augment(clip))[0]
        height, width = np.ptp(view[..., 0]) + 1, np.ptp(view[..., 1]) + 1
        assert width / height == pytest.approx(0.5, abs=0.06)
        assert 0.18 < width * height / 14000 < 0.32
        flips += view[0, 0, 1] > view[0, -1, 1]
    assert 15 < flips < 45


def test_erasing_puts_noise_into_one_box_of_all_frames() -> None:
    erase, boxes = ClipErasing(0.5), set()
    for seed in range(40):
        seed_generators(seed)
        clip = erase(torch.full((4, 3, 20, 30), 7.0))
        erased = (clip != 7).all(dim=1)
        assert torch.equal((clip != 7).any(dim=1), erased), "all channels"
        assert torch.equal(erased, erased[:1].expand_as(erased)), "all frames"
        rows, columns = erased[0].any(1).nonzero(), erased[0].any(0).nonzero()
        if not len(rows):
            continue
        box = (int(rows[0]), int(columns[0]), len(rows), len(columns))
        assert erased[0].sum() == box[2] * box[3], "a full rectangle"
        noise = clip[:, :, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        assert not torch.equal(noise[0], noise[1]) and noise.mean().abs() < 0.5 and 0.7 < noise.std() < 1.3
        boxes.add(box)
    assert 10 < len(boxes) < 30, "half of the clips, each at its own place"


def test_a_sound_dataset_has_no_faults_and_is_described(root: Path) -> None:
    assert kinetics.check(root, num_classes=2, full=True) == []
    assert kinetics.classes(root) == ["0", "1"]
    assert kinetics.counts(root) == {"train": 2, "val": 2}
    assert sorted(kinetics.files(root)) == sorted(path for path in root.rglob("*") if path.is_file())
    (root / "test.csv").unlink()
    assert kinetics.check(root, num_classes=2, full=False) == []


def truncate(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


@pytest.mark.parametrize(
    ("damage", "full", "message"),
    [
        (lambda r: (r / "val.csv").unlink(), False, "val.csv cannot be read"),
        (lambda r: (r / "train.csv").write_text(""), False, "train.csv is empty"),
        (lambda r: (r / "train.csv").write_text("a.mp4\n"), False, "train.csv line 1 is 'a.mp4'"),
        (lambda r: (r / "train.csv").write_text("a.mp4 -1\n"), False, "train.csv line 1 is 'a.mp4 -1'"),
        (lambda r: (r / "test.csv").write_text("a.mp4,1\n"), False, "test.csv line 1 is 'a.mp4,1'"),
        (lambda r: (r / "train.csv").write_text("a.mp4 2\n"), False, "has label 2, not one of 0 to 1"),
        (lambda r: (r / "val.csv").write_text("some videos/val0.mp4 0\n"), False, "class 1 (1) is empty"),
        (lambda r: (r / "some videos/val1.mp4").unlink(), False, "val1.mp4 is missing although"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0.5), True, "val1.mp4 cannot be decoded"),
        (lambda r: truncate(r / "some videos/val1.mp4", 0), True, "val1.mp4 cannot be decoded"),
        (lambda r: (r / "some videos/val1.mp4").write_text("no video"), True, "val1.mp4 cannot be decoded"),
    ],
)
def test_every_fault_is_named(root: Path, damage, full: bool, message: str) -> None:
    damage(root)
    faults = kinetics.check(root, num_classes=2, full=full)
    assert any(message in fault for fault in faults), faults
    assert not full or kinetics.check(root, num_classes=2, full=False) == []


def write_fast_start(path: Path) -> None:
    """Move the index to the front, as web videos have it, so that a truncated file can still be opened."""
    with (
        av.open(str(path)) as source,
        av.open(str(path) + ".mp4", "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    Path(str(path) + ".mp4").rename(path)


def test_a_video_that_ends_early_is_named(root: Path) -> None:
    path = root / "some videos/val1.mp4"
    write_fast_start(path)
    assert kinetics.check(root, num_classes=2, full=True) == []
    truncate(path, 0.8)
    (fault,) = kinetics.check(root, num_classes=2, full=True)
    assert "val1.mp4" in fault and ("is truncated" in fault or "cannot be decoded" in fault)


def test_the_reader_refuses_what_it_cannot_read(root: Path) -> None:
    with pytest.raises(InputError, match="has label 1, not one of 0 to 0"):
        kinetics.Reader(root, "train", num_classes=1, image_size=16)
    with pytest.raises(InputError, match="unknown augmentation key 'flip'"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16, augmentation={"flip": 1})
    with pytest.raises(InputError, match="unknown augmentation key 'mixup'"):
        kinetics.Reader(
            root, "train", num_classes=2, image_size=16, augmentation={"scale": [1, 1], "mixup": 1}
        )
    with pytest.raises(InputError, match="give either augmentation"):
        views = {"clips": 1, "crops": 1}
        kinetics.Reader(root, "train", num_classes=2, image_size=16, augmentation={}, views=views)
    (root / "some videos/train0.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"train0.mp4 cannot be decoded"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16)[0]
    (root / "some videos/train1.mp4").unlink()
    with pytest.raises(InputError, match=r"train1.mp4 cannot be decoded"):
        kinetics.Reader(root, "train", num_classes=2, image_size=16)[1]
