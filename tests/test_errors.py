"""echod.errors: what an operator's script and an operator's eye can rely on."""

import pytest

from echod.errors import (
    AddressUnavailableError,
    BindNotPermittedError,
    ConfigError,
    ConfigUnreadableError,
    EchodError,
    ExitCode,
    Mistake,
    NoStatusError,
    ReloadOvertakenError,
    StartFailedError,
    StatusUnknownError,
    UsageError,
    plural,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EchodError, 70),
        (UsageError, 2),
        (ConfigUnreadableError, 66),
        (ConfigError, 78),
        (AddressUnavailableError, 69),
        (BindNotPermittedError, 77),
        (StartFailedError, 70),
        (ReloadOvertakenError, 75),
        (NoStatusError, 3),
        (StatusUnknownError, 4),
    ],
)
def test_each_error_has_the_exit_code_that_scripts_expect(error: type[EchodError], code: int) -> None:
    """The codes are those of sysexits.h, or of the LSB for a status, but 2 for usage: scripts branch on the numbers."""
    assert error.exit_code == code
    assert isinstance(error.exit_code, ExitCode)
    assert issubclass(error, EchodError)


def test_success_is_zero() -> None:
    """Zero is what every shell takes for success."""
    assert int(ExitCode.OK) == 0


def test_a_config_error_tells_every_mistake_in_its_text() -> None:
    """A log line that holds only `str(error)` still names each line, path and reason."""
    first = Mistake(line=2, column=1, path="workers", message="65 is out of bounds")
    second = Mistake(line=9, column=3, path="log.level", message='"loud" is not known')
    error = ConfigError((first, second))
    assert error.mistakes == (first, second)
    assert str(error) == 'line 2: workers: 65 is out of bounds; line 9: log.level: "loud" is not known'


def test_a_noun_goes_with_its_number() -> None:
    """One is singular; none and many are plural."""
    assert [plural(number, "reply") for number in (0, 1, 2)] == ["replies", "reply", "replies"]
    assert plural(2, "row") == "rows"
