"""Addresses that hold a login are shown without it."""

import pytest

from sweeps.settings.addresses import given_again, without_password, without_secret

PLAIN = ("sqlite:///mlflow.db", "sqlite:////home/me@work/mlflow.db", "http://127.0.0.1:5000", "postgresql:///night")


@pytest.mark.parametrize("uri", PLAIN)
def test_an_address_without_a_login_is_shown_as_it_is(uri: str) -> None:
    assert without_password(uri) == uri
    assert given_again("--tracking-uri", uri) == ""


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:s3cret@mlflow.example/", "https://mlflow.example/"),
        ("postgresql://me:s3cret@host:5432/night", "postgresql://host:5432/night"),
        ("postgresql://me:a/s3cret?b@host/night", "postgresql://host/night"),
        ("postgresql://me:a@s3cret@host/night", "postgresql://host/night"),
        ("postgresql://host/night?user=me&password=s3cret", "postgresql://host/night"),
        ("postgresql:///night?host=/run&sslpassword=s3cret", "postgresql:///night?host=/run"),
    ],
)
def test_a_login_is_left_out_wherever_it_stands(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
    assert "s3cret" not in without_secret(f"cannot reach {uri}", uri)
    place = shown.replace("://", "://USER:PASSWORD@")
    assert given_again("--study-uri", uri).replace("'", "") == f" --study-uri {place}"


def test_a_password_is_left_out_of_a_message_as_it_is_written_and_decoded() -> None:
    uri = "postgresql://me:s3cret%2Fof+mine@host/night"
    for told in ("s3cret%2Fof+mine", "s3cret/of+mine", "s3cret/of mine"):
        assert without_secret(f"the password {told} is wrong\nand more", uri) == "the password … is wrong"
