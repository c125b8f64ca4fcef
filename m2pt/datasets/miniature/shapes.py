"""Surfaces from which points are sampled uniformly, and objects made of surfaces with part numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[np.float64]


class Surface(Protocol):
    """A surface from which points can be sampled uniformly."""

    @property
    def area(self) -> float:
        """Area, at least approximately."""
        ...

    def sample(self, count: int, generator: Generator) -> Points:
        """Draw (count, 3) points on the surface."""
        ...


@dataclass(frozen=True)
class Box:
    """A parallelepiped around `center` with three edge vectors (rows of `edges`)."""

    center: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...]

    @property
    def area(self) -> float:
        """Twice the sum of the three different faces."""
        return 2 * float(self._faces().sum())

    def sample(self, count: int, generator: Generator) -> Points:
        """Choose faces by area: one coordinate is then 0 or 1, the others are uniform."""
        faces = self._faces()
        fixed = generator.choice(3, size=count, p=faces / faces.sum())
        coordinates = generator.random((count, 3))
        rows = np.arange(count)
        coordinates[rows, fixed] = np.round(coordinates[rows, fixed])
        return np.asarray(self.center) + (coordinates - 0.5) @ np.asarray(self.edges)

    def _faces(self) -> Points:
        a, b, c = np.asarray(self.edges)
        return np.linalg.norm([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)


@dataclass(frozen=True)
class Cone:
    """The side of a truncated cone from `base` to `top`, with a lid of the same label at each closed end."""

    base: tuple[float, ...]
    top: tuple[float, ...]
    base_radius: float
    top_radius: float
    closed_base: bool = True
    closed_top: bool = True

    @property
    def area(self) -> float:
        """Side and lids."""
        return float(sum(self._areas()))

    def sample(self, count: int, generator: Generator) -> Points:
        """Choose side or lid by area; on both, the radius is drawn so that the density is even."""
        areas = np.array(self._areas())
        where = generator.choice(3, size=count, p=areas / areas.sum())
        even = generator.random(count)
        low, high = self.base_radius**2, self.top_radius**2
        radius = np.sqrt(low + even * (high - low))
        spread = self.top_radius - self.base_radius
        height = (radius - self.base_radius) / spread if spread else even
        radius = np.choose(where, [radius, self.base_radius * np.sqrt(even), self.top_radius * np.sqrt(even)])
        height = np.choose(where, [height, np.zeros(count), np.ones(count)])
        angle = generator.uniform(0, 2 * np.pi, count)
        axis = np.subtract(self.top, self.base)
        across, along = _perpendicular(axis)
        ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * along
        return np.asarray(self.base) + height[:, None] * axis + radius[:, None] * ring

    def _areas(self) -> tuple[float, float, float]:
        length = np.linalg.norm(np.subtract(self.top, self.base))
        slant = float(np.hypot(length, self.top_radius - self.base_radius))
        side = np.pi * (self.base_radius + self.top_radius) * slant
        return (
            side,
            np.pi * self.base_radius**2 * self.closed_base,
            np.pi * self.top_radius**2 * self.closed_top,
        )


@dataclass(frozen=True)
class Arc:
    """A bent tube in the plane z = center's: an arc of a ring, angles in radians from +x toward +y."""

    center: tuple[float, ...]
    ring_radius: float
    tube_radius: float
    start: float
    end: float

    @property
    def area(self) -> float:
        """Length of the arc times the tube's circumference."""
        return (self.end - self.start) * self.ring_radius * 2 * np.pi * self.tube_radius

    def sample(self, count: int, generator: Generator) -> Points:
        """Draw both angles uniformly; the outside of the bend is a little thinner than the inside."""
        along = generator.uniform(self.start, self.end, count)
        around = generator.uniform(0, 2 * np.pi, count)
        distance = self.ring_radius + self.tube_radius * np.cos(around)
        offset = [distance * np.cos(along), distance * np.sin(along), self.tube_radius * np.sin(around)]
        return np.asarray(self.center) + np.stack(offset, axis=1)


Part = tuple[int, Surface]
"""A surface and the number of the part that it belongs to."""


def sample_surfaces(
    parts: Sequence[Part], count: int, generator: Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw `count` points uniformly from all surfaces, in random order.

    Returns:
        Coordinates (count, 3) and part numbers (count,).
    """
    areas = np.array([surface.area for _, surface in parts])
    shares = generator.multinomial(count, areas / areas.sum())
    points = [surface.sample(share, generator) for (_, surface), share in zip(parts, shares, strict=True)]
    labels = np.repeat([part for part, _ in parts], shares)
    order = generator.permutation(count)
    return np.concatenate(points)[order].astype(np.float32), labels[order]


def parameter_digest(parts: Sequence[Part]) -> str:
    """Return 32 hexadecimal digits that identify an object by the parameters of all its surfaces."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _perpendicular(axis: Points) -> tuple[Points, Points]:
    """Return two unit vectors that are perpendicular to `axis` and to each other."""
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    across = np.cross(axis, helper)
    across /= np.linalg.norm(across)
    along = np.cross(axis, across)
    return across, along / np.linalg.norm(along)
