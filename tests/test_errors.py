from acf.errors import AcfError, DataError


def test_characters_that_no_terminal_shows_are_escaped() -> None:
    assert str(DataError("images/\x00\x1b[31m\u202e.png is damaged: ± 2 é\nrun again")) == (
        "images/\\x00\\x1b[31m\\u202e.png is damaged: ± 2 é\nrun again"
    )
    assert str(AcfError()) == ""
