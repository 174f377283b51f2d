"""A seal proves one session on one object, to holders of the client secret alone."""

from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.naming import SessionKey
from tests.unit.controller.build import KEY, is_confirmed
from tests.unit.controller.virtual import World, simulate


def test_a_mac_is_valid_for_its_session_and_object_alone() -> None:
    seal = ConfirmationMac("fake-client-secret")
    made = seal.make(KEY, "uid-1")
    assert is_confirmed(seal, made, KEY, "uid-1")
    assert not is_confirmed(seal, made, KEY, "uid-2")
    assert not is_confirmed(seal, made, SessionKey("team-b", KEY.session_id), "uid-1")
    assert not is_confirmed(ConfirmationMac("another-fake-secret"), made, KEY, "uid-1")


def test_a_mac_of_the_secret_before_stays_valid_and_a_new_one_is_of_the_new() -> None:
    seal = ConfirmationMac("fake-secret-1")
    made = [seal.make(KEY, "uid-1")]
    for number in (2, 3):
        seal.set_key(f"fake-secret-{number}")
        made.append(seal.make(KEY, "uid-1"))
        assert is_confirmed(ConfirmationMac(f"fake-secret-{number}"), made[-1], KEY, "uid-1")
    assert [is_confirmed(seal, each, KEY, "uid-1") for each in made] == [False, True, True]


def test_garbage_is_no_mac() -> None:
    seal = ConfirmationMac("fake-client-secret")
    for text in ("", "v1.", "true", "ä" * 50, seal.make(KEY, "uid-1")[:-1]):
        assert not is_confirmed(seal, text, KEY, "uid-1")


def test_a_mac_shows_nothing_of_its_key() -> None:
    assert "fake-client-secret" not in repr(ConfirmationMac("fake-client-secret"))
    assert "fake-client-secret" not in ConfirmationMac("fake-client-secret").make(KEY, "uid-1")


def test_what_hands_the_key_on_does_not_show_it() -> None:
    async def scenario(world: World) -> None:
        assert world.ports.secret not in repr(world.ports)

    simulate(scenario)
