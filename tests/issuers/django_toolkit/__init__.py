"""django-oauth-toolkit: a Django site of one file, in a virtual environment of its own."""
