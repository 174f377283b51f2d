"""The fields of a kubeconfig: each that restricts is honoured or refused, none is ignored."""

from typing import Any

import pytest

from reconciler.errors import SettingsError
from reconciler.kube.auth.kubeconfig_fields import Fields, read_fields

CLUSTER = {"server": "https://127.0.0.1:1"}
WHO = {"as": "system:serviceaccount:ns:limited"}


def test_an_impersonation_is_these_headers_and_no_other() -> None:
    user = WHO | {
        "token": "obviously-fake",
        "as-uid": "u-1",
        "as-groups": ["a", "b"],
        "as-user-extra": {"scopes.example/x%": ["one", "two"], "plain": ["three"]},
    }
    assert read_fields({}, CLUSTER, user) == Fields(
        (
            ("Impersonate-User", "system:serviceaccount:ns:limited"),
            ("Impersonate-Uid", "u-1"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Extra-scopes.example%2Fx%25", "one"),
            ("Impersonate-Extra-scopes.example%2Fx%25", "two"),
            ("Impersonate-Extra-plain", "three"),
        ),
        (),
    )


@pytest.mark.parametrize(
    ("section", "fields", "words"),
    [
        ("user", {"as-groups": ["a"]}, "sets as-groups without as"),
        ("user", {"as-uid": "u"}, "sets as-uid without as"),
        ("user", {"as-user-extra": {"a": ["b"]}}, "sets as-user-extra without as"),
        ("user", WHO | {"as-groups": "a"}, "as-groups holds something that is no list"),
        ("user", WHO | {"as-groups": ["a\nX: y"]}, "as-groups holds something that is no line"),
        ("user", WHO | {"as-groups": [3]}, "as-groups holds something that is no line"),
        ("user", {"as": ["a"]}, "as holds something that is no line"),
        ("user", {"as": " "}, "as holds something that is no line"),
        ("user", WHO | {"as-user-extra": ["a"]}, "as-user-extra is no mapping"),
        ("user", WHO | {"as-user-extra": {"a": "b"}}, "as-user-extra holds something that is no"),
        ("user", {"as-scopes": ["read"]}, "its user sets 'as-scopes', which is not supported"),
        ("user", {"auth-provider": {"name": "azure"}}, "auth-provider 'azure' is not supported"),
        ("user", {"auth-provider": {"name": "oidc"}}, "'oidc' is not supported: use an exec plug"),
        ("user", {"exec": {"interactiveMode": "Always"}}, "asks at a terminal"),
        ("user", {"exec": {"policy": "x"}}, "its user's exec sets 'policy'"),
        ("user", "a token", "its user is no mapping"),
        ("cluster", {"only-verbs": ["get"]}, "its cluster sets 'only-verbs'"),
        ("cluster", {"proxy-url": "socks5://127.0.0.1:1"}, "proxy-url must be a URL that begins"),
        (
            "cluster",
            {"insecure-skip-tls-verify": True, "certificate-authority-data": "eA=="},
            "insecure-skip-tls-verify and a certificate-authority",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(section: str, fields: Any, words: str) -> None:
    sections: dict[str, Any] = {"context": {}, "cluster": CLUSTER, "user": {}} | {section: fields}
    with pytest.raises(SettingsError, match=words):
        read_fields(sections["context"], sections["cluster"], sections["user"])


def test_what_restricts_nothing_is_named_or_passed_over() -> None:
    found = read_fields(
        {"cluster": "c", "user": "u", "namespace": "n", "colour": "red"},
        CLUSTER | {"disable-compression": True, "extensions": [{"name": "x"}]},
        {"exec": {"command": "x", "apiVersion": "v1", "provideClusterInfo": True}},
    )
    assert found == Fields((), ("context.colour",))


@pytest.mark.parametrize("empty", [None, "", [], {}, False])
def test_an_empty_field_counts_as_absent(empty: Any) -> None:
    user = dict.fromkeys(("as", "as-uid", "as-groups", "as-user-extra", "as-new"), empty)
    assert read_fields({}, CLUSTER, user) == Fields((), ())
