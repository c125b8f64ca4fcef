"""The one error that a user can mend."""


class InputError(Exception):
    """What the user gave is wrong: a config key, a file, a dataset.

    The message is one sentence or two that name the file, the key and the value, and the mend. The command
    line prints it without a traceback and exits with code 2.
    """
