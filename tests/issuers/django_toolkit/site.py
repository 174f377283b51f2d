"""The site: `python site.py FOLDER TTL PORT`.

It runs in the virtual environment of the issuer, which has none of this project's packages.
"""

import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

CLIENT_ID = "token-reconciler"
INTROSPECTOR = "introspector"
INTROSPECTOR_SECRET = "obviously-fake-introspector-secret"
GRANT = "client-credentials"

urlpatterns: list[object] = []


def configure(folder: Path, ttl_s: int) -> None:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(folder / "django.db"),
                # Requests are served by threads that write: each waits for the other.
                "OPTIONS": {
                    "init_command": "PRAGMA journal_mode=WAL",
                    "timeout": 20,
                    "transaction_mode": "IMMEDIATE",
                },
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "oauth2_provider",
        ],
        MIDDLEWARE=[],
        OAUTH2_PROVIDER={
            "ACCESS_TOKEN_EXPIRE_SECONDS": ttl_s,
            "SCOPES": {"platform": "call the platform", "introspection": "look at tokens"},
            "DEFAULT_SCOPES": [],
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="obviously-fake-django-key",
        USE_TZ=True,
    )
    django.setup()
    # Only now, since the package's own module of URLs needs the settings.
    urlpatterns.append(path("ready", lambda _: HttpResponse("ok")))
    urlpatterns.append(path("client", administer))
    urlpatterns.append(path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")))


def change_client(client_id: str, **fields: str) -> None:
    """Change a client, or create it, as its administrator does; its tokens stay."""
    from oauth2_provider.models import get_application_model

    get_application_model().objects.update_or_create(
        client_id=client_id,
        defaults=fields,
        create_defaults=fields | {"client_type": "confidential", "authorization_grant_type": GRANT},
    )


def administer(request: HttpRequest) -> HttpResponse:
    """Change fields of the client by name, as the form of Django's admin pages does."""
    change_client(CLIENT_ID, **request.POST.dict())
    return HttpResponse(status=204)


def main(folder: str, ttl: str, port: str) -> None:
    configure(Path(folder), int(ttl))
    execute_from_command_line(["site", "migrate", "--verbosity", "0"])
    change_client(INTROSPECTOR, client_secret=INTROSPECTOR_SECRET)
    execute_from_command_line(
        ["site", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{port}"]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
