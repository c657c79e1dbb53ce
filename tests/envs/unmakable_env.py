"""An environment that can be found, and not be made."""


def make():
    raise OSError("no licence")
