"""The length of an MP3 file from its frames (ISO/IEC 11172-3 and 13818-3, layer III)."""

from dataclasses import dataclass

_BITRATES = {  # kbit/s by index: of MPEG-1, and of MPEG-2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Hz by index, of MPEG-1, 2 and 2.5."""

_MAX_JUNK = 1 << 16
"""Bytes before the first frame that a decoder skips."""


def declared_mp3(content: bytes, num_samples: int) -> int:
    """Return how many samples per channel an MP3 file declares, or has frames for if it declares none.

    Args:
        content: the file.
        num_samples: of the file by libsndfile: from the Xing, Info or VBRI header if there is one, else
            estimated from the size of the file and the bit rate of its first frame.

    Raises:
        ValueError: there is no frame of layer III.
    """
    position = _first_frame(content)
    frame = _frame(content, position)
    if frame is None:
        raise ValueError("it has no MP3 frame of layer III with a fixed bit rate: convert it to WAV or FLAC")
    if _has_count(content[position : position + frame.size]):
        return num_samples
    frames, samples = 0, frame.samples
    while frame is not None:  # the last one counts even if it is truncated
        frames += 1
        position += frame.size
        frame = _frame(content, position)
    return frames * samples - samples // 2  # an estimate may be a few samples short


def after_id3(content: bytes) -> int:
    """Return where a file's sound begins: after its ID3 tags."""
    start = 0
    while content[start : start + 3] == b"ID3":  # the size has 7 bits per byte
        size = 0
        for byte in content[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size
    return start


@dataclass(frozen=True)
class _Frame:
    size: int
    samples: int


def _frame(content: bytes, position: int) -> _Frame | None:
    """Read the header of the frame at a position; None if there is none."""
    header = int.from_bytes(content[position : position + 4])
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    bits = 1000 * _BITRATES[version == 3][bitrate]
    return _Frame(samples // 8 * bits // _RATES[version][rate] + padding, samples)


def _first_frame(content: bytes) -> int:
    """Return the position of the first frame: the first of two in a row, or the last of the file."""
    start = after_id3(content)
    for position in range(start, min(len(content), start + _MAX_JUNK)):
        frame = _frame(content, position)
        if frame is not None:
            end = position + frame.size
            if end >= len(content) or _frame(content, end) is not None:
                return position
    return len(content)


def _has_count(frame: bytes) -> bool:
    """Return True if the first frame is a header with the number of frames."""
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    return b"VBRI" in frame or (place >= 0 and bool(frame[place + 7 : place + 8] and frame[place + 7] & 1))
