"""echod.errors: what an operator's script and an operator's eye can rely on."""

import pickle

from echod import errors
from echod.errors import ConfigError, EchodError, ExitCode, Mistake, plural


def test_each_error_has_the_exit_code_that_scripts_expect() -> None:
    """The codes are those of sysexits.h, or of the LSB for a status, but 2 for usage: scripts branch on the numbers."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EchodError)]
    assert {kind.__name__: int(kind.exit_code) for kind in kinds} == {
        "EchodError": 70,
        "UsageError": 2,
        "ConfigUnreadableError": 66,
        "KeyUnreadableError": 78,
        "ConfigError": 78,
        "AddressUnavailableError": 69,
        "FamilyUnavailableError": 78,
        "PassedSocketError": 78,
        "UnknownUserError": 78,
        "InterruptedStartError": 130,
        "NotRunningError": 69,
        "ReloadOvertakenError": 75,
        "NoStatusError": 3,
        "StatusUnknownError": 4,
        "NotPermittedError": 77,
        "KernelUnavailableError": 69,
        "NothingConfiguredError": 78,
        "StartFailedError": 70,
    }
    assert (int(ExitCode.OK), int(ExitCode.NO_ANSWER), int(ExitCode.IO_ERROR)) == (0, 1, 74)


def test_a_config_error_has_every_mistake_in_its_text() -> None:
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


def test_a_config_error_may_come_from_another_process() -> None:
    """With its mistakes, and the text that has them."""
    error = ConfigError((Mistake(line=2, column=1, path="workers", message="65 is out of bounds"),))
    error.text = b"workers: 65"
    received = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (received.mistakes, received.text, str(received)) == (error.mistakes, b"workers: 65", str(error))
