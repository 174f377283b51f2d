"""The product's image, built where no container registry can be reached.

`python -m tests.image` makes a base with debootstrap, kept in the cache, builds the Dockerfile on
it with buildah, and leaves an OCI archive. It needs root on Linux and Debian's packages buildah
and debootstrap; wherever a registry is at hand, `docker build .` does the same on the default base.
"""
