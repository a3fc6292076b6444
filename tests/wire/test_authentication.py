"""echod.wire.authentication: the code of a message is that of RFC 4231, cut to 128 bits."""

from echod.wire.authentication import CODE_BYTES, code_of, verifies

KEY = bytes.fromhex("0b" * 20)
CODE = bytes.fromhex("b0344c61d8db38535ca8afceaf0bf12b")
"""The first half of HMAC-SHA-256 in RFC 4231, test case 1."""


def test_the_code_is_that_of_the_standard() -> None:
    """The test case of the RFC, cut to 128 bits."""
    assert code_of(KEY, b"Hi There") == CODE
    assert len(CODE) == CODE_BYTES


def test_a_code_verifies_only_its_own_message_and_key() -> None:
    """Another message, another key, a changed code and a code that is cut short do not."""
    assert verifies(KEY, b"Hi There", CODE)
    assert not verifies(KEY, b"Hi there", CODE)
    assert not verifies(b"", b"Hi There", CODE)
    assert not verifies(KEY, b"Hi There", CODE[:15] + b"\0")
    assert not verifies(KEY, b"Hi There", CODE[:15])
