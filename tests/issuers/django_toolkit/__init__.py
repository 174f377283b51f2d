"""django-oauth-toolkit: a Django site of one file, in a separate virtual environment."""
