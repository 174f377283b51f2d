"""The site: `python site.py FOLDER TTL ...`, then `serve PORT`, `client SECRET` or `no-client`.

It runs in the virtual environment of the issuer, which has none of this project's packages.
"""

import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import include, path

CLIENT_ID = "token-reconciler"

urlpatterns: list[object] = []


def configure(folder: Path, ttl_s: int) -> None:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.db")}
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
            "SCOPES": {"runner": "call the platform", "introspection": "look at tokens"},
            "DEFAULT_SCOPES": ["runner"],
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="obviously-fake-django-key",
        USE_TZ=True,
    )
    django.setup()
    # Only now, since the package's own module of URLs needs the settings.
    urlpatterns.append(path("ready", lambda _: HttpResponse("ok")))
    urlpatterns.append(path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")))


def main(folder: str, ttl: str, command: str, *arguments: str) -> None:
    configure(Path(folder), int(ttl))
    if command == "serve":
        execute_from_command_line(["site", "migrate", "--verbosity", "0"])
        execute_from_command_line(
            ["site", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{arguments[0]}"]
        )
        return
    from oauth2_provider.models import get_application_model

    clients = get_application_model().objects
    clients.filter(client_id=CLIENT_ID).delete()
    if command == "client":
        clients.create(
            client_id=CLIENT_ID,
            client_secret=arguments[0],
            client_type="confidential",
            authorization_grant_type="client-credentials",
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
