"""The one exception of `bytegen.formats`."""


class FormatError(ValueError):
    """A refused byte, an unknown format or level, or a limit too small: says what, where and what would be right."""
