"""The one exception of `bytegen.formats`."""


class FormatError(ValueError):
    """What a caller or a file did wrong: the message says what, where, and what would be right."""
