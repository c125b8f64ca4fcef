"""The errors that are told in one message, without a traceback."""


class InputError(Exception):
    """What the user gave is wrong: a config key, a file, a dataset.

    The message is one sentence or two that name the file, the key and the value, and the mend. The command
    line prints it without a traceback and exits with code 2.
    """


class DamagedError(InputError):
    """A file of ours is not what was written: a bit has changed, or a part of it is missing."""


class RunError(Exception):
    """A run cannot go on, through no fault of the input: the message says where it stands.

    The command line prints it without a traceback and exits with code 1.
    """
