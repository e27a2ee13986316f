"""The exception for errors that the user can fix.

Every package may import this module; it imports nothing.
"""


class UserError(Exception):
    """Something the user can fix: the message says what is wrong, where, and what to do.

    Scripts print the message alone and end with exit code 1; every other exception is a defect of
    the program and keeps its traceback.
    """
