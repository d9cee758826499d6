"""The one exception that means "the user can mend this": shown as one message, exit code 2."""


class UserError(Exception):
    """A mistake in a flag, a path or a file; its text names the value, the place and the remedy."""
