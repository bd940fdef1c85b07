"""Logins: challenges as cameras send them, answers as RFC 7616 and 2617 print them."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from vajra_edge.capture.sources.login import Login, challenges_of
from vajra_edge.media.refusals import SourceRefused


def fields(header: str | None) -> dict[str, str]:
    assert header is not None
    return {
        name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))', header)
    }


def digest(algorithm: str, *parts: str) -> str:
    return hashlib.new(algorithm, ":".join(parts).encode()).hexdigest()


def test_nobody_asked_so_nothing_is_said() -> None:
    assert Login("u", "p").header("GET", "/") is None


def test_basic_is_answered() -> None:
    login = Login("ad@min", "p:w ü")
    assert login.take(['Basic realm="camera"'])
    assert login.header("GET", "/") == "Basic " + base64.b64encode("ad@min:p:w ü".encode()).decode()


def test_the_old_digest_is_answered_as_rfc_2069_prints_it() -> None:
    login = Login("Mufasa", "CircleOfLife")
    assert login.take(['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'])
    said = fields(login.header("GET", "/dir/index.html"))
    assert said["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert said["opaque"] == "5ccc"
    assert "qop" not in said


@pytest.mark.parametrize(("named", "algorithm"), [("MD5", "md5"), ("SHA-256", "sha256"), ("MD5-sess", "md5")])
def test_a_digest_with_quality_of_protection_is_answered(named: str, algorithm: str) -> None:
    login = Login("u", "p")
    assert login.take([f'Digest realm="r", nonce="n", algorithm={named}, qop="auth,auth-int"'])
    for count in ("00000001", "00000002"):
        said = fields(login.header("GET", "/snap?x=1"))
        who = digest(algorithm, "u", "r", "p")
        if named.endswith("-sess"):
            who = digest(algorithm, who, "n", said["cnonce"])
        expected = digest(algorithm, who, "n", count, said["cnonce"], "auth", digest(algorithm, "GET", "/snap?x=1"))
        assert (said["nc"], said["response"]) == (count, expected)


@pytest.mark.parametrize(
    "lines",
    [
        ['Basic realm="a"', 'Digest realm="a", nonce="n"'],
        ['Digest realm="a", nonce="n"', 'Basic realm="a"'],
        ['Basic realm="a, b", Digest realm="a", nonce="n", qop="auth"'],
        ['Negotiate, Digest realm="a",nonce="n"'],
        ['Digest realm="a", nonce="n", algorithm=SHA-512-256', 'Digest realm="a", nonce="n", algorithm=MD5'],
    ],
)
def test_digest_is_chosen_among_several(lines: list[str]) -> None:
    login = Login("u", "p")
    assert login.take(lines)
    said = login.header("GET", "/")
    assert said is not None
    assert said.startswith("Digest ")


def test_the_stronger_digest_is_chosen() -> None:
    login = Login("u", "p")
    assert login.take(['Digest realm="a", nonce="n", algorithm=MD5', 'Digest realm="a", nonce="n", algorithm=SHA-256'])
    assert fields(login.header("GET", "/"))["algorithm"] == "SHA-256"


@pytest.mark.parametrize(
    "line", ['Digest realm="a", nonce="n{}"', 'Digest realm="a", nonce="n{}", stale=true', "Basic"]
)
def test_the_answer_to_a_fresh_challenge_is_given_once(line: str) -> None:
    """With a new nonce each time as without: a camera locks who tries a wrong password again and again."""
    login = Login("u", "p")
    assert login.take([line.format(1)])
    login.header("GET", "/")
    assert not login.take([line.format(2)])


def test_a_challenge_that_served_for_a_while_may_be_too_old() -> None:
    login = Login("u", "p")
    login.take(['Digest realm="a", nonce="n1"'])
    for _ in range(3):
        login.header("GET", "/")
    assert login.take(['Digest realm="a", nonce="n2", stale=true'])
    login.header("GET", "/")
    assert not login.take(['Digest realm="a", nonce="n3"'])


@pytest.mark.parametrize("lines", [["NTLM"], ['Bearer realm="a"'], []])
def test_a_login_of_a_strange_kind_is_named(lines: list[str]) -> None:
    with pytest.raises(SourceRefused) as caught:
        Login("u", "p").take(lines)
    assert "a login of a kind that is not known" in caught.value.reason


def test_quotes_in_a_user_are_escaped() -> None:
    login = Login('a"b', "p")
    login.take(['Digest realm="r", nonce="n"'])
    assert r'username="a\"b"' in str(login.header("GET", "/"))


@pytest.mark.parametrize("line", ["", " ", '"', 'realm="a"', "=,=,", "\x00"])
def test_a_line_without_a_challenge_offers_nothing(line: str):
    assert not list(challenges_of([line]))
    assert [one.scheme for one in challenges_of([line, 'Basic realm="x"'])] == ["basic"]


def test_challenges_keep_their_parameters_apart() -> None:
    first, second = challenges_of(['Basic realm="x", Digest realm="y", nonce="n, m", qop="auth"'])
    assert (first.scheme, first.parameters) == ("basic", {"realm": "x"})
    assert second.parameters == {"realm": "y", "nonce": "n, m", "qop": "auth"}
