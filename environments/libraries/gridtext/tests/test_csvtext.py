import pytest

from gridtext import parse_csv, to_csv


def test_plain_fields_and_blank_lines():
    assert parse_csv("a,b\n\n1,\r\n") == [["a", "b"], ["1", ""]]


def test_quoted_field_keeps_delimiter_and_line_break():
    assert parse_csv('"a,b",c\n"two\nlines",d\n') == [["a,b", "c"], ["two\nlines", "d"]]


def test_to_csv_and_other_delimiters():
    assert parse_csv("a;b,c", delimiter=";") == [["a", "b,c"]]
    assert to_csv([["a;b", "c,d"]], delimiter=";") == '"a;b";c,d\n'
    assert to_csv([["a", 1], [None, "x,y"]]) == 'a,1\n,"x,y"\n'


def test_unfinished_quote():
    with pytest.raises(ValueError):
        parse_csv('"a,b\n')
