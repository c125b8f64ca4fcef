"""Ten kinds of object with random proportions, each a list of surfaces with part numbers.

They are categories of ShapeNetPart, with its number of parts each, counted from 0 in the order of the
docstrings below. Lengths are arbitrary, y is up.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from m2pt.datasets.miniature.shapes import Arc, Box, Cone, Part


def airplane(draw: Generator) -> list[Part]:
    """Build body, wings, tail, engines; the nose points to +z."""
    length, radius = draw.uniform(1.6, 2.4), draw.uniform(0.1, 0.18)
    span, chord, sweep = draw.uniform(0.7, 1.2), draw.uniform(0.25, 0.45), draw.uniform(0.1, 0.6)
    position, fin = draw.uniform(-0.1, 0.3), draw.uniform(0.3, 0.5)
    engines, engine = int(draw.integers(1, 3)), draw.uniform(0.05, 0.09)
    tail = -length / 2
    parts: list[Part] = [
        (0, Cone((0, 0, tail + 0.5), (0, 0, length / 2 - 0.3), radius, radius)),
        (0, Cone((0, 0, length / 2 - 0.3), (0, 0, length / 2), radius, 0.02)),
        (0, Cone((0, 0, tail), (0, 0, tail + 0.5), 0.03, radius)),
        (2, _slab((0, fin / 2 + radius / 2, tail + 0.1), (0, fin, -0.15), (0.02, 0, 0), (0, 0, 0.25))),
    ]
    for side in (-1, 1):
        wing = (side * (span / 2 + radius), 0, position - sweep / 2)
        parts.append((1, _slab(wing, (side * span, 0, -sweep), (0, 0.03, 0), (0, 0, chord))))
        stabilizer = (side * 0.2, radius / 2, tail + 0.1)
        parts.append((2, _slab(stabilizer, (side * 0.4, 0, -0.15), (0, 0.02, 0), (0, 0, 0.2))))
        for number in range(1, engines + 1):
            reach = number / (engines + 1)
            x, z = side * (radius + reach * span), position - reach * sweep
            parts.append((3, Cone((x, -0.08, z - 0.1), (x, -0.08, z + 0.25), engine, engine)))
    return parts


def chair(draw: Generator) -> list[Part]:
    """Build back, seat, legs, and for about half of them arms; the back is at -z."""
    width, depth, seat = draw.uniform(0.7, 1.1), draw.uniform(0.7, 1.0), draw.uniform(0.5, 0.8)
    back, tilt, thick = draw.uniform(0.6, 1.1), draw.uniform(0, 0.3), draw.uniform(0.04, 0.12)
    parts: list[Part] = [
        (
            0,
            _slab(
                (0, seat + back / 2, -depth / 2 - tilt / 2), (width, 0, 0), (0, back, -tilt), (0, 0, thick)
            ),
        ),
        (1, _box((0, seat, 0), (width, thick, depth))),
    ]
    if draw.random() < 0.3:
        parts += [
            (2, Cone((0, 0.05, 0), (0, seat, 0), 0.06, 0.06)),
            (2, Cone((0, 0, 0), (0, 0.05, 0), 0.4 * width, 0.4 * width)),
        ]
    else:
        parts += [(2, post) for post in _four_legs(width, depth, seat, draw.uniform(0.03, 0.07))]
    if draw.random() < 0.5:
        height = draw.uniform(0.2, 0.35)
        for x in (-width / 2, width / 2):
            parts.append((3, _box((x, seat + height, 0), (0.08, 0.05, depth))))
            parts.append((3, _box((x, seat + height / 2, depth / 2 - 0.05), (0.05, height, 0.05))))
    return parts


def guitar(draw: Generator) -> list[Part]:
    """Build head, neck, body; in the plane z = 0 with the head up."""
    lower, upper = draw.uniform(0.35, 0.5), draw.uniform(0.22, 0.34)
    depth, neck, head = draw.uniform(0.06, 0.2), draw.uniform(0.8, 1.2), draw.uniform(0.2, 0.35)
    gap = draw.uniform(0.75, 0.95) * (lower + upper) / 2
    shoulder = gap + upper
    return [
        (0, _box((0, shoulder + neck + head / 2, 0), (draw.uniform(0.1, 0.2), head, 0.04))),
        (1, _box((0, shoulder + neck / 2 - 0.1, depth / 2), (0.08, neck + 0.2, 0.05))),
        (2, Cone((0, 0, -depth / 2), (0, 0, depth / 2), lower, lower)),
        (2, Cone((0, gap, -depth / 2), (0, gap, depth / 2), upper, upper)),
    ]


def knife(draw: Generator) -> list[Part]:
    """Build blade, handle; along x."""
    blade, height, lean = draw.uniform(0.8, 1.6), draw.uniform(0.12, 0.3), draw.uniform(-0.1, 0.15)
    handle, radius = draw.uniform(0.45, 0.8), draw.uniform(0.04, 0.08)
    return [
        (0, _slab((blade / 2, lean / 2, 0), (blade, lean, 0), (0.1, height, 0), (0, 0, 0.015))),
        (1, Cone((-handle, 0, 0), (0, 0, 0), radius, radius * draw.uniform(0.7, 1.2))),
    ]


def lamp(draw: Generator) -> list[Part]:
    """Build base, shade, canopy, post; about a third hang from the canopy, the others stand on the base."""
    height, wide, narrow = draw.uniform(0.8, 1.8), draw.uniform(0.3, 0.55), draw.uniform(0.1, 0.3)
    shade, foot, post = draw.uniform(0.3, 0.6), draw.uniform(0.2, 0.4), draw.uniform(0.015, 0.04)
    cover = Cone((0, height - shade, 0), (0, height, 0), wide, narrow, closed_base=False, closed_top=False)
    if draw.random() < 1 / 3:
        ceiling = height + draw.uniform(0.4, 1.0)
        return [
            (1, cover),
            (2, Cone((0, ceiling - 0.08, 0), (0, ceiling, 0), 0.12, 0.12)),
            (3, Cone((0, height - 0.1, 0), (0, ceiling, 0), post, post)),
        ]
    return [
        (0, Cone((0, 0, 0), (0, draw.uniform(0.04, 0.15), 0), foot, foot * draw.uniform(0.5, 1))),
        (1, cover),
        (3, Cone((0, 0, 0), (0, height - 0.05, 0), post, post)),
    ]


def laptop(draw: Generator) -> list[Part]:
    """Build keyboard, screen; the hinge is along x."""
    width, depth, thick = draw.uniform(0.9, 1.3), draw.uniform(0.6, 0.9), draw.uniform(0.02, 0.07)
    angle, screen = np.radians(draw.uniform(75, 135)), draw.uniform(0.85, 1.05)
    up = screen * depth * np.array([0, np.sin(angle), np.cos(angle)])
    across = thick * np.array([0, -np.cos(angle), np.sin(angle)])
    hinge = np.array([0, thick / 2, -depth / 2])
    return [
        (0, _box((0, 0, 0), (width, thick, depth))),
        (1, _slab(hinge + up / 2, (width, 0, 0), up, across)),
    ]


def mug(draw: Generator) -> list[Part]:
    """Build handle, cup."""
    radius, height = draw.uniform(0.3, 0.5), draw.uniform(0.6, 1.1)
    loop, tube, flare = draw.uniform(0.2, 0.32) * height, draw.uniform(0.03, 0.06), draw.uniform(0.85, 1.2)
    bend = draw.uniform(0.4, 0.5) * np.pi
    return [
        (0, Arc((radius, height / 2, 0), loop, tube, -bend, bend)),
        (1, Cone((0, 0, 0), (0, height, 0), radius, radius * flare, closed_top=False)),
        (1, Cone((0, 0.04, 0), (0, height, 0), 0.93 * radius, 0.93 * radius * flare, closed_top=False)),
    ]


def rocket(draw: Generator) -> list[Part]:
    """Build body, fins, nose; upright."""
    radius, height, nose = draw.uniform(0.12, 0.25), draw.uniform(1.0, 1.8), draw.uniform(0.3, 0.7)
    count, fin, rise = int(draw.integers(3, 6)), draw.uniform(0.15, 0.4), draw.uniform(0.25, 0.5)
    parts: list[Part] = [
        (0, Cone((0, 0, 0), (0, height, 0), radius, radius)),
        (2, Cone((0, height, 0), (0, height + nose, 0), radius, 0.01)),
    ]
    for angle in 2 * np.pi * (np.arange(count) + draw.random()) / count:
        outwards = np.array([np.cos(angle), 0, np.sin(angle)])
        sideways = np.array([-np.sin(angle), 0, np.cos(angle)])
        center = (radius + fin / 2) * outwards
        parts.append((1, _slab(center, fin * outwards - [0, 0.2, 0], (0, rise, 0), 0.02 * sideways)))
    return parts


def skateboard(draw: Generator) -> list[Part]:
    """Build deck, trucks, wheels; rolls along x."""
    length, width, kick = draw.uniform(1.2, 1.8), draw.uniform(0.3, 0.5), draw.uniform(0, 0.2)
    wheel, reach = draw.uniform(0.05, 0.1), draw.uniform(0.28, 0.38)
    deck = 2 * wheel + 0.06
    parts: list[Part] = [(0, _box((0, deck, 0), (0.8 * length, 0.03, width)))]
    for side in (-1, 1):
        end = (side * 0.5 * length, deck + kick / 2, 0)
        parts.append((0, _slab(end, (side * 0.2 * length, kick, 0), (0, 0.03, 0), (0, 0, width))))
        x = side * reach * length
        parts.append((1, _box((x, (wheel + deck) / 2, 0), (0.08, deck - wheel, width / 2))))
        for z in (-width / 2, width / 2):
            parts.append((2, Cone((x, wheel, z - 0.04), (x, wheel, z + 0.04), wheel, wheel)))
    return parts


def table(draw: Generator) -> list[Part]:
    """Build top, legs, and for about a third of them a shelf."""
    width, depth, height = draw.uniform(0.9, 1.8), draw.uniform(0.7, 1.1), draw.uniform(0.45, 1.0)
    thick = draw.uniform(0.03, 0.1)
    if draw.random() < 0.35:
        radius = depth * draw.uniform(0.5, 0.8)
        return [
            (0, Cone((0, height, 0), (0, height + thick, 0), radius, radius)),
            (1, Cone((0, 0.05, 0), (0, height, 0), 0.07, 0.07)),
            (1, Cone((0, 0, 0), (0, 0.05, 0), radius / 2, radius / 2)),
        ]
    parts: list[Part] = [(0, _box((0, height, 0), (width, thick, depth)))]
    parts += [(1, post) for post in _four_legs(width, depth, height, draw.uniform(0.03, 0.08))]
    if draw.random() < 0.5:
        parts.append((2, _box((0, height * draw.uniform(0.2, 0.5), 0), (0.9 * width, 0.03, 0.9 * depth))))
    return parts


CATEGORIES: dict[str, Callable[[Generator], list[Part]]] = {
    "02691156": airplane,
    "03001627": chair,
    "03467517": guitar,
    "03624134": knife,
    "03636649": lamp,
    "03642806": laptop,
    "03797390": mug,
    "04099429": rocket,
    "04225987": skateboard,
    "04379243": table,
}
"""The WordNet synset of each kind, as in ShapeNet's file names."""


def _box(center: tuple[float, ...], size: tuple[float, float, float]) -> Box:
    width, height, depth = size
    return _slab(center, (width, 0, 0), (0, height, 0), (0, 0, depth))


def _slab(center: object, *edges: object) -> Box:
    """Return a parallelepiped of plain floats from any vectors that NumPy accepts."""
    return Box(_plain(center), tuple(_plain(edge) for edge in edges))


def _plain(vector: object) -> tuple[float, ...]:
    return tuple(np.asarray(vector, dtype=float).tolist())


def _four_legs(width: float, depth: float, height: float, thickness: float) -> list[Box]:
    x, z = width / 2 - thickness, depth / 2 - thickness
    corners = [(-x, -z), (-x, z), (x, -z), (x, z)]
    return [_box((px, height / 2, pz), (thickness, height, thickness)) for px, pz in corners]
