"""The one error a user's own input can raise. Any module may import it; it imports nothing."""


class InputError(ValueError):
    """Bad input: a parameter, a file or a row the user can mend.

    The message says what was wrong, the value received, the choices and the mend. The command line prints it
    and exits with status 2; nothing has been written when it is raised before a run starts.
    """
