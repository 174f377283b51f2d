"""Short ways to say what the cluster holds."""

from collections.abc import Mapping

from reconciler.clock import EpochTime, format_utc, format_utc_millis
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.decide.refresh_plan import Confirmation, DecisionContext, SessionState
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Annotations, Names, SessionKey

NAMES = Names()
NOW_S = EpochTime(1_767_225_600)
TTL_S = 900.0
KEY = SessionKey("team-a", "2abcDEF")
TERM = "replica-0/1"
SEAL = "v1." + "obviously-fake".ljust(40, "-")


def annotations_of(found: Mapping[str, str]) -> Annotations:
    """Return what is decoded of an object's annotations."""
    fields = Annotations.__struct_fields__
    return Annotations(**{field: found.get(getattr(NAMES, field)) for field in fields})


def is_confirmed(mac: ConfirmationMac, text: str, key: SessionKey, uid: str) -> bool:
    """Return whether a confirmation is of this session and object, under either key."""
    return mac.is_from_current_key(text, key, uid) or mac.is_from_previous_key(text, key, uid)


def pod(*, annotations: Mapping[str, str] | None = None, **changes: object) -> ObjectMeta:
    fields: dict[str, object] = {
        "namespace": KEY.namespace,
        "name": "session-2abcdef-runner",
        "uid": "pod-uid",
        "version": "10",
        "session_id": KEY.session_id,
        "project_id": "team-a",
        "created_s": NOW_S - 60,
        "is_deleting": False,
        "annotations": annotations_of(annotations or {}),
        "field_managers": (),
    }
    return ObjectMeta(**(fields | changes))  # type: ignore[arg-type]  # fields are checked by the tests


def secret(
    *,
    age_s: float | None = 10.0,
    ttl_s: float = TTL_S,
    writers: tuple[str, ...] = ("token-reconciler",),
    annotations: dict[str, str] | None = None,
    by: str = TERM,
    sealed: bool = True,
    **changes: object,
) -> ObjectMeta:
    """Return a Secret whose token was issued `age_s` ago; None leaves the annotations out."""
    written = {}
    if age_s is not None:
        written = {
            NAMES.issued_at: format_utc(NOW_S - age_s),
            NAMES.expires_at: format_utc(NOW_S - age_s + ttl_s),
            NAMES.refreshed_at: format_utc_millis(NOW_S - age_s),
            NAMES.refreshed_by: by,
        }
    fields: dict[str, object] = {
        "namespace": KEY.namespace,
        "name": NAMES.secret_name(KEY.session_id),
        "uid": "secret-uid",
        "version": "20",
        "session_id": KEY.session_id,
        "project_id": "team-a",
        "created_s": NOW_S - 60,
        "is_deleting": False,
        "annotations": annotations_of(
            written | ({NAMES.confirmation: SEAL} if sealed else {}) | (annotations or {})
        ),
        "field_managers": writers,
    }
    return ObjectMeta(**(fields | changes))  # type: ignore[arg-type]  # fields are checked by the tests


def session_state(
    pod: ObjectMeta | None = pod(),  # noqa: B008 - frozen
    secret: ObjectMeta | None = secret(),  # noqa: B008 - frozen
    *,
    confirmation: Confirmation = Confirmation.YES,
    is_running: bool = True,
) -> SessionState:
    return SessionState(KEY, pod, secret, confirmation, is_running)


def decision_context(**changes: object) -> DecisionContext:
    fields: dict[str, object] = {
        "names": NAMES,
        "propagation_s": 90.0,
        "longest_ttl_s": TTL_S,
        "term": TERM,
        "term_started_s": NOW_S,
        "startup": "all",
    }
    return DecisionContext(**(fields | changes))  # type: ignore[arg-type]  # fields are checked by the tests
