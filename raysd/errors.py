"""The one exception that users meet."""


class UserError(ValueError):
    """Bad input, said in one line: the field, its value and the remedy. The command line prints it and exits with
    code 2."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        shown = repr(value)
        super().__init__(f"{field} = {shown if len(shown) <= 120 else shown[:117] + '...'}: {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.remedy)


def find_user_error(error: BaseException | None) -> UserError | None:
    """The user's error behind an exception that came through Ray's tasks, if there is one."""
    while error is not None:
        cause = getattr(error, "cause", None)
        for candidate in (cause, error):
            if isinstance(candidate, UserError):
                return candidate
        error = cause if isinstance(cause, BaseException) and cause is not error else error.__cause__
    return None
