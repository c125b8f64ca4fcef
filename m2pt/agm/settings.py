"""Checks of settings, of names, and of the state of a training that is continued."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from torch import nn

from m2pt.agm.checks import BalancingError


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
    """Check that a number is finite and not negative, or positive.

    Raises:
        BalancingError: it is not.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise BalancingError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        wanted = "above 0" if positive else "0 or more"
        raise BalancingError(f"{name} must be a finite number, {wanted}, got {value}")


def check_integer(name: str, value: Any, least: int | None = None) -> None:
    """Check that a value is an integer, and not below the least.

    Raises:
        BalancingError: it is not.
    """
    if is_integer(value) and (least is None or value >= least):
        return
    wanted = "" if least is None else f", {least} or more"
    raise BalancingError(f"{name} must be an integer{wanted}, got {value!r}")


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_flag(name: str, value: Any) -> None:
    """Check that a value is True or False.

    Raises:
        BalancingError: it is not.
    """
    if not isinstance(value, bool):
        raise BalancingError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that a value is one of a few words.

    Raises:
        BalancingError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise BalancingError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def check_module(name: str, value: Any) -> None:
    """Check that a value is a module of torch.

    Raises:
        BalancingError: it is not.
    """
    if not isinstance(value, nn.Module):
        raise BalancingError(f"{name} must be a torch.nn.Module, got {value!r}")


def check_named(name: str, values: Any, wanted: Sequence[str]) -> None:
    """Check that a mapping, or a `ModuleDict`, has exactly the wanted keys.

    Raises:
        BalancingError: the message names the keys that are missing or unknown.
    """
    if not isinstance(values, Mapping | nn.ModuleDict):
        raise BalancingError(
            f"{name} must be a dict with one value for each of {', '.join(wanted)}, got {values!r}"
        )
    wrong = [f"unknown {key!r}" for key in values if key not in wanted]
    wrong += [f"no value for {key!r}" for key in wanted if key not in values]
    if wrong:
        raise BalancingError(f"{name}: {', '.join(wrong)}; give one value for each of {', '.join(wanted)}")


def check_names(name: str, values: Any) -> tuple[str, ...]:
    """Return a list of names as a tuple.

    Raises:
        BalancingError: it is a single string, or one of the names is no string.
    """
    if isinstance(values, str):
        raise BalancingError(f"{name} must be a list of names, got the string {values!r}")
    if not isinstance(values, Collection) or not all(isinstance(each, str) for each in values):
        raise BalancingError(f"{name} must be a list of names, got {values!r}")
    return tuple(values)


def check_modalities(user: str, modalities: Any, least: int) -> tuple[str, ...]:
    """Return the names of the modalities.

    Args:
        user: what they are for, for messages.
        modalities: the names, in an order.
        least: smallest number of them.

    Raises:
        BalancingError: there are fewer than `least`, they have no order, one is no string, or a name occurs
            twice.
    """
    names = check_names(f"{user}: modalities", modalities)
    if isinstance(modalities, set | frozenset):
        raise BalancingError(f"{user}: modalities must be a list, since their order counts, got a set")
    if len(set(names)) < len(names):
        raise BalancingError(f"{user}: a modality is named twice: {', '.join(names)}")
    if len(names) < least:
        hint = ": train a model of one modality with Joint" if names else ""
        raise BalancingError(f"{user} needs at least {least} modalities, got {list(names)}{hint}")
    return names


def check_epoch(epoch: Any, last: int) -> None:
    """Check that an epoch comes after the last one.

    Raises:
        BalancingError: it does not, or is not an integer.
    """
    if not is_integer(epoch):
        raise BalancingError(f"after_epoch() needs the number of complete epochs, 1 or more, got {epoch!r}")
    if epoch <= last:
        raise BalancingError(
            f"after_epoch({epoch}) must come once after each epoch, and be {last + 1} or more here: epochs "
            "are counted from 1"
        )


def check_restored(user: str, stored: Sequence[str], modalities: Sequence[str]) -> None:
    """Check that a stored state is of the same modalities in the same order.

    Raises:
        BalancingError: it is not.
    """
    if list(stored) != list(modalities):
        raise BalancingError(
            f"{user}: the state is of the modalities {list(stored)}, not of {list(modalities)}: name them in "
            "the same order"
        )


@contextmanager
def restoring(user: str) -> Iterator[None]:
    """Turn what goes wrong while a state is read into one clear error.

    Raises:
        BalancingError: something is missing in the state, or of another kind.
    """
    try:
        yield
    except BalancingError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BalancingError(
            f"{user}: the state is damaged or of another method ({type(error).__name__}: {error}): load what "
            f"the state_dict() of {user} returned"
        ) from error
