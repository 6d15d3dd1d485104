"""The one exception that the command line turns into a clear line and exit code 2."""


class UserError(ValueError):
    """A mistake a user can make: the message says what is wrong, where, and what would be right."""
