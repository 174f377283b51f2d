"""Several kubeconfigs as one: the first that says something wins, as kubectl has it."""

from typing import Any

import pytest

from reconciler.kube.auth.kubeconfig_merge import ShapeError, merge, without_idle_plugin

SECRET = "obviously-fake-token"


def users(**by_name: Any) -> list[dict[str, Any]]:
    return [{"name": name, "user": user} for name, user in by_name.items()]


@pytest.mark.parametrize(
    ("currents", "current"),
    [
        (["a", "b"], "a"),
        ([None, "b"], "b"),
        (["", "b", "c"], "b"),
        ([None, None], None),
    ],
)
def test_the_first_current_context_is_taken(currents: list[Any], current: str | None) -> None:
    files = [(f"/f{n}", {"current-context": name}) for n, name in enumerate(currents)]
    assert merge(files).get("current-context") == current


@pytest.mark.parametrize("empty", [None, {}, {"users": None}, {"users": []}])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_file_with_nothing_changes_nothing(empty: Any, is_first: bool) -> None:
    full = ("/full", {"users": users(u={"token": "t"})})
    files = [("/empty", empty), full] if is_first else [full, ("/empty", empty)]
    assert merge(files)["users"] == users(u={"token": "t"})


def test_of_entries_of_one_name_the_first_files_is_taken_whole() -> None:
    first = {"users": users(u={"token": "t"})}
    second = {"users": users(u={"username": "n", "password": "p"}, v={"token": "v"})}
    assert merge([("/1", first), ("/2", second)])["users"] == users(
        u={"token": "t"}, v={"token": "v"}
    )


def test_paths_are_those_of_the_file_that_sets_them() -> None:
    one = {
        "clusters": [{"name": "k", "cluster": {"certificate-authority": "ca.crt"}}],
        "users": users(absolute={"tokenFile": "/t", "client-key": ""}),
    }
    two = {
        "users": users(
            u={"client-certificate": "../c", "client-key": "k", "tokenFile": "t"},
            beside={"exec": {"command": "./bin/p", "args": ["./x"]}},
            below={"exec": {"command": "bin/p"}},
            found={"exec": {"command": "p"}},
        )
    }
    found = merge([("/one/config", one), ("/two/config", two)])
    assert found["clusters"][0]["cluster"] == {"certificate-authority": "/one/ca.crt"}
    assert found["users"] == users(
        absolute={"tokenFile": "/t"},
        u={"client-certificate": "/two/../c", "client-key": "/two/k", "tokenFile": "/two/t"},
        beside={"exec": {"command": "/two/./bin/p", "args": ["./x"]}},
        below={"exec": {"command": "/two/bin/p"}},
        found={"exec": {"command": "p"}},
    )


@pytest.mark.parametrize(
    "content",
    [
        [],
        SECRET,
        {"users": SECRET},
        {"users": {"name": "u"}},
        {"users": [SECRET]},
        {"users": [{}]},
        {"users": [{"name": "u", "token": SECRET}]},
        {"users": [{"name": "u", "user": SECRET}]},
        {"users": users(u={"token": SECRET}) * 2},
    ],
)
def test_another_shape_is_named_without_its_values(content: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        merge([("/good", {}), ("/bad", content)])
    assert "/bad" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["token", "tokenFile", "username", "client-certificate", "client-certificate-data"]
)
def test_what_identifies_the_user_comes_before_a_plug_in(field: str) -> None:
    assert without_idle_plugin({field: "x", "exec": {}}) == {field: "x"}
    assert without_idle_plugin({"as": "x", "exec": {}}) == {"as": "x", "exec": {}}
