"""An API server that fails some requests, in the ways in which API servers do."""

from collections.abc import Callable
from random import Random

from reconciler import errors
from reconciler.lab.apiserver.injection import Fault


def trouble(random: Random, share: float) -> Callable[[str, str], Fault | None]:
    """Return a judge that fails a share of requests in the ways in which API servers do."""

    def judge(verb: str, plural: str) -> Fault | None:
        if random.random() >= share:
            return None
        applied = random.random() < 0.5
        match random.randrange(5):
            case 0:
                if verb == "patch":
                    error = errors.Conflict("patch: conflict", status=409, reason="Conflict")
                    return Fault(error)
                return Fault(delay_s=random.uniform(0.1, 2.0))
            case 1:
                return Fault(errors.ServerError("internal error", status=500), applied=applied)
            case 2:
                error_503 = errors.ServerError("unavailable", status=503, retry_after_s=1.0)
                return Fault(error_503)
            case 3:
                lost = errors.TransportError("the connection was reset")
                return Fault(lost, delay_s=random.uniform(0.0, 1.0), applied=applied)
            case _:
                return Fault(delay_s=random.uniform(5.0, 20.0))  # beyond some limits: a timeout

    return judge
