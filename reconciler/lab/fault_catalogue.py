"""The faults that the lab can inject: each name once, what it does, and where it can run (pure).

`demo --chaos` injects faults into processes and HTTP servers, `simulate` into a world on virtual
time. A fault of both has one name and one meaning.
"""

from enum import StrEnum


class Fault(StrEnum):
    """One fault by its name.

    Attributes:
        help: What happens, in a few words.
        demo_ttl: Length in a demo where none is given, as a fraction of a token's life; 0.0: an
            instant. None: only a simulation can inject it.
        simulated: Whether a simulation can inject it.
    """

    help: str
    demo_ttl: float | None
    simulated: bool

    def __new__(
        cls, name: str, text: str, demo_ttl: float | None = None, simulated: bool = True
    ) -> "Fault":
        fault = str.__new__(cls, name)
        fault._value_ = name
        fault.help, fault.demo_ttl, fault.simulated = text, demo_ttl, simulated
        return fault

    RESTART_ALL = "restart-all", "every controller is killed (SIGKILL) and started again", 0.0
    KILL_LEADER = "kill-leader", "the leading controller is killed, in a demo its pod with it", 0.0
    FREEZE_LEADER = "freeze-leader", "the leading controller is stopped and resumed later", 0.5
    STALL_LEADER = "stall-leader", "the main loop of the leading controller stalls"
    PARTITION_LEADER = "partition-leader", "the leader cannot reach the Kubernetes API"
    CLOCK_STEP = "clock-step", "clocks of the controllers step an hour, every other one back", 0.3

    ISSUER_OUTAGE = "issuer-outage", "the issuer gives no answer to any request", 0.45
    ISSUER_SLOW = "issuer-slow", "the issuer takes seconds for each answer"
    ISSUER_SHORT_TTL = "issuer-short-ttl", "tokens have a shorter life than usual", 1.0
    ISSUER_REFUSAL = "issuer-refusal", "the issuer refuses the client's credentials"
    ISSUER_CLOCK_STEP = "issuer-clock-step", "the issuer's clock steps"
    ISSUER_WRONG_DATE = "issuer-wrong-date", "the issuer's Date header is wrong"
    ISSUER_WRONG_EXPIRES_IN = (
        "issuer-wrong-expires-in",
        "the expires_in of answers is wrong or absent",
    )
    ISSUER_CACHE = "issuer-cache", "the issuer answers with the same token for a while"
    ISSUER_CORRUPT = "issuer-corrupt", "the issuer's tokens are cut off"
    ISSUER_NODE_BEHIND = "issuer-node-behind", "one of two issuer nodes has a clock that is behind"
    ISSUER_NODES_DIFFER = "issuer-nodes-differ", "one of two issuer nodes has another clock"
    ROTATE_STATIC_TOKEN = "rotate-static-token", "the token files get another static token"

    API_OUTAGE = "api-outage", "the Kubernetes API cannot be reached", 0.1
    API_RESTART = "api-restart", "the Kubernetes API restarts, and answers 403 at first"
    API_ERRORS = "api-errors", "a share of the requests to the Kubernetes API fails"
    API_SLOW = "api-slow", "each answer of the Kubernetes API takes up to a second longer", 0.5
    API_THROTTLE = (
        "api-throttle",
        "the Kubernetes API answers every second request with 429",
        0.5,
    )
    API_TRICKLE = "api-trickle", "the Kubernetes API acts at once, and its answers take seconds"
    API_REPEAT = "api-repeat", "a proxy repeats half of the writes, whose first answer it has lost"
    WEBHOOK_DENIES = (
        "webhook-denies",
        "an admission webhook refuses writes of Secrets or pods, or gives no answer",
    )
    WEBHOOK_CHANGES = (
        "webhook-changes",
        "an admission webhook changes annotations of what the controllers write",
    )
    WATCH_DUPLICATES = (
        "watch-duplicates",
        "the controllers' watches send events and bookmarks twice",
    )
    WATCH_SILENCE = "watch-silence", "the controllers' watches stay open and send nothing", 0.5
    WATCH_CLOSE = "watch-close", "the controllers' watches are closed", 0.0
    WATCH_BURSTS = "watch-bursts", "the controllers' watches deliver their events in bursts"
    WATCH_RESET = "watch-reset", "the controllers' watches are reset again and again"
    COMPACTION = "compaction", "the controllers' watches are reset and their history is gone", 0.0
    RESTORE_STORE = "restore-store", "the API server's store is restored to an earlier state"
    NAMESPACE_SLOW = "namespace-slow", "writes in one namespace take 9 s"
    NAMESPACE_HANG = "namespace-hang", "writes in one namespace get no answer"
    NAMESPACE_ERRORS = (
        "namespace-errors",
        "writes in one namespace are refused, and its pods change",
    )

    PLATFORM_OUTAGE = "platform-outage", "no request to the platform's API succeeds", 1.0
    PLATFORM_PARTIAL_OUTAGE = "platform-partial-outage", "requests about some projects fail"
    PLATFORM_EMPTY_LISTS = "platform-empty-lists", "the platform's list of sessions is empty"

    PLATFORM_SLOW = "platform-slow", "the platform's API takes seconds for each answer"
    PLATFORM_LOST_ROWS = "platform-lost-rows", "the platform's lists lack some sessions"
    PLATFORM_NOT_FOUND_ONCE = "platform-not-found-once", "a look-up finds nothing, once a session"

    DELETE_SECRET = "delete-secret", "a part of the sessions' Secrets are deleted", 0.0
    STALE_SECRET = "stale-secret", "an older token is written into a part of the Secrets", 0.0
    STRIP_ANNOTATIONS = "strip-annotations", "a client removes our annotations from Secrets"
    RESTORE_SECRETS = "restore-secrets", "a backup tool writes the former state of Secrets back"
    OVERWRITE_LOOP = "overwrite-loop", "a loop of another client writes older tokens"
    FORGE_ANNOTATIONS = "forge-annotations", "a client edits our annotations: a false expiry"
    REFRESH_COMMANDS = "refresh-commands", "an operator requests refreshes of many sessions"
    PAUSE_COMMANDS = "pause-commands", "an operator pauses sessions and resumes them"
    ROLLOUT = "rollout", "the leading controller ends as in a rollout"
    UPGRADE = "upgrade", "the replicas are replaced by those of a neighbouring version, and back"
    SCALE_DOWN = "scale-down", "all controllers but the leader end as in a rollout"
    POD_CHURN = "pod-churn", "a few pods change every second"
    NEW_SESSIONS = "new-sessions", "a quarter as many new sessions begin", 0.0, False
    RESTART_SESSION = (
        "restart-session", "a quarter of the sessions stop, and begin again with expired tokens",
        1.1, False,
    )  # fmt: skip
    FORGED_POD = "forged-pod", "pods have the labels of sessions that do not exist", 0.0, False


DEMO_FAULTS = tuple(fault for fault in Fault if fault.demo_ttl is not None)
SIMULATED_FAULTS = tuple(fault for fault in Fault if fault.simulated)
